// What a running cell shows, in the elements and classes of the book's own outputs.
import { addSteps } from "../steps.mjs";

const MOST = 200_000; // characters kept of one cell
const FITTED = "svg { display: block; width: 100%; height: auto }";

export class Output {
  #box;
  #options;
  #size = 0;
  #text = null; // the <pre> that text of the same kind goes on in
  #kind = "";
  #figures = [];
  #fresh = true; // the old output stays until there is something new: nothing jumps

  constructor(box, options) {
    this.#box = box;
    this.#options = options;
  }

  // One message of the worker, or of a frame: stream, text, error, html, svg or figure.
  add(message) {
    if (message.type === "stream") this.#write(message.text, message.name);
    else if (message.type === "text") this.#write(`${message.text}\n`, "text_plain", { apart: true });
    else if (message.type === "error") this.#write(message.text, "traceback", { apart: true });
    else if (message.type === "html") this.#html(message.html);
    else if (message.type === "svg") this.#svg(message);
    else if (message.type === "figure") this.#figure(message);
  }

  // The cell has ended, or was stopped: what it did not replace goes.
  end() {
    if (this.#fresh) this.#box.replaceChildren();
    this.#fresh = false;
    this.#options.onEnd();
  }

  #append(node) {
    if (this.#fresh) this.#box.replaceChildren();
    this.#fresh = false;
    this.#box.append(node);
    return node;
  }

  #write(text, kind, { apart = false } = {}) {
    if (this.#size > MOST) return;
    this.#size += text.length;
    if (this.#size > MOST) text = `${text.slice(0, 1000)}\n… the rest of the output is cut\n`;
    if (apart || !this.#text || this.#kind !== kind) {
      const block = document.createElement("div");
      block.className = `output ${kind} highlight-myst-ansi notranslate`;
      const inner = block.appendChild(document.createElement("div"));
      inner.className = "highlight";
      this.#text = inner.appendChild(document.createElement("pre"));
      this.#append(block);
      this.#kind = apart ? "" : kind;
    }
    this.#text.append(text);
  }

  #html(html) {
    const block = this.#append(document.createElement("div"));
    block.className = "output text_html";
    block.innerHTML = html;
    this.#text = null;
    globalThis.MathJax?.typesetPromise?.([block]);
  }

  // A picture of attncore.draw stands in the page, which has its style sheet. A figure of matplotlib has
  // styles and ids of its own, which must not meet the page's: it gets a tree for itself.
  #svg({ svg, width, alt }) {
    if (/^<svg[^>]* class="ac-picture/.test(svg)) return this.#picture(svg);
    const box = document.createElement("div");
    box.className = "live-figure live-drawing";
    box.style.width = `${width}px`; // as wide as the book's own: nothing jumps
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", this.#options.alt(this.#figures.length) ?? alt);
    box.attachShadow({ mode: "open" }).innerHTML = `<style>${FITTED}</style>${svg}`;
    this.#figures.push(this.#append(box));
    this.#text = null;
  }

  #picture(svg) {
    const block = this.#append(document.createElement("div"));
    block.className = "output";
    block.innerHTML = svg;
    block.querySelectorAll("style").forEach((sheet) => sheet.remove());
    block.querySelectorAll("svg[data-steps]").forEach(addSteps);
    this.#text = null;
  }

  // A figure with a place is one that is here already, drawn better.
  #figure({ bytes, width, alt, place }) {
    const image = this.#figures[place] ?? document.createElement("img");
    image.width = width;
    const address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    image.onload = () => URL.revokeObjectURL(address);
    image.src = address;
    if (place !== undefined) return;
    image.className = "live-figure";
    image.alt = this.#options.alt(this.#figures.length) ?? alt;
    this.#figures.push(this.#append(image));
    this.#text = null;
  }
}
