// Numbers and words of the shaders that are generated: nothing of a description reaches WGSL but through this file.

import { EngineError } from "../engine/engine_error.js";

export function refuse(message) {
  throw new EngineError("description", `This scene cannot be shown: ${message}.`, message);
}

// A finite number as WGSL's f32.
export function float(value) {
  const rounded = Math.fround(value);
  if (typeof value !== "number" || !Number.isFinite(rounded)) refuse(`${typeof value} in place of a finite number`);
  return rounded < 0 ? `(${rounded}f)` : `${rounded}f`;
}

// A whole number as WGSL's u32.
export function whole(value) {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) refuse(`${typeof value} in place of a whole number`);
  return `${value}u`;
}

// One of the words of a list, or a refusal.
export function word(value, words, what) {
  if (typeof value !== "string" || !Object.hasOwn(words, value)) refuse(`its ${what} is unknown to this page`);
  return words[value];
}

// Element-wise functions of a layer: WGSL expressions of u, a vector of four samples. `p` is the function's parameter.
const ACTIVATIONS = {
  identity: () => "u",
  relu: () => "max(u, vec4f(0f))",
  softplus: () => "softplus(u)",
  softplus100: () => "softplus(100f * u) / 100f",
  gelu: () => "0.5f * u * (1f + erf(u * 0.70710678f))",
  gelu_tanh: () => "0.5f * u * (1f + tanh(clamp(0.79788456f * (u + 0.044715f * u * u * u), vec4f(-15f), vec4f(15f))))",
  sin: () => "sine(u)",
  cos: () => "sine(u + 1.57079633f)",
  tanh: () => "tanh(clamp(u, vec4f(-15f), vec4f(15f)))",
  sigmoid: () => "sigmoid(u)",
  gaussian: () => "exp(-0.5f * u * u)",
  silu: () => "u * sigmoid(u)",
  leaky_relu: (p) => `select(${float(p)} * u, u, u > vec4f(0f))`,
  elu: (p) => `select(${float(p)} * (exp(min(u, vec4f(0f))) - 1f), u, u > vec4f(0f))`,
};

export const activationNames = () => Object.keys(ACTIVATIONS);

export function activation(name, parameter) {
  return word(name, ACTIVATIONS, "activation")(parameter);
}

// Products of two projections.
const PRODUCTS = {
  plain: (a, b) => `${a} * ${b}`,
  harmonic: (a, b) => `${a} * ${b} * inverseSqrt(${a} * ${a} + ${b} * ${b} + 1e-6f)`,
  minimum: (a, b) => `min(abs(${a}), abs(${b})) * select(vec4f(-1f), vec4f(1f), (${a} < vec4f(0f)) == (${b} < vec4f(0f)))`,
  clamped: (a, b) => `${a} * clamp(${b}, vec4f(-1f), vec4f(1f))`,
};

export function product(name) {
  return word(name, PRODUCTS, "product");
}

// Activations that make a density of a raw output.
const DENSITIES = { softplus: "softplus(u)", exp: "exp(u)", relu: "max(u, vec4f(0f))" };

export function densityActivation(name) {
  return word(name, DENSITIES, "density");
}

// Functions of four samples that WGSL lacks, or has with a short range only.
export const FUNCTIONS = /* wgsl */ `
fn softplus(u: vec4f) -> vec4f {
  return max(u, vec4f(0f)) + log(1f + exp(-abs(u)));
}
fn sigmoid(u: vec4f) -> vec4f {
  return 1f / (1f + exp(-u));
}
// WGSL promises digits of sin within one turn alone
fn sine_of_turns(turns: vec4f) -> vec4f {
  return sin(6.28318531f * (turns - round(turns)));
}
fn sine(u: vec4f) -> vec4f {
  return sine_of_turns(u * 0.15915494f);
}
// Abramowitz and Stegun 7.1.26, to within 1.5e-7
fn erf(u: vec4f) -> vec4f {
  let t = 1f / (1f + 0.3275911f * abs(u));
  let p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  return sign(u) * (1f - p * exp(-u * u));
}
`;
