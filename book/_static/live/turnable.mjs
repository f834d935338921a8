// A code cell of the page that can be turned: its code, its knobs, its output. Without Python it
// shows what the book has drawn for its knobs, and only that.
import { makeEditor } from "./editor.mjs";
import { DRAWN, Frames, MOST } from "./frames.mjs";
import { countSettings, findKnobs, makeKnobs, skeleton } from "./knobs.mjs";
import { Output } from "./output.mjs";

export class Turnable {
  #block; // the highlighted code as the book shows it
  #editor = null;
  #alts; // the words of the book's own figures
  #savedOutput;
  #frames;
  #label;
  #onTurn;
  #onRun;

  // `label` names it; `onTurn` is called when a knob was turned, `onRun` when its code is to be run.
  constructor(node, { label = "this cell", onTurn = () => this.#showOrSay(), onRun } = {}) {
    this.node = node;
    this.#label = label;
    this.#onTurn = onTurn;
    this.#onRun = onRun;
    this.#block = node.querySelector(".cell_input div.highlight");
    this.source = sourceOf(node);
    this.out = node.querySelector(":scope > .cell_output") ?? element("div", "cell_output docutils container");
    this.#alts = [...this.out.querySelectorAll("img")].map((image) => image.alt);
    this.#savedOutput = [...this.out.childNodes];
    this.resetButton = this.button("Reset", "↺", () => this.reset());
    this.resetButton.hidden = true;
    this.bar = element("div", "live-bar");
    this.bar.append(this.resetButton);
    // Folded code sits in <details>: the buttons stay outside.
    const input = node.querySelector(".cell_input");
    (input.closest("details") ?? input).after(this.bar);
    if (!this.out.isConnected) this.bar.after(this.out);
  }

  button(word, sign, action) {
    const button = element("button", "live-button", `${sign} ${word}`);
    button.type = "button";
    button.setAttribute("aria-label", `${word} ${this.#label}`);
    button.addEventListener("click", action);
    return button;
  }

  // Give the cell its knobs; it is the page's cell with knobs of this number.
  addKnobs(place) {
    this.knobs = makeKnobs(this.source, (code) => this.#turn(code));
    this.bar.before(this.knobs.node);
    this.#frames = new Frames(place, this.source);
    if (!DRAWN) return;
    for (const touch of ["pointerenter", "touchstart", "focusin"]) {
      this.knobs.node.addEventListener(touch, () => this.#frames.load(), { once: true, passive: true });
    }
  }

  get code() {
    return this.#editor ? this.#editor.get() : this.source;
  }

  // Whether something else than the values of its knobs was changed.
  get edited() {
    return skeleton(this.code) !== skeleton(this.source);
  }

  // A knob was moved: put its value into the code, and show what comes of it.
  #turn(code) {
    this.makeEditable();
    this.#editor.set(code(this.code));
    this.#onTurn();
  }

  // Show what the book has drawn for the code as it is; tell whether there is such a frame. Between
  // a knob's move and its frame the knob may have moved on, and Python may have come: `stale` tells.
  async showFrame(stale = () => false) {
    const code = this.code;
    const messages = await this.#frames.of(code);
    if (!messages || stale()) return false;
    if (code === this.code) {
      const output = new Output(this.out, this.outputOptions);
      for (const message of messages) output.add(message);
      output.end();
    }
    return true;
  }

  async #showOrSay() {
    const note = this.bar.querySelector(".live-status") ?? this.bar.appendChild(element("span", "live-status"));
    note.setAttribute("role", "status");
    const shown = await this.showFrame();
    note.textContent = shown ? "" : "What this setting shows could not be loaded.";
  }

  get outputOptions() {
    // The book's own words describe the book's own figure only.
    return { alt: (place) => (this.code === this.source ? this.#alts[place] : undefined), onEnd() {} };
  }

  makeEditable() {
    if (this.#editor) return;
    this.#block.querySelector("pre").hidden = true;
    this.#block.querySelector(".copybtn")?.remove();
    const host = this.#block.appendChild(element("div", "live-editor"));
    this.#editor = makeEditor(host, this.source, {
      label: `Code of ${this.#label.replace("code ", "")}${this.#onRun ? ", editable" : ""}`,
      onRun: this.#onRun,
    });
    this.resetButton.hidden = false;
  }

  reset() {
    this.#editor?.set(this.source);
    this.knobs?.reset();
    this.out.replaceChildren(...this.#savedOutput);
  }
}

// The page's code cells whose code is shown.
export const codeCells = () =>
  [...document.querySelectorAll("div.cell")].filter((node) => node.querySelector(".cell_input div.highlight pre"));

const sourceOf = (node) => node.querySelector(".cell_input div.highlight pre").textContent.replace(/\n$/, "");

// Give knobs to the cells that declare some: `cells` are those with Python, by their nodes. Others
// get theirs only if there is a frame for every setting.
export function addKnobs(cells = new Map()) {
  codeCells().filter((node) => findKnobs(sourceOf(node)).length).forEach((node, place) => {
    if (!cells.has(node) && !(DRAWN && countSettings(sourceOf(node)) <= MOST)) return;
    (cells.get(node) ?? new Turnable(node)).addKnobs(place + 1);
  });
}

export function element(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}
