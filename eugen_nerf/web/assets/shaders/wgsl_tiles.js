// What shaders of tiles share: the memory of a tile, and how a workgroup comes to its own.

import { THREADS } from "./tile_sizes.js";
import { FUNCTIONS, whole } from "./wgsl_words.js";

// Memory and sizes, and functions that WGSL lacks.
//   layout: by layOut. points, outputs: rows of coordinates and of results.
export function tileMemory(layout, points, outputs) {
  const space = layout.own ? "private" : "workgroup";
  return /* wgsl */ `
const ACROSS = ${whole(layout.across)};
const TILE = ${whole(layout.tile)};
const STEP = ${whole(layout.own ? 1 : THREADS)};
var<${space}> rows: array<vec4f, ${layout.rows * layout.across}>;
var<${space}> points: array<vec4f, ${points * layout.across}>;
var<${space}> outputs: array<vec4f, ${outputs * layout.across}>;
${FUNCTIONS}`;
}

// A whole module.
//   code: `tileMemory`, and what the body calls. body: of a function that knows its `tile` and its `lane`.
export function workgroupModule(layout, bindings, code, body) {
  const { own, clears, rows, across } = layout;
  const clear = `for (var i = index; i < ${whole(rows * across)}; i += STEP) { rows[i] = vec4f(0f); }
  BARRIER`;
  const module = /* wgsl */ `
${bindings}
${code}
@compute @workgroup_size(${THREADS})
fn main(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3u) {
  let tile = ${own ? `group.x * ${whole(THREADS)} + index` : "group.x"};
  let lane = ${own ? "0u" : "index"};
  ${clears ? clear : ""}
${body}
}
`;
  return module.replaceAll("BARRIER", own ? "" : "workgroupBarrier();");
}
