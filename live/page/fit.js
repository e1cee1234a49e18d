// Gradient ascent on the objective of the activation-scaling paper, Ψ = E_m + λ_F F + λ_M M_1
// (Eq. 9), for one prompt, with Adam as in the book.

import { logSumExp } from "./numbers.js";

/** Ψ, its terms, and its gradient by the logits at β = 1 and β = −1. */
export function objective(plus, minus, base, [correct, wrong], { margin, lambdaF }) {
  const gradients = [];
  let effectiveness = 0;
  let faithfulness = 0;
  const totalBase = logSumExp(base);
  for (const [sign, logits] of [
    [1, plus],
    [-1, minus],
  ]) {
    // KL divergence of the steered from the base distribution (Eq. 7).
    const total = logSumExp(logits);
    let divergence = 0;
    for (let i = 0; i < logits.length; i++) {
      const log = logits[i] - total;
      divergence += Math.exp(log) * (log - (base[i] - totalBase));
    }
    const gradient = new Float32Array(logits.length);
    for (let i = 0; i < logits.length; i++) {
      const log = logits[i] - total;
      gradient[i] = -lambdaF * Math.exp(log) * (log - (base[i] - totalBase) - divergence);
    }
    faithfulness -= divergence;
    // How far the answers are from swapped (Eq. 6).
    const lead = sign * (logits[correct] - logits[wrong]) - margin;
    if (lead < 0) {
      effectiveness += lead;
      gradient[correct] += sign;
      gradient[wrong] -= sign;
    }
    gradients.push(gradient);
  }
  return { effectiveness, faithfulness, gradients };
}

/**
 * Learn scalars.
 * @param start the initial scalars, [layer, 2, position]
 * @param options {margin, lambdaF, lambdaM, learningRate, epochs}
 * @param onStep called before each step with its number and the terms of Ψ; the fit stops if it
 *   returns true
 */
export async function fit(model, ids, answers, start, options, onStep) {
  const { lambdaF, lambdaM, learningRate, epochs } = options;
  const n = ids.length;
  const end = model.shape.n_layers;
  const last = (all) => model.logits(model.last(all[end], n));
  const alpha = start.slice();
  const [base] = await last(await model.streams(ids, alpha, [0]));
  const mean = new Float64Array(alpha.length);
  const square = new Float64Array(alpha.length);
  for (let step = 1; step <= epochs; step++) {
    // Both signs of β in one batch.
    const betas = [1, -1];
    const all = await model.streams(ids, alpha, betas);
    const [plus, minus] = await last(all);
    const terms = objective(plus, minus, base, answers, options);
    const size = alpha.reduce((sum, a) => sum + Math.abs(a), 0);
    const { effectiveness, faithfulness } = terms;
    const psi = effectiveness + lambdaF * faithfulness - lambdaM * size;
    if (!Number.isFinite(psi))
      throw new Error("The objective is no longer finite: lower the rate.");
    if (onStep({ step, psi, effectiveness, faithfulness, minimality: -size })) break;
    const gradient = await model.gradient(alpha, betas, all, terms.gradients);
    // Adam, upwards.
    for (let i = 0; i < alpha.length; i++) {
      const g = gradient[i] - lambdaM * Math.sign(alpha[i]);
      mean[i] = 0.9 * mean[i] + 0.1 * g;
      square[i] = 0.999 * square[i] + 0.001 * g * g;
      const m = mean[i] / (1 - 0.9 ** step);
      alpha[i] += (learningRate * m) / (Math.sqrt(square[i] / (1 - 0.999 ** step)) + 1e-8);
    }
  }
  return alpha;
}
