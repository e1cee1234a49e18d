// Scale activations: two maps of scalars, the strength, and what becomes of the answers.

import { Replaced } from "./client.js";
import { drawCurve } from "./curve.js";
import { element, find, percent, shown, signed, table } from "./dom.js";
import { Grid } from "./grid.js";
import { pythonOf } from "./python.js";

const SITES = ["attention", "MLP"];
const BETAS = [-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2];

export class Scale {
  constructor(client, manifest, say) {
    Object.assign(this, { client, say, layers: manifest.shape.n_layers, prompt: null });
    this.undone = [];
    find("beta").oninput = () => this.changed({ curve: false });
    find("undo").onclick = () => this.undo();
    find("reset").onclick = () => this.replace(new Float32Array(this.alpha.length));
    find("copy").onclick = () => this.copy();
    find("scale").addEventListener("keydown", (event) => {
      if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    });
    const options = manifest.maps.map(({ name, text }, i) =>
      element("option", { value: i }, `${name}: ${text}`),
    );
    find("maps").append(...options);
    find("maps").onchange = ({ target }) => {
      if (target.value !== "") this.load(manifest.maps[target.value]);
      target.value = "";
    };
  }

  get beta() {
    return Number(find("beta").value);
  }

  /** A new prompt: maps without scalars, unless it is as long as the last one. */
  setPrompt(prompt, base) {
    const same = this.prompt?.ids.length === prompt.ids.length;
    Object.assign(this, { prompt, base, n: prompt.ids.length });
    if (!same) {
      this.alpha = new Float32Array(this.layers * 2 * this.n);
      this.undone = [];
    }
    const rows = Array.from({ length: this.layers }, (_, layer) => String(layer));
    this.grids = SITES.map(
      (name, site) =>
        new Grid(find(`map-${site}`), {
          label: `Scalars of ${name}'s output, layer by position`,
          rows,
          columns: prompt.pieces.map(shown),
          value: (layer, position) => this.alpha[this.index(layer, site, position)],
          limit: () => this.limit(),
          describe: (layer, position) => this.describe(site, layer, position),
          onSelect: (layer, position) => {
            find("cell").textContent = this.describe(site, layer, position);
          },
          onPaint: (layer, position, first) => this.paint(site, layer, position, first),
          onKey: (event, layer, position) => this.key(event, site, layer, position),
        }),
    );
    this.changed();
  }

  index(layer, site, position) {
    return (layer * 2 + site) * this.n + position;
  }

  limit() {
    return this.alpha.reduce((most, value) => Math.max(most, Math.abs(value)), 0.1);
  }

  describe(site, layer, position) {
    const value = this.alpha[this.index(layer, site, position)];
    const token = shown(this.prompt.pieces[position]);
    return `${SITES[site]}, layer ${layer}, position ${position} ${token}: α = ${signed(value)}`;
  }

  /** Sets a cell to the brush's value; a click on one that has it sets it back to 0. */
  paint(site, layer, position, first) {
    const brush = Number(find("brush").value) || 0;
    const old = this.alpha[this.index(layer, site, position)];
    if (first) this.painting = Math.fround(brush) === old ? 0 : brush;
    this.set(site, layer, position, this.painting ?? brush);
  }

  key(event, site, layer, position) {
    const old = this.alpha[this.index(layer, site, position)];
    const brush = Number(find("brush").value) || 0;
    const values = { "+": old + 0.1, "-": old - 0.1, 0: 0, Delete: 0, Backspace: 0 };
    values["="] = values["+"];
    values.Enter = values[" "] = Math.fround(brush) === old ? 0 : brush;
    if (event.ctrlKey || event.metaKey || !(event.key in values)) return;
    event.preventDefault();
    this.painting = values[event.key];
    this.set(site, layer, position, values[event.key]);
  }

  set(site, layer, position, value) {
    this.remember();
    this.alpha[this.index(layer, site, position)] = value;
    find("cell").textContent = this.describe(site, layer, position);
    this.changed();
  }

  remember() {
    this.undone.push(this.alpha.slice());
    if (this.undone.length > 100) this.undone.shift();
  }

  undo() {
    if (!this.undone.length) return this.say("There is nothing to undo.");
    this.alpha = this.undone.pop();
    this.changed();
  }

