// Renders a signed distance: rays are traced to the surface, the surface is shaded, and a slice laid before it.

import { planField, tileModule } from "../shaders/wgsl_field.js";
import { CAMERA_BYTES, cameraBytes } from "../shaders/wgsl_rays.js";
import {
  SHADE_BINDINGS, SLICE_BINDINGS, TRACE_BINDINGS, hitsCode, shadeBody, sliceBody, traceBody, traceFunctions,
} from "../shaders/wgsl_tracing.js";

const GROUPS = 512; // workgroups that trace at a time: each takes rays until there are none

export class SurfacePasses {
  // Compiles a field's shaders; `gpu` is a GpuTools.
  static async make(gpu, description, reader) {
    const passes = new SurfacePasses();
    const { renderer, info } = description;
    const plan = planField(description.field, reader, gpu);
    const { own, samples } = plan.layout;
    passes.info = info;
    passes.plan = plan;
    passes.weights = gpu.filled("weights", plan.constants);
    passes.table = gpu.filled("tables", plan.table);
    [passes.tracing, passes.counting, passes.shading] = await Promise.all([
      gpu.pipeline("tracing", tileModule(plan, TRACE_BINDINGS, traceBody(renderer, own), traceFunctions(own))),
      gpu.pipeline("counting", hitsCode(samples / 4)),
      gpu.pipeline("shading", tileModule(plan, SHADE_BINDINGS, shadeBody(renderer))),
    ]);
    passes.totals = gpu.storage("totals", 16);
    passes.groups = gpu.indirect("groups", 12);
    return passes;
  }

  // As GridPasses.render.
  async render(gpu, view, columns, image) {
    const { camera, time, slice } = view;
    const count = camera.height * (columns[1] - columns[0]);
    this.hits = gpu.atLeast(this.hits, "hits", 4 * camera.width * camera.height);
    if (slice && !this.slicing) {
      this.slicing = await gpu.pipeline("slicing", tileModule(this.plan, SLICE_BINDINGS, sliceBody(this.info.box)));
    }
    const rows = Math.max(1, Math.floor(gpu.bandPixels / (columns[1] - columns[0])));
    let queries = slice ? count : 0;
    for (let row = 0; row < camera.height; row += rows) {
      const part = [row, Math.min(camera.height, row + rows)];
      const uniform = gpu.uniform(CAMERA_BYTES, cameraBytes(camera, time, this.info, slice, columns, part, 0, 0));
      const [, met, traced] = await this.band(gpu, uniform, (part[1] - part[0]) * (columns[1] - columns[0]), slice, image);
      queries += traced + 4 * met;
    }
    return queries;
  }

  async band(gpu, uniform, count, slice, image) {
    const { weights, table, totals, hits, groups } = this;
    const { samples } = this.plan.layout;
    const encoder = gpu.device.createCommandEncoder();
    encoder.clearBuffer(totals);
    const pass = encoder.beginComputePass();
    const tracing = [Math.min(GROUPS, Math.ceil(count / samples))];
    gpu.dispatch(pass, this.tracing, [uniform, weights, table, image, totals, hits], tracing);
    gpu.dispatch(pass, this.counting, [totals, groups], [1]);
    gpu.dispatch(pass, this.shading, [uniform, weights, table, image, totals, hits], groups);
    if (slice) gpu.dispatch(pass, this.slicing, [uniform, weights, table, image], [Math.ceil(count / samples)]);
    pass.end();
    return new Uint32Array(await gpu.read(encoder, totals, 12));
  }
}
