"""Turn the MyST Markdown of the book into what Jupyter and Colab show.

Directives become block quotes and headings, roles become text. Whatever is not known here
is an error, so that no raw directive ever reaches a notebook.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pybtex.database import BibliographyData, Person, parse_file
from pybtex.richtext import Text

from attncore.draw.colors import ROLES

FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}\s*(?P<argument>.*)$")
OPTION = re.compile(r"^:(?P<key>[\w-]+):\s*(?P<value>.*)$")
LABEL = re.compile(r"^\((?P<name>[\w-]+)\)=$")
ROLE = re.compile(r"\{(?P<name>[\w:-]+)\}`(?P<content>[^`]+)`")
CODE = re.compile(r"(`+[^`]+`+)")
CODE_OR_ROLE = re.compile(rf"{ROLE.pattern}|(?P<code>{CODE.pattern})")
PAGE_LINK = re.compile(r"\]\((?P<page>[\w-]+)\.md(?P<anchor>#[\w-]+)?\)")
COLORED = re.compile(rf"\\(?:{'|'.join(ROLES)})\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}")
UNKNOWN = re.compile(rf"\\(?:{'|'.join(ROLES)})\b.*")
BOXES = ("admonition", "note", "tip", "warning", "important", "seealso")


class Converter:
    """Converts the Markdown cells of one page in order; knows which solution is open.

    `project` is where a notebook finds the project's files: an address, or a relative path.
    """

    def __init__(self, book: Path, notebooks: set[str], project: str) -> None:
        self.book, self.notebooks, self.project = book, notebooks, project
        self.solution = ""  # such as "1.2" between a solution's start and its end

    def __call__(self, text: str, page: str) -> str:
        """Return the cell as plain Markdown; empty if nothing is left of it."""
        chapter = re.match(r"ch(\d+)_", page)
        if chapter:
            text = re.sub(r"\A# ", f"# {int(chapter[1])}. ", text)
        out: list[str] = []
        folded: list[str] | None = None  # the lines of an open solution's text
        lines = iter(text.splitlines())
        for line in lines:
            opened = FENCE.match(line)
            if label := LABEL.match(line):
                out += [f'<a id="{label["name"]}"></a>', ""]
                continue
            if not opened:
                (out if folded is None else folded).append(self._inline(line, page))
                continue
            body, options = _body(lines, opened["fence"])
            name, argument = opened["name"], opened["argument"]
            if name == "solution-start":
                self.solution, folded = _number(argument), []
                out += ["<details>", f"<summary>Solution to exercise {self.solution}</summary>"]
            elif name == "solution-end":
                self.solution = ""
            elif name == "exercise-start":
                out += [f"### Exercise {_number(options['label'])}: {argument}", ""]
            elif name in BOXES and options.get("class") == "dropdown":
                inside = [self._inline(row, page) for row in body]
                summary = f"<summary>{self._inline(argument, page)}</summary>"
                out += ["<details>", summary, "", *inside, "", "</details>"]
            elif name in BOXES:
                title = [f"**{self._inline(argument or name.capitalize(), page)}**", ""]
                inside = [self._inline(row, page) for row in body]
                out += [f"> {row}".rstrip() for row in title + inside]
            elif name == "only":  # with the project's address in _config.yml, or without
                if (argument == "repository") == self.project.startswith("https:"):
                    out += [self("\n".join(body), page), ""]
            elif name == "grid":
                out += [self("\n".join(body), page), ""]
            elif name == "grid-item-card":
                card = f"[{argument}]({options['link']}.md)"
                out += [f"- **{self._inline(card, page)}**", *(f"  {row}" for row in body), ""]
            elif name not in ("exercise-end", "chapter-map"):  # a list of chapters is beside it
                raise ValueError(f"{page}: no plain form is known for the directive {{{name}}}")
        if folded is not None:
            out += ["", *"\n".join(folded).strip().splitlines(), "", "</details>"]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()

    def _inline(self, line: str, page: str) -> str:
        def plain(match: re.Match[str]) -> str:
            if match["code"]:
                return match["code"]
            name, content = match["name"], match["content"]
            if name in ("cite:t", "cite:p"):
                return cite(self.book / "references.bib", content, name == "cite:p")
            if name == "term":
                return content.split("<")[0].strip()
            raise ValueError(f"{page}: no plain form is known for the role {{{name}}}")

        parts = CODE.split(CODE_OR_ROLE.sub(plain, line))  # every other one is code
        parts[::2] = map(plain_formula, parts[::2])
        return PAGE_LINK.sub(self._link, "".join(parts))

    def _link(self, match: re.Match[str]) -> str:
        page, anchor = match["page"], match["anchor"] or ""
        if page in self.notebooks:
            return f"]({page}.ipynb{anchor})"
        return f"]({self.project}/book/{page}.md{anchor})"


def plain_formula(text: str) -> str:
    r"""Return text without the macros that colour a formula: Q for \query{Q}.

    Braces stay where the symbol would otherwise run into its neighbours.
    """
    while match := COLORED.search(text):
        before, symbol, after = text[: match.start()], match[1], text[match.end() :]
        runs_on = re.search(r"\\[A-Za-z]+$", before) and symbol[0].isalpha()
        runs_out = re.search(r"\\[A-Za-z]+$", symbol) and after[:1].isalpha()
        several = len(symbol) > 1 and (before[-1:] in ("^", "_") or after[:1] in ("^", "_"))
        text = before + (f"{{{symbol}}}" if runs_on or runs_out or several else symbol) + after
    if left := UNKNOWN.search(text):
        raise ValueError(f"no plain form is known for {left.group()}: give it one symbol in braces")
    return text


def cite(bibliography: Path, keys: str, parenthetical: bool) -> str:
    """Return "Vaswani et al. (2017)", or "(Vaswani et al., 2017)", for BibTeX keys."""
    entries = _entries(bibliography).entries
    cited = []
    for key in keys.split(","):
        entry = entries[key.strip()]
        people = [_surname(person) for person in entry.persons["author"]]
        who = people[0] if len(people) == 1 else f"{people[0]} et al."
        if len(people) == 2:
            who = " and ".join(people)
        year = entry.fields["year"]
        cited.append(f"{who}, {year}" if parenthetical else f"{who} ({year})")
    return f"({'; '.join(cited)})" if parenthetical else ", ".join(cited)


@cache
def _entries(path: Path) -> BibliographyData:
    return parse_file(str(path))


def _surname(person: Person) -> str:
    return Text.from_latex(" ".join(person.prelast_names + person.last_names)).render_as("text")


def _number(label: str) -> str:
    """Return "1.2" for the label ex-1-2."""
    return label.removeprefix("ex-").replace("-", ".")


def _body(lines: Iterator[str], fence: str) -> tuple[list[str], dict[str, str]]:
    """Take the lines of a directive up to its closing fence; split off the options."""
    body: list[str] = []
    options: dict[str, str] = {}
    for line in lines:
        if line.strip() == fence:
            return body, options
        option = OPTION.match(line)
        if option and not body:
            options[option["key"]] = option["value"]
        else:
            body.append(line)
    raise ValueError(f"a directive is never closed by {fence}")
