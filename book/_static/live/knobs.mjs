// Knobs: sliders, choices and ticks for values in a cell, declared as Colab's forms are:
//   h = 2.0  #@param {type:"slider", min:0.2, max:10, step:0.2}
//   heads = 2  #@param [1, 2, 4] {type:"raw"}
//   causal = True  #@param {type:"boolean"}
// To Jupyter these are plain assignments with a comment.
const LINE = /^(?<name>\w+) = (?<value>.+?) +#@param (?<form>.+)$/;

// Return the knobs that a cell declares: name, value as written, and kind.
export function findKnobs(code) {
  return code.split("\n").flatMap((line) => {
    const { name, value, form } = line.match(LINE)?.groups ?? {};
    if (!form) return [];
    const number = (key) => Number(form.match(new RegExp(`${key}: *(-?[\\d.]+)`))?.[1]);
    if (/type: *"slider"/.test(form)) {
      return [{ name, value, kind: "slider", min: number("min"), max: number("max"), step: number("step") }];
    }
    if (/type: *"boolean"/.test(form)) return [{ name, value, kind: "tick" }];
    const choices = form.match(/^\[(.+?)\]/)?.[1].split(/, */);
    return choices ? [{ name, value, kind: "choice", choices }] : [];
  });
}

// Return the code with another value for one knob.
export function turned(code, name, value) {
  const form = new RegExp(`^(${name} = ).+?( +#@param .+)$`, "m");
  return code.replace(form, (line, before, after) => before + value + after);
}

// Return the code without the values of its knobs: what must be the same for a frame to be true.
export const skeleton = (code) => code.replace(/^(\w+ = ).+?( +#@param .+)$/gm, "$1…$2");

// Return how many settings the knobs of a cell have together.
export const countSettings = (code) =>
  findKnobs(code).reduce((count, { kind, min, max, step, choices }) => {
    if (kind === "slider") return count * (Math.floor((max - min) / step + 1e-9) + 1);
    return count * (choices?.length ?? 2);
  }, 1);

// Make the controls; `onTurn` gets a function from the code to the code with the new value.
export function makeKnobs(code, onTurn) {
  const node = document.createElement("div");
  node.className = "live-knobs";
  const resets = findKnobs(code).map((knob) => {
    const label = document.createElement("label");
    const control = CONTROLS[knob.kind](knob);
    const shown = document.createElement("output");
    const show = () => { shown.textContent = knob.kind === "slider" ? control.value : ""; };
    control.node.addEventListener("input", () => {
      show();
      onTurn((text) => turned(text, knob.name, control.value));
    });
    label.append(`${knob.name} `, control.node, " ", shown);
    node.append(label);
    show();
    return () => {
      control.value = knob.value;
      show();
    };
  });
  return { node, reset: () => resets.forEach((reset) => reset()) };
}

const CONTROLS = {
  slider({ min, max, step, value }) {
    const node = Object.assign(document.createElement("input"), { type: "range", min, max, step, value });
    const decimals = String(value).split(".")[1]?.length ?? 0;
    const read = () => Number(node.value).toFixed(decimals);
    return { node, get value() { return read(); }, set value(next) { node.value = next; } };
  },
  choice({ choices, value }) {
    const node = document.createElement("select");
    node.append(...choices.map((choice) => new Option(choice, choice, false, choice === value)));
    return { node, get value() { return node.value; }, set value(next) { node.value = next; } };
  },
  tick({ value }) {
    const node = Object.assign(document.createElement("input"), { type: "checkbox", checked: value === "True" });
    return {
      node,
      get value() { return node.checked ? "True" : "False"; },
      set value(next) { node.checked = next === "True"; },
    };
  },
};
