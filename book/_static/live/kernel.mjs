// The Python that runs the cells: a web worker, started at the first Run. An endless loop is
// stopped by ending the worker, which needs no special headers from the server.
const WORKER = new URL("./worker.mjs", import.meta.url);

export class Stopped extends Error {}

export class Kernel {
  #worker = null;
  #ready = null;
  #giveUp = null; // rejects whatever is awaited now
  #output = null; // where the running cell writes
  #finish = null;
  ready = false; // Python is there: what it says counts more than what the book has drawn

  constructor({ onProgress }) {
    this.onProgress = onProgress;
  }

  get started() {
    return this.#worker !== null;
  }

  // Start the worker, if need be, with the packages that these codes import.
  start(codes) {
    if (!this.#worker) {
      this.#worker = new Worker(WORKER, { type: "module" });
      this.#ready = new Promise((resolve, reject) => {
        this.#giveUp = reject;
        this.#worker.onerror = (event) =>
          reject(new Error(event.message || "its script worker.mjs could not be loaded"));
        this.#worker.onmessage = ({ data }) => {
          if (data.type !== "ready") return this.#receive(data);
          this.ready = true;
          resolve();
        };
      });
      this.#worker.postMessage({ type: "boot", imports: importedBy(codes) });
    }
    return this.#ready;
  }

  // Run a cell; the answer tells whether it ended without an error.
  // With `sketch` its figures are drawn fast.
  run(code, number, output, { sketch }) {
    return this.#ask({ type: "run", code, number, sketch, imports: importedBy([code]) }, output);
  }

  // Draw the sketched figures well.
  finish(output) {
    return this.#ask({ type: "finish" }, output);
  }

  #ask(message, output) {
    this.#output = output;
    return new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#giveUp = reject;
      this.#worker.postMessage(message);
    });
  }

  // Load, while the reader reads, what other cells will need.
  prefetch(codes) {
    this.#worker?.postMessage({ type: "prefetch", imports: importedBy(codes) });
  }

  stop() {
    this.ready = false;
    this.#worker?.terminate();
    this.#worker = this.#ready = null;
    this.#giveUp?.(new Stopped());
  }

  #receive(data) {
    if (data.type === "progress") this.onProgress(data.text);
    else if (data.type === "failed") this.#giveUp(new Error(data.text));
    else if (data.type === "done") this.#finish(data.ok);
    else this.#output?.add(data);
  }
}

// What the codes import, and what data of attncore they read, to be loaded before they run.
export function importedBy(codes) {
  const found = codes.flatMap((code) => [...code.matchAll(/^\s*(?:from|import)\s+([\w.]+)/gm)]);
  const names = new Set(found.map((match) => match[1].split(".")[0]));
  // attncore.plot imports matplotlib late, and so does what draws with it.
  if (codes.some((code) => /\bimport plot\b|attncore\.plot\b/.test(code))) names.add("matplotlib");
  // Its large data comes apart: whale(...) reads that of whale, trained("vision") of trained.vision.
  for (const code of codes) {
    for (const [, word] of code.matchAll(/\b(\w+)\s*\(/g)) names.add(`attncore.data.${word}`);
    for (const [, , word] of code.matchAll(/(["'])([\w-]+)\1/g)) names.add(`attncore.data.trained.${word}`);
  }
  return [...names];
}
