// A network by itself as WGSL: rows of its inputs, or of the points that are encoded, in; rows of its outputs out.

import { Gathered } from "../engine/block_reader.js";
import { layOut, planNetwork } from "./network_plan.js";
import { ROWS_OF, eachFeature, planEncoding } from "./wgsl_encodings.js";
import { networksCode } from "./wgsl_layers.js";
import { tileMemory, workgroupModule } from "./wgsl_tiles.js";
import { refuse, whole } from "./wgsl_words.js";

const POINT_ROWS = 7;
const WIDEST = 4096;

// Bindings, in this order: the program, biases, packed matrices, outputs, inputs one by one.
//   network: of a description, with `encodings`: for each input an encoding of its points, or null.
//   half: whether matrices are float16. gpu: sharedBytes and software of the adapter.
export function queriesModule(network, reader, half, gpu) {
  const tables = new Gathered(Uint32Array, 1);
  const vectors = new Gathered(Float32Array, 4);
  const matrices = new Gathered(Float32Array, 4);
  const sources = { 1: ["time"], 3: ["position", "direction"] };
  const inputs = network.encodings.map((encoding, number) => {
    if (encoding === null) return { number, ...given(number, network.inputs[number]) };
    const source = sources[encoding.coordinates]?.shift() ?? refuse("its points have other coordinates than a field's");
    return { ...planEncoding(number, encoding, source, reader, vectors, tables), source };
  });
  const planned = planNetwork("queries", network, inputs.map((input) => [input]), reader, vectors, { matrices, widest: WIDEST });
  const total = planned.outputs.reduce((sum, output) => sum + output.width, 0);
  const layout = layOut([planned], POINT_ROWS + total, gpu);
  const layers = networksCode([planned], inputs, layout, tables, (at) => (half ? `half4(${at})` : `matrices[${at}]`));
  const code = `${tileMemory(layout, POINT_ROWS, total)}
${half ? HALF : ""}
var<private> first_query: u32;
var<private> last_query: u32;
${inputs.map((input) => input.code(input.name)).join("\n")}
${layers}`;
  const body = /* wgsl */ `
  first_query = tile * TILE;
  last_query = arrayLength(&results) / ${whole(total)} - 1u;
${inputs.map((input) => (input.source ? pointsCode(input) : "")).join("\n")}
  BARRIER
  network_queries(lane);
  for (var i = lane; i < TILE * ${whole(total)}; i += STEP) {
    let place = i / ${whole(total)};
    if (first_query + place <= last_query) {
      let at = i % ${whole(total)} * ACROSS + place / 4u;
      results[(first_query + place) * ${whole(total)} + i % ${whole(total)}] = outputs[at][place % 4u];
    }
  }`;
  const module = workgroupModule(layout, bindingsCode(inputs.length, half), code, body);
  return { code: module, tile: layout.tile, tables: tables.joined(), vectors: vectors.joined(), matrices: matrices.joined() };
}

const bindingsCode = (inputs, half) => /* wgsl */ `
@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> weights: array<vec4f>;
@group(0) @binding(2) var<storage, read> matrices: array<${half ? "vec2u" : "vec4f"}>;
@group(0) @binding(3) var<storage, read_write> results: array<f32>;
${Array.from({ length: inputs }, (_, i) => `@group(0) @binding(${4 + i}) var<storage, read> input_${i}: array<f32>;`).join("\n")}
`;

const HALF = /* wgsl */ `
fn half4(at: u32) -> vec4f {
  let pair = matrices[at];
  return vec4f(unpack2x16float(pair.x), unpack2x16float(pair.y));
}
`;

// An input that is encoded already, in place of an encoding.
function given(number, width) {
  return {
    name: `${number}`,
    width,
    costly: false,
    code: (name) => eachFeature(name, /* wgsl */ `
    for (var part = 0u; part < 4u; part++) {
      value[part] = input_${number}[min(first_query + 4u * four + part, last_query) * ${whole(width)} + feature];
    }`),
  };
}

// The coordinates of a tile's points, where an encoding reads them.
function pointsCode({ number, source }) {
  const coordinates = source === "time" ? 1 : 3;
  return /* wgsl */ `
  for (var i = lane; i < TILE * ${whole(coordinates)}; i += STEP) {
    let place = i / ${whole(coordinates)};
    let at = (${whole(ROWS_OF[source])} + i % ${whole(coordinates)}) * ACROSS + place / 4u;
    points[at][place % 4u] = input_${number}[min(first_query + place, last_query) * ${whole(coordinates)} + i % ${whole(coordinates)}];
  }`;
}
