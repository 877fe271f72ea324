// Rays of a pinhole camera as WGSL, and how a camera is handed to the shaders.

import { EngineError } from "../engine/engine_error.js";

export const CAMERA_BYTES = 128;

// x right, y up, z back; rows of the pose with the position as fourth numbers.
export const CAMERA = /* wgsl */ `
struct Camera {
  pose: array<vec4f, 3>,
  lens: vec4f,      // fx, fy, cx, cy, in pixels
  size: vec4u,      // width, height, first column, one past the last
  band: vec4u,      // first row, one past the last, number of the band, most samples of a band
  slice: vec4f,     // axis, offset, whether there is one
  time: f32,
  near: f32,
  far: f32,
}
struct Ray { origin: vec3f, direction: vec3f }

fn ahead(column: f32, row: f32) -> vec3f {
  let at = vec3f((column + 0.5f - camera.lens.z) / camera.lens.x, -(row + 0.5f - camera.lens.w) / camera.lens.y, -1f);
  return normalize(vec3f(dot(camera.pose[0].xyz, at), dot(camera.pose[1].xyz, at), dot(camera.pose[2].xyz, at)));
}
fn ray_of(pixel: u32) -> Ray {
  let origin = vec3f(camera.pose[0].w, camera.pose[1].w, camera.pose[2].w);
  return Ray(origin, ahead(f32(pixel % camera.size.x), f32(pixel / camera.size.x)));
}
// of the cone through a pixel, at distance 1
fn cone_radius(pixel: u32) -> f32 {
  let column = f32(pixel % camera.size.x);
  let row = f32(pixel / camera.size.x);
  let middle = ahead(column, row);
  let area = length(ahead(column + 1f, row) - middle) * length(ahead(column, row + 1f) - middle);
  return sqrt(area / 3.14159265f);
}
// distances at which a ray enters a box and leaves it
fn box_distances(low: vec3f, high: vec3f, ray: Ray) -> vec2f {
  let direction = select(ray.direction, vec3f(1e-19f), abs(ray.direction) < vec3f(1e-19f));
  let first = (low - ray.origin) / direction;
  let second = (high - ray.origin) / direction;
  let enter = min(first, second);
  let leave = max(first, second);
  return vec2f(max(max(enter.x, enter.y), max(enter.z, camera.near)), min(min(leave.x, leave.y), min(leave.z, camera.far)));
}
`;

// Bytes of the uniform `Camera`.
//   columns, rows: [first, one past the last] of the pixels to render. band: its number. capacity: samples of a band.
export function cameraBytes(camera, time, info, slice, columns, rows, band, capacity) {
  const bytes = new ArrayBuffer(CAMERA_BYTES);
  const floats = new Float32Array(bytes);
  const words = new Uint32Array(bytes);
  floats.set(camera.pose, 0);
  floats.set([camera.fx, camera.fy, camera.cx, camera.cy], 12);
  words.set([camera.width, camera.height, ...columns], 16);
  words.set([...rows, band, capacity], 20);
  floats.set(slice ? [slice.axis, slice.offset, 1, 0] : [0, 0, 0, 0], 24);
  floats.set([time ?? 0, info.near, info.far], 28);
  return bytes;
}

export function checkCamera(camera, most) {
  const sides = [camera.width, camera.height];
  const numbers = [...camera.pose, camera.fx, camera.fy, camera.cx, camera.cy];
  const fits = camera.pose.length === 12 && sides.every((n) => Number.isInteger(n) && n >= 1 && n <= 8192);
  if (!fits || !numbers.every(Number.isFinite) || !(camera.fx > 0) || !(camera.fy > 0)) {
    throw new EngineError("camera", "This camera has no picture: its sides are from 1 to 8192 pixels, its numbers finite.");
  }
  if (camera.width * camera.height > most) {
    const megapixels = (most / 1e6).toFixed(1);
    throw new EngineError("limits", `This GPU renders at most ${megapixels} million pixels at once: make the picture smaller.`);
  }
}
