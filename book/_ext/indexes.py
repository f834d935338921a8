"""Lists of all myths, exercises and questions, with links, made from the pages themselves.

    ```{myth-index}
    ```
    ```{exercise-index}
    ```
    ```{question-index}
    ```

A myth is linked to the cell that refutes it, and a question to its answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_subtitle

MYTH = "Myth"
ASKED = "What people ask"  # the section of a page that has its questions, in bold


class Listing(nodes.General, nodes.Element):
    """Stands where a list will be, until all pages are read."""


class Index(Directive):
    """Puts a list there."""

    def run(self) -> list[nodes.Node]:
        """Return the placeholder."""
        env = self.state.document.settings.env
        env.attn_listings.add(env.docname)
        return [Listing(kind=self.name.removesuffix("-index"))]


def collect(app: Sphinx, document: nodes.document) -> None:
    """Note the myths, exercises and questions of a page that has just been read."""
    env = app.env
    found = env.attn_found[env.docname] = {"myth": [], "exercise": [], "question": []}
    for number, (words, cell) in enumerate(myths(document), start=1):
        name = f"myth-{number}"
        cell["ids"].insert(0, name)
        found["myth"].append((words, name))
    for box in document.findall(exercise_enumerable_node):
        subtitle = next(iter(box.findall(exercise_subtitle)))
        number = box["ids"][0].removeprefix("ex-").replace("-", ".")
        words = [nodes.Text(f"{number}: "), *(part.deepcopy() for part in subtitle)]
        found["exercise"].append((words, box["ids"][0]))
    for number, (words, answer) in enumerate(questions(document), start=1):
        name = f"question-{number}"
        answer["ids"].insert(0, name)
        found["question"].append((words, name))


def myths(document: nodes.document) -> Iterator[tuple[list[nodes.Node], nodes.container]]:
    """Yield what each box of a page says, and the cell that refutes it.

    It is the next one in the section that asserts something, or else the last one before.
    """
    boxes: list[list[nodes.Node]] = []
    last = None
    for node in document.findall():
        if isinstance(node, nodes.section):
            yield from ((words, last) for words in boxes)
            boxes = []
        elif isinstance(node, nodes.admonition):
            first, *rest = node[0].children  # text, and formulas
            if first.astext().startswith(MYTH):
                words = nodes.Text(first.astext().split(":", 1)[1].lstrip())
                boxes.append([words, *(part.deepcopy() for part in rest)])
        elif is_cell(node) and "assert" in node.astext():
            last = node
            yield from ((words, last) for words in boxes)
            boxes = []


def questions(document: nodes.document) -> Iterator[tuple[list[nodes.Node], nodes.paragraph]]:
    """Yield what each entry of a page's list of questions asks, and the paragraph that begins so.

    An entry may be an item of a list or a paragraph: what counts is that it begins in bold.
    """
    for section in document.findall(nodes.section):
        if section[0].astext() == ASKED:
            for entry in section.findall(nodes.paragraph):
                first = next((part for part in entry if part.astext()), None)  # MyST begins with ""
                if isinstance(first, nodes.strong):
                    yield [part.deepcopy() for part in first], entry


def is_cell(node: nodes.Node) -> bool:
    """Tell code cells from all else."""
    return isinstance(node, nodes.container) and "cell" in node.get("classes", ())


def fill(app: Sphinx, document: nodes.document, docname: str) -> None:
    """Put the lists in the place of their placeholders."""
    env = app.env
    for place in list(document.findall(Listing)):
        items = nodes.bullet_list()
        for page in sorted(env.attn_found.keys() - {app.config.root_doc}):  # it repeats a chapter's
            entries = env.attn_found[page][place["kind"]]
            if entries:
                items += chapter(app, docname, page, entries)
        place.replace_self(items)


def chapter(
    app: Sphinx, docname: str, page: str, entries: list[tuple[list[nodes.Node], str]]
) -> nodes.list_item:
    """Return one chapter's title and its links."""
    links = nodes.bullet_list()
    address = app.builder.get_relative_uri(docname, page)
    for words, name in entries:
        link = nodes.reference("", "", *words, internal=True, refuri=f"{address}#{name}")
        links += nodes.list_item("", nodes.paragraph("", "", link))
    title = nodes.reference("", app.env.titles[page].astext(), internal=True, refuri=address)
    return nodes.list_item("", nodes.paragraph("", "", title), links)


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop what is known of a page that will be read again."""
    env.attn_found.pop(docname, None)
    env.attn_listings.discard(docname)


def join(app: Sphinx, env: BuildEnvironment, names: set[str], other: BuildEnvironment) -> None:
    """Take over what another process has read."""
    env.attn_found |= {name: other.attn_found[name] for name in names & other.attn_found.keys()}
    env.attn_listings |= other.attn_listings & names


def outdated(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Have the pages with lists read again when any page is."""
    return sorted(env.attn_listings - removed) if added | changed | removed else []


def prepare(app: Sphinx) -> None:
    """Make room for what will be noted."""
    for name, empty in (("attn_found", {}), ("attn_listings", set())):
        if not hasattr(app.env, name):
            setattr(app.env, name, empty)


def setup(app: Sphinx) -> dict[str, object]:
    """Register the extension."""
    app.add_node(Listing)
    for kind in ("myth", "exercise", "question"):
        app.add_directive(f"{kind}-index", Index)
    app.connect("builder-inited", prepare)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", join)
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-read", collect)
    app.connect("doctree-resolved", fill)
    return {"env_version": 4, "parallel_read_safe": True, "parallel_write_safe": True}
