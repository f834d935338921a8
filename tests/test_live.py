"""Live cells do what a reader may ask of them, and say so when they cannot."""

import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import HTML, KEPT, LISTEN, chromium
from repository import repository
from serve import ROOT, serving

PAGE = "book/ch02_scaled_dot_product.html"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Serve a copy of the book, which tests may damage, below a sub-path."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(HTML, folder / "project", copy_function=shutil.copy2)
    with serving(folder) as address:
        yield folder / "project", f"{address}/project/"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def live(browser, site):
    opened = browser(site[1] + PAGE)
    yield opened
    opened.page.close()


def test_an_edited_cell_runs_and_resets(live):
    shown = live.output(1)
    assert live.run(1) == shown
    live.edit(1, "x = 6 / 2\nfor i in range(2):\n    print(i, x)\nx + 1")

    assert live.run(1) == ["0 3.0\n1 3.0\n4.0", 0]
    live.press("Reset", 1)
    assert live.output(1) == shown
    assert "print(i, x)" not in live.cell(1).locator("textarea").input_value()


def test_cells_above_run_first_and_again_when_edited(live):
    live.run(3)
    live.edit(1, live.cell(1).locator("textarea").input_value() + "\nprint('edited')")
    live.run(3)

    assert live.output(1)[0].endswith("edited")


def test_an_error_is_short_and_the_next_cell_says_why_it_was_not_run(live):
    live.run(1)
    live.edit(1, "def divide(x):\n    return x / 0\n\ndivide(1)")
    text, _ = live.run(1, until="raised an error")
    live.press("Run", 2)
    live.wait_for("Cell 1 above failed, so cell 2 was not run.")

    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("ZeroDivisionError: division by zero")
    assert "return x / 0" in text
    assert "pyodide" not in text


@pytest.mark.parametrize("loop", ["while True: pass", "while True: print('x' * 99)"])
def test_an_endless_loop_is_stopped_and_the_cell_runs_again(live, loop):
    shown = live.output(1)
    live.run(1)
    live.edit(1, loop)
    live.press("Run", 1)
    live.page.wait_for_timeout(1000)
    live.press("Stop", 1)
    live.wait_for("Stopped.")
    live.press("Reset", 1)

    assert live.run(1) == shown


def test_stop_while_python_is_loading(live):
    shown = live.output(1)
    live.press("Run", 1)
    live.press("Stop", 1)
    live.wait_for("Stopped.")

    assert live.run(1) == shown


def test_by_keyboard_alone(live):
    live.run(1)
    live.cell(1).locator("textarea").focus()
    live.page.keyboard.press("Control+A")
    live.page.keyboard.type("for i in [1]:\nprint(i / 2)")  # the theme's "/" searches
    live.page.evaluate("document.querySelector('.live-status').replaceChildren()")
    live.page.keyboard.press("Shift+Enter")
    live.page.wait_for_function(
        "document.querySelector('.live-status').textContent.includes('done')"
    )
    live.page.keyboard.press("Tab")

    assert live.output(1) == ["0.5", 0]
    assert (
        live.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Run code cell 1"
    )


def test_nothing_is_loaded_before_run_and_nothing_from_elsewhere(browser, site):
    opened = browser(site[1] + PAGE)
    asked = opened.page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    requests = []
    opened.page.context.on("request", lambda request: requests.append(request.url))
    opened.run(1)

    assert not [name for name in asked if "pyodide" in name or "worker" in name]
    assert any("pyodide.asm.wasm" in url for url in requests)
    assert [url for url in requests if not url.startswith((site[1], "blob:", "data:"))] == []


CHECKED = (
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "numpy-*.whl",
    "attncore-*.whl",
)
OURS = ("pyodide-lock.json", "manifest.json", "../live_cells.py")


@pytest.mark.parametrize(
    ("fault", "name"),
    [("missing", name) for name in CHECKED + OURS] + [("corrupt", name) for name in CHECKED],
)
def test_a_bad_asset_is_told(browser, site, fault, name):
    path = next((site[0] / "_static/live/pyodide").glob(name)).resolve()
    content = path.read_bytes()
    opened = browser(site[1] + PAGE)
    try:
        if fault == "missing":
            path.unlink()
        else:
            path.write_bytes(content[:-100] + bytes(100))
        opened.press("Run", 1)
        opened.wait_for("Python could not start: ")
        said = opened.page.locator(".live-status").inner_text()
    finally:
        path.write_bytes(content)
        opened.page.close()

    assert path.name in said
    assert ("HTTP 404" if fault == "missing" else "not the file this book was built with") in said


