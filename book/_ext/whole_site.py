"""What a site has besides its pages: a map for search engines, a page for lost readers, a version.

The page of the search leads to the questions that people ask.

The map and the canonical links appear once _config.yml says where readers find the book. The page
for lost readers, 404.html, is made by sphinx-notfound-page, which has to know the same.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from site_address import address
from sphinx.application import Sphinx
from sphinx.config import Config

import attncore

QUESTIONS = "book/questions"
RESULTS = '<div id="search-results"></div>'
ASKED = f"""<p class="asked">A question in plain words? Perhaps it is among the
<a href="{QUESTIONS}.html">questions people ask</a>.</p>"""
LOST = """<h1>This page is not here</h1>
<p>The book has no page of this name. Perhaps it was moved: look in the <a href="{book}">table of
contents</a>, or search with the field on the left.</p>"""


def prepare(app: Sphinx, config: Config) -> None:
    """Tell the theme the version, and the page for lost readers where the book is."""
    said = f"Version {attncore.__version__} of the book and its package, attncore."
    config.html_theme_options["extra_footer"] = f"<p>{said}</p>"
    root = urlsplit(address(config)).path or "/"
    config.notfound_urls_prefix = root
    body = LOST.format(book=escape(f"{root}book/index.html"))
    config.notfound_context = {"title": "This page is not here", "body": body}


def write_map(app: Sphinx, error: Exception | None) -> None:
    """Write sitemap.xml, and robots.txt, which says where it is."""
    base = address(app.config)
    if error is not None or app.builder.format != "html" or not base:
        return
    pages = sorted(app.env.found_docs)
    lines = [f"<url><loc>{escape(base + app.builder.get_target_uri(p))}</loc></url>" for p in pages]
    out = Path(app.outdir)
    out.joinpath("sitemap.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        + "\n".join(lines)
        + "\n</urlset>\n",
        "utf-8",
    )
    out.joinpath("robots.txt").write_text(f"Sitemap: {base}sitemap.xml\n", "utf-8")


def link_questions(app: Sphinx, error: Exception | None) -> None:
    """Tell who searches of the page with questions and their answers."""
    page = Path(app.outdir) / "search.html"
    if error is not None or app.builder.format != "html" or QUESTIONS not in app.env.found_docs:
        return
    text = page.read_text("utf-8")
    if ASKED not in text:
        page.write_text(text.replace(RESULTS, ASKED + RESULTS, 1), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.setup_extension("notfound.extension")
    app.connect("config-inited", prepare)
    app.connect("build-finished", write_map)
    app.connect("build-finished", link_questions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
