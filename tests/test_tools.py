"""The tools: Markdown made plain, outputs compared, the environment made, the book served."""

import base64
import hashlib
import io
import subprocess
import sys
import urllib.request
from pathlib import Path

import build_book
import carriers
import make_data
import make_env
import nbformat
import numpy as np
import plain_markdown
import pytest
import serve
from matplotlib.image import imsave
from same_outputs import difference, without_noise

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def convert():
    return plain_markdown.Converter(ROOT / "book", {"ch02_next"}, "https://example.org/blob/main")


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("# Title", "# 1. Title"),
        ("(label)=\n## Part", '<a id="label"></a>\n\n## Part'),
        (
            ":::{admonition} Going deeper: why\n:class: dropdown\nSo.\n:::",
            "<details>\n<summary>Going deeper: why</summary>\n\nSo.\n\n</details>",
        ),
        (":::{admonition} Trap: x\n:class: warning\nText.\n:::", "> **Trap: x**\n>\n> Text."),
        ("```{exercise-start} Ties\n:label: ex-1-2\n```\nDo.", "### Exercise 1.2: Ties\n\nDo."),
        ("see {cite:t}`vaswani2017`", "see Vaswani et al. (2017)"),
        ("so {cite:p}`haerdle1990`", "so (Härdle, 1990)"),
        ("{term}`query`", "query"),
        ("[next](ch02_next.md#part)", "[next](ch02_next.ipynb#part)"),
        ("[api](api.md)", "[api](https://example.org/blob/main/book/api.md)"),
        ("literal `{cite:t}` stays", "literal `{cite:t}` stays"),
        (r"$\query{Q}\key{K}^\top \query{q_i}$", r"$QK^\top q_i$"),
        (r"$\alpha\value{v} \weights{\alpha}\value{v}$", r"$\alpha{v} \alpha{v}$"),
        (r"$\weights{\alpha_{ij}}\,\value{v_j}$", r"$\alpha_{ij}\,v_j$"),
        (r"$x^\query{ab} \key{k_j}^2 2^\key{K}$", r"$x^{ab} {k_j}^2 2^K$"),
        (r"# $\query{Q}$ `\query{Q}`", r"# 1. $Q$ `\query{Q}`"),
        (r"$\query Q$", None),
        (r"$\key{a{b{c}}}$", None),
        (
            "::::{grid} 1\n:::{grid-item-card} New\n:link: ch02_next\nHi.\n:::\n::::",
            "- **[New](ch02_next.ipynb)**\n  Hi.",
        ),
        ("A.\n:::{only} repository\nIn *Colab*.\n:::", "A.\nIn *Colab*."),
        ("A.\n:::{only} not repository\nHere.\n:::", "A."),
        (":::{chapter-map}\n1\n:::\nAfter.", "After."),
        ("a {math}`x`", None),
        ("```{list-table}\n```", None),
        (":::{note}\nnever closed", None),
    ],
)
def test_markdown_is_made_plain(convert, myst, plain):
    if plain is None:
        with pytest.raises(ValueError, match=r"no plain form is known|never closed"):
            convert(myst, "ch01_page")
    else:
        assert convert(myst, "ch01_page") == plain


def test_a_solution_is_folded_and_its_code_marked(convert):
    start = "```{solution-start} ex-1-1\n:class: dropdown\n```\nWhy.\n"
    folded = convert(start, "ch01_page")

    assert convert.solution == "1.1"
    assert folded.startswith("<details>\n<summary>Solution to exercise 1.1</summary>\n\nWhy.\n\n")
    assert convert("```{solution-end}\n```\n\nAfter.", "ch01_page") == "After."
    assert convert.solution == ""


def picture(shade):
    data = io.BytesIO()
    imsave(data, np.full((8, 8, 3), shade, dtype=np.uint8), format="png")
    return base64.b64encode(data.getvalue()).decode()


def notebook(text="one\n", png=None, source="print('one')"):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    if png:
        outputs.append(nbformat.v4.new_output("display_data", {"image/png": png}))
    cell = nbformat.v4.new_code_cell(source, outputs=outputs, id="cell")
    return nbformat.v4.new_notebook(cells=[cell])


