"""Faults that a Jupyter Book swallows, put in on purpose: each must be noticed.

A small book of two pages is built with this project's own configuration and tools.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAD = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n  display_name: Python 3\n---\n"
PAGE = HEAD + "# Page\n\nSome text.\n\n```{code-cell} ipython3\n{}\n```\n"
IMPORT = "import sys; sys.path.insert(0, '../src')\nfrom thing import answer\nprint(answer)"


@pytest.fixture
def small(tmp_path):
    """Return the folder of a small book that builds without a fault."""
    for name in ("_config.yml", "conftest.py"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("book/_ext", "book/_static", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "book/references.bib", tmp_path / "book")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/ch01_page\n"
    )
    (tmp_path / "book/index.md").write_text("# Index\n")
    write_page(tmp_path, IMPORT)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/thing.py").write_text("answer = 'first answer'\n")
    (tmp_path / "constraints.txt").write_text("")
    (tmp_path / "notebooks").mkdir()
    # The list of fonts that Matplotlib made for the book serves here too.
    shutil.copytree(ROOT / "_build/mplconfigdir", tmp_path / "_build/mplconfigdir")
    return tmp_path


def write_page(folder, code):
    (folder / "book/ch01_page.md").write_text(PAGE.replace("{}", code, 1).replace("{}", code))


def run(folder, *command, **more):
    # No index: a small book must not fetch Python for the browser.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PIP_NO_INDEX": "1", **more}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, env=environment
    )


def build(folder):
    return run(folder, "tools/build_book.py")


def edit(folder, old, new):
    config = folder / "_config.yml"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def set_address(folder, address):
    """Write the repository's address into its one place, whatever is there now."""
    config = folder / "_config.yml"
    text, count = re.subn(r"(?m)^  url: .*$", f'  url: "{address}"', config.read_text("utf-8"))
    assert count == 1
    config.write_text(text, "utf-8")


def html(folder, page="book/ch01_page"):
    return (folder / "_build/html" / f"{page}.html").read_text()


def hide_pages(folder):
    for name in (".hidden", ".venv/lib"):
        (folder / name).mkdir(parents=True)
        (folder / name / "README.md").write_text("# Not part of the book\n")


def test_a_book_without_faults_builds_and_is_then_up_to_date(small):
    hide_pages(small)
    set_address(small, ADDRESS)
    first, second = build(small), build(small)

    assert (first.returncode, second.returncode) == (0, 0), first.stdout + first.stderr
    assert "first answer" in html(small)
    assert "up to date" in second.stdout
    assert not list((small / "_build/html").rglob("*README*"))  # hidden folders are not built
    assert "colab.research" in html(small)  # the buttons survive our theme options
    assert "THE BOOK GETS NO LIVE CELLS" in first.stderr  # said aloud, and no dead buttons
    assert "live.mjs" not in html(small)


def test_without_its_settings_the_hidden_folder_is_built_and_the_button_lost(small):
    hide_pages(small)
    set_address(small, ADDRESS)
    edit(small, '".*", "**/.*", "*.md", ', "")
    edit(small, "recursive_update: true", "recursive_update: false")
    build(small)

    assert list((small / "_build/html").rglob("*README*"))
    assert "colab.research" not in html(small)


ADDRESS = "https://github.com/somebody/a-book"
NEEDS_ADDRESS = ("colab.research", ADDRESS, f"{ADDRESS}/issues/new", "Only with an address.")


def make_all(folder):
    """Build the small book and its notebook, and then the page that offers the notebook."""
    for tool in ("build_book", "notebooks", "build_book"):
        done = run(folder, f"tools/{tool}.py")
        assert done.returncode == 0, done.stdout + done.stderr
    notebook = json.loads((folder / "notebooks/ch01_page.ipynb").read_text("utf-8"))
    return html(folder) + html(folder, "book/index"), [
        "".join(cell["source"]) for cell in notebook["cells"]
    ]


def test_an_address_in_one_place_brings_all_that_needs_it_and_takes_it_away(small):
    """Nobody may be told to install from an address that nobody has set."""
    page, index = small / "book/ch01_page.md", small / "book/index.md"
    page.write_text(page.read_text().replace("Some text.", "See [the index](index.md)."))
    index.write_text("# Index\n\n:::{only} repository\nOnly with an address.\n:::\n")

    for address in ("", ADDRESS, ""):
        set_address(small, address)
        shown, cells = make_all(small)

        found = [text in shown for text in NEEDS_ADDRESS]
        assert found == [bool(address)] * len(NEEDS_ADDRESS)
        assert 'download="ch01_page.ipynb"' in shown
        assert "pip install -e '.[pages]'" in cells[0]
        assert (f"git+{ADDRESS}@main" in cells[0]) == bool(address)
        assert ("git+" in cells[0] or "google.colab" in cells[0]) == bool(address)
        assert "attncore.zip" in cells[0] or address
        target = f"{ADDRESS}/blob/main" if address else ".."
        assert f"[the index]({target}/book/index.md)" in cells[1]


