// Observables: feature vectors of all heads for two lists of words, and adding one to a token.

import { find, shown, signed, table } from "./dom.js";
import { Grid } from "./grid.js";
import { showRows } from "./scale.js";

export class Heads {
  constructor(client, scale, shape, say) {
    Object.assign(this, { client, scale, shape, say });
    find("features").onclick = () => this.compute();
    find("add").onclick = () => this.add();
  }

  setPrompt(prompt) {
    find("add-position").max = prompt.ids.length - 1;
    find("add-position").value = prompt.ids.length - 1;
    find("added").replaceChildren();
  }

  /** The ids of a field's words, which stand between commas; a space goes in front of each. */
  async words(field) {
    const texts = find(field)
      .value.split(",")
      .map((word) => ` ${word.trim()}`);
    const found = await this.client.call("words", texts);
    for (const { text, ids, pieces } of found) {
      if (ids.length === 1) continue;
      throw new Error(
        `“${text.trim()}” is not one token but ${ids.length}: ` +
          `${pieces.map(shown).join(" · ")}. Take words of one token each.`,
      );
    }
    return found.map(({ ids }) => ids[0]);
  }

  async compute() {
    try {
      const [plus, minus] = [await this.words("plus"), await this.words("minus")];
      const norms = find("norms").checked;
      const found = await this.client.call("features", { plus, minus, norms });
      Object.assign(this, found);
      const { n_heads } = this.shape;
      const name = (i) => `${Math.floor(i / n_heads)}.${i % n_heads}`;
      const longest = Math.max(...this.lengths);
      this.grid = new Grid(find("heads-map"), {
        label: "Lengths of the heads' feature vectors, layer by head",
        rows: Array.from({ length: this.shape.n_layers }, (_, layer) => String(layer)),
        columns: Array.from({ length: n_heads }, (_, head) => String(head)),
        value: (layer, head) => this.lengths[layer * n_heads + head],
        limit: () => longest,
        describe: (layer, head) =>
          `head ${layer}.${head}: length ${this.lengths[layer * n_heads + head].toFixed(2)}`,
        onPaint: (layer, head) => this.choose(layer, head),
        onKey: (event, layer, head) => event.key === "Enter" && this.choose(layer, head),
      });
      const order = [...this.lengths.keys()].sort((a, b) => this.lengths[b] - this.lengths[a]);
      const rows = order.slice(0, 8).map((i) => [name(i), this.lengths[i].toFixed(2)]);
      find("heads-top").replaceChildren(table("Longest", ["head", "length"], rows));
      await this.choose(Math.floor(order[0] / n_heads), order[0] % n_heads);
    } catch (error) {
      this.say(error.message);
    }
  }

  async choose(layer, head) {
    this.chosen = { layer, vector: this.features[layer * this.shape.n_heads + head] };
    const { most, least } = await this.client.call("readBy", { vector: this.chosen.vector });
    const rows = most.map((text, i) => [String(i + 1), shown(text), shown(least[i])]);
    find("head").replaceChildren(
      table(`Head ${layer}.${head}: embeddings that it reads`, ["rank", "most", "least"], rows),
    );
    find("add").disabled = false;
  }

  /** The chosen vector, of length 1 times the strength, added to a token in front of its layer. */
  async add() {
    const { prompt } = this.scale;
    const [position, strength] = ["add-position", "add-strength"].map((id) =>
      Number(find(id).value),
    );
    if (!Number.isInteger(position) || position < 0 || position >= prompt.ids.length) {
      return this.say(`Positions are 0 to ${prompt.ids.length - 1}.`);
    }
    const { layer, vector } = this.chosen;
    const length = Math.sqrt(vector.reduce((sum, v) => sum + v * v, 0)) || 1;
    const edit = { layer, position, vector: vector.map((v) => v / length) };
    edit.strengths = [0, strength, -strength];
    const request = { ...this.scale.request([0, 0, 0]), edit };
    try {
      const rows = await this.client.call("run", request);
      const names = ["unchanged", signed(strength, 1), signed(-strength, 1)];
      showRows(
        find("added"),
        rows.map((row, i) => [names[i], row]),
        prompt.answers,
      );
    } catch (error) {
      this.say(error.message);
    }
  }
}
