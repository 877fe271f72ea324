// Renders a field of frustums: rounds of proposals draw samples, the field is queried at the last; band after band.

import { SharePasses } from "./share_passes.js";
import { planField, tileModule } from "../shaders/wgsl_field.js";
import { frustumCode } from "../shaders/wgsl_frustums.js";
import { drawCode, frustumBindings, frustumBody, spacingCode, startCode, summingCode } from "../shaders/wgsl_proposals.js";
import { CAMERA_BYTES, cameraBytes } from "../shaders/wgsl_rays.js";
import { refuse } from "../shaders/wgsl_words.js";

const MOST_SAMPLES = 1 << 22; // of a band
const MOST_GROUPS = 65535;
const POINTS = 6; // that stand for a frustum, and where they are thinned
const FEW_POINTS = 2;

export class ProposalPasses extends SharePasses {
  // Compiles shaders of the field and of its proposals; `gpu` is a GpuTools.
  static async make(gpu, description, reader) {
    const passes = new ProposalPasses();
    const { field, renderer, info } = description;
    const { counts, proposals, padding, thinned } = renderer;
    if (proposals.length < 1) refuse("it has no proposals");
    passes.info = info;
    passes.counts = counts;
    passes.spacing = spacingCode(renderer, info);
    const few = thinned ? FEW_POINTS : POINTS;
    const fields = [...proposals.map((p) => planField(p, reader, gpu, few)), planField(field, reader, gpu, POINTS)];
    if (fields.some((plans) => plans[0].frustum === null)) refuse("its renderer is for fields of frustums");
    passes.fields = fields.map((plans) => ({
      plans,
      weights: gpu.filled("weights", plans[0].constants),
      table: gpu.filled("tables", plans[0].table),
    }));
    // a round has the proposal of its number, later ones the last one
    passes.rounds = counts.slice(0, -1).map((samples, i) => ({ samples, field: Math.min(i, proposals.length - 1) }));
    const compiled = await Promise.all([
      gpu.pipeline("starting", startCode(counts[0])),
      gpu.pipeline("summing", summingCode(passes.spacing, counts.at(-1), info.background)),
      ...passes.rounds.map(({ samples }, i) => gpu.pipeline("drawing", drawCode(passes.spacing, samples, counts[i + 1], padding))),
      passes.prepare(gpu, 0),
    ]);
    [passes.starting, passes.summing] = compiled;
    passes.rounds = passes.rounds.map((round, i) => ({ ...round, drawing: compiled[2 + i] }));
    return passes;
  }

  // For each round what queries its proposal, and for the field what queries that: pipelines, and samples of a tile.
  async compile(gpu, share) {
    const querying = async ({ plans }, samples, coloured) => {
      const plan = plans[share] ?? plans[0]; // one that was trained at one width has one plan
      const bindings = frustumBindings(coloured ? "vec4f" : "f32");
      const code = tileModule(plan, bindings, frustumBody(samples, coloured), this.spacing + frustumCode(plan));
      return { tile: plan.layout.samples, pipeline: await gpu.pipeline("querying", code) };
    };
    const [colouring, ...rounds] = await Promise.all([
      querying(this.fields.at(-1), this.counts.at(-1), true),
      ...this.rounds.map(({ samples, field }) => querying(this.fields[field], samples, false)),
    ]);
    return { colouring, rounds };
  }

  // As GridPasses.render.
  async render(gpu, view, columns, image) {
    const { camera, time, slice } = view;
    const width = columns[1] - columns[0];
    const largest = Math.max(...this.counts);
    const own = await this.prepare(gpu, view.share);
    const most = Math.min(MOST_SAMPLES, gpu.bandPixels * largest, gpu.storageBytes / 16, MOST_GROUPS * own.colouring.tile);
    const rows = Math.min(camera.height, Math.max(1, Math.floor(most / (largest * width))));
    const rays = rows * width;
    this.edges = [0, 1].map((i) => gpu.atLeast(this.edges?.[i], "edges", 4 * rays * (largest + 1)));
    this.density = gpu.atLeast(this.density, "densities", 4 * rays * largest);
    this.results = gpu.atLeast(this.results, "results", 16 * rays * this.counts.at(-1));
    let encoder = gpu.device.createCommandEncoder();
    for (let row = 0; row < camera.height; row += rows) {
      const part = [row, Math.min(camera.height, row + rows)];
      const uniform = gpu.uniform(CAMERA_BYTES, cameraBytes(camera, time, this.info, slice, columns, part, 0, 0));
      this.encode(gpu, own, encoder, uniform, (part[1] - part[0]) * width, image);
      gpu.device.queue.submit([encoder.finish()]);
      encoder = gpu.device.createCommandEncoder();
    }
    await gpu.read(encoder, this.density, 4);
    return camera.height * width * this.counts.reduce((sum, n) => sum + n, 0);
  }

  encode(gpu, own, encoder, uniform, rays, image) {
    const pass = encoder.beginComputePass();
    const each = [Math.ceil(rays / 64)];
    let [edges, next] = this.edges;
    gpu.dispatch(pass, this.starting, [uniform, edges], each);
    for (const [i, { samples, field, drawing }] of this.rounds.entries()) {
      const { weights, table } = this.fields[field];
      const { tile, pipeline } = own.rounds[i];
      const groups = [Math.ceil((rays * samples) / tile)];
      gpu.dispatch(pass, pipeline, [uniform, weights, table, edges, this.density], groups);
      gpu.dispatch(pass, drawing, [uniform, edges, this.density, next], each);
      [edges, next] = [next, edges];
    }
    const { weights, table } = this.fields.at(-1);
    const { tile, pipeline } = own.colouring;
    const groups = [Math.ceil((rays * this.counts.at(-1)) / tile)];
    gpu.dispatch(pass, pipeline, [uniform, weights, table, edges, this.results], groups);
    gpu.dispatch(pass, this.summing, [uniform, edges, this.results, image], each);
    pass.end();
  }
}
