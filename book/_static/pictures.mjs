// Gives the pictures of a page their steps.
import { addSteps } from "./steps.mjs";

document.querySelectorAll("svg[data-steps]").forEach(addSteps);

// Chromium leaves text blank that it laid out before the text's font had come: in an SVG, where a
// script wrote, and now and then a Chinese word in a table. The font may come before this script or
// after it.
const CHINESE = /[\u3000-\u9fff\uff00-\uffef]/;

function drawAgain() {
  for (const node of document.querySelectorAll("svg.ac-picture, .picture-steps output")) {
    node.replaceChildren(...node.childNodes);
  }
  for (const node of document.querySelectorAll(".bd-article :is(th, td, p, li, code, pre span)")) {
    for (const text of node.childNodes) {
      if (text.nodeType === Node.TEXT_NODE && CHINESE.test(text.data)) text.replaceWith(text.cloneNode());
    }
  }
}
document.fonts.ready.then(drawAgain);
document.fonts.addEventListener("loadingdone", drawAgain);
