// Frames: what a cell shows for each setting of its knobs, drawn when the book was built. They come
// when a reader first reaches for a knob, and serve until Python is there.
import { findKnobs, skeleton } from "./knobs.mjs";

export const MOST = 72; // settings of a cell that are all drawn, as in tools/frames.py
const FONT = '10px "DejaVu Sans"'; // matplotlib's; the size does not matter

// Whether this build of the book has any.
export const DRAWN = document.querySelector("script[data-frames]") !== null;

export class Frames {
  #address;
  #file; // a promise of { source, base, frames }, or of null
  #source;

  // `place` tells which of the page's cells with knobs it is, from 1.
  constructor(place, source) {
    const page = location.pathname.split("/").at(-1).replace(/\.html$/, "");
    this.#address = new URL(`./frames/${page}/${place}.json`, import.meta.url);
    this.#source = source;
  }

  // Fetch them, if that was not done yet; the font too, or the first figure would be seen in another.
  load() {
    this.#file ??= Promise.all([fetch(this.#address), document.fonts.load(FONT)])
      .then(([response]) => (response.ok ? response.json() : null))
      .catch(() => null);
    return this.#file;
  }

  // The messages that this code would send, or undefined if they are not known: the code was
  // edited, or the file is of another version of the page.
  async of(code) {
    const file = DRAWN ? await this.load() : null;
    if (file?.source !== this.#source || skeleton(code) !== skeleton(this.#source)) return undefined;
    const frame = file.frames[findKnobs(code).map((knob) => knob.value).join("\n")];
    return frame?.map((message) => (message.type === "svg" ? unpacked(message, file.base) : message));
  }
}

// The text of an SVG comes in pieces: what other frames have too is told once, in `base`.
function unpacked(message, base) {
  const text = (piece) => (typeof piece === "string" ? piece : base.slice(...piece).join(""));
  return { ...message, svg: message.svg.map(text).join("") };
}
