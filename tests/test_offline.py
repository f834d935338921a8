"""The book in one zip file: served by its own start.py, or opened as files."""

import re
import subprocess
import sys
import zipfile

import make_offline
import pytest
from browser import HTML, LivePage
from chromium import launched

NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Unpack the zip file into a folder whose name has a space and a letter of its own."""
    folder = tmp_path_factory.mktemp("on a tråin")
    made = make_offline.make(HTML, folder / "book.zip")
    with zipfile.ZipFile(made) as packed:
        assert packed.testzip() is None
        packed.extractall(folder)
    return folder / make_offline.FOLDER


@pytest.fixture(scope="module")
def browser():
    with launched(NO_NETWORK) as opened:
        yield opened


@pytest.fixture(scope="module")
def as_file(browser, unpacked):
    """Return a function that opens a page as a file."""

    def opened(name, query=""):
        page = browser.new_page()
        page.goto((unpacked / "site/book" / name).as_uri() + query)
        return page

    return opened


def test_it_holds_every_page_and_no_more_than_is_needed(unpacked):
    names = {path.relative_to(unpacked / "site").as_posix() for path in unpacked.rglob("*.html")}

    assert names == {path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html")}
    assert not [*unpacked.rglob("*.map"), *unpacked.rglob("*.ttf")]
    assert (unpacked / "READ ME.txt").read_text("utf-8").count("python start.py") == 1


def test_started_with_python_its_cells_run_without_a_network(unpacked, browser):
    start = (unpacked / "start.py").read_text("utf-8")
    without_window = start.replace("webbrowser.open(address)", "pass")
    command = [sys.executable, "-c", without_window.replace("__file__", repr(str(unpacked / "x")))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0]
            page = browser.new_page()
            page.goto(f"{address}/book/ch02_scaled_dot_product.html")
            page.wait_for_selector(".live-button")
            live = LivePage(page)
            shown = live.output(1)
            assert live.run(1) == shown
            page.close()
        finally:
            server.terminate()


def test_opened_as_a_file_a_page_has_formulas_pictures_and_a_way_to_run(as_file):
    page = as_file("ch08_kv_cache.html")
    page.wait_for_selector("mjx-container mjx-math", state="attached")
    page.wait_for_selector(".picture-steps")
    run = page.locator(".live-button[aria-label='Run code cell 1']")
    run.click()
    cell = page.locator("div.cell", has=run)

    assert "python start.py" in cell.locator(".live-status").inner_text()
    assert page.locator(".live-torch").count() == page.locator("div.cell.tag_needs-torch").count()
    steps = page.locator(".picture-steps").first
    before = steps.locator("output").inner_text()
    steps.locator("button").first.click()
    assert steps.locator("output").inner_text() != before
    page.close()


def test_opened_as_a_file_a_knob_shows_what_was_drawn(as_file):
    page = as_file("ch01_kernel_regression.html")
    cell = page.locator("div.cell:has(input[type=range])").first
    cell.wait_for()
    knob = cell.locator("input[type=range]").first
    before = cell.locator(".cell_output").inner_html()
    knob.focus()
    knob.press("ArrowRight")
    page.wait_for_function(
        "([cell, before]) => cell.querySelector('.cell_output').innerHTML !== before",
        arg=[cell.element_handle(), before],
    )

    assert cell.locator(".live-status").all_inner_texts() == [""]
    page.close()


def test_opened_as_a_file_the_search_finds(as_file):
    page = as_file("../search.html", "?q=softmax")
    page.wait_for_selector("#search-results li a")

    assert page.locator("#search-results li a").count() > 5
    page.close()


def test_a_module_that_imports_another_names_it_without_an_address(tmp_path):
    (tmp_path / "live").mkdir()
    (tmp_path / "live/a.mjs").write_text('import { b } from "../b.mjs";\nb();\n', "utf-8")
    (tmp_path / "b.mjs").write_text("export const b = () => 猫;\n", "utf-8")

    assert list(make_offline.modules(tmp_path, ("live/a.mjs",))) == [
        "book/b.mjs",
        "book/live/a.mjs",
    ]
