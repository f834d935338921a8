"""Print the whole book into _build/attention.pdf.

    python tools/make_pdf.py      after `make book`

All pages are joined into one long page, which Chromium prints: so page numbers run through, links
between chapters stay links, and the headings become one outline. The solutions of the exercises
are moved to an appendix. Formulas are typeset by the book's own MathJax first.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pikepdf
import yaml
from bs4 import BeautifulSoup
from bs4.element import Tag
from chromium import launched
from serve import serving

import attncore

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "_build"
HTML, JOINED, PDF = MADE / "html", MADE / "print.html", MADE / "attention.pdf"
APPENDIX = "solutions"
FOOTER = (
    '<div style="width:100%;font-size:8px;text-align:center;color:#59636e">'
    '<span class="pageNumber"></span></div>'
)
MARGIN = {"top": "18mm", "bottom": "20mm", "left": "17mm", "right": "17mm"}
TYPESET = "() => MathJax.startup.promise.then(() => document.fonts.ready).then(() => true)"


def contents(root: Path) -> list[tuple[str, list[str]]]:
    """Return the captions of the parts of the book, each with the names of its pages."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    parts = [("", [toc["root"]])]
    parts += [(p["caption"], [c["file"] for c in p["chapters"]]) for p in toc["parts"]]
    return [(caption, [Path(name).name for name in names]) for caption, names in parts]


def parse(text: str) -> BeautifulSoup:
    """Return a parsed page."""
    return BeautifulSoup(text, "html.parser")


def joined(html: Path, parts: list[tuple[str, list[str]]]) -> str:
    """Return one page that holds the title, the contents, all pages and the solutions."""
    names = {name for _, some in parts for name in some}
    articles, solutions, titles = [], [], {}
    for name in [name for _, some in parts for name in some]:
        page = parse((html / "book" / f"{name}.html").read_text("utf-8"))
        article = page.select_one("article")
        for unwanted in article.select("script, a.headerlink, .toctree-wrapper"):
            unwanted.decompose()
        rename(article, name, names)
        heading = article.select_one("h1")
        titles[name] = heading.get_text() if heading else name
        if taken := [solution.extract() for solution in article.select("div.solution")]:
            solutions.append(f"<h2>{escape(titles[name])}</h2>" + "".join(map(str, taken)))
        articles.append(f'<article class="print-page bd-article" id="{name}">{article}</article>')
    titles[APPENDIX] = "Appendix: solutions of the exercises"
    last = f'<article class="print-page bd-article" id="{APPENDIX}"><h1>{titles[APPENDIX]}</h1>'
    every = [*parts, ("", [APPENDIX])]
    return "\n".join(
        [head(html), front(html), listing(every, titles), *articles, last, *solutions, "</article>"]
    )


def rename(article: Tag, name: str, names: set[str]) -> None:
    """Give ids their page's name, let links lead to them, and addresses start from _build."""
    for tag in article.select("[id]"):
        tag["id"] = f"{name}--{tag['id']}"
    for tag in article.select("[aria-labelledby]"):
        tag["aria-labelledby"] = f"{name}--{tag['aria-labelledby']}"
    for fold in article.select("details"):  # paper cannot be unfolded
        fold["open"] = ""
    for image in article.select("img[src]"):
        image["src"] = str(image["src"]).replace("../", "html/", 1)
    for link in article.select("a[href]"):
        target = urlsplit(str(link["href"]))
        page = Path(target.path).stem or name
        if target.scheme:
            continue
        if page in names:
            rest = f"--{unquote(target.fragment)}" if target.fragment else ""
            link["href"] = f"#{page}{rest}"
        else:
            link.unwrap()  # a download, or the index of names


def head(html: Path) -> str:
    """Return the head of the joined page: the book's own styles, MathJax, and those for paper."""
    page = parse((html / "book/index.html").read_text("utf-8"))
    sheets = [str(link["href"]) for link in page.select("link[rel=stylesheet]")]
    settings = next(s.string for s in page.select("script") if "window.MathJax" in (s.string or ""))
    links = [f'<link rel="stylesheet" href="{s.replace("../", "html/", 1)}">' for s in sheets]
    own = (Path(__file__).parent / "print/print.css").read_text("utf-8")
    return "\n".join(
        [
            '<!doctype html><html lang="en" data-theme="light" data-mode="light"><head>',
            f'<meta charset="utf-8"><title>{escape(title(html))}</title>',
            *links,
            f"<style>{own}</style><script>{settings}</script>",
            '<script defer src="html/_static/mathjax/tex-chtml.js"></script>',
            '</head><body class="bd-content">',
        ]
    )


def title(html: Path) -> str:
    """Return the title of the book."""
    page = parse((html / "book/index.html").read_text("utf-8"))
    return str(page.select_one("meta[property='og:site_name']")["content"])


def front(html: Path) -> str:
    """Return the page with the title."""
    who = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    authors = ", ".join(person["name"] for person in who["authors"])
    return (
        f'<section id="print-title"><img src="html/_static/title-light.svg" alt="">'
        f"<p style='font-size:2.6rem'>{escape(title(html))}</p><p>{escape(authors)}</p>"
        f"<p>Version {attncore.__version__}, {str(who['date-released'])[:4]}.<br>"
        "Text and figures: CC BY 4.0. Code: MIT.</p></section>"
    )


def listing(parts: list[tuple[str, list[str]]], titles: dict[str, str]) -> str:
    """Return the table of contents."""
    lines = ['<article class="print-page" id="print-contents"><h1>Contents</h1>']
    for caption, names in parts:
        lines += [f"<p><strong>{escape(caption)}</strong></p>"] if caption else []
        links = [f'<li><a href="#{name}">{escape(titles[name])}</a></li>' for name in names]
        lines.append(f"<ul>{''.join(links)}</ul>")
    return "\n".join([*lines, "</article>"])


def make(root: Path = ROOT) -> Path:
    """Join and print; return where the PDF is."""
    JOINED.write_text(joined(HTML, contents(root)), "utf-8")
    with serving(MADE) as site, launched() as browser:
        page = browser.new_page(color_scheme="light")
        failed: list[Any] = []
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("response", lambda answer: answer.status >= 400 and failed.append(answer.url))
        page.goto(f"{site}/{JOINED.name}")
        page.wait_for_function(TYPESET, timeout=300_000)
        if failed:
            sys.exit(f"The PDF was not made; missing: {json.dumps(failed)}")
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
