// A device with what all passes need of it: pipelines, buffers, and numbers read back.

import { EngineError } from "./engine_error.js";

const BAND_PIXELS = 1 << 18; // of an image, that are rendered by one submission
const SOFTWARE_BAND_PIXELS = 1 << 13; // a browser ends a GPU that is busy for many seconds
const WANTED = ["maxComputeWorkgroupStorageSize", "maxStorageBufferBindingSize", "maxBufferSize"];

export class GpuTools {
  // Opens a device with as much memory as the adapter gives; `tiles` as for openEngine.
  static async open(tiles) {
    const gpu = globalThis.navigator?.gpu;
    if (!gpu) {
      throw new EngineError("no-webgpu", "This browser has no WebGPU: use a recent Chrome, Edge, Safari or Firefox.");
    }
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) {
      throw new EngineError("no-adapter", "This browser has WebGPU, but finds no GPU that it may use.");
    }
    const requiredLimits = Object.fromEntries(WANTED.map((name) => [name, adapter.limits[name]]));
    const tools = new GpuTools();
    tools.device = await adapter.requestDevice({ requiredLimits });
    tools.name = adapterName(adapter);
    tools.software = adapter.info?.isFallbackAdapter === true || /swiftshader|llvmpipe|software/i.test(tools.name);
    // beyond 32 KiB fewer workgroups would run side by side
    tools.sharedBytes = Math.min(tools.device.limits.maxComputeWorkgroupStorageSize, 1 << 15);
    tools.storageBytes = Math.min(tools.device.limits.maxStorageBufferBindingSize, tools.device.limits.maxBufferSize);
    tools.ownTiles = tools.software && !tiles;
    tools.bandPixels = tools.software ? SOFTWARE_BAND_PIXELS : BAND_PIXELS;
    tools.passing = [];
    tools.pipelines = new Map();
    return tools;
  }

  // A compute pipeline, compiled once: fields of the same layers, and all that share a renderer, have the same code.
  pipeline(label, code) {
    if (!this.pipelines.has(code)) this.pipelines.set(code, this.compiled(label, code));
    return this.pipelines.get(code);
  }

  // The shader was generated, so what a user can do about an error is to report it.
  async compiled(label, code) {
    const module = this.device.createShaderModule({ label, code });
    try {
      return await this.device.createComputePipelineAsync({ label, layout: "auto", compute: { module } });
    } catch (error) {
      const messages = (await module.getCompilationInfo()).messages.filter((m) => m.type === "error");
      const lines = messages.slice(0, 3).map((m) => `line ${m.lineNum}: ${m.message}`);
      throw new EngineError("limits", `This GPU refuses the shader "${label}": ${lines.join("; ") || error.message}`);
    }
  }

  buffer(label, bytes, usage) {
    const size = Math.max(16, Math.ceil(bytes / 4) * 4);
    if (size > this.storageBytes) {
      const megabytes = (n) => `${n < 1e6 ? Math.ceil(n / 1e3) / 1e3 : Math.ceil(n / 1e6)} MB`;
      const sizes = `This GPU holds ${megabytes(this.storageBytes)} at a time; the ${label} take ${megabytes(size)}`;
      throw new EngineError("limits", `${sizes}: take another GPU, or a smaller field (eugen-distill) or picture.`);
    }
    return this.device.createBuffer({ label, size, usage });
  }

  storage(label, bytes) {
    return this.buffer(label, bytes, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST);
  }

  indirect(label, bytes) {
    return this.buffer(label, bytes, GPUBufferUsage.STORAGE | GPUBufferUsage.INDIRECT);
  }

  filled(label, numbers) {
    const buffer = this.storage(label, numbers.byteLength);
    this.device.queue.writeBuffer(buffer, 0, numbers);
    return buffer;
  }

  // A uniform buffer that lives until the next `read`.
  uniform(bytes, content) {
    const buffer = this.device.createBuffer({ size: bytes, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
    this.device.queue.writeBuffer(buffer, 0, content);
    this.passing.push(buffer);
    return buffer;
  }

  // A buffer of at least so many bytes in place of one, which may be undefined.
  atLeast(buffer, label, bytes) {
    if (buffer && buffer.size >= bytes) return buffer;
    buffer?.destroy();
    return this.storage(label, bytes);
  }

  // One pass: `groups` are workgroups along x, y, z, or a buffer that holds them.
  dispatch(pass, pipeline, buffers, groups) {
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, this.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    if (Array.isArray(groups)) pass.dispatchWorkgroups(...groups);
    else pass.dispatchWorkgroupsIndirect(groups, 0);
  }

  // Submits what was encoded, and the first bytes of a buffer after it.
  async read(encoder, buffer, bytes) {
    const copy = this.device.createBuffer({ size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    encoder.copyBufferToBuffer(buffer, 0, copy, 0, bytes);
    this.device.queue.submit([encoder.finish()]);
    const passing = this.passing.splice(0);
    await copy.mapAsync(GPUMapMode.READ);
    const content = copy.getMappedRange().slice(0);
    for (const used of [...passing, copy]) used.destroy();
    return content;
  }
}

function adapterName(adapter) {
  const { vendor, architecture, description } = adapter.info ?? {};
  return [vendor, architecture, description].filter(Boolean).join(" ");
}
