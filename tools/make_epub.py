"""Make the book as an EPUB, for readers of e-books: _build/attention.epub.

    python tools/make_epub.py      after `make book`

The pages are those of the PDF, joined and typeset (one_page.py, make_pdf.py). Here each
formula becomes MathML, by MathJax's own converter, and each page a file of XHTML. Cells cannot run
in an e-book: it shows what they print.
"""

from __future__ import annotations

import re
import sys
import uuid
import zipfile
from html import escape
from pathlib import Path
from typing import Any

import yaml
from make_pdf import HTML, MADE, typeset

import attncore

ROOT = Path(__file__).resolve().parent.parent
EPUB = MADE / "attention.epub"
CSS = Path(__file__).parent / "print/epub.css"
# Put MathML in the place of each typeset formula, and return every article as XHTML.
CONVERT = """() => {
  const kept = MathJax.startup.document;
  for (const item of kept.math) {
    const holder = document.createElement("span");
    holder.innerHTML = MathJax.startup.toMML(item.root);
    const math = holder.querySelector("math");
    math.setAttribute("alttext", item.math.trim());
    for (const node of holder.querySelectorAll("*")) {
      for (const { name } of [...node.attributes]) {
        if (name.startsWith("data-") || name === "class") node.removeAttribute(name);
      }
    }
    item.typesetRoot.replaceWith(math);
  }
  for (const bad of document.querySelectorAll("script, mjx-container")) bad.remove();
  const write = new XMLSerializer();
  const page = (node) => ({
    name: node.id,
    title: node.querySelector("h1")?.textContent.trim() ?? node.id,
    html: [...node.childNodes].map((child) => write.serializeToString(child)).join(""),
  });
  return [...document.querySelectorAll("article.print-page")].map(page);
}"""
PAGE = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" \
xml:lang="en">
<head><title>{title}</title><link rel="stylesheet" type="text/css" href="book.css"/></head>
<body>
{body}
</body>
</html>
"""
CONTAINER = """<?xml version="1.0" encoding="utf-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="book/content.opf" media-type="application/oebps-package+xml"/>
</rootfiles></container>
"""
PACKAGE = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">urn:uuid:{id}</dc:identifier>
<dc:title>{title}</dc:title>
<dc:creator>{author}</dc:creator>
<dc:language>en</dc:language>
<dc:rights>Text and figures: CC BY 4.0. Code: MIT.</dc:rights>
<dc:date>{date}</dc:date>
<meta property="dcterms:modified">{date}T00:00:00Z</meta>
<meta property="schema:accessMode">textual</meta>
<meta property="schema:accessMode">visual</meta>
<meta property="schema:accessModeSufficient">textual</meta>
<meta property="schema:accessibilityFeature">alternativeText</meta>
<meta property="schema:accessibilityFeature">MathML</meta>
<meta property="schema:accessibilityHazard">none</meta>
</metadata>
<manifest>
{manifest}
</manifest>
<spine>
{spine}
</spine>
</package>
"""
TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".css": "text/css"}
XHTML = "application/xhtml+xml"


def page_of(found: dict[str, str], names: set[str], images: dict[str, Path]) -> str:
    """Return a page's file; links lead to files, and images are noted by their new names."""

    def link(match: re.Match[str]) -> str:
        name, _, rest = match[1].partition("--")
        if name not in names:
            return match[0]
        return f'href="{name}.xhtml#{name}--{rest}"' if rest else f'href="{name}.xhtml"'

    def image(match: re.Match[str]) -> str:
        path = MADE / match[1]
        images[path.name] = path
        return f'src="images/{path.name}"'

    body = re.sub(r'href="#([^"]+)"', link, found["html"])
    body = re.sub(r'src="(html/[^"?]+)(?:\?[^"]*)?"', image, body)
    return PAGE.format(title=escape(found["title"]), body=body)


def contents(found: list[dict[str, str]]) -> str:
    """Return the table of contents as EPUB wants it."""
    lines = [
        f'<li><a href="{page["name"]}.xhtml">{escape(page["title"])}</a></li>' for page in found
    ]
    body = (
        '<nav epub:type="toc" role="doc-toc" id="toc"><h1>Contents</h1><ol>\n'
        + "\n".join(lines)
        + "\n</ol></nav>"
    )
    return PAGE.format(title="Contents", body=body)


def files(found: list[dict[str, str]]) -> dict[str, bytes]:
    """Return all files of the book by their names."""
    found = [page for page in found if page["name"] != "print-contents"]
    names = {page["name"] for page in found}
    images: dict[str, Path] = {}
    pages = {f"{page['name']}.xhtml": page_of(page, names, images) for page in found}
    manifest = [f'<item id="toc" href="toc.xhtml" media-type="{XHTML}" properties="nav"/>']
    manifest.append('<item id="css" href="book.css" media-type="text/css"/>')
    spine = []
    for number, (name, text) in enumerate(pages.items()):
        kinds = [kind for kind, tag in (("mathml", "<math"), ("svg", "<svg")) if tag in text]
        properties = f' properties="{" ".join(kinds)}"' if kinds else ""
        manifest.append(f'<item id="p{number}" href="{name}" media-type="{XHTML}"{properties}/>')
        spine.append(f'<itemref idref="p{number}"/>')
    for number, path in enumerate(images.values()):
        kind = TYPES[path.suffix]
        manifest.append(f'<item id="i{number}" href="images/{path.name}" media-type="{kind}"/>')
    said: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    package = PACKAGE.format(
        id=uuid.uuid5(uuid.NAMESPACE_URL, f"attncore {attncore.__version__}"),
        title=escape(said["title"]),
        author=escape(", ".join(person["name"] for person in said["authors"])),
        date=said["date-released"],
        manifest="\n".join(manifest),
        spine="\n".join(spine),
    )
    text = {
        "META-INF/container.xml": CONTAINER,
        "book/content.opf": package,
        "book/toc.xhtml": contents(found),
        "book/book.css": CSS.read_text("utf-8"),
        **{f"book/{name}": content for name, content in pages.items()},
    }
    return {name: content.encode() for name, content in text.items()} | {
        f"book/images/{path.name}": path.read_bytes() for path in images.values()
    }


def make() -> Path:
    """Convert and pack; return where the e-book is."""
    with typeset() as page:
        found = page.evaluate(CONVERT)
    with zipfile.ZipFile(EPUB, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)  # first, and plain
        for name, content in files(found).items():
            packed.writestr(name, content)
    return EPUB


def main() -> None:
    """Make it, and say how large it is."""
    if not (HTML / "book/index.html").exists():
        sys.exit("There is no book yet: run `make book` first.")
    epub = make()
    print(f"{epub}: {epub.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
