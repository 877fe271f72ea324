// Collapsed networks as a program for wgsl_layers.js: packed weights, places of values, and instructions.

import { CHUNK, MOST_ACCUMULATORS, PROGRAM, THREADS, TILES } from "./tile_sizes.js";
import { activation, product, refuse } from "./wgsl_words.js";

const MOST_ENCODED = 96; // numbers of an input that are encoded at once; of a wider one some at a time
export const STREAMED = 0xffffffff; // in place of a row: encoded some numbers at a time

const SMALLER = "take another GPU, or make the network narrower (eugen-distill)";

const padded = (n) => Math.ceil(n / 4) * 4;

// A network of a description with its weights packed as threads read them.
//   inputs: for each input the planned encodings that make it. reader: of the description's blocks.
//   constants: where packed biases go, and packed weights where no place of their own is given. widest: numbers of an
//   output that is a value itself; those with a matrix have four at most.
export function planNetwork(name, network, inputs, reader, constants, { matrices = constants, widest = 4 } = {}) {
  const widths = network.inputs.slice();
  const segmentsOf = (value) => (value < inputs.length ? inputs[value].map((part) => part.width) : [widths[value]]);
  const steps = network.steps.map((step) => {
    const projections = step.shared ? step.degree : (step.degree * (step.degree + 1)) / 2;
    const features = step.rows / projections;
    if (!Number.isInteger(features) || projections > MOST_ACCUMULATORS) refuse("a layer has too many projections");
    const segments = step.reads.flatMap(segmentsOf);
    const columns = segments.reduce((sum, width) => sum + width, 0);
    const column = (block) =>
      constants.add(packColumn(block === null ? new Float32Array(step.rows) : reader.floats(block, step.rows), features, projections));
    const factors = step.reads.map((value, i) => {
      if (step.norm === null || step.factors[i] === null) return null;
      if (value < inputs.length) refuse("a norm has a factor of an input");
      return planFactor(step.factors[i], widths[value], reader, constants, matrices);
    });
    widths.push(features * step.degree);
    return {
      reads: step.reads,
      degree: step.degree,
      shared: step.shared,
      normed: step.norm !== null,
      projections,
      features,
      groups: Math.ceil(features / 4),
      weightAt: matrices.add(packRows(reader.floats(step.weight, step.rows * columns), segments, features, projections)),
      biasAt: column(step.bias),
      normAt: step.norm === null ? 0 : column(step.norm),
      factors,
      function: activation(step.phi, step.parameter),
      product: product(step.product ?? "plain"),
    };
  });
  let first = 0;
  const outputs = network.outputs.map((output) => {
    const width = output.weight === null ? widths[output.reads] : output.rows;
    const most = output.weight === null ? widest : 4;
    if (output.reads < inputs.length || width > most) refuse(`a network's output is an input, or wider than ${most}`);
    const planned = { value: output.reads, columns: widths[output.reads], width, first, weightAt: null, biasAt: null };
    if (output.weight !== null) {
      const rows = reader.floats(output.weight, width * planned.columns);
      const bias = output.bias === null ? new Float32Array(width) : reader.floats(output.bias, width);
      planned.weightAt = matrices.add(packRows(rows, [planned.columns], width, 1));
      planned.biasAt = constants.add(packColumn(bias, width, 1));
    }
    first += width;
    return planned;
  });
  return { name, inputs, widths, steps, outputs };
}

function planFactor(factor, columns, reader, constants, matrices) {
  const rows = reader.floats(factor.weight, factor.rows * columns);
  return {
    groups: Math.ceil(factor.rows / 4),
    weightAt: matrices.add(packRows(rows, [columns], factor.rows, 1)),
    biasAt: constants.add(packColumn(reader.floats(factor.bias, factor.rows), factor.rows, 1)),
  };
}

// From rows [projections * features, columns] to vec4f of four columns: [columns / 4, groups, projections, 4 features].
// Columns are padded to fours within each segment.
function packRows(rows, segments, features, projections) {
  const groups = Math.ceil(features / 4);
  const columns = segments.reduce((sum, width) => sum + width, 0);
  const fours = segments.reduce((sum, width) => sum + padded(width) / 4, 0);
  const packed = new Float32Array(fours * groups * projections * 16);
  for (let p = 0; p < projections; p++) {
    for (let f = 0; f < features; f++) {
      const place = ((f >> 2) * projections + p) * 16 + (f & 3) * 4;
      let from = (p * features + f) * columns;
      let four = 0;
      for (const width of segments) {
        for (let c = 0; c < width; c++) packed[(four + (c >> 2)) * groups * projections * 16 + place + (c & 3)] = rows[from + c];
        from += width;
        four += padded(width) / 4;
      }
    }
  }
  return packed;
}

// From a column [projections * features] to vec4f of four features: [groups, projections].
function packColumn(column, features, projections) {
  const packed = new Float32Array(Math.ceil(features / 4) * projections * 4);
  for (let p = 0; p < projections; p++) {
    for (let f = 0; f < features; f++) packed[((f >> 2) * projections + p) * 4 + (f & 3)] = column[p * features + f];
  }
  return packed;
}

