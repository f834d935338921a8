// A code cell that Python in the browser can run: its buttons, and what has run.
import { Output } from "./output.mjs";
import { Turnable } from "./turnable.mjs";

export class Cell extends Turnable {
  constructor(node, number, { run, stop, turn }) {
    super(node, { label: `code cell ${number}`, onRun: () => run(this), onTurn: () => turn(this) });
    this.number = number;
    this.ranAs = null; // the code that ran last without an error, if nothing above changed since
    this.inBox = node.closest(".exercise, .solution") !== null;
    this.runButton = this.button("Run", "▶", () => run(this));
    this.stopButton = this.button("Stop", "■", () => stop());
    this.stopButton.hidden = true;
    this.bar.prepend(this.runButton, this.stopButton);
  }

  reset() {
    super.reset();
    this.ranAs = null;
  }

  showStatus(status, { busy }) {
    this.bar.append(status);
    this.runButton.disabled = busy;
    this.stopButton.hidden = !busy;
  }

  newOutput() {
    this.node.classList.add("live-running");
    const onEnd = () => this.node.classList.remove("live-running");
    this.output = new Output(this.out, { ...this.outputOptions, onEnd });
    return this.output;
  }
}
