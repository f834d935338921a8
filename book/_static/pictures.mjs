// Gives the pictures of a page their steps.
import { addSteps } from "./steps.mjs";

document.querySelectorAll("svg[data-steps]").forEach(addSteps);

// Chromium leaves text blank that it laid out in an SVG, or that a script wrote, before the text's
// font had come. The font may come before this script or after it.
const drawAgain = () => {
  for (const node of document.querySelectorAll("svg.ac-picture, .picture-steps output")) {
    node.replaceChildren(...node.childNodes);
  }
};
document.fonts.ready.then(drawAgain);
document.fonts.addEventListener("loadingdone", drawAgain);
