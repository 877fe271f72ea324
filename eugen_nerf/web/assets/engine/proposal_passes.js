// Renders a field of frustums: rounds of proposals draw samples, the field is queried at the last; band after band.

import { planField, tileModule } from "../shaders/wgsl_field.js";
import { frustumCode } from "../shaders/wgsl_frustums.js";
import { drawCode, frustumBindings, frustumBody, spacingCode, startCode, summingCode } from "../shaders/wgsl_proposals.js";
import { CAMERA_BYTES, cameraBytes } from "../shaders/wgsl_rays.js";
import { refuse } from "../shaders/wgsl_words.js";

const MOST_SAMPLES = 1 << 22; // of a band
const MOST_GROUPS = 65535;
const POINTS = 6; // that stand for a frustum, and where they are thinned
const FEW_POINTS = 2;

export class ProposalPasses {
  // Compiles shaders of the field and of its proposals; `gpu` is a GpuTools.
  static async make(gpu, description, reader) {
    const passes = new ProposalPasses();
    const { field, renderer, info } = description;
    const { counts, proposals, padding, thinned } = renderer;
    if (proposals.length < 1) refuse("it has no proposals");
    passes.info = info;
    passes.counts = counts;
    const spacing = spacingCode(renderer, info);
    const few = thinned ? FEW_POINTS : POINTS;
    const fields = [...proposals.map((p) => planField(p, reader, gpu, few)), planField(field, reader, gpu, POINTS)];
    if (fields.some((plan) => plan.frustum === null)) refuse("its renderer is for fields of frustums");
    passes.plan = fields.at(-1);
    passes.fields = fields.map((plan) => ({
      samples: plan.layout.samples,
      weights: gpu.filled("weights", plan.constants),
      table: gpu.filled("tables", plan.table),
    }));
    const querying = (plan, samples, coloured) => {
      const functions = spacing + frustumCode(plan);
      const bindings = frustumBindings(coloured ? "vec4f" : "f32");
      return gpu.pipeline("querying", tileModule(plan, bindings, frustumBody(samples, coloured), functions));
    };
    // a round has the proposal of its number, later ones the last one
    const rounds = counts.slice(0, -1).map((samples, i) => ({ samples, field: Math.min(i, proposals.length - 1) }));
    const compiled = await Promise.all([
      gpu.pipeline("starting", startCode(counts[0])),
      gpu.pipeline("summing", summingCode(spacing, counts.at(-1), info.background)),
      querying(fields.at(-1), counts.at(-1), true),
      ...rounds.map(({ samples, field: number }) => querying(fields[number], samples, false)),
      ...rounds.map(({ samples }, i) => gpu.pipeline("drawing", drawCode(spacing, samples, counts[i + 1], padding))),
    ]);
    [passes.starting, passes.summing, passes.colouring] = compiled;
    passes.rounds = rounds.map((round, i) => ({
      ...round,
      querying: compiled[3 + i],
      drawing: compiled[3 + rounds.length + i],
    }));
    return passes;
  }

  // As GridPasses.render.
  async render(gpu, view, columns, image) {
    const { camera, time, slice } = view;
    const width = columns[1] - columns[0];
    const largest = Math.max(...this.counts);
    const most = Math.min(MOST_SAMPLES, gpu.bandPixels * largest, gpu.storageBytes / 16, MOST_GROUPS * this.plan.layout.samples);
    const rows = Math.min(camera.height, Math.max(1, Math.floor(most / (largest * width))));
    const rays = rows * width;
    this.edges = [0, 1].map((i) => gpu.atLeast(this.edges?.[i], "edges", 4 * rays * (largest + 1)));
    this.density = gpu.atLeast(this.density, "densities", 4 * rays * largest);
    this.results = gpu.atLeast(this.results, "results", 16 * rays * this.counts.at(-1));
    let encoder = gpu.device.createCommandEncoder();
    for (let row = 0; row < camera.height; row += rows) {
      const part = [row, Math.min(camera.height, row + rows)];
      const uniform = gpu.uniform(CAMERA_BYTES, cameraBytes(camera, time, this.info, slice, columns, part, 0, 0));
      this.encode(gpu, encoder, uniform, (part[1] - part[0]) * width, image);
      gpu.device.queue.submit([encoder.finish()]);
      encoder = gpu.device.createCommandEncoder();
    }
    await gpu.read(encoder, this.density, 4);
    return camera.height * width * this.counts.reduce((sum, n) => sum + n, 0);
  }

  encode(gpu, encoder, uniform, rays, image) {
    const pass = encoder.beginComputePass();
    const each = [Math.ceil(rays / 64)];
    let [edges, next] = this.edges;
    gpu.dispatch(pass, this.starting, [uniform, edges], each);
    for (const { samples, field, querying, drawing } of this.rounds) {
      const { weights, table, samples: tile } = this.fields[field];
      const groups = [Math.ceil((rays * samples) / tile)];
      gpu.dispatch(pass, querying, [uniform, weights, table, edges, this.density], groups);
      gpu.dispatch(pass, drawing, [uniform, edges, this.density, next], each);
      [edges, next] = [next, edges];
    }
    const { weights, table, samples: tile } = this.fields.at(-1);
    const groups = [Math.ceil((rays * this.counts.at(-1)) / tile)];
    gpu.dispatch(pass, this.colouring, [uniform, weights, table, edges, this.results], groups);
    gpu.dispatch(pass, this.summing, [uniform, edges, this.results, image], each);
    pass.end();
  }
}
