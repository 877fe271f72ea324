// The renderer by a grid of densities as WGSL: core/rendering/{marching,sample_placement}.py, a ray a thread.

import { CAMERA } from "./wgsl_rays.js";
import { float, whole } from "./wgsl_words.js";

const STRIDE = 4; // cells that a coarse step passes
const MAX_SAMPLES = 64; // of a run: of spans of a ray that touch one another

// Words in which a grid's cells are looked up: one bit a cell, how many bits were before each word, one bit a block of
// 4^3 cells that has an occupied cell in it or beside it, and the densities of occupied cells, a byte each.
//   shape: [times, x, y, z].
export function packCells(shape, bits, density, cells) {
  const blocks = shape.map((n, i) => (i === 0 ? n : Math.ceil(n / STRIDE)));
  const ranks = new Uint32Array(bits.length);
  const near = new Uint8Array(blocks.reduce((product, n) => product * n, 1));
  let rank = 0;
  for (let i = 0; i < bits.length; i++) {
    ranks[i] = rank;
    for (let word = bits[i]; word !== 0; word &= word - 1) {
      rank++;
      let cell = i * 32 + 31 - Math.clz32(word & -word);
      const z = cell % shape[3]; cell = (cell - z) / shape[3];
      const y = cell % shape[2]; cell = (cell - y) / shape[2];
      const x = cell % shape[1];
      const time = (cell - x) / shape[1];
      near[((time * blocks[1] + (x >> 2)) * blocks[2] + (y >> 2)) * blocks[3] + (z >> 2)] = 1;
    }
  }
  const places = { bits: cells.add(bits), ranks: cells.add(ranks) };
  places.near = cells.add(packBits(widened(near, blocks)));
  places.density = cells.add(density);
  return { ...places, blocks };
}

// Blocks beside a set one along every axis of space.
function widened(near, [times, ...sides]) {
  let before = near;
  for (let axis = 0; axis < 3; axis++) {
    const after = before.slice();
    const step = sides.slice(axis + 1).reduce((product, n) => product * n, 1);
    for (let i = 0; i < before.length; i++) {
      if (before[i] === 0) continue;
      const place = Math.floor(i / step) % sides[axis];
      if (place > 0) after[i - step] = 1;
      if (place < sides[axis] - 1) after[i + step] = 1;
    }
    before = after;
  }
  return before;
}

function packBits(flags) {
  const words = new Uint32Array(Math.ceil(flags.length / 32));
  for (let i = 0; i < flags.length; i++) words[i >> 5] |= flags[i] << (i & 31);
  return words;
}

