// What style sheets cannot do.

// What scrolls by itself has to be reachable by keyboard. Only with their fonts are the formulae as wide as they will be.
async function makeScrollableFocusable() {
  await document.fonts.ready;
  for (const element of document.querySelectorAll("article :is(.katex-display, figure, .output, .text_html, .scrolls)")) {
    if (element.scrollWidth > element.clientWidth && getComputedStyle(element).overflowX !== "visible") element.tabIndex = 0;
  }
}

// docutils calls the bibliography a list, and its entries something else than list items, which confuses screen readers.
function unlistBibliography() {
  for (const list of document.querySelectorAll(".citation-list[role=list]")) list.removeAttribute("role");
}

// A figure that a narrow screen would show at less than 40 % of its size keeps a legible one, and scrolls.
function markWideFigures() {
  for (const image of document.querySelectorAll("article figure:not(.slider) img")) {
    if (image.naturalWidth > 2.4 * image.closest("figure").clientWidth) image.closest("figure").classList.add("wide");
  }
}

// On narrow screens the cells of these tables stand under each other, each with the name of its column.
function nameCells() {
  for (const table of document.querySelectorAll("table.claims")) {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent);
    for (const row of table.querySelectorAll("tbody tr")) [...row.cells].forEach((cell, i) => { cell.dataset.head = heads[i]; });
  }
}

window.addEventListener("load", () => {
  nameCells();
  markWideFigures();
  unlistBibliography();
  makeScrollableFocusable();
});
window.addEventListener("resize", makeScrollableFocusable);

// The scorecard can be narrowed to one paper or one verdict. Without this script the whole table is there.
function filterScorecard() {
  const box = document.querySelector(".scorecard-filter");
  if (!box) return;
  const choices = [...box.querySelectorAll("select")];
  const rows = [...document.querySelectorAll("table.scorecard tbody tr")];
  const apply = () => {
    for (const row of rows) row.hidden = choices.some((choice) => choice.value && row.dataset[choice.dataset.filter] !== choice.value);
    box.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} results`;
  };
  for (const choice of choices) choice.addEventListener("change", apply);
  box.hidden = false;
  apply();
}

window.addEventListener("load", filterScorecard);