DRAW = "import random\nimport numpy as np\nprint(np.random.rand(), random.random())"


def start_again(live, spoil=None):
    """Load the page again once a snapshot was kept, run cell 1, and return what was said."""
    for _ in range(100):
        if live.page.evaluate(KEPT, spoil):
            break
        live.page.wait_for_timeout(100)
    else:
        raise AssertionError("no snapshot was kept")
    live.page.reload()
    live.page.wait_for_selector(".live-button")
    live.page.evaluate(LISTEN)
    live.run(1)
    return live.page.evaluate("said.join(' ')")


def test_python_is_woken_from_a_snapshot_and_does_the_same(live):
    stored = [live.output(number) for number in range(1, live.count + 1)]
    live.run(1)

    assert "Waking Python" in start_again(live)
    assert [live.run(number) for number in range(1, live.count + 1)] == stored


def test_every_start_draws_other_numbers(live):
    drawn = set()
    live.run(1)
    for _ in range(3):
        live.edit(1, DRAW)
        live.run(1)
        drawn |= set(live.output(1)[0].split())
        start_again(live)

    assert len(drawn) == 6


@pytest.mark.parametrize("fault", ["bytes", "table"])
def test_a_snapshot_that_does_not_fit_is_thrown_away(live, fault):
    shown = live.run(1)
    said = start_again(live, fault)

    assert ("Waking Python" in said) == (fault == "table")  # the bytes are checked before
    assert live.output(1) == shown
    assert "Waking Python" in start_again(live)  # a new one was kept


def test_two_pages_run_beside_each_other(browser, site):
    pages = [browser(site[1] + PAGE), browser(site[1] + "book/ch01_kernel_regression.html")]
    shown = [page.output(1) for page in pages]
    for page in pages:
        page.press("Run", 1)
    for page in pages:
        page.wait_for("Cell 1 done")

    assert [page.output(1) for page in pages] == shown


def test_a_phone_does_not_scroll_sideways(browser, site):
    opened = browser(site[1] + PAGE, viewport={"width": 390, "height": 844})
    opened.run(2)

    assert opened.page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def test_a_long_line_scrolls_with_its_colours(live):
    live.run(1)
    live.edit(1, f"print(1)  # {'long ' * 60}")
    widths = (
        live.cell(1)
        .locator(".live-editor")
        .evaluate(
            "host => [host.clientWidth, ...[...host.children].map(child => child.offsetWidth)]"
        )
    )

    assert widths[1] == widths[2] > 2 * widths[0]
    assert live.cell(1).locator(".live-editor > pre").evaluate("pre => pre.tabIndex") == -1


def test_a_torch_cell_says_where_it_can_be_run(live):
    bar = live.page.locator(".tag_needs-torch .live-torch").first

    assert "needs torch" in bar.inner_text()
    links = bar.locator("a").evaluate_all("links => links.map(a => a.href)")
    names = bar.locator("a").all_inner_texts()
    assert names == (["Colab", "notebook"] if repository(ROOT)["url"] else ["notebook"])
    assert all(link.startswith("https://colab.research.google.com/") for link in links[:-1])
    assert links[-1].endswith("ch02_scaled_dot_product.ipynb")
    assert live.page.locator(".tag_needs-torch .live-button").count() == 0


def test_without_javascript_the_page_reads_as_before(browser, site):
    page = (
        browser(site[1] + PAGE)
        .page.context.browser.new_context(java_script_enabled=False)
        .new_page()
    )
    page.goto(site[1] + PAGE)

    assert page.locator(".live-button").count() == 0
    assert page.locator(".cell_output pre").first.is_visible()


def wait_for_figure(live, number, old):
    live.page.wait_for_function(
        """([cell, old]) => {
          const image = cell.querySelector('.cell_output img');
          return image && image.src !== old && !cell.classList.contains('live-running');
        }""",
        arg=[live.cell(number).element_handle(), old],
        timeout=90_000,
    )
    return live.cell(number).locator(".cell_output img").first.get_attribute("src")


