// Every file that Python needs comes from this site, is counted while it arrives, and must have
// the hash that the book was built with. Nothing that fails is ever run.
const FOLDER = new URL("./pyodide/", import.meta.url);
const plainFetch = globalThis.fetch;
const files = {}; // name -> { bytes, sha256 }, from the manifest
const checks = []; // of files that are used while they arrive
const kept = new Map(); // name -> bytes that were checked and wait to be used

export const indexURL = FOLDER.href;

// Read the manifest; from then on every fetch of this worker is checked.
export async function guard(onBytes) {
  Object.assign(files, (await readJSON("manifest.json")).files);
  globalThis.fetch = async (input, { integrity, ...options } = {}) => {
    const address = input.url ?? String(input);
    const name = nameOf(address);
    if (kept.has(name)) return new Response(take(name));
    // The hash is checked here, where it can be told from a 404. "no-cache" asks whether what is
    // cached is still current, for the names stay when the book changes.
    const response = await get(address, { ...options, cache: "no-cache" });
    if (!files[name]) return response;
    const check = verify(response.clone(), name, onBytes);
    if (name.endsWith(".wasm")) checks.push(check); // compiled meanwhile, run only if right
    else await check;
    return response;
  };
  WebAssembly.instantiateStreaming = async (source, imports) => {
    const module = await WebAssembly.compileStreaming(source);
    await Promise.all(checks);
    return { module, instance: await WebAssembly.instantiate(module, imports) };
  };
}

// Load files before Python starts: once it does, it keeps the worker too busy to tell of a bad one.
export async function loadEarly(names) {
  await Promise.all(names.map(async (name) => {
    const response = await globalThis.fetch(new URL(name, FOLDER));
    kept.set(name, await response.arrayBuffer());
  }));
}

function take(name) {
  const bytes = kept.get(name);
  kept.delete(name);
  return bytes;
}

// Import a module of Pyodide after checking it. The browser's cache gives the second reading.
export async function importChecked(name) {
  const address = new URL(name, FOLDER);
  await globalThis.fetch(address);
  return import(address.href);
}

export async function readJSON(name) {
  return (await get(new URL(name, FOLDER), { cache: "no-cache" })).json();
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

async function verify(response, name, onBytes) {
  const parts = [];
  try {
    for (let reader = response.body.getReader(), part; !(part = await reader.read()).done; ) {
      parts.push(part.value);
      onBytes(part.value.length);
    }
  } catch {
    throw refuse(`${name} broke off while it was loaded`);
  }
  if (!crypto.subtle) throw refuse("the page must come over https to be checked");
  const digest = await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer());
  const found = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== files[name].sha256) throw refuse(`${name} is not the file this book was built with`);
}

// Pyodide may wait for ever for a file that cannot be had: the page is told here.
function refuse(text) {
  postMessage({ type: "failed", text });
  return new Error(text);
}

const nameOf = (address) => new URL(address, FOLDER).pathname.split("/").at(-1);
