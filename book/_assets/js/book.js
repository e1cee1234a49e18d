// What style sheets cannot do.

// What scrolls by itself has to be reachable by keyboard. Formulae need their fonts to have their
// final width.
const SCROLLING = "article :is(.katex-display, figure, .output, .text_html, .scrolls)";
async function makeScrollableFocusable() {
  await document.fonts.ready;
  for (const element of document.querySelectorAll(SCROLLING)) {
    const scrolls = getComputedStyle(element).overflowX !== "visible";
    if (scrolls && element.scrollWidth > element.clientWidth) element.tabIndex = 0;
  }
}

// docutils gives the bibliography the role of a list but its entries another than list items,
// which confuses screen readers.
function unlistBibliography() {
  for (const list of document.querySelectorAll(".citation-list[role=list]")) {
    list.removeAttribute("role");
  }
}

// A figure that a narrow screen would show at less than 40 % of its size stays legible and scrolls.
function markWideFigures() {
  for (const image of document.querySelectorAll("article figure:not(.slider) img")) {
    const figure = image.closest("figure");
    if (image.naturalWidth > 2.4 * figure.clientWidth) figure.classList.add("wide");
  }
}

// On narrow screens the cells of these tables are stacked, each with the name of its column.
function nameCells() {
  for (const table of document.querySelectorAll("table.claims")) {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent);
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, i) => { cell.dataset.head = heads[i]; });
    }
  }
}

window.addEventListener("load", () => {
  nameCells();
  markWideFigures();
  unlistBibliography();
  makeScrollableFocusable();
});
window.addEventListener("resize", makeScrollableFocusable);

// Filters of the scorecard, by paper and by verdict. Without this script the whole table is shown.
function filterScorecard() {
  const box = document.querySelector(".scorecard-filter");
  if (!box) return;
  const choices = [...box.querySelectorAll("select")];
  const rows = [...document.querySelectorAll("table.scorecard tbody tr")];
  const apply = () => {
    let shown = 0;
    for (const row of rows) {
      const differs = (choice) => row.dataset[choice.dataset.filter] !== choice.value;
      row.hidden = choices.some((choice) => choice.value && differs(choice));
      shown += row.hidden ? 0 : 1;
    }
    box.querySelector("output").textContent = `${shown} of ${rows.length} results`;
  };
  for (const choice of choices) choice.addEventListener("change", apply);
  box.hidden = false;
  apply();
}

window.addEventListener("load", filterScorecard);
