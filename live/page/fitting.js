// Learn scalars for the reader's own prompt.

import { find, signed } from "./dom.js";

const FIELDS = { margin: 1, lambdaF: 1, lambdaM: 1, learningRate: 0.01, epochs: 25 };

export class Fitting {
  constructor(client, scale, say) {
    Object.assign(this, { client, scale, say });
    find("fit").onclick = () => this.fit();
    find("stop").onclick = () => client.stop();
  }

  options() {
    const options = {};
    for (const [name, usual] of Object.entries(FIELDS)) {
      const { value } = find(name);
      options[name] = value === "" ? usual : Number(value);
      if (!(options[name] >= 0)) throw new Error(`${name} must be a number of at least 0.`);
    }
    if (!(options.learningRate > 0) || !(options.epochs >= 1)) {
      throw new Error("The learning rate must be positive, and the number of steps at least 1.");
    }
    return options;
  }

  async fit() {
    const { ids, answers } = this.scale.prompt;
    const before = Date.now();
    find("fit").disabled = true;
    find("stop").disabled = false;
    try {
      const options = this.options();
      find("fit-progress").max = options.epochs;
      const onProgress = ({ step, psi, effectiveness, faithfulness }) => {
        find("fit-progress").value = step;
        find("fit-state").textContent =
          `Step ${step} of ${options.epochs}: ` +
          `Ψ = ${signed(psi)}, E = ${signed(effectiveness)}, F = ${signed(faithfulness)}`;
      };
      const request = { ids, answers: answers.map(({ id }) => id), options };
      const alpha = await this.client.call("fit", request, { onProgress });
      if (this.scale.prompt.ids !== ids) return this.say("The prompt changed during the fit.");
      find("beta").value = 1;
      this.scale.replace(alpha);
      this.say(`Learned ${alpha.length} scalars in ${Math.round((Date.now() - before) / 1000)} s.`);
    } catch (error) {
      this.say(error.message);
    } finally {
      find("fit").disabled = false;
      find("stop").disabled = true;
    }
  }
}
