// A field as WGSL: `fn evaluate(lane: u32)` takes a tile of samples from coordinates to density and colour, or distance.

import { Gathered } from "../engine/block_reader.js";
import { FRUSTUM, ROWS_OF, frustumRows, planEncoding } from "./wgsl_encodings.js";
import { LEVEL } from "./wgsl_grids.js";
import { layOut, planNetwork } from "./network_plan.js";
import { networksCode } from "./wgsl_layers.js";
import { tileMemory, workgroupModule } from "./wgsl_tiles.js";
import { densityActivation, float, whole } from "./wgsl_words.js";

// A field of a description with its numbers read, laid out for a GPU: a plan for each share of its features, from all of
// them downwards. Numbers of all plans are in the same `constants` and `table`.
//   field: `field`, or a proposal, of a description. gpu: a GpuTools. samples: points of a frustum.
export function planField(field, reader, gpu, samples = 1) {
  const constants = new Gathered(Float32Array, 4);
  const tables = new Gathered(Uint32Array, 1);
  const encodings = [];
  const encode = (encoding, source) => {
    encodings.push(planEncoding(encodings.length, encoding, source, reader, constants, tables));
    return encodings.at(-1);
  };
  const moving = field.deformation;
  const moved = moving && [encode(moving.position, "position"), encode(moving.time, "time")];
  const position = encode(field.position, "position");
  const inputs = [[position]];
  if (field.direction) inputs.push([encode(field.direction, "direction")]);
  const common = { field, samples, encodings };
  if (field.occupancy) {
    const { resolution, bits } = field.occupancy;
    common.occupiedAt = tables.add(reader.words(bits, Math.ceil(resolution ** 3 / 32)));
  }
  common.frustum = position.frustum ?? null;
  common.box = position.box ?? null;
  common.cube = position.cube ?? null;
  common.points = FRUSTUM + frustumRows(common.frustum, samples);
  const plans = Array.from({ length: countShares(field) }, (_, share) => {
    const networks = [planNetwork("field", networkAt(field.network, share), inputs, reader, constants)];
    if (moving) networks.unshift(planNetwork("deformation", networkAt(moving.network, share), [moved], reader, constants));
    const layout = layOut(networks, common.points + 4, gpu);
    return { ...common, networks, layout, code: networksCode(networks, encodings, layout, tables) };
  });
  const numbers = { constants: constants.joined(), table: tables.joined() };
  return plans.map((plan) => ({ ...plan, ...numbers }));
}

// At how many shares of its features, all of them among them, a field can be evaluated.
export function countShares({ network, deformation }) {
  return 1 + Math.max(network.narrower?.length ?? 0, deformation?.network.narrower?.length ?? 0);
}

// The network of a share, by its number; one that was trained at one width is the same at all.
function networkAt(network, share) {
  return share === 0 ? network : (network.narrower?.[share - 1] ?? network);
}

// Bindings of `weights` and `table` are written by who uses this.
export function fieldCode(plan) {
  const { layout, field } = plan;
  return /* wgsl */ `
${tileMemory(layout, plan.points, 4)}
${LEVEL}
${plan.encodings.map((encoding) => encoding.code(encoding.name, plan.samples)).join("\n")}
${plan.code}
${field.occupancy ? occupiedCode(field.occupancy, plan.occupiedAt) : ""}
fn evaluate(lane: u32) {
${field.deformation ? moveCode(field.deformation) : ""}
  network_field(lane);
  if (lane < ACROSS) {
${field.kind === "distance" ? distanceCode(field) : radianceCode(plan)}
  }
  BARRIER
}
`;
}

function moveCode(deformation) {
  const by = deformation.anchored ? ` * points[${whole(ROWS_OF.time)} * ACROSS + lane]` : "";
  const move = [0, 1, 2].map(
    (d) => `    points[${whole(d)} * ACROSS + lane] += outputs[${whole(d)} * ACROSS + lane]${by};`,
  );
  return `  network_deformation(lane);
  if (lane < ACROSS) {
${move.join("\n")}
  }
  BARRIER`;
}

function distanceCode(field) {
  return `    outputs[lane] *= ${float(field.output_scale)};`;
}

function radianceCode(plan) {
  const { field, box } = plan;
  const lines = [`    let u = outputs[lane] + ${float(field.density_bias)};`, `    var density = ${densityActivation(field.density)};`];
  if (box || field.occupancy) {
    lines.push(...[0, 1, 2].map((d) => `    let ${"xyz"[d]} = points[${whole(d)} * ACROSS + lane];`));
  }
  if (box) {
    const sides = [0, 1, 2].map((d) => {
      const [low, high, x] = [float(box[d]), float(box[d + 3]), "xyz"[d]];
      return `(${x} >= vec4f(${low})) & (${x} <= vec4f(${high}))`;
    });
    lines.push(`    density = select(vec4f(0f), density, ${sides.join(" & ")});`);
  }
  if (plan.frustum === "middle") {
    // a corner is not inside
    const inside = [0, 1, 2].map((d) => `(points[${whole(FRUSTUM + d)} * ACROSS + lane] > vec4f(0f))`);
    lines.push(`    density = select(vec4f(0f), density, ${inside.join(" & ")});`);
  }
  if (field.occupancy) {
    const each = ["x", "y", "z", "w"].map((i) => `occupied(vec3f(x.${i}, y.${i}, z.${i}))`);
    lines.push(`    density = select(vec4f(0f), density, vec4<bool>(${each.join(", ")}));`);
  }
  lines.push("    outputs[lane] = density;");
  if (field.direction) {
    const padding = field.colour_padding;
    // colours of frustums are kept in [0, 1] after they are summed up
    lines.push(`    for (var c = 1u; c < 4u; c++) {
      let colour = sigmoid(outputs[c * ACROSS + lane]) * ${float(1 + 2 * padding)} - ${float(padding)};
      outputs[c * ACROSS + lane] = ${plan.frustum ? "colour" : "clamp(colour, vec4f(0f), vec4f(1f))"};
    }`);
  }
  return lines.join("\n");
}

// Whether a point lies in a cell where the field is defined.
function occupiedCode({ resolution, box }, at) {
  const [low, high] = [box.slice(0, 3).map(float), box.slice(3).map(float)];
  return /* wgsl */ `
fn occupied(point: vec3f) -> bool {
  let unit = (point - vec3f(${low.join(", ")})) / (vec3f(${high.join(", ")}) - vec3f(${low.join(", ")}));
  if (any(unit < vec3f(0f)) || any(unit >= vec3f(1f))) { return false; }
  let cell = min(vec3u(unit * ${float(resolution)}), vec3u(${whole(resolution - 1)}));
  let bit = (cell.x * ${whole(resolution)} + cell.y) * ${whole(resolution)} + cell.z;
  return ((table[${whole(at)} + bit / 32u] >> (bit % 32u)) & 1u) == 1u;
}
`;
}

// A whole module: bindings, how a tile's coordinates are set, the field, and what becomes of its outputs.
//   body: of a function that knows its `tile` and its `lane`. functions: that it calls.
export function tileModule(plan, bindings, body, functions = "") {
  return workgroupModule(plan.layout, bindings, `${fieldCode(plan)}\n${functions}`, body);
}
