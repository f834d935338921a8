"""A knob that is turned in the browser shows at once what the book has drawn for it."""

import json
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import HTML, chromium
from build_book import pages
from serve import ROOT, serving

CELLS = "div.cell:has(.live-knobs)"
FIGURES = "book/ch02_scaled_dot_product.html"
TURNED = "div.cell:has(.live-knobs:has-text('temperature'))"
TEXT = "book/ch09_positions.html"
TORCH = "book/ch13_language_model.html"
LIST = ROOT / "_build/frames/pages.json"
NAMES = json.loads(LIST.read_text("utf-8")) if LIST.exists() else {}
# Of a cell: its text and its figures, drawn by the book or by Python.
SHOWN = """cell => [...cell.querySelectorAll('.cell_output :is(pre, img, .live-drawing)')].map(
  node => node.shadowRoot?.querySelector('svg').outerHTML ?? node.src ?? node.textContent)"""
# Turn each knob of a cell to both of its ends; tell which of them changed nothing on the page.
TURN = """async cell => {
  const out = cell.querySelector('.cell_output'), failed = [];
  for (const control of cell.querySelectorAll('.live-knobs input, .live-knobs select')) {
    const values = control.options ? [control.options.length - 1, 0] : [control.max, control.min];
    for (const value of values) {
      const changed = new Promise((done) => {
        new MutationObserver(() => done(true)).observe(out, {childList: true});
        setTimeout(() => done(false), 5000);
      });
      if (control.options) control.selectedIndex = value; else control.value = value;
      control.dispatchEvent(new Event('input'));
      if (!(await changed)) failed.push(`${control.parentNode.textContent} ${value}`);
    }
  }
  return failed;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(HTML, folder / "book", copy_function=shutil.copy2)
    with serving(folder) as address:
        yield folder / "book", f"{address}/book/"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def opened(browser, site):
    """Open pages of the site; each gets the list of what it asks for."""
    kept = []

    def open_page(name, **settings):
        live = browser(site[1] + name, **settings)
        kept.append(live)
        live.asked = []
        live.page.on("request", lambda request: live.asked.append(request.url))
        return live

    yield open_page
    for live in kept:
        live.page.context.close()


def python(asked):
    return [url for url in asked if "pyodide" in url or "worker" in url]


def fetched(asked):
    return [url.split("/frames/")[1] for url in asked if "/frames/" in url]


def frame(page, place, *values):
    """Return the messages of a frame, from its file."""
    path = ROOT / "_build/frames" / f"{NAMES[page][place - 1]}.json"
    return json.loads(path.read_text("utf-8"))["frames"]["\n".join(values)]


def wait(live, cell, condition):
    live.page.wait_for_function(f"cell => {{ const out = cell.querySelector('.cell_output'); "
                                f"return {condition}; }}", arg=cell.element_handle())  # fmt: skip


@pytest.mark.parametrize("name", [p.stem for p in pages(ROOT) if NAMES.get(p.stem)])
def test_each_knob_shows_a_frame_at_either_end_and_no_python_is_asked_for(opened, name):
    live = opened(f"book/{name}.html")
    live.page.wait_for_load_state("networkidle")
    early = live.page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    cells = live.page.locator(CELLS)

    assert fetched(early) == []
    assert cells.count() == len(NAMES[name])
    for cell in cells.all():
        before = cell.evaluate(SHOWN)
        assert cell.evaluate(TURN) == []
        assert len(cell.evaluate(SHOWN)) == len(before)
        assert cell.locator(".live-editor pre").inner_text().strip()
        assert not cell.locator(".traceback").count()
    assert python(live.asked) == []
    assert sorted(f for f in fetched(live.asked) if f.endswith("json")) == [
        f"{name}/{place}.json" for place in range(1, cells.count() + 1)
    ]


def test_the_page_stays_as_it_was_and_comes_back(opened):
    live = opened(FIGURES)
    cell = live.page.locator(TURNED)
    own = cell.locator(".cell_output img")
    width, words = own.bounding_box()["width"], own.get_attribute("alt")
    source = own.evaluate("image => image.src")
    slider = cell.locator("input")
    slider.focus()
    live.page.keyboard.press("End")
    wait(live, cell, "out.querySelector('.live-drawing')")
    drawing = cell.locator(".live-drawing")

    assert abs(drawing.bounding_box()["width"] - width) <= 2
    assert drawing.get_attribute("role") == "img"
    assert drawing.get_attribute("aria-label").startswith("Bars in three panels. Scores:")
    assert "temperature = 9.8  #@param" in cell.locator("textarea").input_value()
    assert cell.locator(".live-knobs output").inner_text() == "9.8"
    assert live.page.evaluate("document.fonts.check('10px \"DejaVu Sans\"')")
    assert "frames/dejavu.woff" in " ".join(live.asked)
    for _ in range(22):
        live.page.keyboard.press("ArrowLeft")
    wait(live, cell, f"out.querySelector('.live-drawing')?.ariaLabel === {json.dumps(words)}")
    cell.locator(".live-button", has_text="Reset").click()
    assert cell.locator(".cell_output img").evaluate("image => image.src") == source
    assert "temperature = 1.0  #@param" in cell.locator("textarea").input_value()
    assert python(live.asked) == []


def test_a_turned_torch_cell_shows_what_torch_did_and_cannot_be_edited(opened):
    live = opened(TORCH)
    cell = live.page.locator(f"{CELLS}.tag_needs-torch").first
    shown = cell.evaluate(SHOWN)
    cell.locator("input").fill("256")
    [message] = frame("ch13_language_model", 5, "256")
    wait(live, cell, f"out.textContent === {json.dumps(message['text'])}")

    assert cell.locator("textarea").get_attribute("readonly") is not None
    assert "size = 256  #@param" in cell.locator("textarea").input_value()
    assert cell.locator(".live-button").all_inner_texts() == ["↺ Reset"]
    cell.locator(".live-button").click()
    assert cell.evaluate(SHOWN) == shown
    assert python(live.asked) == []


def test_a_torch_cell_says_when_a_frame_cannot_be_had(opened, site):
    folder = site[0] / "_static/live/frames"
    moved = folder.rename(folder.with_name("away"))
    try:
        live = opened(TORCH)
        cell = live.page.locator(f"{CELLS}.tag_needs-torch").first
        cell.locator("input").fill("256")
        cell.locator(".live-status", has_text="could not be loaded").wait_for()
    finally:
        moved.rename(folder)


def test_edited_code_asks_for_python(opened):
    live = opened(TEXT)
    number = live.number_with_knob()
    cell = live.cell(number)
    cell.locator("input").fill("8")
    wait(live, cell, "out.textContent.includes('0.1')")
    assert python(live.asked) == []
    live.edit(number, cell.locator("textarea").input_value() + "\nprint('mine')")
    cell.locator("input").fill("12")
    live.wait_for("done in")

    assert cell.evaluate(SHOWN)[0].rstrip().endswith("mine")
    assert python(live.asked)


def test_a_file_of_another_version_or_none_asks_for_python(opened, site):
    path = site[0] / "_static/live/frames/ch09_positions/1.json"
    content = path.read_text("utf-8")
    try:
        for other in (content.replace("recovered", "discovered"), "{", None):
            path.unlink() if other is None else path.write_text(other)
            live = opened(TEXT)
            number = live.number_with_knob()
            live.cell(number).locator("input").fill("8")
            live.wait_for("Loading Python")
            assert python(live.asked)
    finally:
        path.write_text(content)


def test_an_edited_cell_above_asks_for_python(opened):
    live = opened(FIGURES)
    live.run(1)
    live.press("Stop", 1)
    live.edit(1, live.cell(1).locator("textarea").input_value() + "\n# mine")
    live.page.evaluate("document.querySelector('.live-status').replaceChildren()")
    cell = live.page.locator(TURNED)
    cell.locator("input").fill("0.2")
    live.wait_for("done in")

    assert cell.locator(".live-drawing").count() == 0
    assert cell.locator("img.live-figure").count() == 1


def test_while_python_is_loaded_frames_answer_and_then_its_own_output(opened):
    live = opened(FIGURES)
    cell = live.page.locator(TURNED)
    label = cell.locator(".live-button", has_text="Run").get_attribute("aria-label")
    number = int(label.split()[-1])
    live.press("Run", number)
    cell.locator("input").fill("9.8")
    wait(live, cell, "out.querySelector('.live-drawing')")
    assert "done" not in live.page.locator(".live-status").inner_text()
    live.wait_for(f"Cell {number} done")

    assert cell.locator(".live-drawing").count() == 0
    assert cell.locator("img.live-figure").count() == 1
    assert "temperature = 9.8  #@param" in cell.locator("textarea").input_value()
    cell.locator("input").fill("5.0")
    live.page.wait_for_function("!document.querySelector('.live-running')")
    assert cell.locator(".live-drawing").count() == 0


@pytest.mark.parametrize(("name", "place", "value"), [("ch09_positions", 1, "8")])
def test_python_in_the_page_prints_what_the_frame_shows(opened, name, place, value):
    live = opened(f"book/{name}.html")
    cell = live.page.locator(CELLS).nth(place - 1)
    cell.locator("input").fill(value)
    wait(live, cell, "true")
    live.page.wait_for_timeout(300)
    drawn = cell.evaluate(SHOWN)
    label = cell.locator(".live-button").first.get_attribute("aria-label")
    shown, _ = live.run(int(label.split()[-1]))

    [message] = frame(name, place, value)
    assert drawn == [message["text"]]
    assert shown == message["text"].rstrip()


def test_without_python_for_the_browser_knobs_show_their_frames(opened, site):
    path = site[0] / FIGURES
    content = path.read_text("utf-8")
    live = opened(FIGURES)
    try:
        path.write_text(content.replace("live/live.mjs", "live/drawn.mjs"), "utf-8")
        live.page.goto(f"{site[1]}{FIGURES}?without")  # not from the cache
        cell = live.page.locator(TURNED)
        cell.locator("input").fill("9.8")
        wait(live, cell, "out.querySelector('.live-drawing')")
    finally:
        path.write_text(content, "utf-8")

    assert (
        live.page.locator(".live-button").all_inner_texts().count("↺ Reset")
        == live.page.locator(CELLS).count()
    )
    assert cell.locator(".live-button").all_inner_texts() == ["↺ Reset"]
    assert cell.locator("textarea").get_attribute("readonly") is not None


DARK = """drawing => {
  const style = getComputedStyle(drawing);
  return [style.filter, style.mixBlendMode];
}"""


def test_dark_mode_inverts_a_drawing_and_leaves_a_photograph(opened):
    for name, photo in ((FIGURES, False), ("book/ch15_vision.html", True)):
        live = opened(name, color_scheme="dark")
        cell = live.page.locator(CELLS).first
        own = cell.locator(".cell_output img").evaluate(DARK)
        cell.evaluate(TURN)

        assert cell.locator(".live-drawing").evaluate(DARK) == own
        assert (own == ["none", "normal"]) == photo


def test_a_phone_does_not_scroll_sideways_and_axe_finds_nothing(opened):
    live = opened(FIGURES, viewport={"width": 390, "height": 844})
    live.page.locator(CELLS).first.evaluate(TURN)
    found = Axe().run(live.page, context={"include": [["article"]]}).response

    assert [(rule["id"], rule["nodes"][0]["target"]) for rule in found["violations"]] == []
    assert live.page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
