// Cells that need torch say so, and where they can be run.
export function labelTorchCells() {
  const colab = document.querySelector('a[href^="https://colab.research.google.com"]')?.href;
  const notebook = document.querySelector('a[href$=".ipynb"]')?.href;
  for (const node of document.querySelectorAll("div.cell.tag_needs-torch")) {
    const bar = document.createElement("div");
    bar.className = "live-bar live-torch";
    bar.append("This cell needs torch, which browsers do not have. Run it in ");
    if (colab) bar.append(link(colab, "Colab"), " or in ");
    bar.append("the ", link(notebook, "notebook"), ".");
    node.querySelector(".cell_input")?.after(bar);
  }
}

function link(href, text) {
  if (!href) return text;
  return Object.assign(document.createElement("a"), { href, textContent: text });
}
