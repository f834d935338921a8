"""All pages of the book as one page of HTML, from which the PDF and the EPUB are made.

Ids get their page's name, so that none stands twice, and links between pages lead to them. The
solutions of the exercises are moved to an appendix.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup
from bs4.element import Tag

import attncore

ROOT = Path(__file__).resolve().parent.parent
APPENDIX = "solutions"
NAMELESS = ("exercise-content", "solution-content", "proof-content")  # every such box has this id


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
        if tag["id"] in NAMELESS:
            del tag["id"]
        else:
            tag["id"] = place(name, tag["id"])
    for tag in article.select("[aria-labelledby]"):
        tag["aria-labelledby"] = place(name, tag["aria-labelledby"])
    for fold in article.select("details"):  # paper cannot be unfolded
        fold.summary.decompose()
        fold.name, fold.attrs = "div", {}
    for entry in article.select("[role=doc-biblioentry]"):  # which is deprecated
        del entry["role"]
    for image in article.select("img[src]"):
        image["src"] = str(image["src"]).replace("../", "html/", 1)
    for link in article.select("a[href]"):
        target = urlsplit(str(link["href"]))
        page = Path(target.path).stem or name
        if target.scheme:
            continue
        if page in names:
            found = place(page, unquote(target.fragment)) if target.fragment else page
            link["href"] = f"#{found}"
        else:
            link.unwrap()  # a download, or the index of names


def place(page: str, name: str) -> str:
    """Return the id that a page's id has in the joined page; XML allows no others."""
    return f"{page}--{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}"


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
