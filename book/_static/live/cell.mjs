// One code cell of the page: its buttons, its editor, its output.
import { makeEditor } from "./editor.mjs";
import { findKnobs, makeKnobs } from "./knobs.mjs";
import { Output } from "./output.mjs";

export class Cell {
  #actions;
  #block; // the highlighted code as the book shows it
  #editor = null;
  #alts; // the words of the book's own figures
  #savedOutput;

  constructor(node, number, actions) {
    this.node = node;
    this.number = number;
    this.ranAs = null; // the code that ran last without an error, if nothing above changed since
    this.inBox = node.closest(".exercise, .solution") !== null;
    this.#actions = actions;
    this.#block = node.querySelector(".cell_input div.highlight");
    this.source = this.#block.querySelector("pre").textContent.replace(/\n$/, "");
    this.out = node.querySelector(":scope > .cell_output") ?? element("div", "cell_output docutils container");
    this.#alts = [...this.out.querySelectorAll("img")].map((image) => image.alt);
    this.#savedOutput = [...this.out.childNodes];
    this.#addBar();
    if (!this.out.isConnected) this.bar.after(this.out);
  }

  get code() {
    return this.#editor ? this.#editor.get() : this.source;
  }

  #addBar() {
    this.runButton = this.#button("Run", "▶", () => this.#actions.run(this));
    this.stopButton = this.#button("Stop", "■", () => this.#actions.stop());
    this.resetButton = this.#button("Reset", "↺", () => this.reset());
    this.stopButton.hidden = this.resetButton.hidden = true;
    this.bar = element("div", "live-bar");
    this.bar.append(this.runButton, this.stopButton, this.resetButton);
    // Folded code sits in <details>: the buttons stay outside.
    const input = this.node.querySelector(".cell_input");
    (input.closest("details") ?? input).after(this.bar);
    if (findKnobs(this.source).length) {
      this.knobs = makeKnobs(this.source, (code) => this.#turn(code));
      this.bar.before(this.knobs.node);
    }
  }

  #button(word, sign, action) {
    const button = element("button", "live-button", `${sign} ${word}`);
    button.type = "button";
    button.setAttribute("aria-label", `${word} code cell ${this.number}`);
    button.addEventListener("click", action);
    return button;
  }

  // A knob was moved: put its value into the code, and run that.
  #turn(code) {
    this.makeEditable();
    this.#editor.set(code(this.code));
    this.#actions.run(this, { sketch: true });
  }

  makeEditable() {
    if (this.#editor) return;
    this.#block.querySelector("pre").hidden = true;
    this.#block.querySelector(".copybtn")?.remove();
    const host = this.#block.appendChild(element("div", "live-editor"));
    this.#editor = makeEditor(host, this.source, {
      label: `Code of cell ${this.number}, editable`,
      onRun: () => this.#actions.run(this),
    });
    this.resetButton.hidden = false;
  }

  reset() {
    this.#editor?.set(this.source);
    this.knobs?.reset();
    this.out.replaceChildren(...this.#savedOutput);
    this.ranAs = null;
  }

  showStatus(status, { busy }) {
    this.bar.append(status);
    this.runButton.disabled = busy;
    this.stopButton.hidden = !busy;
  }

  newOutput() {
    this.node.classList.add("live-running");
    this.output = new Output(this.out, {
      // The book's own words describe the book's own figure only.
      alt: (place) => (this.code === this.source ? this.#alts[place] : undefined),
      onEnd: () => this.node.classList.remove("live-running"),
    });
    return this.output;
  }
}

function element(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}
