"""Every live cell of every page prints in the browser what the book shows."""

from pathlib import Path

import pytest
from browser import HTML, chromium
from build_book import pages
from serve import serving

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def open_page():
    with serving(HTML) as address, chromium() as opened:
        yield lambda name: opened(f"{address}/book/{name}.html")


@pytest.mark.parametrize("name", [page.stem for page in pages(ROOT)])
def test_every_live_cell_prints_what_the_book_shows(open_page, name):
    live = open_page(name)
    stored = [live.output(number) for number in range(1, live.count + 1)]
    fresh = [live.run(number) for number in range(1, live.count + 1)]

    assert live.count >= 2
    assert any(text for text, _ in stored)
    assert fresh == stored
