"""Print the whole book into _build/attention.pdf.

    python tools/make_pdf.py      after `make book`

All pages are joined into one long page, which Chromium prints: so page numbers run through, links
between chapters stay links, and the headings become one outline. Formulas are typeset by the book's
own MathJax first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pikepdf
from chromium import launched
from one_page import contents, joined
from playwright.sync_api import Page
from serve import serving

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "_build"
HTML, JOINED, PDF = MADE / "html", MADE / "print.html", MADE / "attention.pdf"
FOOTER = (
    '<div style="width:100%;font-size:8px;text-align:center;color:#59636e">'
    '<span class="pageNumber"></span></div>'
)
MARGIN = {"top": "18mm", "bottom": "20mm", "left": "17mm", "right": "17mm"}
TYPESET = "() => MathJax.startup.promise.then(() => document.fonts.ready).then(() => true)"


@contextmanager
def typeset(root: Path = ROOT) -> Iterator[Page]:
    """Join all pages, and show them in Chromium with their formulas."""
    JOINED.write_text(joined(HTML, contents(root)), "utf-8")
    failed: list[str] = []
    with serving(MADE) as site, launched() as browser:
        page = browser.new_page(color_scheme="light")
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("response", lambda answer: answer.status >= 400 and failed.append(answer.url))
        page.goto(f"{site}/{JOINED.name}")
        page.wait_for_function(TYPESET, timeout=600_000)
        if failed:
            sys.exit(f"The book could not be joined; missing: {json.dumps(failed)}")
        yield page


def make(root: Path = ROOT) -> Path:
    """Join and print; return where the PDF is."""
    with typeset(root) as page:
        page.pdf(
            path=PDF,
            format="A4",
            margin=MARGIN,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            print_background=True,
            outline=True,
            tagged=True,
        )
    with pikepdf.open(PDF, allow_overwriting_input=True) as pdf:
        # Chromium writes the tags, a hundred thousand small objects, without compressing them.
        pdf.save(PDF, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    return PDF


def main() -> None:
    """Make the PDF and say how large it is."""
    if not (HTML / "book/index.html").exists():
        sys.exit("There is no book to print yet: run `make book` first.")
    pdf = make()
    print(f"{pdf}: {pdf.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
