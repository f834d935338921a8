// What a reader has solved: a tick at each exercise, and how many in the sidebar. It is kept by
// this browser alone, and nothing is sent.
const KEY = "attncore-solved";
const counts = JSON.parse(document.getElementById("exercise-counts").textContent);

const pageOf = (address) => /(\w+)\.html/.exec(address)?.[1];

function solved() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    return new Set(Array.isArray(kept) ? kept : []);
  } catch {
    return new Set(); // a browser that keeps nothing, or something else of that name
  }
}

function keep(numbers) {
  try {
    localStorage.setItem(KEY, JSON.stringify([...numbers].sort()));
  } catch {
    // The tick stays until the page is left.
  }
}

function show(numbers) {
  for (const box of document.querySelectorAll("div.exercise[id^='ex-']")) {
    const done = numbers.has(box.id.slice(3).replace("-", "."));
    box.classList.toggle("solved", done);
    const title = box.querySelector(".admonition-title");
    if (done && !title.querySelector(".solved-mark")) {
      const mark = Object.assign(document.createElement("span"), { className: "solved-mark" });
      mark.textContent = "✓ solved";
      title.append(mark);
    }
  }
  for (const link of document.querySelectorAll("nav.bd-links a.reference.internal")) {
    const chapter = counts[pageOf(link.getAttribute("href")) ?? pageOf(location.pathname)]; // "#": here
    if (!chapter) continue;
    const done = chapter.filter((number) => numbers.has(number)).length;
    let mark = link.querySelector(".solved-count");
    if (!done) continue;
    if (!mark) {
      mark = Object.assign(document.createElement("span"), { className: "solved-count" });
      link.append(mark);
    }
    mark.textContent = `${done}/${chapter.length}`;
    mark.title = `${done} of ${chapter.length} exercises solved`;
  }
}

const numbers = solved();
show(numbers);
document.addEventListener("cell-ran", ({ target }) => {
  if (target.closest(".solution")) return;
  const said = target.querySelector(".cell_output, .live-output")?.textContent ?? "";
  const right = [...said.matchAll(/^(\d+\.\d+) correct$/gm)].map((match) => match[1]);
  if (!right.length) return;
  for (const number of right) numbers.add(number);
  keep(numbers);
  show(numbers);
});
