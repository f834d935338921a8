"""Time the live cells in Chromium, and count what they load.

    python benchmarks/live.py

Cold: nothing in the browser's cache. Warm: the page is loaded again, and Python's memory was kept.
Sizes are those of the files after gzip, as a site's host sends them; this machine's server does
not compress.
"""

from __future__ import annotations

import gzip
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

from browser import HTML, LivePage, chromium  # noqa: E402
from serve import serving  # noqa: E402
from tqdm import tqdm  # noqa: E402

RUNS = 5
PAGE = "book/ch03_masks.html"  # its first cell needs NumPy; another draws, and has a slider
PLAIN = "book/notation.html"  # nothing on it draws
KNOB = """([cell, value]) => new Promise(done => {
  const slider = cell.querySelector('.live-knobs input');
  const old = cell.querySelector('.cell_output img').src;
  const begin = performance.now();
  new MutationObserver(() => {
    const image = cell.querySelector('.cell_output img');
    if (image && image.src !== old && image.complete) done(performance.now() - begin);
    else if (image && image.src !== old) image.onload = () => done(performance.now() - begin);
  }).observe(cell, {childList: true, subtree: true});
  slider.value = value;
  slider.dispatchEvent(new Event('input'));
})"""


def seconds(live: LivePage, number: int) -> float:
    """Return the time from the click, in a page at rest, to the cell's output."""
    live.page.wait_for_load_state("networkidle")
    begin = time.perf_counter()
    live.run(number)
    return time.perf_counter() - begin


def megabytes(addresses: list[str], site: str) -> float:
    """Return what the site's host would send for these, gzipped."""
    paths = {HTML / address.removeprefix(site + "/").split("?")[0] for address in addresses}
    return sum(len(gzip.compress(path.read_bytes(), 6)) for path in paths if path.is_file()) / 1e6


def main() -> None:
    """Measure, and print a table."""
    times: dict[str, list[float]] = {}
    sizes: dict[str, float] = {}
    strangers: set[str] = set()
    with serving(HTML) as site, chromium() as open_page:
        for _ in tqdm(range(RUNS)):
            live, asked = open_page(f"{site}/{PAGE}"), []
            live.page.context.on("request", lambda request, to=asked: to.append(request.url))
            times.setdefault("first NumPy output, cold", []).append(seconds(live, 1))
            figure = live.number_with_knob()
            times.setdefault("first figure after that", []).append(seconds(live, figure))
            sizes["a page with figures"] = megabytes(asked, site)
            cell = live.cell(figure).element_handle()
            for value in ("3", "4", "1"):
                spent = live.page.evaluate(KNOB, [cell, value]) / 1000
                times.setdefault("slider to new figure", []).append(spent)
                live.page.wait_for_function("!document.querySelector('.live-running')")
            live.page.reload()
            live.page.wait_for_selector(".live-button")
            times.setdefault("first NumPy output, warm", []).append(seconds(live, 1))
            strangers |= {url for url in asked if not url.startswith((site, "blob:", "data:"))}
            live.page.context.close()
        live, asked = open_page(f"{site}/{PLAIN}"), []
        live.page.context.on("request", lambda request: asked.append(request.url))
        live.run(1)
        sizes["a page with NumPy only"] = megabytes(asked, site)
    for name, found in times.items():
        print(f"{name:26} {statistics.median(found):5.2f} s  (of {len(found)}, "
              f"{min(found):.2f} to {max(found):.2f})")  # fmt: skip
    for name, size in sizes.items():
        print(f"{name:26} {size:5.1f} MB")
    print(f"requests to other hosts    {len(strangers)}")


if __name__ == "__main__":
    main()
