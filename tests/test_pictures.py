"""Pictures and coloured formulas in a real browser, and in notebooks."""

import io
import re
import subprocess
import sys
from itertools import product

import nbformat
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import HTML, chromium
from PIL import Image
from serve import serving

from attncore import draw
from attncore.draw.colors import COLORS, ROLES

PHONE = {"width": 390, "height": 844}
FRONT = "book/index.html"
COLORED = [
    "book/ch02_scaled_dot_product.html",
    "book/ch04_self_attention.html",
    "book/ch08_kv_cache.html",
]
# Of what a selector finds inside the first picture: one property of each.
STYLES = """([selector, property]) =>
  [...document.querySelectorAll(`svg.ac-picture ${selector}`)]
    .filter(e => e.closest("svg[data-steps]") && e.checkVisibility())
    .map(e => getComputedStyle(e)[property])"""
MATHJAX = "() => MathJax.startup.promise.then(() => true)"


@pytest.fixture(scope="module")
def site():
    with serving(HTML) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def front(browser, site):
    page = browser(f"{site}/{FRONT}").page
    yield page
    page.context.close()


def rgb(color):
    """Return a colour as a browser writes it."""
    return f"rgb({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))})"


def now(page):
    """Return the steps that are lit, and what the stepper says."""
    rows = page.locator("svg.ac-picture .ac-wide .ac-now")
    lit = {row.get_attribute("data-i") for row in rows.all()}
    return lit, page.locator(".picture-steps output").inner_text()


def opacities(page, selector):
    return set(page.evaluate(STYLES, [selector, "opacity"]))


def test_steps_by_mouse(front):
    on, back = (front.locator(f"button[aria-label^='One step {w}']") for w in ("on", "back"))

    assert now(front) == ({"1"}, "坐在 sat on")
    on.click()
    assert now(front) == ({"2"}, "垫子 mat")
    on.click()
    assert now(front) == (set(), "all")
    on.click()
    assert now(front) == (set(), "all")
    for _ in range(4):
        back.click()
    assert now(front) == ({"0"}, "猫 cat")


def test_steps_by_keyboard(front):
    slider = front.locator(".picture-steps input")
    slider.focus()
    front.keyboard.press("ArrowRight")
    assert now(front) == ({"2"}, "垫子 mat")
    assert slider.get_attribute("aria-valuetext") == "垫子 mat"
    front.keyboard.press("End")
    assert now(front) == (set(), "all")
    front.keyboard.press("Home")
    assert now(front) == ({"0"}, "猫 cat")
    front.keyboard.press("Tab")
    front.keyboard.press("Enter")
    assert now(front) == ({"1"}, "坐在 sat on")


def test_pointing_at_a_number_lights_what_belongs_to_it(front):
    everything = opacities(front, ".ac-wide .ac-cell")
    front.hover(".ac-wide .ac-m-query .ac-i0 >> nth=0")

    assert everything == {"1"}
    for role, row in product(("query", "weights"), (0, 1, 2)):
        lit = {"1"} if row == 0 else {"0.2"}
        assert opacities(front, f".ac-wide .ac-m-{role} .ac-i{row}") == lit, (role, row)
    assert opacities(front, ".ac-wide .ac-m-key .ac-cell") == {"1"}
    front.mouse.move(0, 0)
    assert opacities(front, ".ac-wide .ac-cell") == {"1"}


@pytest.mark.parametrize("role", ROLES)
def test_pointing_at_a_symbol_lights_its_matrices(front, role):
    front.evaluate(MATHJAX)
    front.hover(f"mjx-container[display] .ac-sym-{role} >> nth=0")

    for other in ROLES:
        lit = {"1"} if other == role else {"0.2"}
        assert opacities(front, f".ac-wide .ac-m-{other} .ac-cell") == lit, other


