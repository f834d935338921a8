// Start Pyodide from FOLDER with a package, run the Python file SCRIPT in it, and write what that
// leaves in /compiled.zip to OUT: node precompile.mjs FOLDER SCRIPT OUT PACKAGE
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, script, out, packageName] = process.argv.slice(2);
try {
  const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide.mjs`).href);
  const python = await loadPyodide({ indexURL: folder });
  await python.loadPackage([packageName], { messageCallback: () => {} });
  python.globals.set("package", packageName);
  python.runPython(readFileSync(script, "utf8"));
  writeFileSync(out, python.FS.readFile("/compiled.zip"));
} catch (problem) {
  console.error(problem.message); // without the line it is from, which is a megabyte
  process.exitCode = 1;
}
