// What style sheets cannot do.

// What scrolls by itself has to be reachable by keyboard. Formulae need their fonts to have their
// final width.
const SCROLLING =
  "article :is(.katex-display, figure, .output, .text_html, .scrolls, .explorer-panel)";
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

// The theme keeps the side bar where it was on the page before, which may hide this one's entry.
function showCurrentPage() {
  const bar = document.querySelector(".bd-sidebar-primary");
  const entry = [...(bar?.querySelectorAll("a.current, .active > a") ?? [])].pop();
  if (!entry) return;
  const [frame, box] = [bar.getBoundingClientRect(), entry.getBoundingClientRect()];
  if (box.top < frame.top || box.bottom > Math.min(frame.bottom, innerHeight)) {
    bar.scrollTop += box.top - frame.top - frame.height / 3;
  }
}

// A figure of which a narrow screen would show the type at less than 70 % of the text's size.
function markWideFigures() {
  for (const image of document.querySelectorAll("article figure img:not(.drawing, .screen)")) {
    const figure = image.closest("figure");
    if (image.naturalWidth * 0.7 > figure.clientWidth) figure.classList.add("wide");
  }
}

// On narrow screens the cells of these tables are stacked, each with the name of its column.
function nameCells() {
  for (const table of document.querySelectorAll("table.claims")) {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent);
    for (const cell of table.querySelectorAll("tbody td:not([colspan])")) {
      cell.dataset.head = heads[cell.cellIndex];
    }
  }
}

window.addEventListener("load", () => {
  nameCells();
  showCurrentPage();
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
  const rows = [...document.querySelectorAll("table.scorecard tbody")];
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

// A table of results that is a little too wide is drawn smaller; on a phone it scrolls.
function shrink(table, room, least) {
  table.style.zoom = "";
  table.style.zoom = Math.min(1, Math.max(least, room / table.scrollWidth));
}

function fitTables() {
  for (const table of document.querySelectorAll(".cell_output .text_html table:not(.claims)")) {
    shrink(table, table.parentElement.clientWidth, innerWidth > 640 ? 0.7 : 1);
  }
}

// The room changes with the window, and again when a side bar has opened or closed.
window.addEventListener("load", () => {
  let width = 0;
  const observer = new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    width = contentRect.width;
    requestAnimationFrame(fitTables);
  });
  for (const article of document.querySelectorAll("article")) observer.observe(article);
});

// On paper: dark on light, and tables no wider than the paper.
const PAPER = 640; // pixels between the margins of A4

window.addEventListener("beforeprint", () => {
  const root = document.documentElement;
  root.dataset.onScreen = root.dataset.theme;
  root.dataset.theme = "light";
  for (const table of document.querySelectorAll("article table")) shrink(table, PAPER, 0);
});

window.addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = document.documentElement.dataset.onScreen;
  for (const table of document.querySelectorAll("article table")) table.style.zoom = "";
  fitTables();
});
