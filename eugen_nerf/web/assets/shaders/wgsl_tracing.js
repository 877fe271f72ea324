// The renderer of signed distances as WGSL: core/rendering/{sphere_tracing,surface_renderer}.py.

import { CAMERA } from "./wgsl_rays.js";
import { float, whole } from "./wgsl_words.js";

const AMBIENT = 0.15; // brightness of a surface along the line of sight
const TETRAHEDRON = 1 / 30; // of the least step: float32 has too few digits for a smaller one

const BINDINGS = /* wgsl */ `
@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var<storage, read> weights: array<vec4f>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read_write> image: array<vec4f>;
`;

// Whether any thread of a tile still has rays: `busy`, as a thread's flag, is what all of its tile decide by.
const together = (own) =>
  own
    ? `if (!busy) { break; }`
    : `if (lane < ACROSS) { flags[lane] = busy; }
    workgroupBarrier();
    if (lane == 0u) {
      any_busy = 0u;
      for (var i = 0u; i < ACROSS; i++) { any_busy |= u32(flags[i]); }
    }
    if (workgroupUniformLoad(&any_busy) == 0u) { break; }`;

// Traces the rays of a band. A four of a tile holds four rays; where one ends, its place takes the next ray, so tiles
// stay full. `totals`: the next ray, hits, queries. Hits are listed for the shading.
export const TRACE_BINDINGS = /* wgsl */ `
${BINDINGS}
@group(0) @binding(4) var<storage, read_write> totals: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> hits: array<u32>;
${CAMERA}
`;

export function traceFunctions(own) {
  const shared = own ? "" : "var<workgroup> flags: array<bool, ACROSS>;\nvar<workgroup> any_busy: u32;";
  return /* wgsl */ `
const NONE = 0xffffffffu;
${shared}
struct Traced { pixel: u32, left: u32, t: f32, low: f32, high: f32, at_low: f32, at_high: f32, found: bool }

// the false position method
fn between(ray: Traced) -> f32 {
  return ray.low + (ray.high - ray.low) * ray.at_low / max(ray.at_low - ray.at_high, 1e-12f);
}
`;
}

export function traceBody(tracing, own) {
  const { step_scale, min_step, max_steps, refinements } = tracing;
  return /* wgsl */ `
  var rays: array<Traced, 4>;
  for (var i = 0u; i < 4u; i++) { rays[i].pixel = NONE; }
  let columns = camera.size.w - camera.size.z;
  let count = columns * (camera.band.y - camera.band.x);
  var queries = 0u;
  loop {
    var busy = false;
    if (lane < ACROSS) {
      for (var i = 0u; i < 4u; i++) {
        if (rays[i].pixel == NONE) {
          let next = atomicAdd(&totals[0], 1u);
          if (next < count) {
            let pixel = (camera.band.x + next / columns) * camera.size.x + camera.size.z + next % columns;
            rays[i] = Traced(pixel, ${whole(max_steps)}, camera.near, camera.near, camera.far, 1f, 0f, false);
          }
        }
        if (rays[i].pixel != NONE) {
          busy = true;
          queries++;
          let ray = ray_of(rays[i].pixel);
          let point = ray.origin + ray.direction * rays[i].t;
          for (var d = 0u; d < 3u; d++) { points[d * ACROSS + lane][i] = point[d]; }
        }
      }
    }
    ${together(own)}
    BARRIER
    evaluate(lane);
    if (lane < ACROSS) {
      for (var i = 0u; i < 4u; i++) {
        var ray = rays[i];
        if (ray.pixel == NONE) { continue; }
        let value = outputs[lane][i];
        var ends = false;
        if (!ray.found && value > 0f) {
          ray.low = ray.t;
          ray.at_low = value;
          ray.t += max(${float(step_scale)} * value, ${float(min_step)});
          ray.left--;
          ends = ray.left == 0u || ray.t > camera.far;
        } else {
          ray.left = select(${whole(refinements)} + 1u, ray.left, ray.found) - 1u;
          ray.found = true;
          if (value > 0f) { ray.low = ray.t; ray.at_low = value; } else { ray.high = ray.t; ray.at_high = value; }
          ray.t = between(ray);
          ends = ray.left == 0u;
        }
        if (ends) {
          image[2u * ray.pixel] = vec4f(0f, 0f, 0f, select(camera.far, ray.t, ray.found));
          image[2u * ray.pixel + 1u] = vec4f(0f);
          if (ray.found) { hits[atomicAdd(&totals[1], 1u)] = ray.pixel; }
          ray.pixel = NONE;
        }
        rays[i] = ray;
      }
    }
    BARRIER
  }
  if (lane < ACROSS) { atomicAdd(&totals[2], queries); }
`;
}

