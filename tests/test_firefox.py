"""The live cells work in Firefox too."""

import shutil
import time

import pytest
from browser import HTML, KEPT, LISTEN, OUTPUT
from firefox import firefox
from serve import serving

PAGE = "book/ch02_scaled_dot_product.html"
CELLS = "[...document.querySelectorAll('div.cell')].filter(c => c.querySelector('.live-button'))"
STATUS = "document.querySelector('.live-status')?.textContent ?? ''"


@pytest.fixture(scope="module")
def live():
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip(
            "FIREFOX IS MISSING, so the live cells were not tried in it: "
            "on Debian, apt-get install firefox-esr"
        )
    with serving(HTML) as site, firefox(program) as window:
        yield Page(window, f"{site}/{PAGE}")


class Page:
    """A page with live cells, numbered from 0."""

    def __init__(self, window, address):
        self.window, self.address, self.ask = window, address, window.ask

    def open(self):
        """Load the page; return how many live cells it has."""
        self.window.goto(self.address)
        return self.wait(f"{CELLS}.length", bool)

    def wait(self, expression, enough):
        """Return what an expression is, once it is enough."""
        for _ in range(1800):
            if enough(found := self.ask(expression)):
                return found
            time.sleep(0.05)
        raise AssertionError(f"after 90 s: {found}")

    def press(self, word, number):
        button = f".live-button[aria-label^={word}]"
        self.ask(f"{CELLS}[a[0]].querySelector('{button}').click()", number)

    def output(self, number):
        return self.ask(f"({OUTPUT})({CELLS}[a[0]])", number)

    def run(self, number):
        self.ask("document.querySelector('.live-status')?.replaceChildren()")
        self.press("Run", number)
        self.wait(STATUS, lambda text: "done" in text or "raised" in text)
        self.wait("document.querySelector('.live-running') === null", bool)
        return self.output(number)


def test_every_cell_prints_what_the_book_shows(live):
    count = live.open()
    stored = [live.output(number) for number in range(count)]

    assert count > 5
    assert [live.run(number) for number in range(count)] == stored


def test_python_is_woken_from_a_snapshot(live):
    live.open()
    shown = live.run(0)
    live.wait(f"({KEPT})()", bool)
    live.open()
    live.ask(f"({LISTEN})()")

    assert live.run(0) == shown
    assert "Waking Python" in live.ask("said.join()")


def test_an_endless_loop_is_stopped(live):
    live.open()
    shown = live.run(0)
    live.ask(f"""(area => (area.value = 'while True: pass', area.dispatchEvent(new Event('input'))))
        ({CELLS}[0].querySelector('textarea'))""")
    live.press("Run", 0)
    time.sleep(1)
    live.press("Stop", 0)
    live.wait(STATUS, lambda text: text.startswith("Stopped."))
    live.press("Reset", 0)

    assert live.run(0) == shown
