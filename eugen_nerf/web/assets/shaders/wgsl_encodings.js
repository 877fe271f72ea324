// Encodings as WGSL: `fn encode_<name>(lane, first, count, row)` writes some features of a tile's samples into rows.
//
// Coordinates of samples lie in `points`, rows of fours as everything else: see ROWS_OF for which.

import { float, refuse, whole, word } from "./wgsl_words.js";

// Rows of `points`: position, time, direction; of frustums, mean and covariance or multisamples from FRUSTUM on.
export const ROWS_OF = { position: 0, time: 3, direction: 4 };
export const FRUSTUM = 7;

// An encoding of a description, its numbers read and its tables among the constants.
//   number: of its function. source: a key of ROWS_OF.
export function planEncoding(number, encoding, source, reader, constants, tables) {
  const plan = word(encoding.kind, PLANS, "encoding");
  return { number, name: `${number}`, costly: false, ...plan(encoding, ROWS_OF[source], source === "time" ? 1 : 3, reader, constants, tables) };
}

const PLANS = {
  frequency(encoding, row, coordinates, reader, constants) {
    const { count, lowest, highest } = encoding;
    const frequencies = Float32Array.from({ length: count }, (_, i) => 2 ** (lowest + (count > 1 ? (i * (highest - lowest)) / (count - 1) : 0)));
    const at = constants.add(frequencies);
    const waves = count * coordinates;
    return {
      width: coordinates + 2 * waves,
      code: (name) => eachFeature(name, /* wgsl */ `
    if (feature < ${whole(2 * waves)}) {
      let wave = feature % ${whole(waves)};
      let frequency = weights[${whole(at)} + (wave % ${whole(count)}) / 4u][(wave % ${whole(count)}) % 4u];
      let shift = select(0f, 0.25f, feature >= ${whole(waves)});
      value = sine_of_turns(points[(${whole(row)} + wave / ${whole(count)}) * ACROSS + four] * frequency + shift);
    } else {
      value = points[(${whole(row)} + feature - ${whole(2 * waves)}) * ACROSS + four];
    }`),
    };
  },

  off_axis(encoding, row, coordinates, reader, constants) {
    const waves = encoding.waves;
    const phases = reader.floats(encoding.phases, coordinates * waves);
    const packed = new Float32Array(4 * waves);
    for (let i = 0; i < waves; i++) for (let d = 0; d < 3; d++) packed[4 * i + d] = phases[d * waves + i] / (2 * Math.PI);
    const at = constants.add(packed);
    const [x, y, z] = encoding.centre.map(float);
    const scaled = (d, centre) => `(points[${whole(row + d)} * ACROSS + four] - ${centre}) * ${float(encoding.factor)}`;
    return {
      width: 3 + 2 * waves,
      code: (name) => eachFeature(name, /* wgsl */ `
    let x = ${scaled(0, x)}; let y = ${scaled(1, y)}; let z = ${scaled(2, z)};
    if (feature < 3u) {
      value = select(select(z, y, feature == 1u), x, feature == 0u);
    } else {
      let phase = weights[${whole(at)} + (feature - 3u) % ${whole(waves)}];
      let shift = select(0f, 0.25f, feature - 3u >= ${whole(waves)});
      value = sine_of_turns(phase.x * x + phase.y * y + phase.z * z + shift);
    }`),
    };
  },

  contracted(encoding, row, coordinates, reader, constants) {
    const { count, axes } = encoding;
    const directions = reader.floats(encoding.directions, axes * coordinates);
    const packed = new Float32Array(4 * axes);
    for (let i = 0; i < axes; i++) packed.set(directions.subarray(3 * i, 3 * i + 3), 4 * i);
    const at = constants.add(packed);
    const waves = count * axes;
    const of = (i) => `points[${whole(FRUSTUM + i)} * ACROSS + four]`;
    return {
      width: 2 * waves,
      frustum: "gaussian",
      code: (name) => eachFeature(name, /* wgsl */ `
    let wave = feature % ${whole(waves)};
    let axis = weights[${whole(at)} + wave % ${whole(axes)}];
    let frequency = f32(1u << (wave / ${whole(axes)}));
    let middle = axis.x * ${of(0)} + axis.y * ${of(1)} + axis.z * ${of(2)};
    let variance = axis.x * axis.x * ${of(3)} + axis.y * axis.y * ${of(4)} + axis.z * axis.z * ${of(5)}
      + 2f * (axis.x * axis.y * ${of(6)} + axis.x * axis.z * ${of(7)} + axis.y * axis.z * ${of(8)});
    let shift = select(0f, 0.25f, feature >= ${whole(waves)});
    value = sine_of_turns(middle * (0.15915494f * frequency) + shift)
      * exp(-0.5f * frequency * frequency * max(variance, vec4f(0f)));`),
    };
  },

  box(encoding, row, coordinates, reader, constants, tables) {
    const grid = planGrid(encoding.grid, reader, tables);
    const low = encoding.box.slice(0, 3);
    const size = encoding.box.slice(3).map((high, i) => high - low[i]);
    const unit = low.map((corner, d) => `(points[${whole(row + d)} * ACROSS + four] - ${float(corner)}) / ${float(size[d])}`);
    const { features } = grid;
    return {
      width: grid.levels.length * features,
      costly: true,
      box: encoding.box,
      code: (name) => /* wgsl */ `
${gridCode(name, grid)}
fn encode_${name}(lane: u32, first: u32, count: u32, row: u32) {
  for (var i = lane; i < count / ${whole(features)} * ACROSS; i += STEP) {
    let part = i / ACROSS;
    let four = i % ACROSS;
    let level = level_${name}(first / ${whole(features)} + part);
    let x = ${unit[0]}; let y = ${unit[1]}; let z = ${unit[2]};
    let a = features_${name}(level, vec3f(x.x, y.x, z.x)); let b = features_${name}(level, vec3f(x.y, y.y, z.y));
    let c = features_${name}(level, vec3f(x.z, y.z, z.z)); let d = features_${name}(level, vec3f(x.w, y.w, z.w));
${transposed(features)}
  }
}
`,
    };
  },

  pyramid(encoding, row, coordinates, reader, constants, tables) {
    const grid = planGrid(encoding.grid, reader, tables);
    const { features } = grid;
    const pooled = grid.levels.length * features;
    const spreads = constants.add(Float32Array.from(encoding.spreads));
    return {
      width: pooled + grid.levels.length,
      costly: true,
      frustum: "multisamples",
      code: (name, samples) => /* wgsl */ `
${gridCode(name, grid)}
// erf(1 / sqrt(8 s^2 n^2)): the part of a Gaussian within a cell's width, for a cell of side 1 / n
fn share_${name}(cells: f32, width: vec4f) -> vec4f {
  return erf(1f / (2.82842712f * cells * width));
}
fn pooled_${name}(level: Level, four: u32, part: u32) -> vec4f {
  let cells = f32(level.n - 1u);
  var sum = vec4f(0f);
  for (var j = 0u; j < ${whole(samples)}; j++) {
    let at = (${whole(FRUSTUM)} + j * 4u) * ACROSS + four;
    let place = vec3f(points[at][part], points[at + ACROSS][part], points[at + 2u * ACROSS][part]);
    let share = erf(vec4f(1f / (2.82842712f * cells * points[at + 3u * ACROSS][part]))).x;
    sum += share * features_${name}(level, place);
  }
  return sum / ${float(samples)};
}
fn encode_${name}(lane: u32, first: u32, count: u32, row: u32) {
  let grids = select(0u, (min(first + count, ${whole(pooled)}) - first) / ${whole(features)}, first < ${whole(pooled)});
  for (var i = lane; i < grids * ACROSS; i += STEP) {
    let part = i / ACROSS;
    let four = i % ACROSS;
    let level = level_${name}(first / ${whole(features)} + part);
    let a = pooled_${name}(level, four, 0u); let b = pooled_${name}(level, four, 1u);
    let c = pooled_${name}(level, four, 2u); let d = pooled_${name}(level, four, 3u);
${transposed(features)}
  }
  for (var i = grids * ${whole(features)} * ACROSS + lane; i < count * ACROSS; i += STEP) {
    let number = first + i / ACROSS - ${whole(pooled)};
    let four = i % ACROSS;
    let cells = f32(level_${name}(number).n - 1u);
    var sum = vec4f(0f);
    for (var j = 0u; j < ${whole(samples)}; j++) {
      sum += share_${name}(cells, points[(${whole(FRUSTUM + 3)} + j * 4u) * ACROSS + four]);
    }
    let spread = weights[${whole(spreads)} + number / 4u][number % 4u];
    rows[(row + i / ACROSS) * ACROSS + four] = (2f * sum / ${float(samples)} - 1f) * spread;
  }
}
`,
    };
  },
};

