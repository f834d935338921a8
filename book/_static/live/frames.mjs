// Frames: what a cell shows for each setting of its knobs, drawn when the book was built. They come
// when a reader first reaches for a knob, and serve until Python is there.
import { findKnobs, skeleton } from "./knobs.mjs";

export const MOST = 72; // settings of a cell that are all drawn, as in tools/frames.py
const FONT = '10px "DejaVu Sans"'; // matplotlib's; the size does not matter

const script = document.querySelector("script[data-frames]");

// Whether this build of the book has any.
export const DRAWN = script !== null;

export class Frames {
  #address;
  #file; // a promise of { source, base, frames }, or of null
  #source;

  // `place` tells which of the page's cells with knobs it is, from 1.
  constructor(place, source) {
    const page = location.pathname.split("/").at(-1).replace(/\.html$/, "");
    this.#address = DRAWN && new URL(`./frames/${page}/${place}.json`, script.src);
    this.#source = source;
  }

  // Fetch them, if that was not done yet; the font too, or the first figure would be seen in another.
  load() {
    this.#file ??= Promise.all([read(this.#address), document.fonts.load(FONT)])
      .then(([file]) => file)
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

async function read(address) {
  if (address.protocol === "file:") return readAsScript(address);
  const response = await fetch(address);
  return response.ok ? response.json() : null;
}

// A page that was opened as a file may not fetch, but it may load a script. tools/make_offline.py
// writes one beside each file of frames.
function readAsScript(address) {
  const loader = document.createElement("script");
  loader.src = address.href.replace(/json$/, "js");
  return new Promise((resolve, reject) => {
    loader.onload = () => resolve(loader.frames);
    loader.onerror = reject;
    document.head.append(loader);
  });
}

// The text of an SVG comes in pieces: what other frames have too is told once, in `base`.
function unpacked(message, base) {
  const text = (piece) => (typeof piece === "string" ? piece : base.slice(...piece).join(""));
  return { ...message, svg: message.svg.map(text).join("") };
}
