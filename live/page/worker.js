// The worker, which holds the model: a page that computes here never freezes.

import { Tokenizer } from "@huggingface/tokenizers";
import * as wasm from "onnxruntime-web/wasm";
import * as webgpu from "onnxruntime-web/webgpu";

import { fit } from "./fit.js";
import { Model } from "./model.js";
import { logSumExp, normal, standing, topK } from "./numbers.js";
import { headFeatures, length, observable } from "./observables.js";
import { Store } from "./store.js";

const GRAPHS = ["layer", "layer_gradient", "logits", "logits_gradient"];
const RUNTIMES = { wasm, webgpu };
const models = {}; // by their runtime
let store, model, tokenizer, manifest;
let stopped = false;

const encode = (text) => tokenizer.encode(text, { add_special_tokens: false }).ids;
const decode = (id) => tokenizer.decode([id], { clean_up_tokenization_spaces: false });
const named = (logits, k) => {
  const total = logSumExp(logits);
  return topK(logits, k).map((id) => ({ text: decode(id), ...standing(logits, id, total) }));
};

async function open(name) {
  const ort = RUNTIMES[name];
  ort.env.wasm.wasmBinary = await store.file(`runtime-${name}`);
  ort.env.wasm.numThreads = 1; // pages on disk may not share memory between threads
  ort.env.logLevel = "error";
  const sessions = {};
  for (const graph of GRAPHS) {
    const options = { executionProviders: [name], logSeverityLevel: 3 };
    sessions[graph] = await ort.InferenceSession.create(await store.file(graph), options);
  }
  return new Model(ort, sessions, store, manifest.shape);
}

const methods = {
  start(given) {
    manifest = given;
    store = new Store(manifest);
  },

  part(bytes) {
    store.add(bytes);
  },

  /** Starts the model; says whether there is a graphics processor. */
  async open() {
    await methods.processor("wasm");
    tokenizer = new Tokenizer(
      await store.json("tokenizer.json"),
      await store.json("tokenizer_config.json"),
    );
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
    // One that the browser computes in software is slower than WebAssembly.
    return { graphics: Boolean(adapter) && !(adapter.info ?? adapter).isFallbackAdapter };
  },

  /** Has another runtime compute from now on, of which the model is started if need be. */
  async processor(name) {
    models[name] ??= await open(name);
    if (model !== models[name]) model?.weights.clear(); // not twice in memory
    model = models[name];
  },

  /** A prompt's token ids with one beginning-of-sequence token in front, and each token's text. */
  tokens(text) {
    if (!text) throw new Error("The prompt has no tokens: type a text.");
    const own = encode(text);
    const ids = own[0] === manifest.bos ? own : [manifest.bos, ...own];
    return { ids, pieces: ids.map(decode) };
  },

  /** Ids of texts, without that token, and their pieces. */
  words(texts) {
    return texts.map((text) => {
      const ids = encode(text);
      return { text, ids, pieces: ids.map(decode) };
    });
  },

  /** For each β (and edit): top tokens, and logit, probability and rank of the answers. */
  async run({ ids, alpha, betas, answers, edit, k = 8 }) {
    const all = await model.streams(ids, alpha, betas, edit);
    const rows = await model.logits(model.last(all.at(-1), ids.length));
    return rows.map((logits) => ({
      top: named(logits, k),
      answers: answers.map((id) => standing(logits, id)),
    }));
  },

  /** Logits of the last position at each β. */
  async logits({ ids, alpha, betas, edit }) {
    const all = await model.streams(ids, alpha, betas, edit);
    return model.logits(model.last(all.at(-1), ids.length));
  },

  async fit({ ids, answers, options, start = null }, progress) {
    const size = model.shape.n_layers * 2 * ids.length;
    stopped = false;
    return fit(model, ids, answers, start ?? normal(size, 1e-5, 0), options, (state) => {
      progress(state);
      return stopped;
    });
  },

  /** Top token, and the answers' probabilities, of every layer's residual stream. */
  async lens({ ids, alpha, beta, answers }, progress) {
    const all = await model.streams(ids, alpha, [beta]);
    const n = all.length * ids.length;
    const x = new Float32Array(n * model.shape.d_model);
    all.forEach((one, layer) => x.set(one, layer * one.length));
    const best = Array.from({ length: n }, () => ({ id: 0, logit: -Infinity }));
    const sums = new Float64Array(n); // of exp(logit − best logit)
    const found = answers.map(() => new Float32Array(n));
    for await (const { from, size, logits } of model.logitChunks(x)) {
      for (let i = 0; i < n; i++) {
        const part = logits.subarray(i * size, (i + 1) * size);
        const before = best[i].logit;
        part.forEach((logit, j) => {
          if (logit > best[i].logit) best[i] = { id: from + j, logit };
        });
        if (before > -Infinity) sums[i] *= Math.exp(before - best[i].logit);
        for (const logit of part) sums[i] += Math.exp(logit - best[i].logit);
        answers.forEach((id, a) => {
          if (id >= from && id < from + size) found[a][i] = part[id - from];
        });
      }
      progress((from + size) / model.shape.d_vocab);
    }
    return best.map(({ id, logit }, i) => ({
      text: decode(id),
      probability: 1 / sums[i],
      answers: found.map((one) => Math.exp(one[i] - logit) / sums[i]),
    }));
  },

  /** Lengths of all heads' feature vectors, and the vectors. */
  features({ plus, minus, norms }) {
    const features = headFeatures(model, observable(model, plus, minus), norms);
    return { features, lengths: features.map(length) };
  },

  /** The tokens whose embeddings a vector reads most, and least. */
  readBy({ vector, k = 8 }) {
    const { d_model, d_vocab } = model.shape;
    const products = new Float32Array(d_vocab);
    for (const { from, rows } of model.table()) {
      for (let row = 0; row < rows.dims[0]; row++) {
        let sum = 0;
        for (let i = 0; i < d_model; i++) sum += rows.data[row * d_model + i] * vector[i];
        products[from + row] = sum;
      }
    }
    const texts = (values) => topK(values, k).map(decode);
    return { most: texts(products), least: texts(products.map((value) => -value)) };
  },
};

self.onmessage = async ({ data: { method, args } }) => {
  if (method === "stop") {
    stopped = true;
    return;
  }
  try {
    const progress = (value) => postMessage({ progress: value });
    postMessage({ result: await methods[method](args, progress) });
  } catch (error) {
    postMessage({ error: error.message });
  }
};
