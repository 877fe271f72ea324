// Conical frustums as WGSL: what stands for one before it is encoded (core/encodings/frustum_points.py).

import { FRUSTUM } from "./wgsl_encodings.js";
import { float, whole } from "./wgsl_words.js";

const CONTRACTION = /* wgsl */ `
// of arXiv 2111.12077, Eq. 10: the identity in the unit ball, and a ball of radius 2 for all that is outside
fn contract(x: vec3f) -> vec3f {
  let r = max(1f, length(x));
  return (2f * r - 1f) / (r * r) * x;
}
`;

// One Gaussian, contracted: rows of its mean and its covariance.
const GAUSSIAN = /* wgsl */ `
${CONTRACTION}
fn set_frustum(lane: u32, i: u32, ray: Ray, start: f32, end: f32, radius: f32, odd: bool) {
  let middle = 0.5f * (start + end);
  let half = 0.5f * (end - start);
  let scale = 3f * middle * middle + half * half;
  let mean = ray.origin + ray.direction * (middle + 2f * middle * half * half / scale);
  let fourth = half * half * half * half;
  let along = half * half / 3f - 4f / 15f * (fourth * (12f * middle * middle - half * half) / (scale * scale));
  let across = radius * radius * (middle * middle / 4f + 5f / 12f * half * half - 4f / 15f * fourth / scale);
  // sigma = across I + (along - across) d d^T, and J sigma J^T by the contraction's Jacobian a I + b n n^T
  let d = ray.direction;
  let r = max(1f, length(mean));
  let a = (2f * r - 1f) / (r * r);
  let b = 1f / (r * r) - a;
  let n = mean / r;
  let sn = across * n + (along - across) * dot(d, n) * d;
  let c = a * b * sn + 0.5f * b * b * dot(n, sn) * n;
  let same = a * a * (vec3f(across) + (along - across) * d * d) + 2f * n * c;
  let mixed = a * a * (along - across) * d.xxy * d.yzz + n.xxy * c.yzz + n.yzz * c.xxy;
  let placed = contract(mean);
  for (var k = 0u; k < 3u; k++) {
    points[(${whole(FRUSTUM)} + k) * ACROSS + lane][i] = placed[k];
    points[(${whole(FRUSTUM + 3)} + k) * ACROSS + lane][i] = same[k];
    points[(${whole(FRUSTUM + 6)} + k) * ACROSS + lane][i] = mixed[k];
  }
}
`;

// Points on a hexagon that turns from frustum to frustum, in the unit cube: rows of their places and their widths.
const multisamples = (samples) => /* wgsl */ `
${CONTRACTION}
fn set_frustum(lane: u32, i: u32, ray: Ray, start: f32, end: f32, radius: f32, odd: bool) {
  let d = ray.direction;
  let size = abs(d);
  var other = vec3f(0f, 0f, 1f);
  if (size.x <= size.y && size.x <= size.z) { other = vec3f(1f, 0f, 0f); }
  else if (size.y <= size.z) { other = vec3f(0f, 1f, 0f); }
  let right = normalize(cross(d, other));
  let up = cross(d, right);
  let middle = 0.5f * (start + end);
  let half = 0.5f * (end - start);
  let difference = half * half - middle * middle;
  let spread = 1.13389342f * sqrt(difference * difference + 4f * middle * middle * middle * middle);
  let sixths = array<f32, 6>(0f, 2f, 4f, 3f, 5f, 1f);
  for (var j = 0u; j < ${whole(samples)}; j++) {
    let number = ${samples === 6 ? "j" : "1u + 3u * j"};
    let length = end * end + 2f * middle * middle + (0.4f * f32(number) - 1f) * spread;
    let z = start + half * length / max(half * half + 3f * middle * middle, 1e-30f);
    let angle = 1.04719755f * select(sixths[number], sixths[5u - number] + 0.5f, odd);
    let across = radius * z * 0.70710678f;
    let point = ray.origin + across * (cos(angle) * right + sin(angle) * up) + z * d;
    let r = max(1f, sqrt(dot(point, point)));
    let width = max(0.5f * across * pow(2f * r - 1f, 2f / 3f) / (r * r), 1e-9f);
    let placed = (contract(point) + 2f) / 4f;
    let row = ${whole(FRUSTUM)} + 4u * j;
    for (var k = 0u; k < 3u; k++) { points[(row + k) * ACROSS + lane][i] = placed[k]; }
    points[(row + 3u) * ACROSS + lane][i] = width / 4f;
  }
}
`;

// The middle, where the cube is the unit cube: rows of its place. Points outside are moved to a corner.
const middle = (box) => {
  const [low, high] = box ? [box.slice(0, 3).map(float), box.slice(3).map(float)] : [];
  return /* wgsl */ `
fn set_frustum(lane: u32, i: u32, ray: Ray, start: f32, end: f32, radius: f32, odd: bool) {
  let point = ray.origin + 0.5f * (start + end) * ray.direction;
  ${
    box
      ? `let unit = (point - vec3f(${low.join(", ")})) / (vec3f(${high.join(", ")}) - vec3f(${low.join(", ")}));`
      : `let size = abs(point);
  let r = max(1f, max(size.x, max(size.y, size.z)));
  let unit = ((2f * r - 1f) / (r * r) * point + 2f) / 4f;`
  }
  let inside = all(unit > vec3f(0f)) && all(unit < vec3f(1f));
  let placed = select(vec3f(0f), unit, inside);
  for (var k = 0u; k < 3u; k++) { points[(${whole(FRUSTUM)} + k) * ACROSS + lane][i] = placed[k]; }
}
`;
};

// WGSL of \`fn set_frustum\` for an encoding's kind of frustum.
export function frustumCode(plan) {
  if (plan.frustum === "middle") return middle(plan.cube);
  return plan.frustum === "gaussian" ? GAUSSIAN : multisamples(plan.samples);
}