// Places the samples of every ray: `spans` and `owners`, those of a ray one after another, `rays` says where.
export function placingCode(grid, places) {
  const [times, ...sides] = [grid.times, ...grid.sides];
  const low = grid.low.map(float).join(", ");
  // levels are logarithms of optical depths: see web/rounding.py
  const step = Math.log2(grid.depths[1] / grid.depths[0]) / (grid.levels - 1);
  const base = Math.log2(grid.depths[0] / grid.cell) - step;
  const high = grid.low.map((corner, i) => float(corner + grid.cell * sides[i])).join(", ");
  return /* wgsl */ `
@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var<storage, read> cells: array<u32>;
@group(0) @binding(2) var<storage, read_write> spans: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> owners: array<u32>;
@group(0) @binding(4) var<storage, read_write> rays: array<vec2u>;
@group(0) @binding(5) var<storage, read_write> totals: array<atomic<u32>>;
${CAMERA}
const CELL = ${float(grid.cell)};
const SIDES = vec3u(${sides.map(whole).join(", ")});
const BLOCKS = vec3u(${places.blocks.slice(1).map(whole).join(", ")});
const EARLY_STOP = ${float(grid.early_stop)};
const MIN_WEIGHT = ${float(grid.min_weight)};

struct Part { origin: vec3f, direction: vec3f, begin: f32, end: f32, slice: u32 }
struct Walk { step: u32, before: f32, counted: bool, start: f32, stop: f32, measure: f32 }

fn cell_at(part: Part, t: f32) -> vec3u {
  return vec3u(clamp(part.origin + part.direction * t, vec3f(0f), vec3f(SIDES - 1u)));
}
fn near(part: Part, t: f32) -> bool {
  let block = cell_at(part, t) / ${whole(STRIDE)};
  let bit = ((part.slice * BLOCKS.x + block.x) * BLOCKS.y + block.y) * BLOCKS.z + block.z;
  return ((cells[${whole(places.near)} + bit / 32u] >> (bit % 32u)) & 1u) == 1u;
}
// the density of a cell; below 0 where it is not occupied
fn density(part: Part, t: f32) -> f32 {
  let cell = cell_at(part, t);
  let bit = ((part.slice * SIDES.x + cell.x) * SIDES.y + cell.y) * SIDES.z + cell.z;
  let bits = cells[${whole(places.bits)} + bit / 32u];
  if (((bits >> (bit % 32u)) & 1u) == 0u) { return -1f; }
  let number = cells[${whole(places.ranks)} + bit / 32u] + countOneBits(bits & ((1u << (bit % 32u)) - 1u));
  let level = extractBits(cells[${whole(places.density)} + number / 4u], 8u * (number % 4u), 8u);
  return select(exp2(${float(base)} + ${float(step)} * f32(level)), 0f, level == 0u);
}

// the next span that is queried: occupied, and with rendering weight, or right behind one that has
fn advance(walk: ptr<function, Walk>, part: Part) -> bool {
  loop {
    let step = (*walk).step;
    let at = part.begin + ${float(STRIDE)} * CELL * f32(step / ${whole(STRIDE)});
    if (at >= part.end) { break; }
    if (step % ${whole(STRIDE)} == 0u && !near(part, at + ${float(STRIDE / 2)} * CELL)) {
      (*walk).step = step + ${whole(STRIDE)};
      continue;
    }
    (*walk).step = step + 1u;
    let start = at + CELL * f32(step % ${whole(STRIDE)});
    let stop = min(start + CELL, part.end);
    if (stop <= start) { continue; }
    let dense = density(part, start + CELL / 2f);
    if (dense < 0f) { continue; }
    let length = (stop - start) / CELL;
    let depth = dense * (stop - start);
    let transmittance = exp(-(*walk).before);
    let weight = transmittance * (1f - exp(-depth)) / max(length, 1e-6f);
    let before = (*walk).counted;
    let counted = weight >= MIN_WEIGHT && transmittance >= EARLY_STOP;
    if (!counted && !before && transmittance < EARLY_STOP) { return false; }
    (*walk).counted = counted;
    (*walk).before += depth;
    if (counted || before) {
      (*walk).start = start;
      (*walk).stop = stop;
      (*walk).measure = pow(max(weight, MIN_WEIGHT), 1f / 3f) * length;
      return true;
    }
  }
  return false;
}
// whether a span begins another run than the one that ends there
fn apart(walk: Walk, end: f32) -> bool {
  return walk.start - end > 1e-3f * CELL;
}
fn samples_of(measure: f32) -> u32 {
  return u32(clamp(round(${float(grid.rate)} * measure), 1f, ${float(MAX_SAMPLES)}));
}
fn count(part: Part) -> u32 {
  var walk = Walk(0u, 0f, false, 0f, 0f, 0f);
  var number = 0u;
  var going = advance(&walk, part);
  while (going) {
    var total = 0f;
    var end = walk.start;
    while (going && !apart(walk, end)) {
      total += walk.measure;
      end = walk.stop;
      going = advance(&walk, part);
    }
    number += samples_of(total);
  }
  return number;
}
fn place(part: Part, pixel: u32, first: u32) {
  var walk = Walk(0u, 0f, false, 0f, 0f, 0f);
  var at = first;
  var going = advance(&walk, part);
  while (going) {
    var ahead = walk;
    var total = 0f;
    var end = ahead.start;
    var more = true;
    while (more && !apart(ahead, end)) {
      total += ahead.measure;
      end = ahead.stop;
      more = advance(&ahead, part);
    }
    // edges at equal shares of the run's measure
    let number = samples_of(total);
    var edge = 1u;
    var before = 0f;
    var last = walk.start;
    end = walk.start;
    while (going && !apart(walk, end)) {
      let until = before + walk.measure;
      while (edge < number && f32(edge) / f32(number) * total <= until) {
        let passed = clamp((f32(edge) / f32(number) * total - before) / walk.measure, 0f, 1f);
        let next = mix(walk.start, walk.stop, passed);
        spans[at] = vec2f(last, next);
        owners[at] = pixel;
        at++;
        edge++;
        last = next;
      }
      before = until;
      end = walk.stop;
      going = advance(&walk, part);
    }
    while (edge <= number) { // rounding can leave edges behind the last span's measure
      spans[at] = vec2f(last, end);
      owners[at] = pixel;
      at++;
      edge++;
      last = end;
    }
  }
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = camera.size.z + id.x;
  let row = camera.band.x + id.y;
  if (column >= camera.size.w || row >= camera.band.y) { return; }
  let pixel = row * camera.size.x + column;
  let ray = ray_of(pixel);
  let low = vec3f(${low});
  let met = box_distances(low, vec3f(${high}), ray);
  let slice = u32(clamp(round(camera.time * ${float(times - 1)}), 0f, ${float(times - 1)}));
  let part = Part((ray.origin - low) / CELL, ray.direction / CELL, met.x, met.y, slice);
  let number = count(part);
  let first = atomicAdd(&totals[camera.band.z], number);
  // what does not fit is rendered again with more space
  let fits = first + number <= camera.band.w;
  rays[pixel] = vec2u(first, select(0u, number, fits));
  if (fits) { place(part, pixel, first); }
}
`;
}
