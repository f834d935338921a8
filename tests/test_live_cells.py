"""Every live cell of every page prints in the browser what the book shows."""

import re
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
    live, asked = open_page(name), []
    live.page.context.on("request", lambda request: asked.append(request.url))
    drawn = live.page.locator("article svg.ac-picture desc").all_text_contents()
    stored = [live.output(number) for number in range(1, live.count + 1)]
    fresh = [live.run(number) for number in range(1, live.count + 1)]
    codes = live.page.locator("textarea").evaluate_all("areas => areas.map(a => a.value)")
    named = re.findall(r"""\w+(?=\()|(?<=["'])[\w-]+(?=["'])""", "\n".join(codes))
    data = {re.search(r"attncore_data_(?:trained_)?(\w+)-", url) for url in asked} - {None}

    assert live.count >= 2
    assert drawn or any(text for text, _ in stored)
    assert fresh == stored
    assert live.page.locator("article svg.ac-picture desc").all_text_contents() == drawn
    assert {match[1] for match in data} <= set(named)
