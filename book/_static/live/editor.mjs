// A textarea laid over a coloured copy of its text. Editing, undo, selection, screen readers and
// phones are the browser's own; the colours are the theme's, by Pygments' class names.
const KEYWORDS =
  "as assert async await break class continue def del elif else except finally for from global if " +
  "import lambda nonlocal pass raise return try while with yield";
const STRING = `[rbfuRBFU]{0,2}(?:'''[^]*?(?:'''|$)|"""[^]*?(?:"""|$)|'(?:\\\\.|[^'\\\\\\n])*'?|"(?:\\\\.|[^"\\\\\\n])*"?)`;
const KINDS = {
  c1: "#.*",
  s2: STRING,
  mi: "\\b\\d[\\w.]*(?:[eE][+-]?\\d+)?",
  kc: "\\b(?:True|False|None)\\b",
  ow: "\\b(?:and|or|not|in|is)\\b",
  k: `\\b(?:${KEYWORDS.split(" ").join("|")})\\b`,
  o: "[-+*/%@=<>!&|^~]+",
  n: "\\w+",
};
const TOKEN = new RegExp(
  Object.entries(KINDS).map(([kind, form]) => `(?<${kind}>${form})`).join("|"), "g");

// Make an editor inside `host`; Shift+Enter or Ctrl+Enter calls onRun. Without it the text can be
// read, and set, but not edited.
export function makeEditor(host, text, { label, onRun }) {
  const copy = document.createElement("pre");
  const area = document.createElement("textarea");
  copy.setAttribute("aria-hidden", "true");
  area.setAttribute("aria-label", label);
  Object.assign(area, { spellcheck: false, autocapitalize: "off", autocomplete: "off", wrap: "off" });
  area.readOnly = !onRun;
  area.addEventListener("input", () => paint(copy, area.value));
  area.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the theme's shortcuts are not for someone who writes code
    if (event.key !== "Enter" || !onRun) return; // Tab moves on: the keyboard is never trapped
    event.preventDefault();
    if (event.shiftKey || event.ctrlKey || event.metaKey) onRun();
    else insert(area, `\n${indentAfter(area)}`);
  });
  host.append(copy, area);
  const set = (value) => {
    area.value = value;
    paint(copy, value);
  };
  set(text);
  return { get: () => area.value, set };
}

function paint(copy, text) {
  let end = 0;
  copy.replaceChildren();
  for (const match of text.matchAll(TOKEN)) {
    const [kind] = Object.entries(match.groups).find(([, found]) => found !== undefined);
    const token = document.createElement("span");
    token.className = kind;
    token.textContent = match[0];
    copy.append(text.slice(end, match.index), token);
    end = match.index + match[0].length;
  }
  copy.append(`${text.slice(end)}\n`);
}

function indentAfter(area) {
  const line = area.value.slice(0, area.selectionStart).split("\n").at(-1);
  return line.match(/^\s*/)[0] + (/:\s*(#.*)?$/.test(line) ? "    " : "");
}

function insert(area, text) {
  // The deprecated command is the only way that keeps the browser's undo.
  if (!document.execCommand("insertText", false, text)) {
    area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
    area.dispatchEvent(new Event("input"));
  }
}