  /** Other scalars for the whole map. */
  replace(alpha) {
    this.remember();
    this.alpha = Float32Array.from(alpha);
    this.changed();
  }

  /** A learned map; on a prompt of another length its last positions lie on the last ones. */
  load({ name, text, alpha }) {
    const n = alpha.length / (2 * this.layers);
    const moved = new Float32Array(this.alpha.length);
    for (let row = 0; row < 2 * this.layers; row++) {
      for (let back = 1; back <= Math.min(n, this.n); back++) {
        moved[(row + 1) * this.n - back] = alpha[(row + 1) * n - back];
      }
    }
    this.replace(moved);
    this.say(
      n === this.n
        ? `Loaded the scalars learned for ${name}.`
        : `Loaded the scalars learned on “${text}”, which has ${n} tokens and yours ${this.n}: ` +
            "they are aligned at the last token.",
    );
  }

  /** Draws the maps and asks for the new results; the curve stays where only β has changed. */
  changed({ curve = true } = {}) {
    find("beta-value").textContent = signed(this.beta, 1);
    for (const grid of this.grids) grid.refresh();
    const jobs = curve ? [this.update(), this.updateCurve()] : [this.update()];
    for (const job of jobs) {
      job.catch((error) => {
        if (!(error instanceof Replaced)) this.say(error.message);
      });
    }
  }

  /** Results at each β; without scalars they are the base's, and nothing is run. */
  async results(betas, slot) {
    if (this.alpha.every((value) => value === 0)) return betas.map(() => this.base);
    return this.client.call("run", this.request(betas), { slot });
  }

  request(betas) {
    const { ids, answers } = this.prompt;
    return { ids, answers: answers.map(({ id }) => id), alpha: this.alpha.slice(), betas };
  }

  async update() {
    const beta = this.beta;
    const mine = {}; // tells these results from later ones
    this.latest = mine;
    const [row] = await this.results([beta], "run");
    if (mine !== this.latest) return;
    showRows(
      find("scaled"),
      [
        ["unchanged", this.base],
        [`β = ${signed(beta, 1)}`, row],
      ],
      this.prompt.answers,
    );
  }

  /** In three requests, so that others come in between. */
  async updateCurve() {
    const points = [];
    const mine = {};
    this.latestCurve = mine;
    find("curve").setAttribute("aria-busy", "true");
    for (let i = 0; i < BETAS.length; i += 3) {
      const betas = BETAS.slice(i, i + 3);
      const rows = await this.results(betas, "curve");
      if (mine !== this.latestCurve) return;
      rows.forEach(({ answers }, j) =>
        points.push({ beta: betas[j], logits: answers.map(({ logit }) => logit) }),
      );
    }
    drawCurve(find("curve"), points, this.prompt.answers);
    find("curve").removeAttribute("aria-busy");
  }

  async copy() {
    const alpha = { values: this.alpha, n: this.n };
    const text = pythonOf({ ...this.prompt, alpha, beta: this.beta });
    find("python").textContent = text;
    find("python-box").hidden = false;
    try {
      await navigator.clipboard.writeText(text);
      this.say("Copied.");
    } catch {
      this.say("The browser does not let the page copy: select the text below.");
    }
  }
}

/** Answers and top tokens of several runs, beside each other. */
export function showRows(host, runs, answers) {
  const standing = ({ logit, probability, rank }) =>
    `${logit.toFixed(3)} · ${percent(probability)} · ${rank}`;
  const gap = ({ answers: [a, b] }) => signed(a.logit - b.logit, 3);
  const rows = answers.map(({ text }, i) => [
    shown(text),
    ...runs.map(([, run]) => standing(run.answers[i])),
  ]);
  rows.push(["difference", ...runs.map(([, run]) => gap(run))]);
  const top = runs[0][1].top.map((_, i) => [
    String(i + 1),
    ...runs.map(([, run]) => `${shown(run.top[i].text)} ${percent(run.top[i].probability)}`),
  ]);
  const names = runs.map(([name]) => name);
  host.replaceChildren(
    table("Answers: logit in nats · probability · rank", ["answer", ...names], rows),
    table("Most probable next tokens", ["rank", ...names], top),
  );
}