@pytest.mark.parametrize("settings", [{}, {"viewport": PHONE}])
def test_text_is_drawn_whether_its_font_comes_early_or_late(browser, site, settings):
    """Chromium leaves it blank: the same text must look the same wherever it stands."""
    page = browser(f"{site}/{FRONT}", **settings).page
    for _ in range(2):
        page.wait_for_timeout(700)
        labels = page.locator("svg[data-steps] text:visible", has_text=re.compile("^猫$")).all()
        dark = [ink(label) for label in labels]

        assert len(dark) == 3
        assert min(dark) > 0
        assert max(dark) - min(dark) <= 0.5 * max(dark)
        page.goto(f"{site}/book/notation.html")
        page.goto(f"{site}/{FRONT}")  # now the font comes from the browser's memory
    page.context.close()


@pytest.mark.parametrize("path", ["ch09_positions", "ch14_many_devices"])
def test_text_of_a_table_is_drawn_when_its_font_comes_late(browser, site, path):
    page = browser(f"{site}/book/{path}.html").page
    page.wait_for_timeout(2000)
    found = {}
    for cell in page.locator("table.ac-table :is(th, td)", has_text="猫").all():
        kind = cell.inner_text(), cell.evaluate("e => getComputedStyle(e).fontWeight")
        found.setdefault(kind, []).append(ink(cell, edge=5))  # without the table's own lines
    page.context.close()

    assert found
    for words, dark in found.items():
        assert min(dark) > 0.8 * max(dark) > 0, words


def ink(label, edge=0):
    """Return how many of a text's pixels are dark, without some lines at both edges."""
    pixels = np.asarray(Image.open(io.BytesIO(label.screenshot())).convert("L"))
    return int((pixels[edge : len(pixels) - edge] < 160).sum())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_and_formulas_have_the_colours_of_the_theme(browser, site, scheme):
    page = browser(f"{site}/{FRONT}", color_scheme=scheme).page
    page.evaluate(MATHJAX)
    for role in ROLES:
        color = rgb(getattr(COLORS[role], scheme))
        symbols = page.locator(f"mjx-container[display] .ac-sym-{role}")

        assert set(page.evaluate(STYLES, [f"text.ac-name.ac-{role}", "fill"])) == {color}
        assert {s.evaluate("e => getComputedStyle(e).color") for s in symbols.all()} == {color}
    page.emulate_media(media="print")
    assert page.evaluate(STYLES, ["text.ac-name.ac-query", "fill"]) == [rgb(COLORS["query"].light)]
    page.context.close()


@pytest.mark.parametrize("name", [FRONT, *COLORED, "book/notation.html"])
def test_formulas_are_whole(browser, site, name):
    page = browser(f"{site}/{name}").page
    page.evaluate(MATHJAX)
    formulas = page.locator("article mjx-container").count()

    assert page.locator("mjx-merror").count() == 0
    assert not re.search(r"\\\\?(query|key|value|weights|class)\b", page.inner_text("body"))
    assert page.locator("article mjx-container > mjx-assistive-mml > math").count() == formulas
    assert page.locator("article mjx-container .ac-sym-query").count() > 0
    page.context.close()


def test_a_heading_and_its_place_in_the_contents_are_coloured(browser, site):
    page = browser(f"{site}/{COLORED[0]}").page
    page.evaluate(MATHJAX)

    assert page.locator("article h2 mjx-math .ac-sym-key").count() == 2
    assert page.locator("#pst-page-navigation-heading-2 ~ * mjx-math .ac-sym-key").count() == 2
    page.context.close()


def test_a_phone_shows_the_tall_layout(browser, site):
    page = browser(f"{site}/{FRONT}", viewport=PHONE).page
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    sizes = page.evaluate("""() => [...document.querySelectorAll("svg.ac-picture .ac-tall text")]
      .map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)""")

    assert page.evaluate(wide) <= 0
    assert page.evaluate(STYLES, [".ac-wide", "display"]) == ["none"]
    assert page.evaluate(STYLES, [".ac-tall", "display"]) == ["inline"]
    assert min(sizes) >= 11
    assert page.locator("a.ac-link:visible").count() == len(list((HTML / "book").glob("ch*.html")))
    page.context.close()