// What hash grids share.
export const LEVEL = /* wgsl */ `
struct Level { n: u32, size: u32, row: u32, hashed: bool, scale: f32 }
`;

// Rows of `points` that an encoding's frustums need beyond the first ones.
export function frustumRows(kind, samples) {
  return { gaussian: 9, multisamples: 4 * samples }[kind] ?? 0;
}

// The usual loop: a feature of a four of samples at a time.
function eachFeature(name, body) {
  return /* wgsl */ `
fn encode_${name}(lane: u32, first: u32, count: u32, row: u32) {
  for (var i = lane; i < count * ACROSS; i += STEP) {
    let feature = first + i / ACROSS;
    let four = i % ACROSS;
    var value: vec4f;
${body}
    rows[(row + i / ACROSS) * ACROSS + four] = value;
  }
}
`;
}

// Features a, b, c, d of four samples as rows.
function transposed(features) {
  return ["x", "y", "z", "w"]
    .slice(0, features)
    .map((f, i) => `    rows[(row + part * ${whole(features)} + ${whole(i)}) * ACROSS + four] = vec4f(a.${f}, b.${f}, c.${f}, d.${f});`)
    .join("\n");
}

// How a vertex is read of the table, by bits and features of a number; `at` is where its grid begins.
const VERTICES = {
  "8 1": (at) => `return vec4f(unpack4x8snorm(table[${at} + row / 4u])[row % 4u], 0f, 0f, 0f);`,
  "8 2": (at) => `let v = unpack4x8snorm(table[${at} + row / 2u]);
  return vec4f(select(v.xy, v.zw, row % 2u == 1u), 0f, 0f);`,
  "8 4": (at) => `return unpack4x8snorm(table[${at} + row]);`,
  "16 1": (at) => `return vec4f(unpack2x16float(table[${at} + row / 2u])[row % 2u], 0f, 0f, 0f);`,
  "16 2": (at) => `return vec4f(unpack2x16float(table[${at} + row]), 0f, 0f);`,
  "16 4": (at) => `let at = ${at} + 2u * row;
  return vec4f(unpack2x16float(table[at]), unpack2x16float(table[at + 1u]));`,
};

