// Every file that Python needs comes from this site, is counted while it arrives, and must have
// the hash that the book was built with. Nothing that fails is ever run.
const FOLDER = new URL("./pyodide/", import.meta.url);
const plainFetch = globalThis.fetch;
const files = {}; // name -> { bytes, sha256 }, from the manifest
const kept = new Map(); // name -> promise of bytes that were checked and wait to be used
let countBytes;

export const indexURL = FOLDER.href;

// Read and return the manifest; from then on every fetch of this worker is checked. `onBytes` is
// told how much of which file has arrived.
export async function guard(onBytes) {
  countBytes = onBytes;
  const manifest = JSON.parse(await readText("manifest.json"));
  Object.assign(files, manifest.files);
  globalThis.fetch = async (input) => {
    const address = input.url ?? String(input);
    const name = nameOf(address);
    if (!files[name]) return get(address);
    const bytes = kept.get(name) ?? load(name);
    kept.delete(name);
    return new Response(await bytes);
  };
  return manifest;
}

// Load files before they are asked for. Once Python starts, it keeps the worker too busy to tell
// of a bad one.
export function keep(names) {
  return Promise.all(names.map(async (name) => {
    if (!kept.has(name)) kept.set(name, load(name));
    try {
      return await kept.get(name);
    } catch (problem) {
      kept.delete(name); // the next Run tries again
      throw problem;
    }
  }));
}

// Let these bytes be the answer when the file is asked for next.
export function give(name, bytes) {
  kept.set(name, Promise.resolve(bytes));
}

// Import a module of Pyodide after checking it. The browser's cache gives the second reading.
export async function importChecked(name) {
  await load(name);
  return import(new URL(name, FOLDER).href);
}

export async function readText(name) {
  return (await get(new URL(name, FOLDER), { cache: "no-cache" })).text();
}

export const bytesOf = (names) => names.reduce((sum, name) => sum + (files[name]?.bytes ?? 0), 0);

async function get(address, options) {
  const name = nameOf(address);
  let response;
  try {
    response = await plainFetch(address, options);
  } catch {
    throw refuse(`${name} could not be loaded; is there a network?`);
  }
  if (!response.ok) throw refuse(`${name} could not be loaded (HTTP ${response.status})`);
  return response;
}

// "no-cache" asks whether what is cached is still current: names stay when the book changes.
export async function load(name) {
  const response = await get(new URL(name, FOLDER), { cache: "no-cache" });
  const bytes = new Uint8Array(files[name].bytes);
  let length = 0;
  try {
    for (let reader = response.body.getReader(), part; !(part = await reader.read()).done; ) {
      if (length + part.value.length <= bytes.length) bytes.set(part.value, length);
      length += part.value.length;
      countBytes(name, length);
    }
  } catch {
    throw refuse(`${name} broke off while it was loaded`);
  }
  // The hash is checked here, where it can be told from a 404.
  if (length !== bytes.length || (await sha256(bytes)) !== files[name].sha256) {
    throw refuse(`${name} is not the file this book was built with`);
  }
  return bytes;
}

export async function sha256(bytes) {
  if (!crypto.subtle) throw refuse("the page must come over https to be checked");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Pyodide may wait for ever for a file that cannot be had: the page is told here.
function refuse(text) {
  postMessage({ type: "failed", text });
  return new Error(text);
}

const nameOf = (address) => new URL(address, FOLDER).pathname.split("/").at(-1);