def test_without_scripts_the_printed_step_stays(front):
    page = front.context.browser.new_context(java_script_enabled=False).new_page()
    page.goto(front.url)
    lit = page.locator("svg.ac-picture[data-step='1'] .ac-wide .ac-now")

    assert lit.count() > 0
    assert {row.get_attribute("data-i") for row in lit.all()} == {"1"}
    assert lit.first.is_visible()
    assert page.locator(".picture-steps").count() == 0
    page.context.close()


def test_the_map_leads_to_the_chapters(front):
    front.locator("a.ac-link:visible", has_text="Masks").focus()
    front.keyboard.press("Enter")
    front.wait_for_url("**/ch03_masks.html")


def test_a_run_draws_the_readers_own_numbers(browser, site):
    live = browser(f"{site}/{FRONT}")
    picture = live.cell(1).locator("svg.ac-picture")
    live.run(1)
    assert (picture.count(), live.cell(1).locator(".picture-steps").count()) == (1, 1)
    before = picture.locator(".ac-wide .ac-m-query text").all_text_contents()

    live.cell(1).locator("summary").click()
    code = live.cell(1).locator("textarea").input_value()
    live.edit(1, code.replace("[[0, 1, 1, 1]", "[[0, 1, 1, 9]"))
    live.run(1)
    after = picture.locator(".ac-wide .ac-m-query text").all_text_contents()

    assert (picture.count(), live.cell(1).locator(".picture-steps").count()) == (1, 1)
    assert (before[:5], after[:5]) == (["Q3×4", *"2120"], ["Q3×4", "2", "1", "10", "−8"])
    assert now(live.page) == ({"1"}, "坐在 sat on")
    live.page.context.close()


def test_plots_are_inverted_in_dark_mode_but_not_photographs_and_not_on_paper(browser, site):
    page = browser(f"{site}/book/ch15_vision.html", color_scheme="dark").page
    look = "images => [...new Set(images.map(i => getComputedStyle(i).filter))]"
    every = page.locator(".cell_output img")
    photographs = page.locator(".cell.tag_photo .cell_output img")
    plots = page.locator(".cell:not(.tag_photo) > .cell_output img")

    assert min(photographs.count(), plots.count()) > 0
    assert photographs.evaluate_all(look) == ["none"]
    assert plots.evaluate_all(look) == ["invert(1) hue-rotate(180deg)"]
    page.emulate_media(media="print")
    assert every.evaluate_all(look) == ["none"]
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [FRONT, *COLORED])
def test_axe_finds_nothing(browser, site, name, scheme):
    page = browser(f"{site}/{name}", color_scheme=scheme).page
    page.evaluate(MATHJAX)
    found = Axe().run(page, context={"include": [["article"]]}).response
    problems = [
        (rule["id"], node["target"], node["failureSummary"])
        for rule in found["violations"]
        for node in rule["nodes"]
    ]

    assert problems == []
    assert len(found["passes"]) > 10
    page.context.close()


def test_nbval_fails_when_one_digit_of_a_picture_changes(tmp_path):
    code = "from attncore import draw\n\ndraw.attention([[2.0, 0.0]], [[1.0, 0.0]], [[4.0]])"
    picture = draw.attention([[2.0, 0.0]], [[1.0, 0.0]], [[4.0]])
    right = picture.svg()
    wrong = right.replace(">1.41<", ">1.42<", 1)
    for name, svg in (("right", right), ("wrong", wrong)):
        data = {"image/svg+xml": svg, "text/plain": repr(picture)}
        output = nbformat.v4.new_output("execute_result", data, execution_count=1)
        cell = nbformat.v4.new_code_cell(code, outputs=[output], execution_count=1)
        notebook = nbformat.v4.new_notebook(cells=[cell])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-rf", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert right != wrong
    assert "1 failed, 1 passed" in done.stdout
    assert "FAILED wrong.ipynb" in done.stdout