def test_the_address_of_a_hub_brings_a_button_that_opens_the_notebook_there(small):
    set_address(small, ADDRESS)
    assert "hub/user-redirect" not in "".join(make_all(small)[0])
    edit(small, 'jupyterhub_url: ""', 'jupyterhub_url: "https://hub.example.org"')
    shown, _ = make_all(small)
    [query] = re.findall(
        r'href="https://hub\.example\.org/hub/user-redirect/git-pull\?(.*?)"', shown
    )
    asked = parse_qs(unescape(query))

    assert asked["repo"] == [ADDRESS]
    assert asked["urlpath"] == ["tree/a-book/notebooks/ch01_page.ipynb"]


@pytest.mark.parametrize(
    "address",
    [
        "github.com/somebody/a-book",
        "https://gitlab.com/somebody/a-book",
        f"{ADDRESS}/",
        f"{ADDRESS}.git",
        f"{ADDRESS}/tree/main",
    ],
)
def test_an_address_that_would_not_work_is_refused(small, address):
    set_address(small, address)
    done = build(small)

    assert done.returncode == 1
    assert done.stderr == (
        "repository.url in _config.yml must be empty, or be like https://github.com/OWNER/NAME, "
        f"without a slash or .git at its end: got {address}\n"
    )


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("assert 1 == 2, 'broken claim'", "broken claim"),
        ("import sys; print('noise', file=sys.stderr)", "stderr was found"),
        ("import matplotlib.pyplot as plt; plt.title('猫');", "stderr was found"),
    ],
)
def test_a_bad_cell_fails_every_build(small, code, complaint):
    write_page(small, code)
    for _ in range(2):
        done = build(small)
        assert done.returncode != 0
        assert "NOT built" in done.stderr
        assert complaint in done.stdout + done.stderr


def test_a_knob_that_fails_at_one_setting_fails_every_build(small):
    write_page(small, "n = 1  #@param [1, 2]\nassert n == 1, 'broken at two'")
    for _ in range(2):
        done = build(small)
        assert done.returncode == 1
        assert "ch01_page.md, what its knobs show:\nn = 1  #@param [1, 2]" in done.stderr
        assert "with n = 2: AssertionError: broken at two" in done.stderr
        assert "NOT built" in done.stderr


def test_knobs_have_frames_without_python_for_the_browser_too(small):
    file = small / "_build/html/_static/live/frames/ch01_page/1.json"
    for factor in (10, 100):
        write_page(small, f"n = 1  #@param [1, 2]\nprint(n * {factor})")
        done = build(small)

        assert done.returncode == 0, done.stdout + done.stderr
        drawn = json.loads(file.read_text())["frames"]
        assert [drawn[n][0]["text"] for n in "12"] == [f"{factor}\n", f"{2 * factor}\n"]
    assert "live/drawn.mjs" in html(small)
    assert "live.mjs" not in html(small)
    write_page(small, "print('no knobs')")
    build(small)
    assert not file.exists()
    assert "drawn.mjs" not in html(small)


def test_frames_that_were_lost_are_drawn_again(small):
    write_page(small, "n = 1  #@param [1, 2]\nprint(n)")
    build(small)
    shutil.rmtree(small / "_build/frames")
    (small / "book/index.md").write_text("# Another index\n")

    assert "Executing 1 page(s)" in build(small).stdout
    assert (small / "_build/html/_static/live/frames/ch01_page/1.json").exists()


def test_a_line_that_comes_in_two_pieces_is_shown_whole(small):
    write_page(small, "import sys\nprint('one ', end='')\nsys.stdout.flush()\nprint('two')")

    assert build(small).returncode == 0
    assert "one two" in html(small)


def test_a_complaint_that_does_not_come_again_is_forgotten(small):
    once = "import sys; from pathlib import Path\nif not Path('../said').exists():\n"
    write_page(small, once + "    Path('../said').touch(); print('noise', file=sys.stderr)")
    first, second = build(small), build(small)

    assert first.returncode != 0
    assert "stderr was found" in first.stdout + first.stderr
    assert second.returncode == 0, second.stdout + second.stderr


