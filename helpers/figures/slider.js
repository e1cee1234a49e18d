// Shows the picture that the controls choose. With several controls the pictures come row by row,
// the first control's value outermost.
const slider = (key) => {
  const figure = document.getElementById(`${key}-figure`);
  const controls = [...figure.querySelectorAll("input, select")];
  const pictures = [...figure.querySelectorAll("img")];
  const index = (control) => control.selectedIndex ?? Number(control.value);
  const count = (control) => control.options?.length ?? Number(control.max) + 1;

  const show = () => {
    const chosen = controls.reduce((sum, control) => sum * count(control) + index(control), 0);
    pictures.forEach((picture, i) => { picture.hidden = i !== chosen; });
    for (const range of figure.querySelectorAll("input")) {
      const text = JSON.parse(range.dataset.values)[index(range)];
      figure.querySelector(`output[for='${range.id}']`).textContent = text;
      range.setAttribute("aria-valuetext", text);
    }
  };

  for (const control of controls) {
    control.addEventListener("input", show);
    control.parentElement.hidden = false;
  }
  figure.querySelector("details").hidden = false;
  show();
};
