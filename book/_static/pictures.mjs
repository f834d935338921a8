// Gives the pictures of a page their steps.
import { addSteps } from "./steps.mjs";

document.querySelectorAll("svg[data-steps]").forEach(addSteps);

// Chromium leaves text blank that it laid out in an SVG before the text's font had come.
document.fonts.addEventListener("loadingdone", () => {
  for (const svg of document.querySelectorAll("svg.ac-picture")) svg.replaceChildren(...svg.childNodes);
});
