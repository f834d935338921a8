// Runs Python. Messages in: boot, run, finish, prefetch. Out: progress, ready, failed, done, and what a
// cell writes (stream, text, html, error, figure).
import { bytesOf, guard, importChecked, indexURL, keep, readText, sha256 } from "./assets.mjs";
import { fromKept, fromNetwork, LIBRARY, PYTHON } from "./parts.mjs";
import { recall, store } from "./snapshots.mjs";
import { HOME, IMPORTS, start } from "./start.mjs";

const MODULES = ["pyodide.mjs", "pyodide.asm.mjs"];
const BASE = ["numpy", "attncore"]; // on every page
const HELPERS = ["live_cells.py", "live_figures.py", "figure_words.py"];
const quiet = { messageCallback: () => {}, errorCallback: (text) => postMessage({ type: "progress", text }) };
let python, lock, cells, key, snapshot;
const arrived = {}; // file -> bytes
let awaited; // what the page is told about: which files, what they are for, what comes after them
let told = 0;

async function boot(imports) {
  const helpers = Promise.all(HELPERS.map(async (name) => [name, await readText(`../${name}`)]));
  const list = readText("pyodide-lock.json");
  const manifest = await guard((name, bytes) => {
    arrived[name] = bytes;
    if (awaited?.files.includes(name)) report(awaited);
  });
  const modules = Promise.all(MODULES.map(importChecked));
  const origin = JSON.stringify([manifest, await helpers, IMPORTS, navigator.userAgent]);
  key = await sha256(new TextEncoder().encode(origin));
  lock = JSON.parse(await list);
  const base = withDependencies(BASE);
  const others = withDependencies(packagesOf(imports)).filter((name) => !base.includes(name));
  const kept = await recall(key);
  const wheels = base.map(fileOf);
  const files = [...MODULES, ...others.map(fileOf), ...(kept ? [] : [PYTHON, LIBRARY, ...wheels])];
  awaited = { files, reason: "Python", then: "Starting Python…" };
  const [parts, [{ loadPyodide }, { default: createModule }]] = await Promise.all([
    kept ? fromKept(kept.parts) : fromNetwork(wheels),
    modules,
    keep(others.map(fileOf)),
  ]);
  if (kept) postMessage({ type: "progress", text: "Waking Python…" });
  const options = { indexURL, env: { HOME, MPLBACKEND: "module://live_figures" } };
  ({ python, snapshot } = await start({ loadPyodide, createModule, options }, await helpers, parts, kept));
  base.forEach((name) => (python.loadedPackages[name] = "default channel"));
  if (others.length) await python.loadPackage(others, quiet);
  python.setStdout({ write: writer("stream") });
  python.setStderr({ write: writer("stderr") });
  python.setStdin({ error: true });
  cells = python.pyimport("live_cells");
  awaited = undefined;
  postMessage({ type: "ready" });
}

// Load what a cell needs and no other has needed yet.
async function loadMissing(imports, number) {
  const names = missing(imports);
  if (!names.length) return;
  const files = names.map(fileOf);
  awaited = { files, reason: `what cell ${number} needs`, then: `Running cell ${number}…` };
  try {
    await keep(files);
  } finally {
    awaited = undefined;
  }
  await python.loadPackage(names, quiet);
}

// Unpacking, too, would keep the next Run waiting.
async function prefetch(imports) {
  await keep(missing(imports).map(fileOf));
}

function report({ files, reason, then }) {
  const [done, all] = [files.reduce((sum, name) => sum + (arrived[name] ?? 0), 0), bytesOf(files)];
  if (performance.now() - told < 50 && done < all) return;
  told = performance.now();
  const [some, whole] = [done, all].map((bytes) => (bytes / 1e6).toFixed(1));
  const text = done < all ? `Loading ${reason}: ${some} of ${whole} MB` : then;
  postMessage({ type: "progress", text });
}

const fileOf = (name) => lock.packages[name].file_name;

const missing = (imports) =>
  withDependencies(packagesOf(imports)).filter((name) => !python.loadedPackages[name]);

const packagesOf = (imports) =>
  Object.values(lock.packages)
    .filter((found) => found.imports.some((name) => imports.includes(name)))
    .map((found) => found.name.toLowerCase());

function withDependencies(names, found = new Set()) {
  for (const name of names) {
    if (found.has(name)) continue;
    found.add(name);
    withDependencies(lock.packages[name].depends, found);
  }
  return [...found];
}

// What a cell writes goes out at most ten times a second: a loop that prints cannot drown the page.
let text = "";
let kind = "stream";
let sent = 0;
function flush() {
  if (text) postMessage({ type: "stream", name: kind, text });
  text = "";
  sent = performance.now();
}
let written = 0;
function writer(name) {
  const decoder = new TextDecoder();
  return (bytes) => {
    if (name !== kind) flush();
    kind = name;
    written += bytes.length;
    if (written < 400_000) text += decoder.decode(bytes, { stream: true });
    if (text.length > 16_000 || performance.now() - sent > 100) flush();
    return bytes.length;
  };
}

// live_cells.py sends results through here.
globalThis.send = (type, content) => {
  flush();
  postMessage({ type, ...content });
};

async function run({ code, number, sketch, imports }) {
  written = 0;
  sent = performance.now();
  let ok = false;
  try {
    await loadMissing(imports, number);
    ok = await cells.run(code, number, sketch);
  } catch (problem) {
    flush();
    postMessage({ type: "error", text: String(problem.message ?? problem) });
  }
  flush();
  postMessage({ type: "done", ok });
  if (snapshot) store(key, snapshot);
  snapshot = undefined;
}

function finish() {
  try {
    cells.finish();
  } finally {
    postMessage({ type: "done", ok: true });
  }
}

onmessage = ({ data }) => {
  if (data.type === "boot") {
    boot(data.imports).catch((problem) => postMessage({ type: "failed", text: problem.message }));
  } else if (data.type === "run") {
    run(data);
  } else if (data.type === "finish") {
    finish();
  } else {
    prefetch(data.imports).catch(() => {}); // Run will tell
  }
};
