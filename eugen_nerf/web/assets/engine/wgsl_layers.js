// Collapsed networks as WGSL: a workgroup takes a tile of samples through all layers, in its own memory.
//
// A row holds one number of every sample of the tile, four samples a vec4f: "lanes across" count those fours. A thread
// computes, for one four of samples, some groups of four outputs: one vec4f of weights and one of a row make 16
// multiply-adds. Outputs stay in registers until all threads have read the inputs, and may take their place.

import { activation, product, refuse, whole } from "./wgsl_words.js";

export const THREADS = 64;
export const CHUNK = 32; // features of an input that are encoded at a time
const MOST_ACCUMULATORS = 8; // groups of four outputs of a thread, for each projection
const TILES = [64, 32, 16, 8, 4]; // samples

// A network ready to be written as WGSL: its weights packed as threads read them.
//   name: of its functions; ours. network: of a description. inputs: for each input the encodings that make it.
//   reader: of the description's blocks. constants: where packed weights go.
export function planNetwork(name, network, inputs, reader, constants) {
  const widths = network.inputs.slice();
  const readers = widths.map(() => 0);
  const steps = network.steps.map((step) => {
    const projections = step.shared ? step.degree : (step.degree * (step.degree + 1)) / 2;
    const features = step.rows / projections;
    if (!Number.isInteger(features) || projections > MOST_ACCUMULATORS) refuse("a layer has too many projections");
    const groups = Math.ceil(features / 4);
    const columns = step.reads.reduce((sum, v) => sum + widths[v], 0);
    const weight = reader.floats(step.weight, step.rows * columns);
    const planned = {
      ...step,
      projections,
      features,
      groups,
      segments: step.reads.map((value) => ({ value, width: widths[value] })),
      weightAt: constants.add(packRows(weight, columns, features, projections)),
      biasAt: step.bias === null ? null : constants.add(packColumn(reader.floats(step.bias, step.rows), features, projections)),
      normAt: step.norm === null ? null : constants.add(packColumn(reader.floats(step.norm, step.rows), features, projections)),
      function: activation(step.phi, step.parameter),
      product: product(step.product ?? "plain"),
    };
    if (step.norm !== null) {
      planned.segments.forEach((segment, i) => {
        const factor = step.factors[i];
        segment.factor = factor === null ? null : planFactor(factor, segment.width, reader, constants);
        if (factor !== null && segment.value < inputs.length) refuse("a norm has a factor of an input");
      });
    }
    for (const value of step.reads) readers[value] = (readers[value] ?? 0) + 1;
    widths.push(features * step.degree);
    return planned;
  });
  let first = 0;
  const outputs = network.outputs.map((output) => {
    if (output.reads < inputs.length) refuse("an output reads an input");
    const width = output.weight === null ? widths[output.reads] : output.rows;
    if (width > 4) refuse("a network has more than four outputs");
    const columns = widths[output.reads];
    const planned = { value: output.reads, columns, width, first, weightAt: null, biasAt: null };
    if (output.weight !== null) {
      planned.weightAt = constants.add(packRows(reader.floats(output.weight, width * columns), columns, width, 1));
      if (output.bias !== null) planned.biasAt = constants.add(packColumn(reader.floats(output.bias, width), width, 1));
    }
    first += width;
    return planned;
  });
  return { name, inputs, widths, steps, outputs, kept: inputs.map((parts, i) => parts.some((p) => p.costly) && readers[i] > 1) };
}

function planFactor(factor, columns, reader, constants) {
  const weight = reader.floats(factor.weight, factor.rows * columns);
  return {
    groups: Math.ceil(factor.rows / 4),
    weightAt: constants.add(packRows(weight, columns, factor.rows, 1)),
    biasAt: constants.add(packColumn(reader.floats(factor.bias, factor.rows), factor.rows, 1)),
  };
}

// From rows [projections * features, columns] to vec4f of four features: [columns, groups, projections, 4].
function packRows(rows, columns, features, projections) {
  const groups = Math.ceil(features / 4);
  const packed = new Float32Array(columns * groups * projections * 4);
  for (let p = 0; p < projections; p++) {
    for (let f = 0; f < features; f++) {
      const place = ((f >> 2) * projections + p) * 4 + (f & 3);
      const row = (p * features + f) * columns;
      for (let c = 0; c < columns; c++) packed[c * groups * projections * 4 + place] = rows[row + c];
    }
  }
  return packed;
}

function packColumn(column, features, projections) {
  return packRows(column, 1, features, projections);
}

// Where values lie in a tile's memory, and how many samples a tile has.
//   networks: planned ones that run one after another. rows: further ones that a tile needs. bytes: of a workgroup's memory.
export function layOut(networks, rows, bytes) {
  for (const tile of TILES) {
    const across = tile / 4;
    const lanes = THREADS / across;
    const fits = networks.every((n) => n.steps.every((s) => Math.ceil(s.groups / lanes) * s.projections <= MOST_ACCUMULATORS));
    const places = networks.map((network) => placeValues(network));
    const values = Math.max(...places.map((p) => p.rows));
    const scratch = Math.max(CHUNK, 4 * lanes);
    if (fits && (values + scratch + rows) * across * 16 <= bytes) {
      return { tile, across, lanes, values, scratch: values, rows: values + scratch, places };
    }
  }
  throw refuse(`its layers do not fit into the ${bytes} bytes that a workgroup of this GPU shares`);
}

