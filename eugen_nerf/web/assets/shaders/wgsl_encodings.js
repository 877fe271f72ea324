// Encodings as WGSL: `fn encode_<name>(lane, first, count, row)` writes some features of a tile's samples into rows.
//
// Coordinates of samples lie in `points`, rows of fours as everything else: see ROWS_OF for which.

import { eachLevel, gridCode, planGrid, transposed } from "./wgsl_grids.js";
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
    return {
      width: grid.levels.length * grid.features,
      costly: true,
      box: encoding.box,
      code: (name) => gridCode(name, grid) + eachLevel(name, grid, unit),
    };
  },

  cube(encoding, row, coordinates, reader, constants, tables) {
    const grid = planGrid(encoding.grid, reader, tables);
    const unit = [0, 1, 2].map((d) => `points[${whole(FRUSTUM + d)} * ACROSS + four]`);
    return {
      width: grid.levels.length * grid.features,
      costly: true,
      frustum: "middle",
      cube: encoding.box,
      code: (name) => gridCode(name, grid) + eachLevel(name, grid, unit),
    };
  },

  // of directions moved to [0, 1], as nerfacto in PyTorch has them
  spherical(encoding, row) {
    const { levels } = encoding;
    if (!(levels >= 1 && levels <= 4)) refuse("its directions have from 1 to 4 levels of spherical harmonics");
    const [x, y, z] = [0, 1, 2].map((d) => `(0.5f * points[${whole(row + d)} * ACROSS + four] + 0.5f)`);
    const cases = HARMONICS.slice(0, levels ** 2).map((value, i) => `      case ${whole(i)}: { value = ${value}; }`);
    return {
      width: levels ** 2,
      code: (name) => eachFeature(name, /* wgsl */ `
    let x = ${x}; let y = ${y}; let z = ${z};
    switch (feature) {
${cases.join("\n")}
      default: { value = vec4f(0f); }
    }`),
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

// Real spherical harmonics, level after level.
const HARMONICS = [
  "vec4f(0.28209479f)",
  ...["y", "z", "x"].map((v) => `0.48860251f * ${v}`),
  "1.09254843f * x * y",
  "1.09254843f * y * z",
  "0.94617470f * z * z - 0.31539157f",
  "1.09254843f * x * z",
  "0.54627422f * (x * x - y * y)",
  "0.59004359f * y * (3f * x * x - y * y)",
  "2.89061144f * x * y * z",
  "0.45704580f * y * (5f * z * z - 1f)",
  "0.37317633f * z * (5f * z * z - 3f)",
  "0.45704580f * x * (5f * z * z - 1f)",
  "1.44530572f * z * (x * x - y * y)",
  "0.59004359f * x * (x * x - 3f * y * y)",
];

// Rows of `points` that an encoding's frustums need beyond the first ones.
export function frustumRows(kind, samples) {
  return { gaussian: 9, multisamples: 4 * samples, middle: 3 }[kind] ?? 0;
}

// The usual loop: a feature of a four of samples at a time.
export function eachFeature(name, body) {
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
