// The engine of a page: trained fields rendered by WebGPU, by the algorithms of core/rendering.
//
// See docs/explanation/web_page.md for what a description holds and how an image is made.

import { checkDescription } from "./scene_check.js";
import { BlockReader } from "./block_reader.js";
import { EngineError } from "./engine_error.js";
import { GpuTools } from "./gpu_tools.js";
import { GridPasses } from "./grid_passes.js";
import { MODES, Picture, SHADINGS } from "./picture.js";
import { ProposalPasses } from "./proposal_passes.js";
import { SurfacePasses } from "./surface_passes.js";
import { refuse, word } from "../shaders/wgsl_words.js";
import { checkCamera } from "../shaders/wgsl_rays.js";

// Renderers of a description, by their kinds.
const RENDERERS = { grid: GridPasses, surface: SurfacePasses, proposals: ProposalPasses };

// Opens a GPU; rejects with an EngineError of kind "no-webgpu" or "no-adapter".
//   canvas: to show pictures on, or null. tiles: whether threads share tiles on software adapters too, as on a GPU.
export async function openEngine(canvas, { tiles = false } = {}) {
  const engine = new Engine();
  engine.gpu = await GpuTools.open(tiles);
  engine.picture = await Picture.make(engine.gpu, canvas);
  engine.limits = { name: engine.gpu.name, sharedBytes: engine.gpu.sharedBytes, storageBytes: engine.gpu.storageBytes };
  engine.lost = engine.gpu.device.lost.then((info) => {
    engine.isLost = true;
    return info.message || info.reason || "the GPU was lost";
  });
  return engine;
}

class Engine {
  // A field of a scene, ready to be drawn; rejects with an EngineError of kind "description" or "limits".
  //   description: of a page, numbers and known words. binary: ArrayBuffer of its numbers.
  async load(description, binary) {
    checkDescription(description);
    const reader = new BlockReader(description.blocks, binary);
    const passes = await word(description.renderer.kind, RENDERERS, "renderer").make(this.gpu, description, reader);
    return new LoadedField(this.gpu, description, passes, binary.byteLength);
  }

  // Renders a view and shows it; see the page's calls for what a view is.
  // Returns how long it took, and how often fields were queried; shaders of a share are compiled before that.
  async draw(view) {
    try {
      return await this.drawn(view);
    } catch (error) {
      if (error instanceof EngineError) throw error;
      throw new EngineError(this.isLost ? "lost" : "failed", `The picture could not be rendered: ${error.message}`);
    }
  }

  async drawn({ fields, camera, time = null, mode = "single", split = 0.5, shading = "colour", slice = null, shares = [] }) {
    const shown = mode === "single" ? fields.slice(0, 1) : fields.slice(0, 2);
    if (!Object.hasOwn(MODES, mode) || !Object.hasOwn(SHADINGS, shading)) refuse("this mode or shading is unknown");
    if (shown.length < (mode === "single" ? 1 : 2)) refuse("two fields are compared, and one was given");
    const { width, height } = camera;
    checkCamera(camera, Math.floor(this.gpu.storageBytes / 32));
    for (const [i, field] of shown.entries()) await field.prepare(shares[i] ?? 0);
    const started = performance.now();
    const column = Math.ceil(Math.min(1, Math.max(0, split)) * width - 0.5); // x + 0.5 < split * width shows the first
    const columns = mode === "split" ? [[0, column], [column, width]] : [[0, width], [0, width]];
    let queries = 0;
    for (const [i, field] of shown.entries()) {
      field.image = this.gpu.atLeast(field.image, "image", 32 * width * height);
      const view = { camera, time, shading, slice: shading === "slice" ? slice : null, share: shares[i] ?? 0 };
      if (columns[i][0] < columns[i][1]) queries += await field.passes.render(this.gpu, view, columns[i], field.image);
    }
    await this.picture.show(shown.map((f) => f.image), camera, mode, shading, column, shown[0].info);
    return { milliseconds: performance.now() - started, queries };
  }

  // float32 rgb of the last picture, row after row from the top.
  pixels() {
    return this.picture.pixels();
  }

  destroy() {
    this.gpu.device.destroy();
  }
}

class LoadedField {
  constructor(gpu, description, passes, bytes) {
    this.gpu = gpu;
    this.passes = passes;
    // a proposal may have shares where the field has none
    this.shares = Math.max(1, description.info.shares?.length ?? 0);
    this.info = { ...description.info, kind: description.field.kind, bytes };
  }

  // Compiles what shows a share of the features, by its number; resolves once it can be drawn.
  async prepare(share) {
    if (!Number.isInteger(share) || share < 0 || share >= this.shares) refuse("it has no such share of its features");
    await this.passes.prepare(this.gpu, share);
  }

  destroy() {
    const buffers = (part) => (part instanceof GPUBuffer ? [part] : part?.constructor === Array ? part.flatMap(buffers) : []);
    const { fields = [], ...others } = this.passes;
    const owned = [...Object.values(others), ...fields.flatMap((field) => Object.values(field))];
    for (const buffer of [this.image, ...owned].flatMap(buffers)) buffer.destroy();
  }
}