// Where values lie in a tile's memory, and how many samples a tile has.
//   networks: planned ones that run one after another. rows: further ones that a tile needs. gpu: a GpuTools.
export function layOut(networks, rows, gpu) {
  if (gpu.ownTiles) {
    // a thread has a tile of its own: nothing is shared, and nobody waits
    const places = networks.map((network) => placeValues(network, true));
    const values = Math.max(...places.map((p) => p.rows));
    return { own: true, clears: false, tile: 4, across: 1, lanes: 1, samples: 4 * THREADS, scratch: values, rows: values + 4, places };
  }
  let needed = 0;
  for (const tile of TILES) {
    const across = tile / 4;
    const lanes = THREADS / across;
    const fits = networks.every((n) => n.steps.every((s) => owned(s, lanes) * s.projections <= MOST_ACCUMULATORS));
    const places = networks.map((network) => placeValues(network, false));
    const values = Math.max(...places.map((p) => p.rows));
    const scratch = Math.max(CHUNK, 4 * lanes);
    needed = (values + scratch + rows) * across * 16;
    if (fits && needed <= gpu.sharedBytes) {
      // rows that fill up fours have weights of zero, and must be finite; a software adapter (Mesa's llvmpipe 22.3) leaves
      // in a workgroup's memory what was there, though WGSL promises zeros
      return { own: false, clears: gpu.software, tile, across, lanes, samples: tile, scratch: values, rows: values + scratch, places };
    }
  }
  throw refuse(
    needed > gpu.sharedBytes
      ? `its layers take ${needed} bytes that a workgroup shares, and this GPU has ${gpu.sharedBytes}: ${SMALLER}`
      : `it has a layer of more features than ${THREADS} threads sum up: ${SMALLER}`,
  );
}

// Groups of four features that a thread computes: a power of two, so that few kinds of layers have to be compiled.
export function owned(step, lanes) {
  return 2 ** Math.ceil(Math.log2(Math.ceil(step.groups / lanes)));
}

// First rows of values, step by step; rows of values that are not read any more are used again.
//   own: whether a thread writes outputs while it still reads inputs, and keeps all of an input.
function placeValues(network, own) {
  const count = network.inputs.length;
  const readers = network.widths.map((_, value) => network.steps.flatMap((step, i) => (step.reads.includes(value) ? [i] : [])));
  const taken = [];
  const place = (width, born, last) => {
    let from = 0;
    for (const t of taken.filter((t) => t.last > born).sort((a, b) => a.from - b.from)) {
      if (from + width > t.from && from < t.to) from = t.to;
    }
    taken.push({ from, to: from + width, last });
    return from;
  };
  const first = network.widths.map(() => null);
  const steps = network.steps.map((step, i) => {
    const encoded = [];
    for (const value of step.reads.filter((v) => v < count)) {
      const parts = network.inputs[value];
      const costly = parts.some((part) => part.costly);
      const width = parts.reduce((sum, part) => sum + padded(part.width), 0);
      if (costly && readers[value][0] < i) continue; // it is still there
      if (!costly && !own && width > MOST_ENCODED) first[value] = STREAMED;
      else {
        first[value] = place(width, i - 1, costly ? readers[value].at(-1) : i);
        encoded.push(value);
      }
    }
    // an output is computed right after the step that makes its value
    first[count + i] = place(padded(network.widths[count + i]), own ? i - 1 : i, Math.max(i, ...readers[count + i]));
    return { rows: step.reads.map((value) => first[value]), encoded: encoded.map((value) => [value, first[value]]), target: first[count + i] };
  });
  return { steps, rows: Math.max(...taken.map((t) => t.to)) };
}

// A network's program, words of PROGRAM.word each; kinds of layers are added to `kinds`.
export function programOf(network, places, layout, kinds) {
  const words = [];
  const reads = [];
  network.steps.forEach((step, i) => {
    const { rows, encoded, target } = places.steps[i];
    for (const [value, first] of encoded) {
      let row = first;
      for (const part of network.inputs[value]) {
        words.push([PROGRAM.encode, part.number, row, part.width]);
        row += padded(part.width);
      }
    }
    const streamed = rows.includes(STREAMED);
    const kind = kindOf({ ...step, owned: layout.own ? 1 : owned(step, layout.lanes), streamed }, kinds);
    const from = reads.length;
    step.reads.forEach((value, r) => {
      let row = rows[r];
      for (const part of value < network.inputs.length ? network.inputs[value] : [{ number: 0, width: network.widths[value] }]) {
        const { groups, weightAt, biasAt } = step.factors[r] ?? { groups: 0, weightAt: 0, biasAt: 0 };
        reads.push([row, part.width, part.number, groups, weightAt, biasAt]);
        if (row !== STREAMED) row += padded(part.width);
      }
    });
    words.push([PROGRAM.layer, kind, from, reads.length - from, step.weightAt, step.biasAt, step.normAt, step.groups, step.features, target]);
    network.outputs.forEach((output, number) => {
      if (output.value === network.inputs.length + i) words.push([PROGRAM.output, number, target]);
    });
  });
  return { words, reads };
}

// The number of a kind of layers: those that one piece of WGSL serves.
function kindOf({ owned, projections, degree, shared, normed, streamed, function: phi, product: join }, kinds) {
  const key = [owned, projections, degree, shared, normed, streamed, phi, join("a", "b")].join(" ");
  const found = kinds.findIndex((kind) => kind.key === key);
  if (found >= 0) return found;
  kinds.push({ key, owned, projections, degree, shared, normed, streamed, function: phi, product: join });
  return kinds.length - 1;
}
