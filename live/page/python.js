// The state of the page as Python that gives the same logits with the book's helpers.

const SITES = ["attn_out", "mlp_out"];

/** A string as a Python literal: JSON's escapes are Python's too. */
const literal = (text) => JSON.stringify(text);

export function pythonOf({ text, answers, alpha, beta }) {
  const n = alpha.n;
  const lines = [];
  alpha.values.forEach((value, i) => {
    if (!value) return;
    const [layer, site, position] = [Math.floor(i / (2 * n)), Math.floor(i / n) % 2, i % n];
    const number = Number(value.toPrecision(7));
    lines.push(`    ("${SITES[site]}", ${layer}, ${position}): ${number},`);
  });
  return `import torch

from helpers.activation_scaling.interventions import ActivScalar, steered_logits
from helpers.activation_scaling.points import Points
from helpers.models.load import load_model
from helpers.models.tokens import single_token, tokenize

model = load_model("smollm2")
tokens = tokenize(model, [${literal(text)}])
alpha = {  # (site, layer, position): scalar
${lines.join("\n")}
}
points = Points.of(model, tokens.shape[1], sites=("attn_out", "mlp_out"))
intervention = ActivScalar(points).to(tokens.device)
with torch.no_grad():
    for (site, layer, position), scalar in alpha.items():
        intervention.theta[site][layer, position] = scalar
    logits = steered_logits(model, tokens, intervention, [${beta}])[0, 0]
for answer in (${answers.map(({ text }) => `${literal(text)},`).join(" ")}):
    print(repr(answer), logits[single_token(model, answer)].item())
`;
}
