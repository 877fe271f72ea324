// Collapsed networks as WGSL: a workgroup takes a tile of samples through all layers, in its own memory.
//
// A row holds one number of every sample of the tile, four samples a vec4f. The threads of a workgroup are numbered by a
// four of samples ("four", ACROSS of them) and a column of outputs ("column"). A thread sums up some groups of four
// outputs of its four samples: a matrix of four rows times a vec4f of weights is 16 multiply-adds. Outputs stay in
// registers until all threads have read the inputs, and may take their place. On software adapters, where threads run one
// after another, each has a tile of its own four samples, all columns, and memory for both. The layers are a program in `table`:
// one piece of code serves all layers of a kind, because compiling takes longer than a picture.

import { programOf, STREAMED } from "./network_plan.js";
import { CHUNK, PROGRAM } from "./tile_sizes.js";
import { whole } from "./wgsl_words.js";

// WGSL of `fn network_<name>(lane: u32)` for each network: reads what its encodings read, leaves outputs in `outputs`.
//   tables: where programs go. matrix: WGSL of the vec4f at some place of the packed matrices.
export function networksCode(networks, encodings, layout, tables, matrix = (at) => `weights[${at}]`) {
  const kinds = [];
  const programs = networks.map((network, i) => {
    const { words, reads } = programOf(network, layout.places[i], layout, kinds);
    const readsAt = tables.add(flat(reads, PROGRAM.read));
    for (const instruction of words) if (instruction[0] === PROGRAM.layer) instruction[2] = readsAt + instruction[2] * PROGRAM.read;
    return { at: tables.add(flat(words, PROGRAM.word)), length: words.length };
  });
  return /* wgsl */ `
const LANES = ${whole(layout.lanes)};
const SCRATCH = ${whole(layout.scratch)};
const STREAMED = ${whole(STREAMED)};
fn four_rows(row: u32, four: u32) -> mat4x4f {
  let at = row * ACROSS + four;
  return mat4x4f(rows[at], rows[at + ACROSS], rows[at + 2u * ACROSS], rows[at + 3u * ACROSS]);
}
fn encode(part: u32, lane: u32, first: u32, count: u32, row: u32) {
  switch (part) {
${encodings.map((e) => `    case ${whole(e.number)}: { encode_${e.name}(lane, first, count, row); }`).join("\n")}
    default: {}
  }
}
${kinds.map((kind, number) => layerCode(kind, number, layout.own, matrix)).join("\n")}
${networks.map((network, i) => networkCode(network, kinds, programs[i], matrix)).join("\n")}
`;
}

function flat(lines, width) {
  const words = new Uint32Array(lines.length * width);
  lines.forEach((line, i) => words.set(line, i * width));
  return words;
}

function networkCode(network, kinds, program, matrix) {
  return /* wgsl */ `
fn network_${network.name}(lane: u32) {
  for (var i = 0u; i < ${whole(program.length)}; i++) {
    let at = ${whole(program.at)} + i * ${whole(PROGRAM.word)};
    switch (table[at]) {
      case ${whole(PROGRAM.encode)}: {
        encode(table[at + 1u], lane, 0u, table[at + 3u], table[at + 2u]);
        BARRIER
      }
      case ${whole(PROGRAM.layer)}: {
        switch (table[at + 1u]) {
${kinds.map((_, number) => `          case ${whole(number)}: { layer_${number}(at, lane); }`).join("\n")}
          default: {}
        }
      }
      default: {
        switch (table[at + 1u]) {
${network.outputs.map((output, number) => `          case ${whole(number)}: {${outputCode(output, matrix)}
          }`).join("\n")}
          default: {}
        }
      }
    }
  }
}
`;
}

// A thread with a tile of its own computes one group of outputs after another, any other all of its groups at once.
function layerCode(kind, number, own, matrix) {
  const groups = Array.from({ length: kind.owned }, (_, g) => g);
  const sums = groups.flatMap((g) => Array.from({ length: kind.projections }, (_, p) => [g, p]));
  const each = (write) => sums.map(([g, p]) => write(g, p)).join("\n");
  const offset = (p) => `${whole(4 * p)}`;
  const stream = /* wgsl */ `
      if (table[read] == STREAMED) {
        BARRIER
        encode(table[read + 2u], lane, c, count, SCRATCH);
        BARRIER
        row = SCRATCH;
      }`;
  const square = /* wgsl */ `
        if (table[read + 3u] == 0u) {
          let inside = vec4u(k, k + 1u, k + 2u, k + 3u) < vec4u(count);
          square += select(vec4f(0f), x[0] * x[0], inside.x) + select(vec4f(0f), x[1] * x[1], inside.y)
            + select(vec4f(0f), x[2] * x[2], inside.z) + select(vec4f(0f), x[3] * x[3], inside.w);
        }`;
  return /* wgsl */ `
fn layer_${number}(step: u32, lane: u32) {
  let four = lane % ACROSS;
  let groups = table[step + 7u];
${kind.normed ? normOfFactors(matrix) : ""}
${own ? "  for (var column = 0u; column < groups; column++) {" : "  let column = lane / ACROSS;"}
${groups.map((g) => `  let o${g} = min(column + ${whole(g)} * LANES, groups - 1u) * ${whole(kind.projections)};`).join("\n")}
${each(
  (g, p) => `  let b${g}_${p} = weights[table[step + 5u] + o${g} + ${whole(p)}];
  var a${g}_${p}_0 = vec4f(b${g}_${p}.x); var a${g}_${p}_1 = vec4f(b${g}_${p}.y);
  var a${g}_${p}_2 = vec4f(b${g}_${p}.z); var a${g}_${p}_3 = vec4f(b${g}_${p}.w);`,
)}
${kind.normed ? "  var square = factored;" : ""}
  var at = table[step + 4u];
  let stride = groups * ${whole(4 * kind.projections)};
  for (var r = 0u; r < table[step + 3u]; r++) {
    let read = table[step + 2u] + r * ${whole(PROGRAM.read)};
    let width = table[read + 1u];
    let most = select(width, ${whole(CHUNK)}, table[read] == STREAMED);
    for (var c = 0u; c < width; c += most) {
      var row = table[read];
      let count = min(most, width - c);${kind.streamed ? stream : ""}
      for (var k = 0u; k < count; k += 4u) {
        let x = four_rows(row + k, four);${kind.normed ? square : ""}
${each(
  (g, p) => `        a${g}_${p}_0 += x * ${matrix(`at + o${g} * 4u + ${offset(p)}`)};
        a${g}_${p}_1 += x * ${matrix(`at + o${g} * 4u + ${offset(p)} + 1u`)};
        a${g}_${p}_2 += x * ${matrix(`at + o${g} * 4u + ${offset(p)} + 2u`)};
        a${g}_${p}_3 += x * ${matrix(`at + o${g} * 4u + ${offset(p)} + 3u`)};`,
)}
        at += stride;
      }
    }
  }
${kind.normed ? each((g, p) => `  let n${g}_${p} = weights[table[step + 6u] + o${g} + ${whole(p)}];
${[0, 1, 2, 3].map((f) => `  a${g}_${p}_${f} += sqrt(square) * n${g}_${p}[${f}];`).join("\n")}`) : ""}
  BARRIER
  let features = table[step + 8u];
  let goal = table[step + 9u];
${groups.map((g) => writeGroup(kind, g)).join("\n")}
${own ? "  }" : "  BARRIER"}
}
`;
}

