"""A real Firefox, by the remote protocol that it has built in (WebDriver BiDi)."""

import json
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from websockets.sync.client import connect

# Without these Firefox asks its maker's servers for updates, and the reader for this and that.
SETTINGS = """
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
"""


@contextmanager
def firefox(program):
    """Yield a window of a fresh Firefox."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        Path(profile, "user.js").write_text(SETTINGS)
        command = [program, "--headless", "--profile", profile, "--remote-debugging-port=0"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                with connect(address(profile), max_size=None) as socket:
                    yield Window(socket)
            finally:
                process.terminate()


def address(profile):
    """Return where Firefox listens, which it writes into its profile once it does."""
    for _ in range(600):
        with suppress(OSError, ValueError):
            told = json.loads(Path(profile, "WebDriverBiDiServer.json").read_text())
            return f"ws://{told['ws_host']}:{told['ws_port']}/session"
        time.sleep(0.1)
    raise RuntimeError("Firefox did not start within 60 s")


class Window:
    """One window: go to a page, and ask it things in JavaScript."""

    def __init__(self, socket):
        self.socket, self.sent = socket, 0
        self.send("session.new", capabilities={})
        self.context = self.send("browsingContext.getTree")["contexts"][0]["context"]

    def send(self, method, **params):
        """Send a command and return its result."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv(timeout=120))).get("id") != self.sent:
            pass  # an event
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
        return answer["result"]

    def goto(self, address):
        self.send("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def ask(self, expression, *arguments):
        """Return the value of a JavaScript expression, which may use `a[0]`, `a[1]`, ..."""
        body = f"const a = {json.dumps(arguments)}; return JSON.stringify(await ({expression}))"
        found = self.send(
            "script.callFunction",
            functionDeclaration=f"async () => {{ {body} }}",
            target={"context": self.context},
            awaitPromise=True,
        )
        if found["type"] == "exception":
            raise RuntimeError(found["exceptionDetails"]["text"])
        return json.loads(found["result"].get("value", "null"))
