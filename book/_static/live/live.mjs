// Live cells: gives every code cell of a page that Python in the browser can run a Run button.
// Nothing is loaded, and nothing on the page changes, before the reader presses one or turns a knob.
import { Cell } from "./cell.mjs";
import { Kernel, Stopped } from "./kernel.mjs";
import { labelTorchCells } from "./torch_label.mjs";
import { addKnobs, codeCells } from "./turnable.mjs";

const status = Object.assign(document.createElement("span"), { className: "live-status" });
status.setAttribute("role", "status"); // read out politely when it changes
const say = (text) => { status.textContent = text; };

const cells = codeCells()
  .filter((node) => !node.matches(".tag_needs-torch"))
  .map((node, place) => new Cell(node, place + 1, { run, turn, stop: () => kernel.stop() }));
labelTorchCells();
addKnobs(new Map(cells.map((cell) => [cell.node, cell])));

const kernel = new Kernel({ onProgress: say });
let running = null; // the cell whose Run was pressed
let finishing = false; // its figures are being drawn well
let next = null; // what to do then
let rest; // the timer that ends a knob's move

// A knob was moved. Until Python is there, what the book has drawn answers, if it is of this code:
// a cell above that was edited may have changed what this one shows.
async function turn(cell) {
  const known = () => !kernel.ready && !neededBy(cell).some((each) => each.edited);
  const shown = known() && (await cell.showFrame(() => !known()));
  if (!shown) run(cell, { sketch: true });
}

// Run a cell; when a knob was moved, with figures that are only sketched.
async function run(target, { sketch = false } = {}) {
  if (running) {
    if (finishing || (sketch && target === running)) next = () => run(target, { sketch });
    return;
  }
  clearTimeout(rest);
  running = target;
  const started = performance.now();
  target.showStatus(status, { busy: true });
  try {
    if (!kernel.started) {
      for (const cell of cells) cell.ranAs = null;
      say("Loading Python into this page…");
    }
    const todo = neededBy(target);
    await kernel.start(todo.map((cell) => cell.code));
    for (const cell of todo) {
      if (cell !== target && cell.ranAs === cell.code) continue;
      const outcome = runOne(cell, sketch && cell === target);
      for (const each of cells) each.makeEditable(); // while Python works
      const ok = await outcome;
      if (!ok && cell !== target) {
        say(`Cell ${cell.number} above failed, so cell ${target.number} was not run.`);
        return;
      }
      if (cell === target) {
        const seconds = ((performance.now() - started) / 1000).toFixed(1);
        say(ok ? `Cell ${cell.number} done in ${seconds} s.` : `Cell ${cell.number} raised an error.`);
      }
    }
    kernel.prefetch(cells.map((cell) => cell.code));
  } catch (problem) {
    if (problem instanceof Stopped) {
      say("Stopped. Python starts anew with the next Run, which runs the cells above again.");
    } else {
      kernel.stop();
      say(`Python could not start: ${problem.message}`);
    }
  } finally {
    target.showStatus(status, { busy: false });
    if (sketch) rest = setTimeout(() => finish(target), 250);
    end();
  }
}

function end() {
  const go = next;
  running = next = null;
  finishing = false;
  go?.();
}

// The knob rests: draw well what was sketched.
async function finish(target) {
  if (running || !kernel.started) return;
  running = target;
  finishing = true;
  await kernel.finish(target.output).catch(() => {}); // stopped: the sketch stays
  end();
}

// A cell needs all cells above it, except those inside exercises and solutions.
function neededBy(target) {
  const above = cells.slice(0, cells.indexOf(target));
  return [...above.filter((cell) => !cell.inBox), target];
}

async function runOne(cell, sketch) {
  say(`Running cell ${cell.number}…`);
  const code = cell.code;
  const output = cell.newOutput();
  try {
    const ok = await kernel.run(code, cell.number, output, { sketch });
    cell.ranAs = ok ? code : null;
    return ok;
  } finally {
    output.end();
    cell.node.dispatchEvent(new CustomEvent("cell-ran", { bubbles: true })); // for progress.mjs
    for (const later of cells.slice(cells.indexOf(cell) + 1)) later.ranAs = null;
  }
}
