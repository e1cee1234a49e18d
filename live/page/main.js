// The page: loads the model, reads the prompt, and hands both to the panels.

import { Client } from "./client.js";
import { forget, forgetOthers, loadParts } from "./data.js";
import { element, find, shown } from "./dom.js";
import { Fitting } from "./fitting.js";
import { Heads } from "./heads.js";
import { Lens } from "./lens.js";
import { Scale, showRows } from "./scale.js";

const MOST_TOKENS = 128;
const CLOSE = 1e-3; // nats from the book's logits
const EXAMPLES = {
  IOI: ["When Ben met with Joe, Joe gave the book to", " Ben", " Joe"],
  CCC: [
    "The capital of Belgium is Kabul. Q: What is the capital of Belgium? A:",
    " Brussels",
    " Kabul",
  ],
  pronoun: ["The nurse went home early because", " she", " he"],
};

const say = (text) => (find("status").textContent = text);
const manifest = window.LIVE;
let client, panels;

function needs() {
  const missing = [];
  if (!window.WebAssembly) missing.push("WebAssembly");
  if (!window.DecompressionStream) missing.push("DecompressionStream");
  if (!window.Worker) missing.push("workers");
  if (missing.length) {
    throw new Error(
      `This browser lacks ${missing.join(" and ")}, which the page needs. ` +
        "Take a current Firefox, Chrome, Edge or Safari.",
    );
  }
  if (!manifest) throw new Error("data/manifest.js is missing or damaged. Run make live again.");
}

async function load() {
  const start = Date.now();
  const { parts, files, tensors, shape, bos } = manifest;
  const total = parts.reduce((sum, part) => sum + part.bytes, 0);
  let done = 0;
  let old = 0; // of them out of the browser's storage
  client = window.live = new Client(); // on the window for the console, and for tests
  await client.call("start", { parts, files, tensors, shape, bos });
  for await (const { part, bytes, stored } of loadParts(parts)) {
    done += bytes.length;
    if (stored) old += bytes.length;
    try {
      await client.call("part", bytes, { transfer: [bytes.buffer] });
    } catch (error) {
      await forget(part);
      if (!stored) throw error;
      throw new Error(
        `${part.name} was damaged in this browser's storage and is removed: reload the page.`,
      );
    }
    find("load-progress").value = done / total;
    const here = old ? `, ${Math.round(old / 1e6)} of them out of this browser's storage` : "";
    say(`Loading the model: ${Math.round(done / 1e6)} of ${Math.round(total / 1e6)} MB${here}`);
  }
  await forgetOthers(parts);
  say("Starting the model …");
  const { graphics } = await client.call("open");
  find("load-progress").hidden = true;
  find("processor-row").hidden = !graphics;
  say(`The model is ready, after ${((Date.now() - start) / 1000).toFixed(1)} s.`);
}

/** The prompt and its answers as tokens, or an error that shows the pieces. */
async function readPrompt() {
  const text = find("prompt").value;
  const { ids, pieces } = await client.call("tokens", text);
  if (ids.length > MOST_TOKENS) {
    throw new Error(`The prompt has ${ids.length} tokens; this page takes at most ${MOST_TOKENS}.`);
  }
  const given = [find("correct").value, find("wrong").value];
  const answers = (await client.call("words", given)).map(({ text: answer, ids, pieces }) => {
    if (ids.length !== 1) {
      const listed = pieces.map(shown).join(" · ") || "nothing";
      throw new Error(
        `The answer “${shown(answer)}” is ${ids.length} tokens (${listed}); ` +
          "it has to be one. A word inside a sentence has a space in front.",
      );
    }
    return { text: answer, id: ids[0] };
  });
  if (answers[0].id === answers[1].id) throw new Error("The two answers are the same token.");
  return { text, ids, pieces, answers };
}

