// The renderer by proposals as WGSL: core/rendering/proposal_renderer.py. Alphabet: s normalised distances in [0, 1].

import { CAMERA } from "./wgsl_rays.js";
import { float, refuse, whole } from "./wgsl_words.js";

const PIXEL = /* wgsl */ `
fn columns() -> u32 {
  return camera.size.w - camera.size.z;
}
fn count() -> u32 {
  return columns() * (camera.band.y - camera.band.x);
}
fn pixel_of(ray: u32) -> u32 {
  return (camera.band.x + ray / columns()) * camera.size.x + camera.size.z + ray % columns();
}
`;

// Distances of normalised ones: linear in disparity, or in a power of the distance (Eq. 6 of arXiv 2304.06706); or, as
// nerfacto has them, linear in distance up to 1 and in disparity beyond; or linear.
export function spacingCode({ spacing = "power", exponent, multiplier }, { near, far }) {
  if (spacing === "linear") return `fn distance_of(s: f32) -> f32 { return mix(${float(near)}, ${float(far)}, s); }`;
  if (spacing === "piecewise") {
    const left = (t) => (t < 1 ? 1 - t / 2 : 1 / (2 * t));
    return /* wgsl */ `
fn distance_of(s: f32) -> f32 {
  let left = mix(${float(left(near))}, ${float(left(far))}, s);
  return select(0.5f / left, 2f * (1f - left), left > 0.5f);
}`;
  }
  if (spacing !== "power") refuse("it spaces samples in a way that this page does not know");
  if (exponent === null) return `fn distance_of(s: f32) -> f32 { return 1f / mix(${float(1 / near)}, ${float(1 / far)}, s); }`;
  const scale = Math.abs(exponent - 1);
  const power = (t) => ((multiplier * t) / scale + 1) ** exponent;
  // between the powers themselves: the transformation adds a number that would take their digits
  return /* wgsl */ `
fn distance_of(s: f32) -> f32 {
  let power = s * ${float(power(far))} + (1f - s) * ${float(power(near))};
  return ${float(scale / multiplier)} * (pow(power, ${float(1 / exponent)}) - 1f);
}`;
}

export const startCode = (samples) => /* wgsl */ `
@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var<storage, read_write> edges: array<f32>;
${CAMERA}
${PIXEL}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= count()) { return; }
  for (var j = 0u; j <= ${whole(samples)}; j++) { edges[id.x * ${whole(samples + 1)} + j] = f32(j) / ${float(samples)}; }
}
`;

export const frustumBindings = (type) => /* wgsl */ `
@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var<storage, read> weights: array<vec4f>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read> edges: array<f32>;
@group(0) @binding(4) var<storage, read_write> results: array<${type}>;
${CAMERA}
${PIXEL}
`;

// Queries a field in the frustums of a round: a proposal leaves densities, the last field colours too.
export const frustumBody = (samples, coloured) => /* wgsl */ `
  let total = count() * ${whole(samples)};
  let first = tile * TILE;
  if (lane < ACROSS) {
    for (var i = 0u; i < 4u; i++) {
      let sample = min(first + 4u * lane + i, total - 1u);
      let number = sample % ${whole(samples)};
      let at = sample / ${whole(samples)} * ${whole(samples + 1)} + number;
      let pixel = pixel_of(sample / ${whole(samples)});
      let ray = ray_of(pixel);
      for (var d = 0u; d < 3u; d++) { points[(4u + d) * ACROSS + lane][i] = ray.direction[d]; }
      set_frustum(lane, i, ray, distance_of(edges[at]), distance_of(edges[at + 1u]), cone_radius(pixel), number % 2u == 1u);
    }
  }
  BARRIER
  evaluate(lane);
  for (var i = lane; i < TILE; i += STEP) {
    if (first + i < total) {
      results[first + i] = ${
        coloured
          ? `vec4f(outputs[i / 4u][i % 4u], outputs[ACROSS + i / 4u][i % 4u],
        outputs[2u * ACROSS + i / 4u][i % 4u], outputs[3u * ACROSS + i / 4u][i % 4u])`
          : "outputs[i / 4u][i % 4u]"
      };
    }
  }
`;

// Edges of the next round at equal shares of this one's weights.
export const drawCode = (spacing, samples, next, padding) => /* wgsl */ `
@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var<storage, read> edges: array<f32>;
@group(0) @binding(2) var<storage, read> density: array<f32>;
@group(0) @binding(3) var<storage, read_write> drawn: array<f32>;
${CAMERA}
${PIXEL}
${spacing}
fn weight(ray: u32, j: u32, before: ptr<function, f32>) -> f32 {
  let at = ray * ${whole(samples + 1)} + j;
  let depth = (distance_of(edges[at + 1u]) - distance_of(edges[at])) * density[ray * ${whole(samples)} + j];
  let weight = (1f - exp(-depth)) * exp(-*before);
  *before += depth;
  return weight + ${float(padding)};
}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let ray = id.x;
  if (ray >= count()) { return; }
  var before = 0f;
  var total = 0f;
  for (var j = 0u; j < ${whole(samples)}; j++) { total += weight(ray, j, &before); }
  let missing = max(1e-5f - total, 0f);
  total += missing;
  before = 0f;
  var low = 0f;
  var edge = 0u;
  for (var j = 0u; j < ${whole(samples)}; j++) {
    let share = (weight(ray, j, &before) + missing / ${float(samples)}) / total;
    let high = min(low + share, 1f);
    let at = ray * ${whole(samples + 1)} + j;
    while (edge <= ${whole(next)}) {
      let wanted = (f32(edge) + 0.5f) / ${float(next + 1)};
      if (wanted >= high) { break; }
      drawn[ray * ${whole(next + 1)} + edge] = mix(edges[at], edges[at + 1u], clamp((wanted - low) / (high - low), 0f, 1f));
      edge++;
    }
    low = high;
  }
  for (; edge <= ${whole(next)}; edge++) {
    drawn[ray * ${whole(next + 1)} + edge] = edges[ray * ${whole(samples + 1)} + ${whole(samples)}];
  }
}
`;

// Sums up the last round.
export function summingCode(spacing, samples, background) {
  const behind = background === null ? "last" : `vec3f(${background.map(float).join(", ")})`;
  return /* wgsl */ `
@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var<storage, read> edges: array<f32>;
@group(0) @binding(2) var<storage, read> results: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> image: array<vec4f>;
${CAMERA}
${PIXEL}
${spacing}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= count()) { return; }
  var before = 0f;
  var opacity = 0f;
  var colour = vec3f(0f);
  var last = vec3f(0f);
  var middle = 0f;
  for (var j = 0u; j < ${whole(samples)}; j++) {
    let at = id.x * ${whole(samples + 1)} + j;
    let start = distance_of(edges[at]);
    let end = distance_of(edges[at + 1u]);
    let result = results[id.x * ${whole(samples)} + j];
    let depth = (end - start) * result.x;
    let weight = (1f - exp(-depth)) * exp(-before);
    // where half of the light has ended, or in the last one
    if (opacity < 0.5f) { middle = 0.5f * (start + end); }
    last = result.yzw;
    colour += weight * last;
    opacity += weight;
    before += depth;
  }
  let pixel = pixel_of(id.x);
  image[2u * pixel] = vec4f(clamp(colour + (1f - opacity) * ${behind}, vec3f(0f), vec3f(1f)), middle);
  image[2u * pixel + 1u] = vec4f(0f, 0f, 0f, opacity);
}
`;
}
