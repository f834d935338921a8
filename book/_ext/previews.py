"""What a site shows beside a link to a page: its title, its first sentences, and a picture."""

from __future__ import annotations

import re
from html import escape, unescape
from pathlib import Path
from typing import Any

from docutils import nodes
from site_address import address
from sphinx.application import Sphinx

IMAGE = "_static/og.png"  # of tools/make_images.py
SHOWS = "Attention with all of its numbers: queries, keys, values, scores, weights and outputs."
LONGEST = 200


def first_words(document: nodes.document) -> str:
    """Return a page's first paragraph without formulas, cut after a sentence or a word."""
    for paragraph in document.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section) and not list(paragraph.findall(nodes.math)):
            text = " ".join(paragraph.astext().split())
            if len(text) <= LONGEST:
                return text
            sentence = text[:LONGEST].rpartition(". ")[0]
            return f"{sentence}." if sentence else f"{text[:LONGEST].rpartition(' ')[0]} …"
    return ""


def image_of(app: Sphinx, page: str) -> str:
    """Return the picture of a page's own, or that of the book."""
    own = f"_static/previews/{page.rpartition('/')[2]}.png"
    return own if (Path(app.srcdir) / "book" / own).exists() else IMAGE


def tags(app: Sphinx, page: str, title: str, words: str, images: tuple[str, str]) -> dict[str, str]:
    """Return the properties of a page, as the Open Graph protocol names them.

    `images` names its picture from the top of the site, and from the page.
    """
    image, relative = images
    base = address(app.config)
    plain = unescape(re.sub(r"<[^>]+>", "", title))
    found = {
        "og:title": plain,
        "og:type": "website",
        "og:site_name": app.config.html_title,
        "og:description": words,
        "og:url": f"{base}{app.builder.get_target_uri(page)}" if base else "",
        "og:image": f"{base}{image}" if base else relative,
        "og:image:alt": SHOWS if image == IMAGE else f"A picture of the chapter {plain}.",
    }
    return {name: text for name, text in found.items() if text}


def add_tags(
    app: Sphinx, page: str, _: str, context: dict[str, Any], document: nodes.document | None
) -> None:
    """Put the tags into a page's head."""
    words = first_words(document) if document is not None else ""
    image = image_of(app, page)
    relative = context["pathto"](image, resource=True)
    lines = [
        f'<meta property="{name}" content="{escape(text)}" />'
        for name, text in tags(
            app, page, context.get("title", ""), words, (image, relative)
        ).items()
    ]
    if words:
        lines.append(f'<meta name="description" content="{escape(words)}" />')
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("html-page-context", add_tags)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
