// Starts Pyodide with NumPy and attncore in place. The first time they are imported, which takes
// most of a start, and a snapshot of Python's memory is taken; later it is put back.
import { give } from "./assets.mjs";
import { LIBRARY } from "./parts.mjs";
import { forget } from "./snapshots.mjs";

// What a cell imports first, and what runs cells. A snapshot of other imports is of no use.
export const IMPORTS = "import linecache, traceback, numpy.random, attncore, live_cells";
const RESEED = "import random; random.seed(); numpy.random.seed()"; // or each start would draw the same
export const HOME = "/home/pyodide"; // the folder of the reader's own files

// Return { python, snapshot }. With `kept`, a snapshot of an earlier start, there is none to keep.
// `helpers` are [name, text] of Python files beside the reader's own.
export async function start(pyodide, helpers, ready, kept) {
  if (kept) {
    try {
      const { python } = await begin(pyodide, helpers, ready, kept);
      python.runPython(RESEED);
      return { python };
    } catch {
      await forget(); // of another browser, perhaps: start as if there were none
    }
  }
  const { python, table } = await begin(pyodide, helpers, ready);
  python.runPython(IMPORTS);
  const known = { ...python.loadedPackages };
  for (const name in known) delete python.loadedPackages[name]; // what a fresh Python knows
  const memory = python.makeMemorySnapshot();
  Object.assign(python.loadedPackages, known);
  return { python, snapshot: { memory, table, parts: ready.parts } };
}

async function begin({ loadPyodide, createModule, options }, helpers, ready, kept) {
  let table;
  give(LIBRARY, ready.library);
  WebAssembly.instantiateStreaming = async (_, imports) => {
    return { module: ready.module, instance: await WebAssembly.instantiate(ready.module, imports) };
  };
  const createPyodideModule = (settings) => {
    settings.preRun.push((module) => {
      table = place(module, ready);
      for (const [name, text] of helpers) module.FS.writeFile(`${HOME}/${name}`, text);
      if (kept) makeRoom(module, kept, table);
    });
    return createModule(settings);
  };
  const memory = kept ? { _loadSnapshot: kept.memory } : { _makeSnapshot: true };
  const python = await loadPyodide({ ...options, ...memory, createPyodideModule });
  return { python, table };
}

// Write the packages' files, and load their libraries before Python starts: a snapshot holds
// addresses in them, so that they must always lie at the same ones. Return how many functions
// there are now, by which to know that they do.
function place(module, { files, libraries }) {
  const folder = module.API.sitePackages;
  for (const [name, bytes] of files) {
    const path = `${folder}/${name}`;
    module.FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
    module.FS.writeFile(path, bytes, { canOwn: true });
  }
  for (const [name, library] of libraries) {
    const path = `${folder}/${name}`;
    const flags = { nodelete: true, allowUndefined: true };
    module.preloadedWasm[path] = module.loadWebAssemblyModule(library, flags, path, {});
  }
  return module.wasmTable.length;
}

function makeRoom(module, { memory, table }, found) {
  if (found !== table) throw new Error("the snapshot is of another browser");
  const header = new Uint32Array(memory.buffer, 0, 2)[1];
  module.growMemory(Math.max(memory.length - header, module.HEAP8.length));
}
