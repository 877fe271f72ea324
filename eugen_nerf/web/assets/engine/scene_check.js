// Refuses descriptions that are not what `eugen-web` writes. Shaders are made of numbers and known words alone, whatever
// stands here (see wgsl_words.js); this is for messages that say what is wrong.

import { refuse } from "../shaders/wgsl_words.js";

export const VERSION = 1;
const MOST_STEPS = 64;
const MOST_WIDTH = 4096;
const MOST_SHARES = 16;

export function checkDescription(description) {
  if (description?.version !== VERSION) refuse(`it has version ${Number(description?.version)}, and this page reads ${VERSION}`);
  const { info, field, renderer, blocks } = description;
  if (!info || !field || !renderer || !Array.isArray(blocks)) refuse("parts of its description are missing");
  if (field.kind !== "radiance" && field.kind !== "distance") refuse("it is no field of colours or distances");
  const shares = info.shares ?? [];
  checkWhole(shares.length, 0, MOST_SHARES, "shares of its features");
  for (const each of [field, ...(renderer.proposals ?? [])]) checkField(each, Math.max(1, shares.length));
}

function checkField(field, shares) {
  for (const network of [field.network, ...(field.deformation ? [field.deformation.network] : [])]) {
    checkNetwork(network);
    if (network.narrower === undefined) continue;
    if (!Array.isArray(network.narrower)) refuse("it has no list of narrower networks");
    checkWhole(network.narrower.length, shares - 1, shares - 1, "narrower networks");
    network.narrower.forEach(checkNetwork);
  }
}

function checkNetwork(network) {
  const { inputs, steps, outputs } = network;
  checkWhole(steps.length, 0, MOST_STEPS, "layers");
  inputs.forEach((width) => checkWhole(width, 1, MOST_WIDTH, "numbers of an encoding"));
  steps.forEach((step, i) => {
    checkWhole(step.rows, 1, MOST_WIDTH, "rows of a layer");
    checkWhole(step.degree, 1, 8, "degree of a layer");
    step.reads.forEach((value) => checkWhole(value, 0, inputs.length + i - 1, "inputs of a layer"));
  });
  outputs.forEach((output) => checkWhole(output.reads, 0, inputs.length + steps.length - 1, "outputs of a network"));
}

function checkWhole(value, least, most, what) {
  if (!Number.isInteger(value) || value < least || value > most) refuse(`the ${what} are from ${least} to ${most}`);
}