// First row of every value; rows of values that are not read any more are used again.
function placeValues(network) {
  const inputs = network.inputs.length;
  const last = network.widths.map((_, value) => {
    const steps = network.steps.flatMap((step, i) => (step.reads.includes(value) ? [i] : []));
    // an output is computed right after the step that makes its value
    return Math.max(value - inputs, ...steps);
  });
  const taken = [];
  const first = network.widths.map(() => null);
  let rows = 0;
  const place = (value, born) => {
    const alive = taken.filter((t) => last[t.value] > born).sort((a, b) => a.from - b.from);
    let from = 0;
    for (const t of alive) if (from + network.widths[value] > t.from && from < t.to) from = t.to;
    first[value] = from;
    taken.push({ value, from, to: from + network.widths[value] });
    rows = Math.max(rows, from + network.widths[value]);
  };
  network.kept.forEach((kept, input) => kept && place(input, -1));
  network.steps.forEach((_, i) => place(inputs + i, i));
  return { first, rows };
}

// WGSL of `fn network_<name>(lane: u32)`: reads what its encodings read, leaves its outputs in `outputs`.
export function networkCode(network, layout, places) {
  const { across, lanes } = layout;
  const lines = network.kept.flatMap((kept, input) => (kept ? keepInput(network, input, places) : []));
  network.steps.forEach((step, i) => {
    lines.push(stepCode(network, step, network.inputs.length + i, layout, places));
    for (const output of network.outputs) {
      if (output.value === network.inputs.length + i) lines.push(outputCode(output, layout, places));
    }
  });
  return /* wgsl */ `
fn network_${network.name}(lane: u32) {
  let four = lane % ${whole(across)};
  let column = lane / ${whole(across)};
${lines.join("\n")}
}
`;
}

function keepInput(network, input, places) {
  let row = places.first[input];
  const lines = network.inputs[input].map((part) => {
    const line = `  encode_${part.name}(lane, 0u, ${whole(part.width)}, ${whole(row)});`;
    row += part.width;
    return line;
  });
  return [...lines, "  workgroupBarrier();"];
}

function stepCode(network, step, value, layout, places) {
  const { across, lanes } = layout;
  const owned = Math.ceil(step.groups / lanes);
  const each = (write) => {
    const lines = [];
    for (let g = 0; g < owned; g++) for (let p = 0; p < step.projections; p++) lines.push(write(g, p));
    return lines.join("\n");
  };
  const stride = step.groups * step.projections;
  const accumulate = (row) => /* wgsl */ `
      let x = rows[(${row}) * ${whole(across)} + four];
${each(
    (g, p) => `      let w${g}_${p} = weights[at + o${g} + ${whole(p)}];
      a${g}_${p}_0 += w${g}_${p}.x * x; a${g}_${p}_1 += w${g}_${p}.y * x;
      a${g}_${p}_2 += w${g}_${p}.z * x; a${g}_${p}_3 += w${g}_${p}.w * x;`,
  )}
      at += ${whole(stride)};`;
  const squared = (segment) => (step.norm !== null && segment.factor === null ? "      square += x * x;" : "");
  const loop = (segment, row, count) => /* wgsl */ `
    for (var k = 0u; k < ${count}; k++) {${accumulate(`${row} + k`)}
${squared(segment)}
    }`;
  const read = (segment) => {
    const { value: from, width } = segment;
    if (places.first[from] !== null) return loop(segment, whole(places.first[from]), whole(width));
    return network.inputs[from]
      .map(
        (part) => /* wgsl */ `
    for (var c = 0u; c < ${whole(part.width)}; c += ${whole(CHUNK)}) {
      let count = min(${whole(CHUNK)}, ${whole(part.width)} - c);
      workgroupBarrier();
      encode_${part.name}(lane, c, count, ${whole(layout.scratch)});
      workgroupBarrier();
${loop(segment, whole(layout.scratch), "count")}
    }`,
      )
      .join("\n");
  };
  const start = (g, p) => {
    const bias = step.biasAt === null ? "vec4f(0f)" : `weights[${whole(step.biasAt)} + o${g} + ${whole(p)}]`;
    return `    let b${g}_${p} = ${bias};
    var a${g}_${p}_0 = vec4f(b${g}_${p}.x); var a${g}_${p}_1 = vec4f(b${g}_${p}.y);
    var a${g}_${p}_2 = vec4f(b${g}_${p}.z); var a${g}_${p}_3 = vec4f(b${g}_${p}.w);`;
  };
  const withNorm =
    step.norm === null
      ? ""
      : `    let length = sqrt(square);
${each((g, p) =>
  [0, 1, 2, 3].map((f) => `    a${g}_${p}_${f} += length * weights[${whole(step.normAt)} + o${g} + ${whole(p)}][${f}];`).join("\n"),
)}`;
  const offsets = Array.from(
    { length: owned },
    (_, g) => `    let o${g} = min(column + ${whole(g * lanes)}, ${whole(step.groups - 1)}) * ${whole(step.projections)};`,
  ).join("\n");
  const writes = Array.from({ length: owned }, (_, g) => writeGroup(step, g, layout, places.first[value])).join("\n");
  return /* wgsl */ `
  { // value ${value}
${offsets}
${step.norm === null ? "" : "    var square = vec4f(0f);"}
${step.segments.map((s) => (s.factor ? factorCode(s, layout, places) : "")).join("\n")}
${each(start)}
    var at = ${whole(step.weightAt)};
${step.segments.map(read).join("\n")}
${withNorm}
    workgroupBarrier();
${writes}
    workgroupBarrier();
  }`;
}

