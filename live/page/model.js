// The model: residual streams with scaled activations, logits, and their gradient.
//
// Arrays are flat Float32Arrays. A residual stream is [row, position, d_model], a row for each
// strength β. Scalars are [layer, 2, position]: of attention's output, then of the MLP's.

const CHUNK = 8192; // rows of the unembedding in one product

/** Lets messages in, such as the one that stops a fit. */
const pause = () => new Promise((resolve) => setTimeout(resolve));

export class Model {
  /**
   * @param ort ONNX Runtime
   * @param sessions the four graphs by name
   * @param store the weights
   * @param shape sizes of the model
   */
  constructor(ort, sessions, store, shape) {
    Object.assign(this, { ort, sessions, store, shape });
    this.weights = new Map();
    // Weights as floats take five times the room of the blocks: small devices make them anew.
    this.keep = !(navigator.deviceMemory < 4);
  }

  tensor(data, dims) {
    return new this.ort.Tensor("float32", data, dims);
  }

  weight(name, from, to) {
    const key = `${name} ${from}`;
    if (this.weights.has(key)) return this.weights.get(key);
    const [rows, ...rest] = this.store.tensors[name].shape;
    const dims = from === undefined ? [rows, ...rest] : [Math.min(to, rows) - from, ...rest];
    const made = this.tensor(this.store.rows(name, from, to), dims);
    if (this.keep) this.weights.set(key, made);
    return made;
  }

  async run(graph, inputs) {
    const session = this.sessions[graph];
    for (const name of session.inputNames) {
      if (name.startsWith("attn_") || name.startsWith("ffn_")) {
        inputs[name] = this.weight(`blk.${inputs.layer}.${name}.weight`);
      }
    }
    delete inputs.layer;
    const outputs = await session.run(inputs);
    return session.outputNames.map((name) => outputs[name].data);
  }

  /** The unembedding, which is the embedding too, in chunks of rows. */
  *table() {
    for (let from = 0; from < this.shape.d_vocab; from += CHUNK) {
      yield { from, rows: this.weight("token_embd.weight", from, from + CHUNK) };
    }
  }

  embed(ids) {
    const d = this.shape.d_model;
    const x = new Float32Array(ids.length * d);
    ids.forEach((id, i) => x.set(this.store.rows("token_embd.weight", id, id + 1), i * d));
    return x;
  }

  /** A layer's scalars times each β: [row, 2, position]. */
  scales(alpha, betas, layer, n) {
    const own = alpha.subarray(layer * 2 * n, (layer + 1) * 2 * n);
    const out = new Float32Array(betas.length * 2 * n);
    betas.forEach((beta, row) => own.forEach((a, i) => (out[row * 2 * n + i] = beta * a)));
    return this.tensor(out, [betas.length, 2, n]);
  }

  /**
   * The residual stream in front of every layer and at the end.
   * @param edit {layer, position, vector, strengths}: added in front of a layer, a strength a row
   */
  async streams(ids, alpha, betas, edit = null) {
    const { n_layers, d_model } = this.shape;
    const dims = [betas.length, ids.length, d_model];
    const first = this.embed(ids);
    let x = new Float32Array(betas.length * first.length);
    betas.forEach((_, row) => x.set(first, row * first.length));
    const all = [];
    for (let layer = 0; layer <= n_layers; layer++) {
      if (edit?.layer === layer) x = this.edited(x, edit, ids.length);
      all.push(x);
      if (layer === n_layers) break;
      const scales = this.scales(alpha, betas, layer, ids.length);
      [x] = await this.run("layer", { layer, x: this.tensor(x, dims), alpha: scales });
    }
    return all;
  }

  edited(x, { position, vector, strengths }, n) {
    const out = x.slice();
    strengths.forEach((strength, row) => {
      const start = (row * n + position) * vector.length;
      vector.forEach((v, i) => (out[start + i] += strength * v));
    });
    return out;
  }

  /** The vectors of some positions of a stream, one after the other. */
  pick(x, positions) {
    const d = this.shape.d_model;
    const out = new Float32Array(positions.length * d);
    positions.forEach((at, i) => out.set(x.subarray(at * d, (at + 1) * d), i * d));
    return out;
  }

  /** The last position of every row. */
  last(x, n) {
    const rows = x.length / (n * this.shape.d_model);
    return this.pick(
      x,
      Array.from({ length: rows }, (_, row) => (row + 1) * n - 1),
    );
  }

  /** Logits of vectors, in chunks of the vocabulary: [vector, token of the chunk]. */
  async *logitChunks(x) {
    const { d_model } = this.shape;
    const vectors = this.tensor(x, [x.length / d_model, d_model]);
    const weight = this.weight("output_norm.weight");
    for (const { from, rows: table } of this.table()) {
      const [logits] = await this.run("logits", { x: vectors, weight, table });
      yield { from, size: table.dims[0], logits };
    }
  }

  /** Logits of vectors: an array of d_vocab numbers for each. */
  async logits(x) {
    const { d_model, d_vocab } = this.shape;
    const out = Array.from({ length: x.length / d_model }, () => new Float32Array(d_vocab));
    for await (const { from, size, logits } of this.logitChunks(x)) {
      out.forEach((one, i) => one.set(logits.subarray(i * size, (i + 1) * size), from));
    }
    return out;
  }

  /**
   * d/dα of a function of the last position's logits, of all rows together.
   * @param all the streams
   * @param dLogits the function's gradient by the logits, an array a row
   */
  async gradient(alpha, betas, all, dLogits) {
    const { n_layers, d_model } = this.shape;
    const rows = betas.length;
    const n = all[0].length / (rows * d_model);
    // Through unembedding and final norm; chunks of the vocabulary add up.
    const x = this.tensor(this.last(all[n_layers], n), [rows, d_model]);
    const weight = this.weight("output_norm.weight");
    const dLast = new Float32Array(rows * d_model);
    for (const { from, rows: table } of this.table()) {
      const size = table.dims[0];
      const part = new Float32Array(rows * size);
      dLogits.forEach((one, row) => part.set(one.subarray(from, from + size), row * size));
      const dlogits = this.tensor(part, [rows, size]);
      const [dx] = await this.run("logits_gradient", { x, dlogits, weight, table });
      dx.forEach((value, i) => (dLast[i] += value));
    }
    // Through the layers, from the last to the first.
    let dy = new Float32Array(rows * n * d_model);
    for (let row = 0; row < rows; row++) {
      dy.set(dLast.subarray(row * d_model, (row + 1) * d_model), ((row + 1) * n - 1) * d_model);
    }
    const out = new Float32Array(alpha.length);
    const dims = [rows, n, d_model];
    for (let layer = n_layers - 1; layer >= 0; layer--) {
      const inputs = { layer, x: this.tensor(all[layer], dims), dy: this.tensor(dy, dims) };
      inputs.alpha = this.scales(alpha, betas, layer, n);
      const [dx, dScales] = await this.run("layer_gradient", inputs);
      const start = layer * 2 * n;
      dScales.forEach((value, i) => {
        out[start + (i % (2 * n))] += betas[Math.floor(i / (2 * n))] * value;
      });
      dy = dx;
      await pause();
    }
    return out;
  }
}
