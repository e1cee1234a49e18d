// A map of cells that is used with the pointer or the keys; the first row lies at the bottom.

import { colour, element } from "./dom.js";

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };

export class Grid {
  /**
   * @param host the element to draw into
   * @param options
   *   label, rows, columns: the map's name, and its axes' texts
   *   value(row, column): a number, which gives the colour; limit(): of the strongest colour
   *   describe(row, column): a cell in words
   *   text(row, column): what stands in a cell; nothing if not given
   *   onSelect(row, column): a cell was reached
   *   onPaint(row, column, first): a cell was clicked, or the pointer dragged over it
   *   onKey(event, row, column): any other key on a cell
   */
  constructor(host, options) {
    this.options = { text: () => "", onPaint: () => {}, onKey: () => {}, ...options };
    this.at = [0, 0];
    const { label, rows, columns } = this.options;
    this.cells = rows.map((_, row) => columns.map((_, column) => this.cell(row, column)));
    const body = rows.map((name, row) =>
      element("tr", {}, element("th", { scope: "row" }, name), ...this.cells[row]),
    );
    const names = columns.map((name) => element("th", { scope: "col" }, element("span", {}, name)));
    const head = element("tr", {}, element("td", {}), ...names);
    this.table = element(
      "table",
      { role: "grid", "aria-label": label, class: "grid" },
      element("thead", {}, head),
      element("tbody", {}, ...body.reverse()),
    );
    host.replaceChildren(element("div", { class: "scroll", tabindex: "-1" }, this.table));
    this.cells[0][0].tabIndex = 0;
    this.listen();
    this.refresh();
  }

  cell(row, column) {
    const made = element("td", { role: "gridcell", tabindex: "-1" });
    Object.assign(made.dataset, { row, column });
    return made;
  }

  listen() {
    const where = (event) => {
      const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest("td[data-row]");
      return cell && this.table.contains(cell) ? [+cell.dataset.row, +cell.dataset.column] : null;
    };
    let last = null;
    const paint = (event, first) => {
      const at = where(event);
      if (!at || String(at) === String(last)) return;
      last = at;
      this.select(...at);
      this.options.onPaint(...at, first);
    };
    this.table.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      last = null;
      paint(event, true);
    });
    this.table.addEventListener("pointermove", (event) => {
      if (last && event.buttons === 1 && event.pointerType === "mouse") paint(event, false);
    });
    this.table.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (!step) return this.options.onKey(event, ...this.at);
      event.preventDefault();
      const [rows, columns] = [this.cells.length, this.cells[0].length];
      this.select(
        Math.min(rows - 1, Math.max(0, this.at[0] + step[0])),
        Math.min(columns - 1, Math.max(0, this.at[1] + step[1])),
      );
      if (event.shiftKey) this.options.onPaint(...this.at, false);
    });
  }

  select(row, column) {
    this.cells[this.at[0]][this.at[1]].tabIndex = -1;
    this.at = [row, column];
    const cell = this.cells[row][column];
    cell.tabIndex = 0;
    cell.focus({ preventScroll: false });
    this.options.onSelect?.(row, column);
  }

  refresh() {
    const { value, describe, text } = this.options;
    const limit = this.options.limit();
    this.cells.forEach((cells, row) =>
      cells.forEach((cell, column) => {
        cell.style.backgroundColor = colour(value(row, column), limit);
        cell.setAttribute("aria-label", describe(row, column));
        cell.title = describe(row, column);
        const inside = text(row, column);
        if (cell.textContent !== inside) cell.textContent = inside;
      }),
    );
  }
}
