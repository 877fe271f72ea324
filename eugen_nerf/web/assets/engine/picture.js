// From rendered fields to the picture: one of them, a split or a difference of two; and onto the canvas.


export const DIFFERENCE_SCALE = 0.1; // of a channel, that has the brightest colour
export const SHADINGS = { colour: 0, depth: 1, normals: 2, slice: 3 };
export const MODES = { single: 0, split: 1, difference: 2 };

const PICTURE = /* wgsl */ `
const DIFFERENCE = ${DIFFERENCE_SCALE}f;
struct Choice { width: u32, height: u32, mode: u32, shading: u32, column: u32, near: f32, far: f32, unused: u32 }
@group(0) @binding(0) var<uniform> choice: Choice;
@group(0) @binding(1) var<storage, read> first: array<vec4f>;
@group(0) @binding(2) var<storage, read> second: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> picture: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> bytes: array<u32>;

// near is bright and warm, far is dark and cold
fn of_depth(depth: f32, opacity: f32) -> vec3f {
  let part = clamp(log(max(depth, choice.near) / choice.near) / log(choice.far / choice.near), 0f, 1f);
  let ramp = clamp(vec3f(1.5f) - abs(vec3f(4f) * (1f - part) - vec3f(3f, 2f, 1f)), vec3f(0f), vec3f(1f));
  return ramp * opacity;
}
// black, purple, orange, light yellow
fn of_difference(difference: vec3f) -> vec3f {
  let part = min(max(difference.x, max(difference.y, difference.z)) / DIFFERENCE, 1f) * 3f;
  let purple = vec3f(0.42f, 0.1f, 0.47f);
  let orange = vec3f(0.95f, 0.47f, 0.1f);
  let yellow = vec3f(0.99f, 0.98f, 0.68f);
  if (part < 1f) { return purple * part; }
  if (part < 2f) { return mix(purple, orange, part - 1f); }
  return mix(orange, yellow, part - 2f);
}
fn shaded(colour: vec4f, other: vec4f) -> vec3f {
  switch (choice.shading) {
    case 1u: { return of_depth(colour.w, select(other.w, 1f, other.w > 1f)); }
    case 2u: { return select(vec3f(0f), 0.5f + 0.5f * other.xyz, dot(other.xyz, other.xyz) > 0f); }
    default: { return colour.rgb; }
  }
}
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= choice.width || id.y >= choice.height) { return; }
  let pixel = id.y * choice.width + id.x;
  var colour = vec3f(0f);
  if (choice.mode == 0u || (choice.mode == 1u && id.x < choice.column)) {
    colour = shaded(first[2u * pixel], first[2u * pixel + 1u]);
  } else if (choice.mode == 1u) {
    colour = shaded(second[2u * pixel], second[2u * pixel + 1u]);
  } else {
    colour = of_difference(abs(
      shaded(first[2u * pixel], first[2u * pixel + 1u]) - shaded(second[2u * pixel], second[2u * pixel + 1u])
    ));
  }
  picture[pixel] = vec4f(colour, 1f);
  bytes[pixel] = pack4x8unorm(vec4f(colour, 1f));
}
`;

const BLIT = /* wgsl */ `
@group(0) @binding(0) var<storage, read> picture: array<vec4f>;
@group(0) @binding(1) var<uniform> size: vec4u;
@vertex
fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4f {
  return vec4f(f32(index % 2u) * 4f - 1f, f32(index / 2u) * 4f - 1f, 0f, 1f);
}
@fragment
fn colour(@builtin(position) at: vec4f) -> @location(0) vec4f {
  return picture[u32(at.y) * size.x + u32(at.x)];
}
`;

export class Picture {
  static async make(gpu, canvas) {
    const made = new Picture();
    made.gpu = gpu;
    made.canvas = canvas;
    made.pipeline = await gpu.pipeline("picture", PICTURE);
    // a software adapter has the picture in the computer's memory: no way round by a texture
    if (canvas && gpu.software) made.flat = canvas.getContext("2d");
    else if (canvas) await made.openCanvas(gpu);
    return made;
  }

  async openCanvas(gpu) {
    this.context = this.canvas.getContext("webgpu");
    const format = navigator.gpu.getPreferredCanvasFormat();
    this.context.configure({ device: gpu.device, format, alphaMode: "opaque" });
    const module = gpu.device.createShaderModule({ label: "blit", code: BLIT });
    this.blit = await gpu.device.createRenderPipelineAsync({
      layout: "auto",
      vertex: { module },
      fragment: { module, targets: [{ format }] },
      primitive: { topology: "triangle-list" },
    });
  }

  // Makes the picture of rendered images and shows it.
  //   column: of a split, where the second image begins. info: of the first field.
  async show(images, { width, height }, mode, shading, column, info) {
    const { gpu } = this;
    this.size = [width, height];
    this.colours = gpu.atLeast(this.colours, "picture", 16 * width * height);
    this.bytes = gpu.atLeast(this.bytes, "picture's bytes", 4 * width * height);
    const choice = new ArrayBuffer(32);
    new Uint32Array(choice).set([width, height, MODES[mode], SHADINGS[shading], column]);
    new Float32Array(choice).set([Math.max(info.near, info.far * 1e-3), info.far], 5);
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const buffers = [gpu.uniform(32, choice), images[0], images[1] ?? images[0], this.colours, this.bytes];
    gpu.dispatch(pass, this.pipeline, buffers, [Math.ceil(width / 8), Math.ceil(height / 8)]);
    pass.end();
    if (this.canvas && this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas && this.canvas.height !== height) this.canvas.height = height;
    if (this.context) this.present(encoder, width);
    const bytes = await gpu.read(encoder, this.bytes, this.flat ? 4 * width * height : 4);
    if (this.flat) this.flat.putImageData(new ImageData(new Uint8ClampedArray(bytes), width, height), 0, 0);
  }

  present(encoder, width) {
    const size = this.gpu.uniform(16, new Uint32Array([width, 0, 0, 0]));
    const entries = [this.colours, size].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const view = this.context.getCurrentTexture().createView();
    const pass = encoder.beginRenderPass({ colorAttachments: [{ view, loadOp: "clear", storeOp: "store" }] });
    pass.setPipeline(this.blit);
    pass.setBindGroup(0, this.gpu.device.createBindGroup({ layout: this.blit.getBindGroupLayout(0), entries }));
    pass.draw(3);
    pass.end();
  }

  // float32 rgb of the last picture, row after row from the top.
  async pixels() {
    const [width, height] = this.size;
    const encoder = this.gpu.device.createCommandEncoder();
    const four = new Float32Array(await this.gpu.read(encoder, this.colours, 16 * width * height));
    return Float32Array.from({ length: 3 * width * height }, (_, i) => four[Math.floor(i / 3) * 4 + (i % 3)]);
  }
}