async function run() {
  find("run").disabled = true;
  client.stop(); // a fit of the prompt before
  try {
    say("Running …");
    const prompt = await readPrompt();
    const list = prompt.pieces.map((piece, i) =>
      element("li", {}, element("code", {}, shown(piece)), element("small", {}, ` ${i}`)),
    );
    find("tokens").replaceChildren(...list);
    const answers = prompt.answers.map(({ id }) => id);
    const alpha = new Float32Array(manifest.shape.n_layers * 2 * prompt.ids.length);
    const start = performance.now();
    const [base] = await client.call("run", { ...prompt, answers, alpha, betas: [0] });
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    showRows(find("base"), [["unchanged", base]], prompt.answers);
    say(`Ran ${prompt.ids.length} tokens in ${seconds} s.`);
    panels.lens.clear();
    panels.heads.setPrompt(prompt);
    panels.scale.setPrompt(prompt, base);
    for (const panel of document.querySelectorAll("section[data-needs-prompt]")) {
      panel.hidden = false;
    }
  } catch (error) {
    say(error.message);
  } finally {
    find("run").disabled = false;
  }
}

/** Compares this browser's logits with those that the book's model gave; what was found. */
async function compare() {
  const { cases } = manifest.check;
  let worst = 0;
  const start = performance.now();
  for (const [i, { text, alpha, ids: tokens, logits }] of cases.entries()) {
    find("check-result").textContent = `Comparing ${i + 1} of ${cases.length} …`;
    const { ids } = await client.call("tokens", text);
    const request = { ids, alpha: Float32Array.from(alpha), betas: [1] };
    const [ours] = await client.call("logits", request);
    tokens.forEach((id, j) => (worst = Math.max(worst, Math.abs(ours[id] - logits[j]))));
  }
  const seconds = (performance.now() - start) / 1000 / cases.length;
  const same = worst <= CLOSE;
  const verdict = same ? "the same to 0.001" : "NOT the same to 0.001";
  const text =
    `${cases.length} runs in this browser, ${seconds.toFixed(1)} s each: at most ` +
    `${worst.toExponential(1)} nats from the book's model, so ${verdict}.`;
  return { same, text };
}

async function check() {
  try {
    find("check-result").textContent = (await compare()).text;
  } catch (error) {
    find("check-result").textContent = error.message;
  }
}

/** Goes to another processor, and back if it does not give the book's logits. */
async function changeProcessor() {
  const chosen = find("processor");
  chosen.disabled = true;
  try {
    find("check-result").textContent = "Starting the model there …";
    await client.call("processor", chosen.value);
    const { same, text } = await compare();
    if (!same) throw new Error(text);
    find("check-result").textContent = text;
  } catch (error) {
    await client.call("processor", "wasm");
    chosen.value = "wasm";
    find("check-result").textContent =
      `The graphics processor is not used; the page goes on with WebAssembly. ${error.message}`;
  }
  chosen.disabled = false;
}

function about() {
  const {
    model,
    check: { prompts, plain, scaled },
  } = manifest;
  find("about-model").textContent = model;
  find("about-check").textContent =
    `When this page was built, its logits of ${prompts} prompts ` +
    `were at most ${plain.toExponential(1)} nats from the book's model, and with random scalars ` +
    `at most ${scaled.toExponential(1)} nats.`;
  find("about-storage").textContent =
    location.protocol === "file:"
      ? "Opened from disk, the page reads its files anew each time; a load that was broken off " +
        "starts again. Served by a server, it stores them in the browser."
      : "The page stores the model in this browser, part by part: a load that was broken off " +
        "goes on, and the next visit loads nothing. Clear the site's data to remove it.";
}

async function main() {
  try {
    needs();
    about();
    await load();
    const scale = new Scale(client, manifest, say);
    panels = {
      scale,
      fitting: new Fitting(client, scale, say),
      lens: new Lens(client, scale, say),
      heads: new Heads(client, scale, manifest.shape, say),
    };
  } catch (error) {
    find("load-progress").hidden = true;
    return say(error.message);
  }
  find("form").onsubmit = (event) => {
    event.preventDefault();
    run();
  };
  for (const button of document.querySelectorAll("[data-example]")) {
    button.onclick = () => {
      const [text, correct, wrong] = EXAMPLES[button.dataset.example];
      Object.assign(find("prompt"), { value: text });
      Object.assign(find("correct"), { value: correct });
      Object.assign(find("wrong"), { value: wrong });
      run();
    };
  }
  find("check").onclick = check;
  find("processor").onchange = changeProcessor;
  for (const id of ["run", "check"]) find(id).disabled = false;
  await run();
}

main();
