"""The chapters as a picture that is also a list of links, made from the table of contents.

    :::{chapter-map}
    ch01_name
    ch02_name: ch03_name, ch04_name
    :::

Each line is a chapter of the path that can be walked without the rest; after the colon stand
the chapters that branch off from it. Numbers and titles are those of the pages.
"""

from __future__ import annotations

import re
from html import escape

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from attncore.draw.picture import Picture
from attncore.draw.scene import Box, Scene
from attncore.draw.text import SMALL, width_of

WIDTH, HEIGHT, GAP, BELOW = 120.0, 72.0, 22.0, 16.0


class MapPlace(nodes.General, nodes.Element):
    """Stands where the picture will be, until all pages are read."""


class ChapterMap(Directive):
    """Puts a picture there."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the placeholder."""
        env = self.state.document.settings.env
        env.note_reread()  # titles and numbers are those of other pages
        folder = env.docname.rpartition("/")[0]
        path = []
        for line in filter(None, self.content):
            chapter, _, branches = line.partition(":")
            names = [chapter, *filter(None, map(str.strip, branches.split(",")))]
            path.append([f"{folder}/{name.strip()}" for name in names])
        return [MapPlace(path=path)]


class Chapter:
    """What is shown of one: its number, its title in lines, and its address."""

    def __init__(self, app: Sphinx, here: str, docname: str) -> None:
        env = app.builder.env
        if docname not in env.titles:
            raise ValueError(f"the chapter map names {docname}, which is no page of the book")
        self.number = ".".join(map(str, env.toc_secnumbers.get(docname, {}).get("", ())))
        self.title = env.titles[docname].astext()
        self.short = re.split(r"[:,] ", self.title)[0]
        self.address = app.builder.get_relative_uri(here, docname)


def wrapped(text: str, width: float) -> list[str]:
    """Return text in lines at most this wide."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, SMALL) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def node(scene: Scene, chapter: Chapter, x: float, y: float, *, on_path: bool) -> Box:
    """Draw a chapter as a link; return its place."""
    box = Box(x, y, WIDTH, HEIGHT)
    kind = "ac-link ac-on-path" if on_path else "ac-link"
    scene.parts.append(f'<a href="{escape(chapter.address)}" class="{kind}">')
    scene.rect(box, "paper", corner=8)
    scene.frame(box, "ink" if on_path else "soft", corner=8)
    lines = wrapped(chapter.short, WIDTH - 10)
    top = y + HEIGHT / 2 - 7.5 * len(lines)
    scene.text((box.center[0], top), chapter.number, "bold")
    for i, line in enumerate(lines):
        scene.text((box.center[0], top + 16 + 15 * i), line, "small")
    scene.parts.append("</a>")
    return box


def wide(path: list[list[Chapter]]) -> Scene:
    """Draw the path from left to right, its branches below it."""
    scene = Scene()
    last: Box | None = None
    for column, (chapter, *branches) in enumerate(path):
        box = node(scene, chapter, column * (WIDTH + GAP), 0, on_path=True)
        if last:
            scene.arrow((last.end + 3, last.center[1]), (box.x - 3, box.center[1]), role="ink")
        last = above = box
        for branch in branches:
            below = node(scene, branch, box.x, above.foot + BELOW, on_path=False)
            scene.line((box.center[0], above.foot), (box.center[0], below.y), dash=True)
            above = below
    return scene


def tall(path: list[list[Chapter]]) -> Scene:
    """Draw the path downwards, its branches to its right."""
    scene, y = Scene(), 0.0
    last: Box | None = None
    for chapter, *branches in path:
        box = node(scene, chapter, 0, y, on_path=True)
        if last:
            scene.arrow((box.center[0], last.foot + 3), (box.center[0], y - 3), role="ink")
        last, x = box, WIDTH + 2 * GAP
        for row, branch in enumerate(branches):
            beside = node(scene, branch, x, y + row * (HEIGHT + BELOW), on_path=False)
            middle = beside.center[1]
            bend = [(box.end + GAP, box.center[1]), (box.end + GAP, middle)] if row else []
            scene.line((box.end, box.center[1]), *bend, (x, middle), dash=True)
        y += max(1, len(branches)) * (HEIGHT + BELOW) + GAP / 2
    return scene


def words(path: list[list[Chapter]]) -> str:
    """Say what the picture shows."""

    def listed(chapters: list[Chapter]) -> str:
        names = [f"{chapter.number}, {chapter.short}" for chapter in chapters]
        return "; ".join(names)

    said = [f"The path: {listed([chapter for chapter, *_ in path])}."]
    said += [
        f"From chapter {chapter.number} branch off: {listed(branches)}."
        for chapter, *branches in path
        if branches
    ]
    return " ".join(said)


def fill(app: Sphinx, document: nodes.document, docname: str) -> None:
    """Put the picture in the place of its placeholder."""
    for place in list(document.findall(MapPlace)):
        path = [[Chapter(app, docname, name) for name in names] for names in place["path"]]
        picture = Picture("Map of the chapters", words(path), wide(path), tall(path))
        # The links in it can be reached: an image would hide them from a screen reader.
        text = picture.svg().replace('role="img"', 'role="group"')
        text = re.sub(r"<style>.*?</style>", "", text, flags=re.S)
        place.replace_self(nodes.raw("", text, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_node(MapPlace)
    app.add_directive("chapter-map", ChapterMap)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
