// Logits to probabilities, ranks and top tokens.

export function logSumExp(logits) {
  let max = -Infinity;
  for (const value of logits) max = Math.max(max, value);
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - max);
  return max + Math.log(sum);
}

/** The k largest values' indices, largest first. */
export function topK(values, k) {
  const top = [];
  for (let i = 0; i < values.length; i++) {
    if (top.length === k && values[i] <= values[top[k - 1]]) continue;
    let at = top.length;
    while (at > 0 && values[top[at - 1]] < values[i]) at--;
    top.splice(at, 0, i);
    if (top.length > k) top.pop();
  }
  return top;
}

/** One token's logit, probability and rank; 1 is the most probable. */
export function standing(logits, id, total = logSumExp(logits)) {
  let rank = 1;
  for (const value of logits) if (value > logits[id]) rank++;
  return { id, logit: logits[id], probability: Math.exp(logits[id] - total), rank };
}

/** Random numbers from a seed, uniform in (0, 1) (mulberry32). */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

/** n numbers from N(0, std²). */
export function normal(n, std, seed) {
  const next = uniform(seed);
  return Float32Array.from(
    { length: n },
    () => std * Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next()),
  );
}
