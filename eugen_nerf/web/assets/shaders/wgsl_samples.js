// Samples of rays as WGSL: the field in the spans that were placed, and what rays sum up to.

import { CAMERA } from "./wgsl_rays.js";
import { float, whole } from "./wgsl_words.js";

export const SAMPLE_BINDINGS = /* wgsl */ `
@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var<storage, read> spans: array<vec2f>;
@group(0) @binding(2) var<storage, read> owners: array<u32>;
@group(0) @binding(3) var<storage, read> totals: array<u32>;
@group(0) @binding(4) var<storage, read> weights: array<vec4f>;
@group(0) @binding(5) var<storage, read> table: array<u32>;
@group(0) @binding(6) var<storage, read_write> results: array<vec4f>;
${CAMERA}
`;

// Coordinates of a tile: the middles of spans, their times, and the directions of their rays.
export const SAMPLE_BODY = /* wgsl */ `
  let total = min(totals[camera.band.z], camera.band.w);
  let first = tile * TILE;
  if (lane < ACROSS) {
    var at: array<vec4f, 7>;
    for (var i = 0u; i < 4u; i++) {
      let sample = min(first + 4u * lane + i, max(total, 1u) - 1u);
      let ray = ray_of(owners[sample]);
      let point = ray.origin + ray.direction * (0.5f * (spans[sample].x + spans[sample].y));
      at[0][i] = point.x; at[1][i] = point.y; at[2][i] = point.z; at[3][i] = camera.time;
      at[4][i] = ray.direction.x; at[5][i] = ray.direction.y; at[6][i] = ray.direction.z;
    }
    for (var i = 0u; i < 7u; i++) { points[i * ACROSS + lane] = at[i]; }
  }
  BARRIER
  evaluate(lane);
  for (var i = lane; i < TILE; i += STEP) {
    if (first + i < total) {
      let at = i / 4u;
      let part = i % 4u;
      results[first + i] = vec4f(outputs[at][part], outputs[ACROSS + at][part],
        outputs[2u * ACROSS + at][part], outputs[3u * ACROSS + at][part]);
    }
  }
`;

// Workgroups of the field's pass, from the number of samples of a band.
export const countingCode = (samples) => /* wgsl */ `
@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var<storage, read> totals: array<u32>;
@group(0) @binding(2) var<storage, read_write> groups: array<u32>;
${CAMERA}
@compute @workgroup_size(1)
fn main() {
  groups[0] = (min(totals[camera.band.z], camera.band.w) + ${whole(samples - 1)}) / ${whole(samples)};
  groups[1] = 1u;
  groups[2] = 1u;
}
`;

// Sums up what rays meet, before the background. Alphabet: see core/rendering/compositing.py.
export function compositingCode(background) {
  const behind = background === null ? "last" : `vec3f(${background.map(float).join(", ")})`;
  return /* wgsl */ `
@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var<storage, read> spans: array<vec2f>;
@group(0) @binding(2) var<storage, read> rays: array<vec2u>;
@group(0) @binding(3) var<storage, read> results: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> image: array<vec4f>;
${CAMERA}
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = camera.size.z + id.x;
  let row = camera.band.x + id.y;
  if (column >= camera.size.w || row >= camera.band.y) { return; }
  let pixel = row * camera.size.x + column;
  let own = rays[pixel];
  var depth = 0f;
  var colour = vec3f(0f);
  var opacity = 0f;
  var last = vec3f(0f);
  for (var i = own.x; i < own.x + own.y; i++) {
    let through = results[i].x * (spans[i].y - spans[i].x);
    let weight = exp(-depth) * (1f - exp(-through));
    last = results[i].yzw;
    colour += weight * last;
    opacity += weight;
    depth += through;
  }
  // the middle of the last span that begins before half of the opacity is reached
  var before = 0f;
  var reached = 0f;
  var distance = 0f;
  for (var i = own.x; i < own.x + own.y && reached <= 0.5f * opacity; i++) {
    distance = 0.5f * (spans[i].x + spans[i].y);
    let through = results[i].x * (spans[i].y - spans[i].x);
    reached += exp(-before) * (1f - exp(-through));
    before += through;
  }
  image[2u * pixel] = vec4f(clamp(colour + (1f - opacity) * ${behind}, vec3f(0f), vec3f(1f)), distance);
  image[2u * pixel + 1u] = vec4f(0f, 0f, 0f, opacity);
}
`;
}
