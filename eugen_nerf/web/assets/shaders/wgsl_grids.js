// Hash grids as WGSL: levels, vertices of a table, and trilinear features at places of the unit cube.

import { float, whole, word } from "./wgsl_words.js";

// What hash grids share.
export const LEVEL = /* wgsl */ `
struct Level { n: u32, size: u32, row: u32, hashed: bool, scale: f32 }
`;

// The usual loop of a grid: a level of a four of samples at a time, at places of the unit cube.
export function eachLevel(name, { features }, unit) {
  return /* wgsl */ `
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
`;
}

// Features a, b, c, d of four samples as rows.
export function transposed(features) {
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

export function planGrid(grid, reader, tables) {
  let row = 0;
  const levels = grid.resolutions.map((n, i) => {
    const size = grid.sizes[i];
    const level = { n, size, row, hashed: n ** 3 > size, scale: grid.scales[i] };
    row += size;
    return level;
  });
  const vertex = word(`${grid.bits} ${grid.features}`, VERTICES, "hash grid");
  const at = tables.add(reader.words(grid.table, Math.ceil((row * grid.features * grid.bits) / 32)));
  return { levels, features: grid.features, shift: grid.shift ?? 0.5, code: vertex(whole(at)) };
}

export function gridCode(name, grid) {
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
  let position = clamp(place, vec3f(0f), vec3f(1f)) * f32(level.n - 1u) + ${float(grid.shift)};
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
