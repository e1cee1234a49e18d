// Small helpers for the page's elements.

export const find = (id) => document.getElementById(id);

/** An element with attributes and children. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A token as text, with spaces and line ends to be seen. */
export const shown = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎") || "∅";

export const signed = (value, digits = 2) =>
  (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

export const percent = (p) => (p >= 0.001 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %");

/** A table with a header row, and the first cell of each row as its header. */
export function table(caption, header, rows) {
  const head = element("tr", {}, ...header.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, first),
      ...rest.map((text) => element("td", {}, text)),
    ),
  );
  return element(
    "table",
    {},
    element("caption", {}, caption),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
}

/** Red above zero, blue below, as in the book's figures. */
export function colour(value, limit) {
  const strength = Math.min(1, Math.abs(value) / (limit || 1)).toFixed(3);
  return value < 0 ? `rgba(33, 102, 172, ${strength})` : `rgba(178, 24, 43, ${strength})`;
}