// The products of a group's projections (Eq. 1 of the EUGen paper), their function, and where they go.
function writeGroup(kind, g) {
  const lines = [];
  for (let f = 0; f < 4; f++) {
    lines.push(`    if (feature + ${whole(f)} < features) {`);
    for (let degree = 1, block = 0; degree <= kind.degree; degree++) {
      const factors = Array.from({ length: degree }, (_, j) => `a${g}_${kind.shared ? j : block++}_${f}`);
      const u = degree === 2 ? kind.product(...factors) : factors.join(" * ");
      const row = `goal + ${whole(degree - 1)} * features + feature + ${whole(f)}`;
      lines.push(`      { let u = ${u}; rows[(${row}) * ACROSS + four] = ${kind.function}; }`);
    }
    lines.push("    }");
  }
  return `  {
    let feature = (column + ${whole(g)} * LANES) * 4u;
${lines.join("\n")}
  }`;
}

// |x|^2 of what reads with factors stand for: |R x + r|^2, rows of R shared among the threads of a four.
const normOfFactors = (matrix) => /* wgsl */ `
  var factored = vec4f(0f);
  for (var r = 0u; r < table[step + 3u]; r++) {
    let read = table[step + 2u] + r * ${whole(PROGRAM.read)};
    let rank = table[read + 3u];
    if (rank > 0u) {
      var part = vec4f(0f);
      for (var g = lane / ACROSS; g < rank; g += LANES) {
        let b = weights[table[read + 5u] + g];
        var r0 = vec4f(b.x); var r1 = vec4f(b.y); var r2 = vec4f(b.z); var r3 = vec4f(b.w);
        for (var k = 0u; k < table[read + 1u]; k += 4u) {
          let x = four_rows(table[read] + k, four);
          let w = table[read + 4u] + (k / 4u * rank + g) * 4u;
          r0 += x * ${matrix("w")}; r1 += x * ${matrix("w + 1u")};
          r2 += x * ${matrix("w + 2u")}; r3 += x * ${matrix("w + 3u")};
        }
        part += r0 * r0 + r1 * r1 + r2 * r2 + r3 * r3;
      }
      rows[(SCRATCH + lane / ACROSS) * ACROSS + four] = part;
      BARRIER
      for (var c = 0u; c < LANES; c++) { factored += rows[(SCRATCH + c) * ACROSS + four]; }
      BARRIER
    }
  }
`;

// Up to four outputs with a matrix: the threads of a four share the columns, and sums are added up.
function outputCode(output, matrix) {
  const target = `outputs[(${whole(output.first)} + o) * ACROSS + four]`;
  const own = `
        let four = lane % ACROSS;
        let column = lane / ACROSS;
        let row = table[at + 2u];`;
  if (output.weightAt === null) {
    return `${own}
        for (var o = column; o < ${whole(output.width)}; o += LANES) { ${target} = rows[(row + o) * ACROSS + four]; }
        BARRIER`;
  }
  const parts = Array.from({ length: output.width }, (_, i) => i);
  return `${own}
${parts.map((i) => `        var p${i} = vec4f(0f);`).join("\n")}
        for (var k = 4u * column; k < ${whole(output.columns)}; k += 4u * LANES) {
          let x = four_rows(row + k, four);
          let w = ${whole(output.weightAt)} + k;
${parts.map((i) => `          p${i} += x * ${matrix(`w + ${whole(i)}`)};`).join("\n")}
        }
${parts.map((i) => `        rows[(SCRATCH + ${whole(i)} * LANES + column) * ACROSS + four] = p${i};`).join("\n")}
        BARRIER
        for (var o = column; o < ${whole(output.width)}; o += LANES) {
          var sum = vec4f(weights[${whole(output.biasAt)}][o]);
          for (var c = 0u; c < LANES; c++) { sum += rows[(SCRATCH + o * LANES + c) * ACROSS + four]; }
          ${target} = sum;
        }
        BARRIER`;
}