@pytest.mark.parametrize("damaged", ["built-from.json", ".jupyter_cache/global.db"])
def test_what_a_full_disk_left_half_written_is_made_anew(small, damaged):
    build(small)
    (small / "_build" / damaged).write_bytes(b"{")
    write_page(small, "print('after the damage')")
    done = build(small)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "after the damage" in html(small)


@pytest.mark.parametrize("home", ["home", "/proc/nowhere"])
def test_the_readers_own_settings_do_not_reach_the_pages(small, home):
    startup = small / "home/.ipython/profile_default/startup/own.py"
    style = small / "home/.config/matplotlib/matplotlibrc"
    for path, text in ((startup, "import sys; sys.stderr.write('own')"), (style, "nonsense\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    write_page(small, "import matplotlib.pyplot as plt\nprint(plt.rcParams['font.size'])")
    env = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_CACHE_HOME"), "")
    done = run(small, "tools/build_book.py", HOME=str(small / home), **env)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "10.0" in html(small)


def test_a_dead_link_fails_every_build(small):
    with (small / "book/ch01_page.md").open("a") as file:
        file.write("\n[nowhere](missing.md)\n")

    assert [build(small).returncode != 0 for _ in range(2)] == [True, True]


def test_a_change_in_the_package_is_seen_by_the_cache(small):
    build(small)
    (small / "src/thing.py").write_text("answer = 'second answer'\n")
    again = build(small)

    assert "every cell will be executed" in again.stdout
    assert "second answer" in html(small)
    assert "first answer" not in html(small)


def test_jupyter_book_alone_would_show_the_old_answer(small):
    """The reason for the test above: if this ever fails, our own care is not needed."""
    build(small)
    (small / "src/thing.py").write_text("answer = 'second answer'\n")
    run(small, "-c", "from jupyter_book.cli.main import main; main(['build', '.', '--all'])")

    assert "first answer" in html(small)


def test_notebooks_flow_one_way(small):
    page = small / "book/ch01_page.md"
    build(small)
    assert run(small, "tools/notebooks.py").returncode == 0
    text, notebook = page.read_bytes(), small / "notebooks/ch01_page.ipynb"
    first = notebook.read_bytes()
    os.utime(page, (0, 0))  # a tool that compares times would now overwrite the source
    notebook.write_text(notebook.read_text().replace("Some text.", "Edited by hand."))
    stale = run(small, "tools/notebooks.py", "--check")
    run(small, "tools/notebooks.py")

    assert stale.returncode == 1
    assert "ch01_page.ipynb is out of date: cell 1, its text or code" in stale.stderr
    assert "Run `make notebooks`" in stale.stderr
    assert page.read_bytes() == text
    assert notebook.read_bytes() == first


def test_a_stale_output_in_a_notebook_is_noticed(small):
    build(small)
    run(small, "tools/notebooks.py")
    notebook = small / "notebooks/ch01_page.ipynb"
    notebook.write_text(notebook.read_text().replace("first answer", "old answer"))
    check = run(small, "tools/notebooks.py", "--check")
    rerun = nbval(small)

    assert "cell 2, its output" in check.stderr
    assert rerun.returncode == 1
    assert "1 failed" in rerun.stdout


def test_an_edited_page_makes_its_notebook_stale(small):
    build(small)
    run(small, "tools/notebooks.py")
    write_page(small, "print('new')")

    assert "run `make book` first" in run(small, "tools/notebooks.py", "--check").stderr
    build(small)
    assert "out of date" in run(small, "tools/notebooks.py", "--check").stderr


def nbval(folder, *options):
    return run(
        folder, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", *options, "notebooks"
    )


def test_a_last_line_with_a_semicolon_is_quiet_under_nbval(small):
    write_page(small, "21 + 21;")
    build(small)
    run(small, "tools/notebooks.py")
    ours, theirs = nbval(small), nbval(small, "--noconftest")

    assert "2 passed" in ours.stdout
    assert "1 failed" in theirs.stdout  # the fault our conftest.py cures


def test_a_directive_without_a_plain_form_is_refused(small):
    with (small / "book/ch01_page.md").open("a") as file:
        file.write("\n```{list-table}\n* - a\n```\n")
    build(small)
    done = run(small, "tools/notebooks.py")

    assert done.returncode != 0
    assert "no plain form is known for the directive {list-table}" in done.stderr
