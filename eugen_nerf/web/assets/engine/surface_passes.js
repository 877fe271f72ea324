// Renders a signed distance: rays are traced to the surface, the surface is shaded, and a slice laid before it.

import { SharePasses } from "./share_passes.js";
import { planField, tileModule } from "../shaders/wgsl_field.js";
import { CAMERA_BYTES, cameraBytes } from "../shaders/wgsl_rays.js";
import {
  SHADE_BINDINGS, SLICE_BINDINGS, TRACE_BINDINGS, hitsCode, shadeBody, sliceBody, traceBody, traceFunctions,
} from "../shaders/wgsl_tracing.js";

const GROUPS = 512; // workgroups that trace at a time: each takes rays until there are none

export class SurfacePasses extends SharePasses {
  // Compiles a field's shaders; `gpu` is a GpuTools.
  static async make(gpu, description, reader) {
    const passes = new SurfacePasses();
    passes.info = description.info;
    passes.renderer = description.renderer;
    passes.plans = planField(description.field, reader, gpu);
    passes.weights = gpu.filled("weights", passes.plans[0].constants);
    passes.table = gpu.filled("tables", passes.plans[0].table);
    await passes.prepare(gpu, 0);
    passes.totals = gpu.storage("totals", 16);
    passes.groups = gpu.indirect("groups", 12);
    return passes;
  }

  async compile(gpu, share) {
    const plan = this.plans[share] ?? this.plans[0];
    const { own, samples } = plan.layout;
    const [tracing, counting, shading] = await Promise.all([
      gpu.pipeline("tracing", tileModule(plan, TRACE_BINDINGS, traceBody(this.renderer, own), traceFunctions(own))),
      gpu.pipeline("counting", hitsCode(samples / 4)),
      gpu.pipeline("shading", tileModule(plan, SHADE_BINDINGS, shadeBody(this.renderer))),
    ]);
    return { plan, samples, tracing, counting, shading, slicing: null };
  }

  // As GridPasses.render.
  async render(gpu, view, columns, image) {
    const { camera, time, slice } = view;
    const count = camera.height * (columns[1] - columns[0]);
    this.hits = gpu.atLeast(this.hits, "hits", 4 * camera.width * camera.height);
    const own = await this.prepare(gpu, view.share);
    if (slice) own.slicing ??= await gpu.pipeline("slicing", tileModule(own.plan, SLICE_BINDINGS, sliceBody(this.info.box)));
    const rows = Math.max(1, Math.floor(gpu.bandPixels / (columns[1] - columns[0])));
    let queries = slice ? count : 0;
    for (let row = 0; row < camera.height; row += rows) {
      const part = [row, Math.min(camera.height, row + rows)];
      const uniform = gpu.uniform(CAMERA_BYTES, cameraBytes(camera, time, this.info, slice, columns, part, 0, 0));
      const [, met, traced] = await this.band(gpu, own, uniform, (part[1] - part[0]) * (columns[1] - columns[0]), slice, image);
      queries += traced + 4 * met;
    }
    return queries;
  }

  async band(gpu, own, uniform, count, slice, image) {
    const { weights, table, totals, hits, groups } = this;
    const { samples } = own;
    const encoder = gpu.device.createCommandEncoder();
    encoder.clearBuffer(totals);
    const pass = encoder.beginComputePass();
    const tracing = [Math.min(GROUPS, Math.ceil(count / samples))];
    gpu.dispatch(pass, own.tracing, [uniform, weights, table, image, totals, hits], tracing);
    gpu.dispatch(pass, own.counting, [totals, groups], [1]);
    gpu.dispatch(pass, own.shading, [uniform, weights, table, image, totals, hits], groups);
    if (slice) gpu.dispatch(pass, own.slicing, [uniform, weights, table, image], [Math.ceil(count / samples)]);
    pass.end();
    return new Uint32Array(await gpu.read(encoder, totals, 12));
  }
}
