// Starts Pyodide with NumPy and attncore in place. The first time they are imported, which takes
// most of a start, and a snapshot of Python's memory is taken; later it is put back.
import { forget } from "./snapshots.mjs";
import { unzip } from "./unzip.mjs";

// What a cell imports first, and what runs cells. A snapshot of other imports is of no use.
export const IMPORTS = "import linecache, traceback, numpy.random, attncore, pyodide.code";
const RESEED = "import random; random.seed(); numpy.random.seed()"; // or each start would draw the same

// Return { files, compiled } of wheels: compiled libraries in the order in which they are loaded.
export async function unpack(wheels) {
  const files = (await Promise.all(wheels.map(unzip))).flat();
  const libraries = files.filter(([name]) => name.endsWith(".so"));
  const compiled = libraries.map(async ([name, bytes]) => [name, await WebAssembly.compile(bytes)]);
  return { files, compiled: await Promise.all(compiled) };
}

// Return { python, snapshot }. With `kept`, a snapshot of an earlier start, there is none to keep.
export async function start(pyodide, packages, kept) {
  if (kept) {
    try {
      const { python } = await begin(pyodide, packages, kept);
      python.runPython(RESEED);
      return { python };
    } catch {
      await forget(); // of another browser, perhaps: start as if there were none
    }
  }
  const { python, table } = await begin(pyodide, packages);
  python.runPython(IMPORTS);
  const known = { ...python.loadedPackages };
  for (const name in known) delete python.loadedPackages[name]; // what a fresh Python knows
  const memory = python.makeMemorySnapshot();
  Object.assign(python.loadedPackages, known);
  return { python, snapshot: { memory, table } };
}

async function begin({ loadPyodide, createModule, options }, packages, kept) {
  let table;
  const createPyodideModule = (settings) => {
    settings.preRun.push((module) => {
      table = place(module, packages);
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
function place(module, { files, compiled }) {
  const folder = module.API.sitePackages;
  for (const [name, bytes] of files) {
    const path = `${folder}/${name}`;
    module.FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
    module.FS.writeFile(path, bytes, { canOwn: true });
  }
  for (const [name, library] of compiled) {
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
