"""A real Chromium on the built book, with every other host out of reach."""

from contextlib import contextmanager
from pathlib import Path

from chromium import launched

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"
DONE = """([number, text]) => {
  const said = document.querySelector('.live-status')?.textContent ?? '';
  return said.startsWith(`Cell ${number} ${text}`) && !document.querySelector('.live-running');
}"""
# Of a cell: its printed text as it stands, and how many figures.
OUTPUT = """cell => [[...cell.querySelectorAll('.cell_output pre')].map(p => p.textContent)
  .join('').trimEnd(), cell.querySelectorAll('.cell_output img').length]"""
# Tell whether a snapshot of Python was kept; `spoil` one, if wanted.
KEPT = """async (spoil) => {
  const root = await navigator.storage.getDirectory();
  for await (const shelf of root.values()) {
    for await (const handle of shelf.values()) {
      const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
      if (!bytes[0]) continue; // still being written
      if (!spoil) return true;
      if (spoil === "bytes") bytes[bytes.length - 1] ^= 1;
      if (spoil === "table") bytes[0] = 57;
      const file = await handle.createWritable();
      await file.write(bytes);
      await file.close();
      return true;
    }
  }
  return false;
}"""
# From now on, collect what the status line says in `said`.
LISTEN = """() => {
  window.said = [];
  new MutationObserver(() => said.push(document.querySelector('.live-status')?.textContent))
    .observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


@contextmanager
def chromium(**options):
    """Yield a function that opens pages; each has a cache of its own."""
    if not (HTML / "_static/live/pyodide/pyodide-lock.json").exists():
        raise RuntimeError("the built book has no live cells: see the warning of `make book`")
    with launched("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1") as browser:

        def open_page(address, **settings):
            page = browser.new_context(**{**options, **settings}).new_page()
            page.goto(address, wait_until="load")
            page.wait_for_selector(".live-button")
            return LivePage(page)

        yield open_page


class LivePage:
    """A page with live cells, numbered from 1 as their buttons are."""

    def __init__(self, page):
        self.page = page
        self.count = page.locator(".live-button[aria-label^='Run']").count()

    def button(self, word, number):
        return self.page.locator(f".live-button[aria-label='{word} code cell {number}']")

    def cell(self, number):
        return self.page.locator("div.cell", has=self.button("Run", number))

    def number_with_knob(self):
        """Return the number of the first cell that has a knob."""
        label = self.page.locator(".live-knobs + .live-bar .live-button").first
        return int(label.get_attribute("aria-label").split()[-1])

    def output(self, number):
        """Return a cell's output: text as it stands, and how many figures."""
        return self.cell(number).evaluate(OUTPUT)

    def press(self, word, number):
        self.button(word, number).evaluate("button => button.click()")  # folded ones too

    def run(self, number, until="done"):
        """Run a cell, wait for what the status line must say, and return its output."""
        self.page.evaluate("document.querySelector('.live-status')?.replaceChildren()")
        self.press("Run", number)
        self.page.wait_for_function(DONE, arg=[number, until], timeout=90_000)
        return self.output(number)

    def wait_for(self, text):
        self.page.wait_for_function(
            "text => document.querySelector('.live-status')?.textContent.includes(text)",
            arg=text,
            timeout=90_000,
        )

    def edit(self, number, code):
        self.cell(number).locator("textarea").fill(code)