function planGrid(grid, reader, tables) {
  let row = 0;
  const levels = grid.resolutions.map((n, i) => {
    const size = grid.sizes[i];
    const level = { n, size, row, hashed: n ** 3 > size, scale: grid.scales[i] };
    row += size;
    return level;
  });
  const vertex = word(`${grid.bits} ${grid.features}`, VERTICES, "hash grid");
  const at = tables.add(reader.words(grid.table, Math.ceil((row * grid.features * grid.bits) / 32)));
  return { levels, features: grid.features, code: vertex(whole(at)) };
}

function gridCode(name, grid) {
  const cases = grid.levels.map(
    (l, i) => `    case ${whole(i)}: { return Level(${whole(l.n)}, ${whole(l.size)}, ${whole(l.row)}, ${l.hashed ? "true" : "false"}, ${float(l.scale)}); }`,
  );
  return /* wgsl */ `
fn level_${name}(number: u32) -> Level {
  switch (number) {
${cases.join("\n")}
    default: { return Level(2u, 8u, 0u, false, 0f); }
  }
}
fn vertex_${name}(row: u32) -> vec4f {
  ${grid.code}
}
// trilinear, at a place in the unit cube
fn features_${name}(level: Level, place: vec3f) -> vec4f {
  let position = clamp(place, vec3f(0f), vec3f(1f)) * f32(level.n - 1u) + 0.5f;
  let low = floor(position);
  let part = position - low;
  let corner = vec3u(low);
  var sum = vec4f(0f);
  for (var i = 0u; i < 8u; i++) {
    let step = vec3u(i & 1u, (i >> 1u) & 1u, i >> 2u);
    let weights = select(1f - part, part, step == vec3u(1u));
    let at = corner + step;
    var row = at.x + level.n * (at.y + level.n * at.z);
    if (level.hashed) {
      row = (at.x ^ (at.y * 2654435761u) ^ (at.z * 805459861u)) & (level.size - 1u);
    } else if (row >= level.size) {
      row -= level.size;
    }
    sum += weights.x * weights.y * weights.z * vertex_${name}(level.row + row);
  }
  return sum * level.scale;
}
`;
}
