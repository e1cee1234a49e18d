// Feature vectors of all heads for an observable (observable propagation, sections 3 and 4).

/** m = W_U n: the mean of some tokens' rows of the unembedding minus the mean of others'. */
export function observable(model, plus, minus) {
  const vector = new Float32Array(model.shape.d_model);
  for (const [sign, ids] of [
    [1, plus],
    [-1, minus],
  ]) {
    for (const id of ids) {
      const row = model.store.rows("token_embd.weight", id, id + 1);
      row.forEach((value, i) => (vector[i] += (sign / ids.length) * value));
    }
  }
  return vector;
}

/**
 * What each head reads for the observable, W_V (W_O m), an array of d_model numbers for each.
 * @param norms whether the norms' weights are multiplied in (section 4.4), or norms are left out
 */
export function headFeatures(model, m, norms) {
  const { n_layers, n_heads, n_kv_heads, d_head, d_model } = model.shape;
  const root = Math.sqrt(d_model); // the paper's factor for an input of length 1
  const scaled = (vector, name) => {
    const weight = model.store.rows(name);
    return vector.map((value, i) => root * weight[i] * value);
  };
  const y = norms ? scaled(m, "output_norm.weight") : m;
  const features = [];
  for (let layer = 0; layer < n_layers; layer++) {
    const wO = model.weight(`blk.${layer}.attn_output.weight`).data; // [d_model, head · d_head]
    const wV = model.weight(`blk.${layer}.attn_v.weight`).data; // [kv · d_head, d_model]
    for (let head = 0; head < n_heads; head++) {
      const shared = Math.floor((head * n_kv_heads) / n_heads);
      const feature = new Float32Array(d_model);
      for (let e = 0; e < d_head; e++) {
        let through = 0;
        for (let i = 0; i < d_model; i++) through += wO[(i * n_heads + head) * d_head + e] * y[i];
        const row = (shared * d_head + e) * d_model;
        for (let i = 0; i < d_model; i++) feature[i] += wV[row + i] * through;
      }
      features.push(norms ? scaled(feature, `blk.${layer}.attn_norm.weight`) : feature);
    }
  }
  return features;
}

export function length(vector) {
  return Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
}
