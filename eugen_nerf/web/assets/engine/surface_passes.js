// Renders a signed distance: rays are traced to the surface, the surface is shaded, and a slice laid before it.

import { planField, tileModule } from "./wgsl_field.js";
import { CAMERA_BYTES, cameraBytes } from "./wgsl_rays.js";
import {
  SHADE_BINDINGS, SLICE_BINDINGS, TRACE_BINDINGS, hitsCode, shadeBody, sliceBody, traceBody, traceFunctions,
} from "./wgsl_tracing.js";

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
    const { weights, table, totals, hits, groups } = this;
    const { samples } = this.plan.layout;
    const uniform = gpu.uniform(CAMERA_BYTES, cameraBytes(camera, time, this.info, slice, columns, [0, camera.height], 0, 0));
    const encoder = gpu.device.createCommandEncoder();
    encoder.clearBuffer(totals);
    const pass = encoder.beginComputePass();
    const tracing = [Math.min(GROUPS, Math.ceil(count / samples))];
    gpu.dispatch(pass, this.tracing, [uniform, weights, table, image, totals, hits], tracing);
    gpu.dispatch(pass, this.counting, [totals, groups], [1]);
    gpu.dispatch(pass, this.shading, [uniform, weights, table, image, totals, hits], groups);
    if (slice) gpu.dispatch(pass, this.slicing, [uniform, weights, table, image], [Math.ceil(count / samples)]);
    pass.end();
    const [, met, queries] = new Uint32Array(await gpu.read(encoder, totals, 12));
    return queries + 4 * met + (slice ? count : 0);
  }
}
