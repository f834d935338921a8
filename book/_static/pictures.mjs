// Gives the pictures of a page their steps.
import { addSteps } from "./steps.mjs";

document.querySelectorAll("svg[data-steps]").forEach(addSteps);

// Chromium leaves text blank that it laid out in an SVG before the text's font had come. The font
// may come before this script or after it.
const drawAgain = () => {
  for (const svg of document.querySelectorAll("svg.ac-picture")) svg.replaceChildren(...svg.childNodes);
};
document.fonts.ready.then(drawAgain);
document.fonts.addEventListener("loadingdone", drawAgain);