// The products of a group's projections (Eq. 1), their function, and where they go.
function writeGroup(step, g, layout, base) {
  const lines = [`    if (column + ${whole(g * layout.lanes)} < ${whole(step.groups)}) {
      let feature = (column + ${whole(g * layout.lanes)}) * 4u;`];
  for (let f = 0; f < 4; f++) {
    const inside = step.features % 4 === 0 ? "" : `if (feature + ${whole(f)} < ${whole(step.features)}) `;
    for (let degree = 1, block = 0; degree <= step.degree; degree++) {
      const factors = Array.from({ length: degree }, (_, j) => `a${g}_${step.shared ? j : block++}_${f}`);
      const u = degree === 2 ? step.product(...factors) : factors.join(" * ");
      const row = `${whole(base + (degree - 1) * step.features + f)} + feature`;
      lines.push(`      ${inside}{
        let u = ${u};
        rows[(${row}) * ${whole(layout.across)} + four] = ${step.function};
      }`);
    }
  }
  lines.push("    }");
  return lines.join("\n");
}

// Adds |R x + r|^2 of a value to `square`: rows of R are shared among the threads of a four, and sums added up.
function factorCode(segment, layout, places) {
  const { across, lanes } = layout;
  const { groups, weightAt, biasAt } = segment.factor;
  const at = (part) => `rows[(${whole(layout.scratch)} + ${part}) * ${whole(across)} + four]`;
  return /* wgsl */ `
    {
      var part = vec4f(0f);
      for (var g = column; g < ${whole(groups)}; g += ${whole(lanes)}) {
        let b = weights[${whole(biasAt)} + g];
        var r0 = vec4f(b.x); var r1 = vec4f(b.y); var r2 = vec4f(b.z); var r3 = vec4f(b.w);
        for (var k = 0u; k < ${whole(segment.width)}; k++) {
          let x = rows[(${whole(places.first[segment.value])} + k) * ${whole(across)} + four];
          let w = weights[${whole(weightAt)} + k * ${whole(groups)} + g];
          r0 += w.x * x; r1 += w.y * x; r2 += w.z * x; r3 += w.w * x;
        }
        part += r0 * r0 + r1 * r1 + r2 * r2 + r3 * r3;
      }
      workgroupBarrier();
      ${at("column")} = part;
      workgroupBarrier();
      for (var c = 0u; c < ${whole(lanes)}; c++) { square += ${at("c")}; }
      workgroupBarrier();
    }`;
}

// Up to four outputs: the threads of a four share the columns, and sums are added up.
function outputCode(output, layout, places) {
  const { across, lanes } = layout;
  const value = whole(places.first[output.value]);
  const target = `outputs[(${whole(output.first)} + column) * ${whole(across)} + four]`;
  if (output.weightAt === null) {
    return `  if (column < ${whole(output.width)}) { ${target} = rows[(${value} + column) * ${whole(across)} + four]; }
  workgroupBarrier();`;
  }
  const parts = Array.from({ length: output.width }, (_, i) => i);
  const at = (part) => `rows[(${whole(layout.scratch)} + ${part}) * ${whole(across)} + four]`;
  return /* wgsl */ `
  {
${parts.map((i) => `    var p${i} = vec4f(0f);`).join("\n")}
    for (var k = column; k < ${whole(output.columns)}; k += ${whole(lanes)}) {
      let x = rows[(${value} + k) * ${whole(across)} + four];
      let w = weights[${whole(output.weightAt)} + k];
${parts.map((i) => `      p${i} += w[${i}] * x;`).join("\n")}
    }
    workgroupBarrier();
${parts.map((i) => `    ${at(`${whole(i * lanes)} + column`)} = p${i};`).join("\n")}
    workgroupBarrier();
    if (column < ${whole(output.width)}) {
      var sum = vec4f(${output.biasAt === null ? "0f" : `weights[${whole(output.biasAt)}][column]`});
      for (var c = 0u; c < ${whole(lanes)}; c++) { sum += ${at(`column * ${whole(lanes)} + c`)}; }
      ${target} = sum;
    }
    workgroupBarrier();
  }`;
}
