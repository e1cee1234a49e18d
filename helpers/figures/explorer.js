// Static, a plot is one picture with a text. Here its marks become options of a list box, with one
// stop of the Tab key for all of them. Sizes are those of marks on the front and of the others.
const explorer = (key, large, small) => {
  const figure = document.getElementById(key);
  const [plane, task, method] = figure.querySelectorAll("select");
  const panels = [...figure.querySelectorAll(".explorer-panel")];
  const setting = figure.querySelector(".explorer-setting");
  const text = (mark) => mark.querySelector("title").textContent;
  const place = (mark) => mark.getAttribute("transform").split(")")[0];
  const onFront = (element) => element.dataset.front.split("|").includes(method.value);
  let marks = [];
  let current = null;

  const select = (mark, focus) => {
    for (const each of marks) {
      each.setAttribute("aria-selected", each === mark);
      each.tabIndex = each === mark ? 0 : -1;
    }
    current = mark;
    const others = marks.filter((each) => each !== mark && place(each) === place(mark));
    const names = others.map((each) => text(each).split(":")[0]).join("; ");
    setting.textContent = text(mark) + (names && `. At the same place: ${names}`) + ".";
    if (focus) mark.focus();
  };

  // After a choice from the lists: one panel, its front, and the marks of the chosen method.
  const show = () => {
    for (const panel of panels) {
      panel.hidden = panel.dataset.plane !== plane.value || panel.dataset.task !== task.value;
      if (panel.hidden) continue;
      for (const line of panel.querySelectorAll("polyline")) {
        line.style.display = onFront(line) ? "" : "none";
      }
      marks = [];
      for (const mark of panel.querySelectorAll(".points path")) {
        const chosen = method.selectedIndex === 0 || mark.dataset.method === method.value;
        mark.style.display = chosen ? "" : "none";
        mark.setAttribute("transform", `${place(mark)}) scale(${onFront(mark) ? large : small})`);
        if (!chosen) continue;
        mark.setAttribute("aria-selected", false);
        mark.tabIndex = marks.length ? -1 : 0;
        marks.push(mark);
      }
    }
    current = null;
    const counts = `${marks.length} settings, ${marks.filter(onFront).length} on the front.`;
    figure.querySelector("output").textContent =
      `${task.value}, ${plane.value}, ${method.value}: ${counts}`;
    setting.textContent = "Point at a mark to read its setting.";
  };

  const selectNearest = (event) => {
    let best = 24; // pixels, a finger's width
    let found = null;
    for (const mark of marks) {
      const box = mark.getBoundingClientRect();
      const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
      const distance = Math.hypot(event.clientX - x, event.clientY - y);
      if (distance < best) [best, found] = [distance, mark];
    }
    if (found && found !== current) select(found, false);
  };

  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  Object.assign(steps, { Home: -Infinity, End: Infinity });
  const move = (event) => {
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const to = marks.indexOf(event.target) + steps[event.key];
    select(marks[Math.max(0, Math.min(marks.length - 1, to))], true);
  };

  for (const panel of panels) {
    const [plot, list] = [panel.querySelector("svg"), panel.querySelector(".points")];
    plot.setAttribute("role", "group");
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", `Settings of ${panel.dataset.task} from left to right`);
    for (const mark of list.children) mark.setAttribute("role", "option");
    plot.addEventListener("pointermove", selectNearest);
    plot.addEventListener("pointerdown", selectNearest);
    // On the panel: in some browsers an SVG element that listens for the focus takes it itself.
    panel.addEventListener("focusin", (event) => select(event.target, false));
    panel.addEventListener("keydown", move);
  }
  for (const control of [plane, task, method]) {
    control.addEventListener("input", show);
    control.parentElement.hidden = false;
  }
  for (const element of figure.querySelectorAll(":scope > [hidden]")) element.hidden = false;
  show();
};
