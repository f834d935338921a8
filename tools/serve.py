"""Serve the built book on 127.0.0.1 and print the address.

python tools/serve.py [PORT]      8000 by default; another free one if it is taken
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    extensions_map: dict[str, str] = {  # noqa: RUF012 (as in the standard library)
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Says nothing of a browser that hangs up, as one does when a page is left."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of any other error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of `folder` on `port`, or on a free port if that one is taken."""
    handler = partial(Quiet, directory=str(folder))
    try:
        return Server(("127.0.0.1", port), handler)
    except OSError:
        return Server(("127.0.0.1", 0), handler)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve `folder` in the background; the value is the address."""
    with server(folder) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def main() -> None:
    """Serve until interrupted."""
    html = ROOT / "_build" / "html"
    if not (html / "index.html").exists():
        sys.exit("There is no book to serve yet: run `make book` first.")
    with server(html, int(sys.argv[1]) if len(sys.argv) > 1 else 8000) as httpd:
        print(
            f"The book is at http://127.0.0.1:{httpd.server_port}  (stop with Ctrl+C)", flush=True
        )
        with suppress(KeyboardInterrupt):
            httpd.serve_forever()


if __name__ == "__main__":
    main()
