"""Photograph built pages in headless Chromium: desktop, phone and dark.

    python tools/screenshots.py OUT [PAGE ...]      PAGE such as book/index; all by default
    python tools/screenshots.py --fold OUT book/index#the-chapters        what a window shows

The Chromium is the tests' own: see tools/chromium.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from chromium import ChromiumMissing, launched
from serve import ROOT, serving

VIEWS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("pages", nargs="*", help="pages without .html; all by default")
    parser.add_argument("--fold", action="store_true", help="only what fits the window")
    options = parser.parse_args()
    html = ROOT / "_build/html"
    pages = options.pages or sorted(f"book/{p.stem}" for p in (html / "book").glob("*.html"))
    options.out.mkdir(parents=True, exist_ok=True)
    with serving(html) as address, launched() as browser:
        for view, settings in VIEWS.items():
            page = browser.new_context(**settings).new_page()
            for name in pages:
                page_name, _, anchor = name.partition("#")
                page.goto(f"{address}/{page_name}.html", wait_until="load")
                page.wait_for_function("!window.MathJax || MathJax.startup?.promise")
                page.evaluate("() => window.MathJax?.startup?.promise")
                if anchor:
                    page.evaluate("id => document.getElementById(id).scrollIntoView()", anchor)
                target = options.out / f"{Path(page_name).name}-{view}.png"
                page.screenshot(path=target, full_page=not options.fold)
                wide = page.evaluate(
                    "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                )
                print(f"{target}{f'  SCROLLS SIDEWAYS by {wide} px' if wide > 0 else ''}")


if __name__ == "__main__":
    try:
        main()
    except ChromiumMissing as problem:
        sys.exit(str(problem))
