// Both answers' logits over the strength β, as a picture and as a table.

import { element, shown, signed, table } from "./dom.js";

const WIDTH = 480;
const HEIGHT = 240;
const EDGE = 34;
const RIGHT = 80; // for the answers' names

/** Where the difference of the two answers changes its sign. */
export function crossings(points) {
  const found = [];
  for (let i = 1; i < points.length; i++) {
    const [a, b] = [points[i - 1], points[i]].map(({ logits }) => logits[0] - logits[1]);
    if (Math.sign(a) === Math.sign(b)) continue;
    const share = a / (a - b);
    found.push(points[i - 1].beta + share * (points[i].beta - points[i - 1].beta));
  }
  return found;
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** @param points [{beta, logits: [of the first answer, of the second]}], in order of β */
export function drawCurve(host, points, answers) {
  const all = points.flatMap(({ logits }) => logits);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const [first, last] = [points[0].beta, points.at(-1).beta];
  const x = (beta) => EDGE + ((beta - first) / (last - first)) * (WIDTH - EDGE - RIGHT);
  const y = (logit) => HEIGHT - EDGE - ((logit - low) / (high - low || 1)) * (HEIGHT - 2 * EDGE);
  const texts = answers.map(({ text }) => shown(text));
  const found = crossings(points);
  const where = found.length
    ? `the answers change places at β = ${found.map((beta) => signed(beta)).join(", ")}`
    : "the answers do not change places";
  const picture = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    class: "curve",
    "aria-label": `Logits over the strength: ${where}`,
  });
  for (const beta of [first, 0, last]) {
    picture.append(
      svg("line", { x1: x(beta), x2: x(beta), y1: EDGE, y2: HEIGHT - EDGE, class: "axis" }),
      svg("text", { x: x(beta), y: HEIGHT - 12, "text-anchor": "middle" }, `β = ${beta}`),
    );
  }
  for (const logit of [low, high]) {
    picture.append(svg("text", { x: 2, y: y(logit) + 4 }, logit.toFixed(1)));
  }
  picture.append(svg("text", { x: 2, y: 14 }, "logit in nats"));
  texts.forEach((text, answer) => {
    const at = points.map(({ beta, logits }) => `${x(beta)},${y(logits[answer])}`);
    picture.append(svg("polyline", { points: at.join(" "), class: `line-${answer}` }));
    const label = { x: x(last) + 6, y: y(points.at(-1).logits[answer]) + 4 };
    picture.append(svg("text", { ...label, class: `text-${answer}` }, text));
  });
  const rows = points.map(({ beta, logits }) => [
    signed(beta, 1),
    ...logits.map((logit) => logit.toFixed(3)),
    signed(logits[0] - logits[1], 3),
  ]);
  const numbers = element(
    "details",
    {},
    element("summary", {}, "As a table"),
    table("Logits over the strength, in nats", ["β", ...texts, "difference"], rows),
  );
  const sentence = `${where[0].toUpperCase()}${where.slice(1)}.`;
  host.replaceChildren(picture, element("p", {}, sentence), numbers);
}