def test_notebooks_differ_in_text_exactly_and_in_pictures_to_the_eye():
    same = notebook(png=picture(200))

    assert difference(same, notebook(png=picture(200))) == ""
    assert difference(same, notebook(png=picture(201))) == ""
    assert difference(same, notebook(png=picture(100))) == "cell 0, its output"
    assert difference(same, notebook(text="two\n", png=picture(200))) == "cell 0, its output"
    assert difference(same, notebook()) == "cell 0, its output"
    assert difference(same, notebook(source="1", png=picture(200))) == "cell 0, its text or code"


def test_chunks_of_a_stream_are_joined_and_alternative_text_is_kept():
    chunks = [nbformat.v4.new_output("stream", name="stdout", text=t) for t in ("a\n", "b\n")]
    shown = nbformat.v4.new_output("display_data", {"image/png": picture(0) + "\n"})
    stream, image = without_noise([*chunks, shown], alt="A black square.")

    assert stream.text == "a\nb\n"
    assert image.metadata == {"image/png": {"alt": "A black square."}}
    assert chunks[0].text == "a\n"


def test_only_a_progress_bars_last_state_is_kept():
    chunks = ["start\n  0%\r", " 50%\r", "100%\n", "end"]
    written = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in chunks]

    assert without_noise(written)[0].text == "start\n100%\nend"


def test_timings_may_differ_but_not_their_code():
    old, new = notebook(text="3 ms\n"), notebook(text="4 ms\n")
    assert difference(old, new) == "cell 0, its output"

    for made in (old, new):
        made.cells[0].metadata["tags"] = ["nbval-ignore-output"]
    assert difference(old, new) == ""
    new.cells[0].source += "  # changed"
    assert difference(old, new) == "cell 0, its text or code"


def test_an_old_python_is_turned_away_in_one_sentence(monkeypatch):
    monkeypatch.setattr(make_env.sys, "version_info", (3, 10, 0))
    monkeypatch.setattr(make_env.sys, "argv", ["make_env.py"])

    with pytest.raises(
        SystemExit, match=r"Python 3\.11 or newer is needed, this is .*make PYTHON="
    ):
        make_env.main()


def test_a_failed_install_is_one_sentence(capsys):
    command = [sys.executable, "-c", "print('Requirement already satisfied: x'); exit('pip: no')"]
    with pytest.raises(SystemExit, match="Is there a network"):
        make_env.run(command, "Is there a network?")

    assert "already satisfied" not in capsys.readouterr().out


def test_a_missing_python_is_one_sentence():
    done = subprocess.run(
        ["make", "--no-print-directory", "env", "PYTHON=no-such-python"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode != 0
    assert done.stdout == "no-such-python is missing: install Python 3.11 or newer.\n"


def test_the_book_is_served_as_the_right_types(tmp_path):
    (tmp_path / "a.mjs").write_text("export default 1")
    with (
        serve.serving(tmp_path) as address,
        urllib.request.urlopen(f"{address}/a.mjs") as response,  # noqa: S310 (our own server)
    ):
        kind = response.headers["Content-Type"]

    assert address.startswith("http://127.0.0.1:")
    assert kind == "text/javascript"


def test_a_taken_port_is_no_obstacle(tmp_path):
    with serve.server(tmp_path) as first, serve.server(tmp_path, first.server_port) as second:
        assert second.server_port != first.server_port


def test_data_are_tidied_without_changing_a_number():
    raw = b'"","times","accel"\n"1",2.4,0\n"2",2.6,-1.3\n'

    assert make_data.tidy(raw) == b"time_ms,accel_g\n2.4,0\n2.6,-1.3\n"


def test_a_carrier_with_other_contents_is_refused():
    digest = hashlib.sha256(b"right").hexdigest()

    assert carriers.checked(b"right", digest, "package") == b"right"
    with pytest.raises(SystemExit, match="package carries something else: SHA-256 "):
        carriers.checked(b"wrong", digest, "package")


def test_what_python_compiles_meanwhile_does_not_make_a_book_stale(tmp_path):
    (tmp_path / "src/__pycache__").mkdir(parents=True)
    (tmp_path / "src/thing.py").write_text("answer = 42\n")
    before = build_book.fingerprint(tmp_path, ["src"])
    for name in ("thing.cpython-311.pyc", "thing.cpython-311.pyc.139911"):  # while it is written
        (tmp_path / "src/__pycache__" / name).write_bytes(b"compiled")

    assert build_book.fingerprint(tmp_path, ["src"]) == before
    (tmp_path / "src/thing.py").write_text("answer = 43\n")
    assert build_book.fingerprint(tmp_path, ["src"]) != before
