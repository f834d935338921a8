"""The built book: every page whole, every link alive, nothing from another host."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from build_book import pages
from repository import repository

import notebooks

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
CHAPTERS = [page.stem for page in pages(ROOT) if page.stem.startswith("ch")]
CODE_WIDTH = 80  # what fits beside the two side bars


@pytest.fixture(scope="module", autouse=True)
def built():
    """Build the book if it is not current; `make test` has done so already."""
    run = subprocess.run(
        [sys.executable, "tools/build_book.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


def soup(path):
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def book_pages():
    return sorted((HTML / "book").glob("*.html"))


def test_every_page_of_the_contents_is_built():
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text("utf-8"))

    assert {f"{name}.html" for name in listed} == {f"book/{p.name}" for p in book_pages()}
    assert (HTML / "index.html").exists()


def test_every_myth_and_exercise_is_listed():
    links = soup(HTML / "book/myths_and_exercises.html").select("article li li a")
    found = {(urlsplit(a["href"]).path, urlsplit(a["href"]).fragment): a.get_text() for a in links}
    assert {path.removesuffix(".html") for path, _ in found} == set(CHAPTERS)
    for name in CHAPTERS:
        page = soup(HTML / f"book/{name}.html")
        titles = [t.get_text() for t in page.select("div.admonition > p.admonition-title")]
        told = [title.split(":", 1)[1].strip() for title in titles if title.startswith("Myth")]
        listed = {i: text for (path, i), text in found.items() if path == f"{name}.html"}

        assert [text for i, text in listed.items() if i.startswith("myth")] == told
        assert [i for i in listed if i.startswith("ex-")] == [
            box["id"] for box in page.select("div.exercise")
        ]
        for i in listed:
            if i.startswith("myth"):
                assert "assert" in page.select_one(f"div.cell#{i}, div.cell:has(> #{i})").get_text()


def test_every_question_is_listed_and_leads_to_its_answer():
    links = soup(HTML / "book/questions.html").select("article li li a")
    listed = [(a["href"], a.get_text()) for a in links]
    asked = []
    for name in CHAPTERS:
        text = (ROOT / "book" / f"{name}.md").read_text("utf-8")
        part = re.search(r"^## What people ask$(.*?)^## ", text, flags=re.S | re.M)
        answers = soup(HTML / f"book/{name}.html").select("#what-people-ask p[id]")
        told = [(f"{name}.html#{p['id']}", p.strong.get_text()) for p in answers]

        assert len(told) == (len(re.findall(r"^(?:- )?\*\*", part[1], flags=re.M)) if part else 0)
        assert all(p.get_text().startswith(p.strong.get_text()) for p in answers)
        asked += told

    assert listed == asked
    assert len(asked) >= 8
    assert all(question.endswith("?") for _, question in asked)


def test_a_letter_has_one_meaning_on_the_notation_page():
    text = (ROOT / "book/notation.md").read_text("utf-8").split("## How to read it")[1]
    cells = re.findall(r"^\| (\$.*?) \|", text, flags=re.M)
    bare = [
        re.sub(r"\\(query|key|value|weights)\{((?:[^{}]|\{[^}]*\})*)\}", r"\2", c) for c in cells
    ]
    symbols = [symbol for cell in bare for symbol in re.findall(r"\$(.*?)\$", cell)]

    assert {"Q", "T_q", r"\alpha_{ij}", "p_i"} <= set(symbols)
    assert sorted(symbols) == sorted(set(symbols))


def test_the_glossary_is_in_order_and_each_term_says_something():
    text = (ROOT / "book/glossary.md").read_text("utf-8")
    entries = re.findall(r"^(\S.*)\n((?:  \S.*\n)+)", text.split("```{glossary}\n")[1], flags=re.M)
    terms = [term.lower() for term, _ in entries]

    assert terms == sorted(set(terms))
    assert len(entries) == len(re.findall(r"^[^\s`]", text.split("```{glossary}\n")[1], flags=re.M))
    assert {"embedding", "residual", "transformer", "autograd", "epoch", "learning rate"} <= {
        *terms
    }
    assert all(said.strip()[0].isupper() or said.strip()[0] == "$" for _, said in entries)


def test_internal_links_and_anchors_resolve():
    broken, ids = [], {}
    for page in book_pages():
        for link in soup(page).select("a[href]"):
            target = urlsplit(link["href"])
            if target.scheme or target.netloc:
                continue
            path = (page.parent / unquote(target.path)).resolve() if target.path else page
            if path.suffix == ".html" and path.exists() and target.fragment:
                if path not in ids:
                    ids[path] = {tag["id"] for tag in soup(path).select("[id]")}
                if unquote(target.fragment) not in ids[path]:
                    broken.append(f"{page.name}: {link['href']}")
            elif not path.exists():
                broken.append(f"{page.name}: {link['href']}")

    assert not broken


def test_nothing_is_loaded_from_another_host():
    loading = "script[src], link[rel=stylesheet], link[rel=preload], img[src], iframe[src]"
    foreign = [
        f"{page.name}: {tag}"
        for page in book_pages()
        for tag in soup(page).select(loading)
        if urlsplit(tag.get("src") or tag.get("href")).netloc
    ]

    assert not foreign
    assert (HTML / "_static/mathjax/tex-chtml.js").exists()


def test_figures_have_alternative_text():
    figures = [
        (page.name, image) for page in book_pages() for image in soup(page).select("article img")
    ]
    poor = [(name, image.get("alt")) for name, image in figures if not described(image.get("alt"))]

    assert len(figures) >= 5
    assert not poor


def described(alt):
    return alt is not None and len(alt.split()) >= 5 and not alt.endswith(".png")


def test_the_map_of_the_front_page_links_every_chapter_in_both_layouts():
    picture = soup(HTML / "book/index.html").select_one("svg.ac-picture:has(a)")
    path = re.search(r"The path: (.*?)\. From", picture.select_one("desc").get_text())[1]

    assert picture["role"] == "group"  # an image would hide its links
    for layout in (".ac-wide", ".ac-tall"):
        links = {a["href"]: a for a in picture.select(f"{layout} a")}
        assert sorted(links) == [f"{stem}.html" for stem in CHAPTERS]
        main = [a.get_text(" ") for a in links.values() if "ac-on-path" in a["class"]]
        assert [text.split()[0] for text in main] == re.findall(r"(\d+),", path)
    for href, link in links.items():
        number, *words = link.get_text(" ").split()
        assert int(number) == int(href[2:4])
        assert " ".join(words) in " ".join(soup(HTML / "book" / href).h1.get_text().split())


def test_the_front_page_has_three_ways_in_and_a_machine_with_steps():
    page = soup(HTML / "book/index.html")
    ways = [a["href"] for a in page.select(".sd-card a.sd-stretched-link")]

    assert ways == [f"{CHAPTERS[0]}.html", "myths_and_exercises.html", "api.html"]
    assert page.select_one("div.cell svg.ac-picture[data-steps]")["data-step"] == "1"


def test_every_page_has_an_icon_and_tags_for_sites_that_show_links():
    for path in book_pages():
        page = soup(path)
        tags = {tag["property"]: tag["content"] for tag in page.select("meta[property^='og:']")}
        title = re.sub(r"^\d+\. ", "", tags["og:title"])

        assert (path.parent / page.select_one("link[rel=icon]")["href"]).resolve().exists()
        assert page.h1.get_text().startswith(title), path.name
        assert tags["og:image:alt"]
        assert "://" in tags["og:image"] or (path.parent / tags["og:image"]).resolve().exists()
        assert len(tags.get("og:description", "")) <= 202
        assert not re.search(r"[$\\{}<]", tags.get("og:description", "")), path.name


def test_every_column_of_a_table_has_a_name():
    nameless = [
        (page.name, row.get_text(" ", strip=True))
        for page in book_pages()
        for row in soup(page).select("article thead tr")
        if not all(cell.get_text(strip=True) for cell in row.select("th"))
    ]

    assert nameless == []


def test_no_raw_markup_is_left_on_a_page():
    raw = re.compile(r"\{(?:code-cell|admonition|cite|ref|term|doc)[^}]*\}|:::|```")
    left = [
        (page.name, raw.search(text).group())
        for page in book_pages()
        if raw.search(text := soup(page).select_one("article").get_text())
    ]

    assert not left


@pytest.mark.parametrize("stem", [page.stem for page in pages(ROOT)])
def test_buttons_reach_the_committed_notebook(stem):
    page = soup(HTML / "book" / f"{stem}.html")
    address = repository(ROOT)
    part = address["url"].removeprefix("https://github.com/")
    place = f"/github/{part}/blob/{address['branch']}/notebooks/{stem}.ipynb"
    colab = [a["href"] for a in page.select("a[href*='colab.research']")]
    download = page.select_one("a.btn-download-notebook-button")

    assert colab == (["https://colab.research.google.com" + place] if part else [])
    assert download["download"] == f"{stem}.ipynb"
    served = (HTML / "book" / download["href"]).resolve().read_bytes()
    assert served == (ROOT / "notebooks" / f"{stem}.ipynb").read_bytes()


SOURCES = (".ci", ".github", "benchmarks", "book", "notebooks", "src", "tests", "tools")


def sources():
    """Yield the name and text of each source file; git is not asked, as a download has none."""
    below = [path for name in SOURCES for path in (ROOT / name).rglob("*")]
    for path in sorted([*ROOT.iterdir(), *below]):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix(), path.read_bytes().decode("utf-8", "replace")


NOTEBOOKS = {f"notebooks/{page.stem}.ipynb" for page in pages(ROOT)}


def test_the_repository_address_is_set_once():
    address = repository(ROOT)["url"]
    naming = {name for name, text in sources() if address and address in text}

    assert naming == ({"_config.yml"} | NOTEBOOKS if address else set())


def test_nothing_installs_from_a_name_or_an_address_that_may_be_somebody_elses():
    """No package index has our package: it is installed from a folder, a file or the address."""
    by_name = r"pip install [^\n#`]*(?<![/\w])attncore(?!\w|[^\n]* @ )"
    foreign = re.compile(rf"@ git\+https?:|{by_name}")
    found = {name for name, text in sources() if foreign.search(text)}

    assert found == (NOTEBOOKS if repository(ROOT)["url"] else set())
    name = "attncore"
    assert foreign.search(f"pip install -q '{name}[plot]'")
    assert not foreign.search('pip install "attncore[pages] @ file:///a.zip"')


def test_no_tool_and_no_test_asks_git():
    asking = re.compile(r"[\[\"' ]git[\"']|[\"']git |\$\(git |^\s*@?git ", flags=re.M)
    code = (".py", ".mjs", "Makefile", ".ci/run")

    assert asking.search("run(['git', 'grep'])")
    assert asking.search("\t@git status")
    found = [name for name, text in sources() if name.endswith(code) and asking.search(text)]
    assert found == ["tests/test_book.py"]  # these lines


def test_notebooks_are_current():
    problems = notebooks.stale()

    assert not problems, "\n".join([*problems, "Run `make notebooks` and commit notebooks/."])


def test_notebooks_are_the_same_when_made_twice():
    for page in pages(ROOT):
        first, second = (nbformat.writes(notebooks.reader_notebook(page)) for _ in range(2))
        assert first == second


def test_no_cell_prints_an_object_where_nothing_was_meant_to_be_printed():
    for page in book_pages():
        for printed in soup(page).select(".cell_output pre"):
            assert not re.match(r"<[^>]+>\s*$", printed.get_text()), f"{page.name}: {printed}"


@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_chapter_has_its_parts(stem):
    text = (ROOT / "book" / f"{stem}.md").read_text("utf-8")
    before = text.split("\n## Exercises\n")[0]
    words = re.sub(r"```.*?```|^---.*?^---", "", text, flags=re.S | re.M).split()

    assert before.count(":class: tip") == 1  # the objectives
    assert "{admonition} Trap:" in before
    assert "{admonition} Myth:" in before
    assert len(words) >= 1000
    assert before.count("{code-cell}") >= 10
    last = re.findall(r"^## (.*)$", text, flags=re.M)[-4:]
    last = [title for title in last if title != "What people ask"]  # between the last two
    assert last[-3:] == ["Exercises", "Summary", "Sources"]


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.stem)
def test_code_fits_the_page(page):
    cells = re.findall(r"```\{code-cell\}[^\n]*\n(.*?)```", page.read_text("utf-8"), flags=re.S)
    code = [re.sub(r"\A---\n.*?\n---\n|\A:tags:[^\n]*\n", "", cell, flags=re.S) for cell in cells]
    lines = [line for cell in code for line in cell.splitlines()]
    longest = [len([line for line in cell.splitlines() if line.strip()]) for cell in code]

    assert [line for line in lines if len(line) > CODE_WIDTH] == []
    assert max(longest) <= 12


@pytest.mark.parametrize("stem", CHAPTERS)
def test_exercises_have_a_check_and_a_folded_solution(stem):
    from attncore.exercises import EXERCISES

    page = soup(HTML / "book" / f"{stem}.html")
    number = str(int(re.match(r"ch(\d+)_", stem)[1]))
    wanted = [key for key in EXERCISES if key.split(".")[0] == number]
    shown = [
        re.search(r"Exercise ([\d.]+)", box.select_one(".admonition-title").get_text())[1]
        for box in page.select("div.exercise")
    ]
    outputs = [cell.get_text() for cell in page.select(".cell_output")]

    assert 4 <= len(wanted) <= 8
    assert shown == wanted
    assert len(page.select("div.solution.dropdown")) == len(wanted)
    for key in wanted:
        assert any(f"{key} not yet" in text for text in outputs), f"{key} is checked unanswered"
        assert any(f"{key} correct" in text for text in outputs), f"{key} is solved"


def test_solutions_are_folded_in_the_notebooks():
    for page in pages(ROOT):
        notebook = notebooks.reader_notebook(page)
        solved = [c for c in notebook.cells if " correct" in "".join(_texts(c))]
        assert all(cell.metadata["jupyter"]["source_hidden"] for cell in solved)
        assert all(cell.metadata["jupyter"]["outputs_hidden"] for cell in solved)
        assert all(cell.metadata["cellView"] == "form" for cell in solved)
        assert all(cell.source.startswith("# Solution to exercise ") for cell in solved)


def _texts(cell):
    return [output.get("text", "") for output in cell.get("outputs", [])]


def test_the_readme_names_only_tasks_that_exist():
    tasks = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), flags=re.M))
    texts = [(ROOT / name).read_text("utf-8") for name in ("README.md", "CONTRIBUTING.md")]
    named = set(re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", "\n".join(texts), flags=re.M))

    assert {a or b for a, b in named} <= tasks
    assert "make test" in (ROOT / ".ci/run").read_text("utf-8")


def test_the_readme_examples_run_and_print_what_they_show(capsys):
    text = (ROOT / "README.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```(?:\n\n```\n(\[.*?)```)?", text, flags=re.S)
    names, printed = {}, []
    for code, _ in examples:
        exec(code, names)  # noqa: S102 (our own README)
        printed.append(capsys.readouterr().out)

    assert printed == [shown for _, shown in examples]
    assert any(printed)
    assert names["out"].shape == (2, 8, 16, 64)
    assert names["weights"].shape == (2, 8, 16, 32)


def test_the_readme_names_every_chapter_as_the_front_page_does():
    front = (ROOT / "book/index.md").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    chapters = re.findall(r"^\| (\d+) \| \[(.*?)\]\((.*?)\.md\)", front, flags=re.M)

    assert [stem for _, _, stem in chapters] == CHAPTERS
    assert [
        (number, title, stem)
        for number, title, stem in re.findall(
            r"\[(\d+)\. (.*?)\]\(notebooks/(.*?)\.ipynb\)", readme
        )
    ] == chapters


def uncompared(page):
    """Yield each cell whose output may differ, its kind, and the code of all cells after it."""
    cells = [c for c in notebooks.executed(page).cells if c.cell_type == "code"]
    tagged = [c for c in cells if "nbval-ignore-output" in c.metadata.get("tags", [])]
    for cell, kind in zip(tagged, kinds([c.source for c in tagged]), strict=True):
        after = cells.index(cell) + 1
        yield cell, kind, [later.source for later in cells[after:]]


def kinds(codes):
    """Tell of each piece of a page's code whether it is about time, bytes or training.

    What makes something that a piece with a clock reads, or reads what that makes, is about time.
    """
    clocks = [code for code in codes if re.search(r"\b(perf_counter|fastest|clock)\(", code)]
    made = {name for code in clocks for name in names(code, ast.Store)}
    read = {name for code in clocks for name in names(code, ast.Load)}
    found = []
    for code in codes:
        if code in clocks or names(code, ast.Store) & read or names(code, ast.Load) & made:
            found.append("time")
        else:
            found.append("bytes" if ".nbytes" in code else "training")
    return found


def asserted(code, later):
    """Tell whether a cell asserts something, or a later one does of what it made."""
    if "assert " in code:
        return True
    stored = names(code, ast.Store)
    claims = [n for c in later for n in ast.walk(ast.parse(c)) if isinstance(n, ast.Assert)]
    used = {node.id for claim in claims for node in names_in(claim)}
    return bool(stored & used)


def names_in(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name)]


def names(code, context):
    """Return the names that code stores (ast.Store) or reads (ast.Load)."""
    return {node.id for node in names_in(ast.parse(code)) if isinstance(node.ctx, context)}


def test_what_is_shown_and_not_compared_is_a_time_or_asserted():
    unchecked = [
        f"{page.stem}: {cell.source.splitlines()[0]}"
        for page in pages(ROOT)
        for cell, kind, later in uncompared(page)
        if "remove-output" not in cell.metadata.tags
        if kind != "time" and not asserted(cell.source, later)
    ]

    assert unchecked == []
    assert asserted("x = 1", ["assert x > 0"])
    assert not asserted("x = 1\nprint(y)", ["assert y > 0"])


def test_the_front_page_and_the_readme_tell_how_many_cells_are_not_compared():
    found = Counter(kind for page in pages(ROOT) for _, kind, _ in uncompared(page))
    counts = found.total(), found["training"], found["time"], found["bytes"]
    said = [f"{n} cell{'s' * (n != 1)}" for n in counts]
    for name in ("README.md", "book/index.md"):
        told = re.findall(r"\b\d+\s+cells?\b", (ROOT / name).read_text("utf-8"))
        assert [" ".join(words.split()) for words in told] == said, name
    assert kinds(["t = clock(f)", "print(t)", "fit(m)", "n = x.nbytes"]) == [
        "time",
        "time",
        "training",
        "bytes",
    ]
