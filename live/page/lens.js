// The logit lens: what the final norm and the unembedding make of every layer's residual stream.

import { find, percent, shown } from "./dom.js";
import { Grid } from "./grid.js";

export class Lens {
  constructor(client, scale, say) {
    Object.assign(this, { client, scale, say });
    find("lens-run").onclick = () => this.run();
    find("lens-show").onchange = () => this.grid?.refresh();
  }

  clear() {
    this.grid = null;
    find("lens-map").replaceChildren();
  }

  async run() {
    const { prompt, beta } = this.scale;
    const { ids, answers, pieces } = prompt;
    const bar = find("lens-progress");
    const onProgress = (share) => (bar.value = share);
    const request = {
      ids,
      beta,
      alpha: this.scale.alpha.slice(),
      answers: answers.map((a) => a.id),
    };
    try {
      const cells = await this.client.call("lens", request, { slot: "lens", onProgress });
      if (this.scale.prompt !== prompt) return;
      const at = (layer, position) => cells[layer * ids.length + position];
      const which = () => Number(find("lens-show").value);
      this.grid = new Grid(find("lens-map"), {
        label: "Logit lens, layer by position",
        rows: Array.from({ length: cells.length / ids.length }, (_, layer) => String(layer)),
        columns: pieces.map(shown),
        value: (...cell) => (which() < 0 ? at(...cell).probability : at(...cell).answers[which()]),
        limit: () => 1.6, // of a probability: the text on the cells stays legible
        text: (...cell) => shown(at(...cell).text),
        describe: (layer, position) => {
          const { text, probability, answers: found } = at(layer, position);
          const own = answers.map((a, i) => `${shown(a.text)} ${percent(found[i])}`).join(", ");
          return (
            `in front of layer ${layer}, position ${position} ${shown(pieces[position])}: ` +
            `${shown(text)} ${percent(probability)}; ${own}`
          );
        },
        onSelect: (...cell) => {
          find("lens-cell").textContent = this.grid.options.describe(...cell);
        },
      });
    } catch (error) {
      this.say(error.message);
    }
  }
}