// Workgroups of the shading, from the number of hits.
export const hitsCode = (perGroup) => /* wgsl */ `
@group(0) @binding(0) var<storage, read> totals: array<u32>;
@group(0) @binding(1) var<storage, read_write> groups: array<u32>;
@compute @workgroup_size(1)
fn main() {
  groups[0] = (totals[1] + ${whole(perGroup - 1)}) / ${whole(perGroup)};
  groups[1] = 1u;
  groups[2] = 1u;
}
`;

export const SHADE_BINDINGS = /* wgsl */ `
${BINDINGS}
@group(0) @binding(4) var<storage, read> totals: array<u32>;
@group(0) @binding(5) var<storage, read> hits: array<u32>;
${CAMERA}
`;

// Normals and brightness at hits: a hit is a four of points, the corners of a small tetrahedron round it.
export function shadeBody(tracing) {
  return /* wgsl */ `
  let number = tile * ACROSS + lane;
  let pixel = hits[min(number, max(totals[1], 1u) - 1u)];
  let ray = ray_of(pixel);
  let x = vec4f(1f, -1f, -1f, 1f);
  let y = vec4f(-1f, -1f, 1f, 1f);
  let z = vec4f(-1f, 1f, -1f, 1f);
  if (lane < ACROSS) {
    let hit = ray.origin + ray.direction * image[2u * pixel].w;
    let size = ${float(tracing.min_step * TETRAHEDRON)};
    points[lane] = hit.x + size * x;
    points[ACROSS + lane] = hit.y + size * y;
    points[2u * ACROSS + lane] = hit.z + size * z;
  }
  BARRIER
  evaluate(lane);
  if (lane < ACROSS && number < totals[1]) {
    let values = outputs[lane];
    let normal = normalize(vec3f(dot(x, values), dot(y, values), dot(z, values)));
    let shade = ${float(AMBIENT)} + ${float(1 - AMBIENT)} * abs(dot(normal, ray.direction));
    image[2u * pixel] = vec4f(vec3f(shade), image[2u * pixel].w);
    image[2u * pixel + 1u] = vec4f(normal, 1f);
  }
`;
}

export const SLICE_BINDINGS = /* wgsl */ `
${BINDINGS}
${CAMERA}
`;

// Distances on a plane, where it lies before the surface and within the box: lines of equal distance, cold inside.
export function sliceBody(box) {
  const spacing = Math.max(...[0, 1, 2].map((i) => box[i + 3] - box[i])) / 32;
  return /* wgsl */ `
  let columns = camera.size.w - camera.size.z;
  let count = columns * (camera.band.y - camera.band.x);
  var pixels: vec4u;
  var met: vec4f;
  if (lane < ACROSS) {
    let axis = u32(camera.slice.x);
    for (var i = 0u; i < 4u; i++) {
      let next = min(4u * (tile * ACROSS + lane) + i, count - 1u);
      pixels[i] = (camera.band.x + next / columns) * camera.size.x + camera.size.z + next % columns;
      let ray = ray_of(pixels[i]);
      met[i] = (camera.slice.y - ray.origin[axis]) / ray.direction[axis];
      let point = ray.origin + ray.direction * met[i];
      let low = vec3f(${box.slice(0, 3).map(float).join(", ")});
      let high = vec3f(${box.slice(3).map(float).join(", ")});
      if (!(met[i] > camera.near) || any(point < low) || any(point > high)) { met[i] = 2f * camera.far; }
      for (var d = 0u; d < 3u; d++) { points[d * ACROSS + lane][i] = point[d]; }
    }
  }
  BARRIER
  evaluate(lane);
  if (lane < ACROSS) {
    for (var i = 0u; i < 4u; i++) {
      let value = outputs[lane][i];
      if (4u * (tile * ACROSS + lane) + i < count && met[i] < image[2u * pixels[i]].w) {
        let steps = value / ${float(spacing)};
        let line = smoothstep(0.02f, 0.1f, abs(steps - round(steps)));
        let far = clamp(abs(steps) / 16f, 0f, 1f);
        let side = select(mix(vec3f(0.99f, 0.88f, 0.72f), vec3f(0.75f, 0.35f, 0.1f), far),
          mix(vec3f(0.75f, 0.87f, 0.97f), vec3f(0.1f, 0.3f, 0.6f), far), value < 0f);
        image[2u * pixels[i]] = vec4f(side * mix(0.6f, 1f, line) * smoothstep(0.05f, 0.2f, abs(steps)), met[i]);
      }
    }
  }
`;
}
