// Steps of a picture: buttons and a slider under it say which row is computed. What a row looks
// like before, at and after its step is the style sheet's. Nothing here needs Python.
export function addSteps(svg) {
  const names = svg.dataset.steps.split(" | ");
  const title = svg.querySelector("title").textContent;
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: names.length });
  slider.setAttribute("aria-label", `Step of the picture: ${title}`);
  const shown = document.createElement("output");
  const go = (to) => {
    const step = Math.min(Math.max(to, 0), names.length);
    const text = names[step] ?? "all";
    slider.value = step;
    slider.setAttribute("aria-valuetext", text);
    shown.textContent = text;
    setStep(svg, step < names.length ? step : null);
  };
  const button = (sign, name, by) => {
    const node = Object.assign(document.createElement("button"), { type: "button", textContent: sign });
    node.setAttribute("aria-label", `${name}: ${title}`);
    node.addEventListener("click", () => go(Number(slider.value) + by));
    return node;
  };
  const bar = Object.assign(document.createElement("div"), { className: "picture-steps" });
  bar.append(button("‹", "One step back", -1), slider, button("›", "One step on", 1), shown);
  slider.addEventListener("input", () => go(Number(slider.value)));
  svg.after(bar);
  go(Number(svg.dataset.step ?? names.length));
}

// Past, now or later on every row, as attncore.draw writes it; null shows the whole.
function setStep(svg, step) {
  for (const row of svg.querySelectorAll("[data-i]")) {
    const place = step === null ? null : Math.sign(row.dataset.i - step);
    row.classList.toggle("ac-past", place === -1);
    row.classList.toggle("ac-now", place === 0);
    row.classList.toggle("ac-later", place === 1);
  }
  for (const text of svg.querySelectorAll("[data-only]")) {
    text.classList.toggle("ac-off", Number(text.dataset.only) !== (step ?? -1));
  }
}
