// A field queried at points, without a renderer.

import { BlockReader } from "/engine/block_reader.js";
import { checkDescription } from "/engine/scene_check.js";
import { refuse } from "/shaders/wgsl_words.js";
import { planField, tileModule } from "/shaders/wgsl_field.js";

const NUMBERS = 8; // of a point: x, y, z, time, direction, and one that is not used

const BINDINGS = /* wgsl */ `
@group(0) @binding(0) var<storage, read> inputs: array<vec4f>;
@group(0) @binding(1) var<storage, read> weights: array<vec4f>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read_write> results: array<vec4f>;
`;

const BODY = /* wgsl */ `
  let total = arrayLength(&results);
  let first = tile * TILE;
  if (lane < ACROSS) {
    for (var part = 0u; part < 4u; part++) {
      let at = 2u * min(first + 4u * lane + part, total - 1u);
      for (var i = 0u; i < 7u; i++) { points[i * ACROSS + lane][part] = inputs[at + i / 4u][i % 4u]; }
    }
  }
  BARRIER
  evaluate(lane);
  for (var i = lane; i < TILE; i += STEP) {
    if (first + i < total) {
      results[first + i] = vec4f(outputs[i / 4u][i % 4u], outputs[ACROSS + i / 4u][i % 4u],
        outputs[2u * ACROSS + i / 4u][i % 4u], outputs[3u * ACROSS + i / 4u][i % 4u]);
    }
  }
`;

// Density, red, green and blue, or distance and three zeros, `[n, 4]`.
//   gpu: an engine's. description, binary: of a scene. points: float32 `[n, 8]`.
export async function queryField(gpu, description, binary, points) {
  checkDescription(description);
  const [plan] = planField(description.field, new BlockReader(description.blocks, binary), gpu);
  if (plan.frustum) refuse("it is a field of frustums, and points have none");
  const count = points.length / NUMBERS;
  const code = tileModule(plan, BINDINGS, BODY);
  const pipeline = await gpu.pipeline("points", code);
  const inputs = gpu.filled("points", points);
  const weights = gpu.filled("weights", plan.constants);
  const table = gpu.filled("tables", plan.table);
  const results = gpu.storage("results", 16 * count);
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  gpu.dispatch(pass, pipeline, [inputs, weights, table, results], [Math.ceil(count / plan.layout.samples)]);
  pass.end();
  const numbers = new Float32Array(await gpu.read(encoder, results, 16 * count));
  for (const buffer of [inputs, weights, table, results]) buffer.destroy();
  return numbers;
}