def test_a_slider_changes_the_code_and_the_figure_by_keyboard(browser, site):
    live = browser(site[1] + "book/ch02_scaled_dot_product.html")
    slider = live.page.locator(".live-knobs input[type=range]").first
    number = live.number_with_knob()
    book = live.cell(number).locator(".cell_output img").first.get_attribute("src")
    live.run(number)  # or what the book has drawn would answer
    own = wait_for_figure(live, number, book)
    slider.focus()
    live.page.keyboard.press("ArrowRight")
    first = wait_for_figure(live, number, own)
    slider.focus()
    live.page.keyboard.press("ArrowRight")
    wait_for_figure(live, number, first)
    code = live.cell(number).locator("textarea").input_value()

    assert "angle = 90  #@param" in code
    assert live.cell(number).locator(".live-knobs output").inner_text() == "90"
    live.press("Reset", number)
    assert "angle = 60  #@param" in live.cell(number).locator("textarea").input_value()
    assert live.cell(number).locator(".live-knobs output").inner_text() == "60"
    assert live.cell(number).locator(".cell_output img").first.get_attribute("src") == book


def test_a_moving_knob_sketches_and_a_resting_one_draws(browser, site):
    live = browser(site[1] + "book/ch02_scaled_dot_product.html")
    number = live.number_with_knob()
    live.run(number)
    image = live.cell(number).locator(".cell_output img").first
    words = image.get_attribute("alt")
    seen = live.cell(number).evaluate_handle(
        """cell => {
          const seen = []; // pixels of a figure, and pixels of the page that it is made for
          const look = image => seen.push([image.naturalWidth, +image.getAttribute('width')]);
          cell.addEventListener('load', event => look(event.target), {capture: true});
          return seen;
        }"""
    )
    for _ in range(2):
        live.page.locator(".live-knobs input[type=range]").first.press("ArrowRight")
    live.page.wait_for_function(
        "seen => seen.length > 1 && seen.at(-1)[0] > 1.5 * seen.at(-1)[1]", arg=seen
    )
    *sketches, (pixels, width) = seen.json_value()

    assert pixels // 2 == width
    assert all(size[0] == size[1] and abs(size[1] - width) <= 2 for size in sketches)
    assert image.get_attribute("alt") != words
    assert live.output(number)[1] == 1
    live.run(number)
    assert live.page.evaluate("seen => seen.at(-1)[0] > 1.5 * seen.at(-1)[1]", seen)


def test_a_choice_changes_the_code(browser, site):
    live = browser(site[1] + "book/ch06_many_heads.html")
    live.run(live.number_with_knob())  # or what the book has drawn would answer
    live.page.evaluate("document.querySelector('.live-status').replaceChildren()")
    live.page.locator(".live-knobs select").select_option('"minilm_tired"')
    live.wait_for("done in")

    codes = live.page.locator("textarea").evaluate_all("areas => areas.map(a => a.value)")
    assert sum('sentence = "minilm_tired"  #@param' in code for code in codes) == 1


def test_every_chapter_has_a_knob_that_is_labelled(browser, site):
    for page in sorted((site[0] / "book").glob("ch0*.html")):
        live = browser(f"{site[1]}book/{page.name}")
        labels = live.page.locator(".live-knobs label")

        assert labels.count() >= 1, page.name
        assert all(text.strip() for text in labels.all_inner_texts())
        live.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_before_and_after_a_run(browser, site, scheme):
    live = browser(site[1] + "book/ch03_masks.html", color_scheme=scheme)
    for _ in range(2):
        found = Axe().run(live.page, context={"include": [["article"]]}).response
        problems = [(rule["id"], rule["nodes"][0]["target"]) for rule in found["violations"]]

        assert problems == []
        assert len(found["passes"]) > 10
        live.run(live.number_with_knob())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_tables_and_pictures(browser, site, scheme):
    live = browser(site[1] + "book/ch10_long_sequences.html", color_scheme=scheme)
    context = {"include": [["table.ac-table"], ["svg.ac-picture"], [".picture-steps"]]}
    found = Axe().run(live.page, context=context).response
    problems = [(rule["id"], rule["nodes"][0]["target"]) for rule in found["violations"]]

    assert problems == []
    assert {"color-contrast", "svg-img-alt"} <= {rule["id"] for rule in found["passes"]}
