"""Time the live cells and knobs in Chromium, the language model too, and count what they load.

    python benchmarks/live.py

Cold: nothing in the browser's cache. Warm: the page is loaded again, and Python's memory was kept.
Sizes are those of the files after gzip, as a site's host sends them; this machine's server does
not compress. A loaded machine only makes it slower: every wait is bounded, a run in which one
ends without what it waited for is left out, and the table says so.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

from browser import HTML, LivePage, chromium  # noqa: E402
from playwright.sync_api import Error  # noqa: E402
from serve import serving  # noqa: E402
from tqdm import tqdm  # noqa: E402

RUNS = 5
LONGEST = 30  # seconds to wait for a page to come to rest, and for a figure
PAGE = "book/ch03_masks.html"  # its first cell needs NumPy; another draws, and has a slider
DRAWN = "book/ch02_scaled_dot_product.html"  # its slider has 25 values, each with a figure
TURNS = 4  # of a knob on a fresh page, after the first
PLAIN = "book/notation.html"  # nothing on it draws, or reads data that comes apart
WHALE = """import json, statistics, time
import numpy as np
from attncore.models import whale
model, rng = whale(), np.random.default_rng(0)
tokens = rng.integers(len(model.characters), size=(1, 160))
found = {}
def timed(name, call, *inputs, tokens=1, **options):
    begin = time.perf_counter()
    call(*inputs, **options)
    found.setdefault(name, []).append((time.perf_counter() - begin) * 1e3 / tokens)
for _ in range(5):
    caches = model.new_caches()
    timed("whale: 64 tokens at once", model, tokens[:, :64], caches)
    model(tokens[:, 64:128], caches)
    for t in range(128, 148):
        timed("whale: a token after 128", model, tokens[:, t : t + 1], caches)
for _ in range(3):
    timed("whale: one of 200 letters", model.generate, tokens[:, :1], 200, tokens=200,
          temperature=0.8, top_p=0.9, generator=rng)
