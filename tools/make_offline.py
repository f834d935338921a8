"""Pack the built book into one zip file that needs no network: _build/attention-book.zip.

    python tools/make_offline.py      after `make book`

In it lies start.py, which serves the book on this machine alone and opens it; then everything works
as on the web. Opened as files, without Python, the pages still have their formulas, search,
pictures with steps and drawn knobs. Browsers load no modules from files: so all modules are put
into one plain script, which gives them to the page as an import map of data addresses.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
ZIP = ROOT / "_build" / "attention-book.zip"
FOLDER = "attention-book"
LEFT_OUT = (".map", ".ttf", "objects.inv", ".buildinfo")
SCRIPT = "_static/offline.js"
ENTRIES = ("pictures.mjs", "progress.mjs", "live/offline.mjs")
IMPORT = re.compile(r'^(import .*?from )"(\.[^"]+)";$', flags=re.M)

START = '''\
"""Start the book: python start.py

It is served on this machine alone, and opened in your browser. Stop it with Ctrl+C.
"""

import functools
import http.server
import pathlib
import webbrowser


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the book's files, and says nothing."""

    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *args):
        """Say nothing."""


site = pathlib.Path(__file__).resolve().parent / "site"
handler = functools.partial(Handler, directory=str(site))
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    address = "http://127.0.0.1:{}/book/index.html".format(server.server_port)
    print("The book is at {}  (stop with Ctrl+C)".format(address), flush=True)
    webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
'''
READ_ME = """\
Attention, from a table to the KV cache

With Python (3.8 or newer, nothing else): python start.py
Everything works then, the cells of code as well, and no network is needed.

Without Python: open site/book/index.html in your browser. The pages, their formulas, the search,
the pictures with steps and the knobs work; cells of code do not run.
"""
RUN = """\
if (location.protocol === "file:") {
  const map = document.createElement("script");
  map.type = "importmap";
  map.textContent = JSON.stringify({ imports: MODULES });
  document.head.append(map);
  document.addEventListener("DOMContentLoaded", () => {
    for (const name of ENTRIES) {
      const entry = document.createElement("script");
      entry.type = "module";
      entry.textContent = `import "${name}";`;
      document.head.append(entry);
    }
  });
}
"""


def modules(static: Path, entries: tuple[str, ...] = ENTRIES) -> dict[str, str]:
    """Return the modules that the entries need, as data addresses by the names they import."""
    found: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue

        def bare(match: re.Match[str], name: str = name) -> str:
            other = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[2]))
            waiting.append(other)
            return f'{match[1]}"book/{other}";'

        text = IMPORT.sub(bare, (static / name).read_text("utf-8"))
        found[name] = "data:text/javascript;base64," + base64.b64encode(text.encode()).decode()
    return {f"book/{name}": data for name, data in sorted(found.items())}


def script(static: Path) -> str:
    """Return the plain script for pages that are opened as files."""
    names = json.dumps([f"book/{name}" for name in ENTRIES])
    return RUN.replace("MODULES", json.dumps(modules(static))).replace("ENTRIES", names)


def files(html: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what the zip file holds: names and contents."""
    yield "start.py", START.encode()
    yield "READ ME.txt", READ_ME.encode()
    yield f"site/{SCRIPT}", script(html / "_static").encode()
    for path in sorted(html.rglob("*")):
        name = path.relative_to(html).as_posix()
        if not path.is_file() or name.endswith(LEFT_OUT) or name == SCRIPT:
            continue
        content = path.read_bytes()
        if path.suffix == ".html":
            up = "../" * name.count("/")
            tag = f'<script src="{up}{SCRIPT}"></script>'
            content = content.replace(b"<head>", f"<head>{tag}".encode(), 1)
        elif name.startswith("_static/live/frames/") and path.suffix == ".json":
            frames = b"document.currentScript.frames = " + content + b";\n"
            yield f"site/{name.removesuffix('json')}js", frames
        yield f"site/{name}", content


def make(html: Path = HTML, target: Path = ZIP) -> Path:
    """Write the zip file; return where it is."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        for name, content in files(html):
            packed.writestr(f"{FOLDER}/{name}", content)
    return target


def main() -> None:
    """Pack, and say how large it is."""
    if not (HTML / "book/index.html").exists():
        sys.exit("There is no book to pack yet: run `make book` first.")
    made = make()
    print(f"{made}: {made.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
