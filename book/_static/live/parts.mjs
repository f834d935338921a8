// What every start needs, Python itself and the packages of every page, made ready to run: from
// the network, or from what an earlier start has kept. Compiling begins while others arrive.
import { load } from "./assets.mjs";
import { unzip } from "./unzip.mjs";

export const PYTHON = "pyodide.asm.wasm";
export const LIBRARY = "python_stdlib.zip";

// `wheels` are names of files.
export function fromNetwork(wheels) {
  const files = Promise.all(wheels.map(async (name) => unzip(await load(name))));
  return ready(load(PYTHON), load(LIBRARY), files.then((lists) => lists.flat()));
}

// `parts` are [name, bytes] as in the answer of an earlier start.
export function fromKept(parts) {
  const [[, python], [, library], ...files] = parts;
  return ready(...[python, library, files].map((part) => Promise.resolve(part)));
}

async function ready(pythonBytes, libraryBytes, packageFiles) {
  const [module, libraries, python, library, files] = await Promise.all([
    pythonBytes.then((bytes) => WebAssembly.compile(bytes)),
    packageFiles.then(compileLibraries),
    pythonBytes,
    libraryBytes,
    packageFiles,
  ]);
  const parts = [[PYTHON, python], [LIBRARY, library], ...files];
  return { module, library, files, libraries, parts };
}

// Return [name, compiled] of compiled libraries, in the order in which they are loaded.
function compileLibraries(files) {
  const found = files.filter(([name]) => name.endsWith(".so"));
  return Promise.all(found.map(async ([name, bytes]) => [name, await WebAssembly.compile(bytes)]));
}