print(json.dumps({name: statistics.median(times) for name, times in found.items()}))
"""
KNOB = """([cell, value, longest]) => new Promise((done, failed) => {
  setTimeout(() => failed(new Error(`no new figure after ${longest} seconds`)), 1000 * longest);
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

FRAME = """([cell, value, longest]) => new Promise((done, failed) => {
  setTimeout(() => failed(new Error(`no new frame after ${longest} seconds`)), 1000 * longest);
  const slider = cell.querySelector('.live-knobs input');
  const begin = performance.now();
  const painted = () => requestAnimationFrame(() => {
    const channel = new MessageChannel(); // its message comes when the frame was painted
    channel.port1.onmessage = () => done(performance.now() - begin);
    channel.port2.postMessage('');
  });
  new MutationObserver((_, observer) => (observer.disconnect(), painted()))
    .observe(cell.querySelector('.cell_output'), {childList: true});
  slider.value = value;
  slider.dispatchEvent(new Event('input'));
})"""


def at_rest(live: LivePage) -> None:
    """Wait until the page loads nothing more: what it still loads would be timed too.

    On a loaded machine that may never come; a click then takes longer, and that is measured.
    """
    try:
        live.page.wait_for_load_state("networkidle", timeout=1000 * LONGEST)
    except Error:
        tqdm.write(f"the page still loads after {LONGEST} seconds: timed all the same", sys.stderr)


def seconds(live: LivePage, number: int) -> float:
    """Return the time from the click, in a page at rest, to the cell's output."""
    at_rest(live)
    begin = time.perf_counter()
    live.run(number)
    return time.perf_counter() - begin


def megabytes(addresses: list[str], site: str) -> float:
    """Return what the site's host would send for these, gzipped."""
    paths = {HTML / address.removeprefix(site + "/").split("?")[0] for address in addresses}
    return sum(len(gzip.compress(path.read_bytes(), 6)) for path in paths if path.is_file()) / 1e6


def measure(open_page: Callable[[str], LivePage], site: str, asked: list[str]) -> dict[str, Any]:
    """Return what one run found: times by name, and `megabytes`; `asked` gets all addresses."""
    live = open_page(f"{site}/{PAGE}")
    try:
        live.page.context.on("request", lambda request: asked.append(request.url))
        found: dict[str, Any] = {"first NumPy output, cold": [seconds(live, 1)]}
        figure = live.number_with_knob()
        found["first figure after that"] = [seconds(live, figure)]
        found["megabytes"] = megabytes(asked, site)
        cell = live.cell(figure).element_handle()
        found["slider to new figure"] = []
        for value in ("3", "4", "1"):
            spent = live.page.evaluate(KNOB, [cell, value, LONGEST]) / 1000
            found["slider to new figure"].append(spent)
            live.page.wait_for_function("!document.querySelector('.live-running')")
        live.page.reload()
        live.page.wait_for_selector(".live-button")
        found["first NumPy output, warm"] = [seconds(live, 1)]
        return found
    finally:
        live.page.context.close()


def measure_frames(open_page: Callable[[str], LivePage], site: str) -> dict[str, list[float]]:
    """Return milliseconds from a knob's move to the painted frame, with no Python loaded."""
    found: dict[str, list[float]] = {"a knob's first move": [], "a knob to painted frame": []}
    for _ in range(RUNS):
        live = open_page(f"{site}/{DRAWN}")
        at_rest(live)
        cell = live.cell(live.number_with_knob()).element_handle()
        times = [live.page.evaluate(FRAME, [cell, f"{v}", LONGEST]) for v in range(2, 3 + TURNS)]
        for name, spent in zip(found, (times[:1], times[1:]), strict=True):
            found[name] += spent
    return found


def measure_plain(open_page: Callable[[str], LivePage], site: str) -> float:
    """Return the megabytes that a page without figures loads for its first cell."""
    live, asked = open_page(f"{site}/{PLAIN}"), []
    live.page.context.on("request", lambda request: asked.append(request.url))
    live.run(1)
    return megabytes(asked, site)


def measure_whale(
    open_page: Callable[[str], LivePage], site: str
) -> tuple[dict[str, float], float]:
    """Return milliseconds by name, and the megabytes that a page loads for the model alone."""
    live, asked = open_page(f"{site}/{PLAIN}"), []
    live.page.context.on("request", lambda request: asked.append(request.url))
    live.run(1)
    live.edit(1, WHALE)
    text, _ = live.run(1)
    return json.loads(text), megabytes(asked, site)


def attempt(call: Callable[..., Any], *inputs: Any) -> Any:
    """Return what a call finds, or None, and say why, if the browser did not get there."""
    try:
        return call(*inputs)
    except Error as error:
        tqdm.write(f"left out: {error.message.splitlines()[0]}", sys.stderr)
        return None


def table(
    runs: list[dict[str, Any] | None],
    frames: dict[str, list[float]] | None,
    plain: float | None,
    whale: tuple[dict[str, float], float] | None,
    strangers: set[str],
) -> str:
    """Return the lines to print."""
    found, lines = [run for run in runs if run], []
    if fewer := len(runs) - len(found):
        lines.append(f"left out: {fewer} of {len(runs)} runs that did not get to the end in time")
    for name in found[0] if found else ():
        if name != "megabytes":
            times = [spent for run in found for spent in run[name]]
            lines.append(f"{name:26} {statistics.median(times):5.2f} s  (of {len(times)}, "
                         f"{min(times):.2f} to {max(times):.2f})")  # fmt: skip
    if found:
        lines.append(f"{'a page with figures':26} {found[-1]['megabytes']:5.1f} MB")
    for name, times in (frames or {}).items():
        lines.append(f"{name:26} {statistics.median(times):5.0f} ms (of {len(times)}, "
                     f"{min(times):.0f} to {max(times):.0f}; no Python loaded)")  # fmt: skip
    if plain is not None:
        lines.append(f"{'a page with NumPy only':26} {plain:5.1f} MB")
    if whale is not None:
        times, size = whale
        lines.append(f"{'a page with the model':26} {size:5.1f} MB")
        lines += [f"{name:26} {spent:5.1f} ms" for name, spent in times.items()]
    return "\n".join([*lines, f"requests to other hosts    {len(strangers)}"])


def main() -> None:
    """Measure, and print a table."""
    asked: list[str] = []
    with serving(HTML) as site, chromium() as open_page:
        runs = []
        for _ in tqdm(range(RUNS)):
            addresses: list[str] = []
            runs.append(attempt(measure, open_page, site, addresses))
            asked += addresses
        frames = attempt(measure_frames, open_page, site)
        plain = attempt(measure_plain, open_page, site)
        whale = attempt(measure_whale, open_page, site)
    strangers = {url for url in asked if not url.startswith((site, "blob:", "data:"))}
    print(table(runs, frames, plain, whale, strangers))


if __name__ == "__main__":
    main()
