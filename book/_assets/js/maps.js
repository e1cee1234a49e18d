// Reads out the cells of maps: by pointer, by tap, and by arrow keys after one tab stop a figure.
// The data come with the figure, from helpers/figures/cells.py.

function number(value) {
  return String(value).replace("-", "−");
}

// What a cell holds; rows are counted from the top, layers from the bottom.
function words(map, row, column) {
  const token = map.tokens[column] ? `, token ${map.tokens[column]}` : "";
  const layer = map.values.length - 1 - row;
  const at = `layer ${layer}, ${map.column} ${map.first + column}${token}`;
  const title = map.title ? `${map.title}: ` : "";
  const label = map.label && map.label !== map.title ? ` (${map.label})` : "";
  return `${title}${at}: ${number(map.values[row][column])}${label}`;
}

function overlay(image, maps) {
  const frame = document.createElement("span");
  frame.className = "map-frame";
  frame.tabIndex = 0;
  frame.setAttribute("role", "application");
  frame.setAttribute("aria-label", "Cells of the map: arrow keys read them, Escape ends it");
  const mark = document.createElement("span");
  mark.className = "map-mark";
  const said = document.createElement("span");
  said.className = "map-said";
  said.setAttribute("role", "status");
  const hint = document.createElement("span");
  hint.className = "map-hint";
  hint.textContent = " Point at a cell or tap it to read it; or use Tab and the arrow keys.";
  image.closest("figure")?.querySelector(".caption-text")?.append(hint);
  image.replaceWith(frame);
  frame.append(image, mark, said);

  let [which, row, column] = [0, 0, 0];
  const hide = () => frame.classList.remove("reading");
  const show = () => {
    const map = maps[which];
    const [left, top, width, height] = map.place;
    const [rows, columns] = [map.values.length, map.values[0].length];
    const x = left + (width * column) / columns;
    const y = top + (height * row) / rows;
    const share = (part) => `${100 * part}%`;
    mark.style.cssText = `left: ${share(x)}; top: ${share(y)};
      width: ${share(width / columns)}; height: ${share(height / rows)}`;
    said.textContent = words(map, row, column);
    // Towards the middle of what is in sight: on a phone a figure scrolls in its frame.
    const view = (frame.closest("figure") ?? frame).getBoundingClientRect();
    const box = image.getBoundingClientRect();
    const isLeft = box.left + x * box.width < view.left + view.width / 2;
    const across = isLeft ? `left: ${share(x)}` : `right: ${share(1 - x - width / columns)}`;
    const down = y < 0.5 ? `top: ${share(y + height / rows)}` : `bottom: ${share(1 - y)}`;
    said.style.cssText = `${across}; ${down}; max-width: ${Math.min(288, view.width / 2)}px`;
    frame.classList.add("reading");
  };

  const point = (event) => {
    const box = image.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    const y = (event.clientY - box.top) / box.height;
    const found = maps.findIndex(({ place: [left, top, width, height] }) =>
      x >= left && x < left + width && y >= top && y < top + height);
    if (found < 0) return hide();
    const [left, top, width, height] = maps[found].place;
    which = found;
    row = Math.floor(((y - top) / height) * maps[found].values.length);
    column = Math.floor(((x - left) / width) * maps[found].values[0].length);
    show();
  };
  frame.addEventListener("pointermove", point);
  frame.addEventListener("click", point);
  frame.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
  frame.addEventListener("blur", hide);
  frame.addEventListener("focus", () => frame.matches(":focus-visible") && show());

  frame.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (!(event.key in step)) return;
    event.preventDefault();
    const [down, right] = step[event.key];
    row = Math.min(Math.max(row + down, 0), maps[which].values.length - 1);
    column += right;
    // Past its last column a map goes on in the next one.
    if (column < 0 || column >= maps[which].values[0].length) {
      const next = Math.min(Math.max(which + right, 0), maps.length - 1);
      const last = maps[next].values[0].length - 1;
      const end = next === which;
      column = (right > 0) !== end ? 0 : last;
      row = Math.min(row, maps[next].values.length - 1);
      which = next;
    }
    show();
  });
}

// The data stand in a cell of their own, under the one that draws the figure.
window.addEventListener("load", () => {
  const images = [...document.querySelectorAll(".cell_output figure img")];
  for (const data of document.querySelectorAll("script.map-cells")) {
    const { DOCUMENT_POSITION_PRECEDING: PRECEDING } = Node;
    const before = (image) => data.compareDocumentPosition(image) & PRECEDING;
    const image = images.findLast(before);
    if (image) overlay(image, JSON.parse(data.textContent));
  }
});
