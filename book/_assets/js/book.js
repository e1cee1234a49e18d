// Two things that style sheets cannot do.

// What scrolls by itself has to be reachable by keyboard. Only once MathJax is done is it known which formulae are too wide.
async function makeScrollableFocusable() {
  await window.MathJax?.startup?.promise;
  for (const element of document.querySelectorAll("article :is(mjx-container, div.math, .output, .text_html)")) {
    if (element.scrollWidth > element.clientWidth && getComputedStyle(element).overflowX !== "visible") element.tabIndex = 0;
  }
}

// docutils calls the bibliography a list, and its entries something else than list items, which confuses screen readers.
function unlistBibliography() {
  for (const list of document.querySelectorAll(".citation-list[role=list]")) list.removeAttribute("role");
}

window.addEventListener("load", () => {
  unlistBibliography();
  makeScrollableFocusable();
});
window.addEventListener("resize", makeScrollableFocusable);
