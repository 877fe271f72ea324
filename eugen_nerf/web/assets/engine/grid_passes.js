// Renders a field by its grid of densities: places samples, queries the field, sums up; band after band of an image.

import { Gathered } from "./block_reader.js";
import { SharePasses } from "./share_passes.js";
import { CAMERA_BYTES, cameraBytes } from "../shaders/wgsl_rays.js";
import { planField, tileModule } from "../shaders/wgsl_field.js";
import { packCells, placingCode } from "../shaders/wgsl_marching.js";
import { SAMPLE_BINDINGS, SAMPLE_BODY, compositingCode, countingCode } from "../shaders/wgsl_samples.js";

const MOST_GROUPS = 65535;
const MOST_BANDS = 256;
const BYTES_OF_A_SAMPLE = 16; // of the largest of their buffers

export class GridPasses extends SharePasses {
  // Compiles a field's shaders; `gpu` is a GpuTools.
  static async make(gpu, description, reader) {
    const passes = new GridPasses();
    const { renderer, info } = description;
    const plans = planField(description.field, reader, gpu);
    const cells = new Gathered(Uint32Array, 1);
    const count = renderer.times * renderer.sides.reduce((product, n) => product * n, 1);
    const bits = reader.words(renderer.bits, Math.ceil(count / 32));
    const density = reader.words(renderer.density, Math.ceil(renderer.occupied / 4));
    const places = packCells([renderer.times, ...renderer.sides], bits, density, cells);
    passes.info = info;
    passes.plans = plans;
    passes.cells = gpu.filled("cells of the grid", cells.joined());
    passes.weights = gpu.filled("weights", plans[0].constants);
    passes.table = gpu.filled("tables", plans[0].table);
    [passes.placing, passes.compositing] = await Promise.all([
      gpu.pipeline("placing", placingCode(renderer, places)),
      gpu.pipeline("compositing", compositingCode(info.background)),
      passes.prepare(gpu, 0),
    ]);
    passes.totals = gpu.storage("totals", 4 * MOST_BANDS);
    passes.groups = gpu.indirect("groups", 12);
    passes.bands = 1;
    passes.capacity = 0;
    return passes;
  }

  async compile(gpu, share) {
    const plan = this.plans[share] ?? this.plans[0];
    const { samples } = plan.layout;
    const [counting, querying] = await Promise.all([
      gpu.pipeline("counting", countingCode(samples)),
      gpu.pipeline("querying", tileModule(plan, SAMPLE_BINDINGS, SAMPLE_BODY)),
    ]);
    return { samples, counting, querying };
  }

  // Renders columns [first, last) of a view, with its share of the features, into `image`: colour and depth, then opacity, of every pixel.
  // Returns how many samples were queried.
  async render(gpu, view, columns, image) {
    const pixels = view.camera.width * view.camera.height;
    const own = await this.prepare(gpu, view.share);
    const most = Math.min(MOST_GROUPS * own.samples, Math.floor(gpu.storageBytes / BYTES_OF_A_SAMPLE));
    const bands = Math.min(MOST_BANDS, Math.ceil(pixels / gpu.bandPixels));
    this.bands = Math.max(this.bands, bands);
    this.reserve(gpu, Math.min(most, Math.max(1 << 14, this.capacity, Math.ceil((2 * pixels) / bands))));
    this.rays = gpu.atLeast(this.rays, "rays", 8 * pixels);
    for (;;) {
      const totals = await this.attempt(gpu, own, view, columns, image);
      const largest = Math.max(...totals);
      if (largest <= this.capacity) return totals.reduce((sum, n) => sum + n, 0);
      const wanted = Math.ceil(largest * 1.25);
      if (wanted <= most) this.reserve(gpu, wanted);
      else {
        this.reserve(gpu, most);
        const more = Math.min(MOST_BANDS, view.camera.height, Math.ceil((this.bands * wanted) / most) + 1);
        // one row of pixels with too many samples for the GPU loses some of them
        if (more === this.bands) return totals.reduce((sum, n) => sum + n, 0);
        this.bands = more;
      }
    }
  }

  reserve(gpu, samples) {
    this.capacity = Math.max(this.capacity, samples);
    this.spans = gpu.atLeast(this.spans, "spans", 8 * this.capacity);
    this.owners = gpu.atLeast(this.owners, "owners", 4 * this.capacity);
    this.results = gpu.atLeast(this.results, "results", BYTES_OF_A_SAMPLE * this.capacity);
  }

  async attempt(gpu, own, view, columns, image) {
    const { camera, time, slice } = view;
    const rows = Math.ceil(camera.height / this.bands);
    let encoder = gpu.device.createCommandEncoder();
    encoder.clearBuffer(this.totals);
    for (let band = 0; band * rows < camera.height; band++) {
      const part = [band * rows, Math.min(camera.height, (band + 1) * rows)];
      const uniform = gpu.uniform(CAMERA_BYTES, cameraBytes(camera, time, this.info, slice, columns, part, band, this.capacity));
      const groups = [Math.ceil((columns[1] - columns[0]) / 8), Math.ceil((part[1] - part[0]) / 8)];
      const pass = encoder.beginComputePass();
      const { cells, spans, owners, rays, totals, weights, table, results } = this;
      gpu.dispatch(pass, this.placing, [uniform, cells, spans, owners, rays, totals], groups);
      gpu.dispatch(pass, own.counting, [uniform, totals, this.groups], [1]);
      gpu.dispatch(pass, own.querying, [uniform, spans, owners, totals, weights, table, results], this.groups);
      gpu.dispatch(pass, this.compositing, [uniform, spans, rays, results, image], groups);
      pass.end();
      gpu.device.queue.submit([encoder.finish()]);
      encoder = gpu.device.createCommandEncoder();
    }
    return new Uint32Array(await gpu.read(encoder, this.totals, 4 * this.bands));
  }
}
