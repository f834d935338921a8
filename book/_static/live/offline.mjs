// A page that was opened as a file: its knobs show what was drawn for them. Python cannot start
// there, since a browser lets no file load what it needs; the Run buttons say what to do.
import { labelTorchCells } from "./torch_label.mjs";
import { Turnable, addKnobs, codeCells, element } from "./turnable.mjs";

const HOW = "To run code, start the book with its start.py: python start.py";

const cells = codeCells()
  .filter((node) => !node.matches(".tag_needs-torch"))
  .map((node, place) => {
    const cell = new Turnable(node, { label: `code cell ${place + 1}` });
    const note = element("span", "live-status");
    note.setAttribute("role", "status");
    cell.bar.prepend(cell.button("Run", "▶", () => { note.textContent = HOW; }));
    cell.bar.append(note);
    return cell;
  });
labelTorchCells();
addKnobs(new Map(cells.map((cell) => [cell.node, cell])));
