// WebGPU for the engine where there is no browser: calls are written down as commands, which Python carries out
// (native/gpu_bridge.py). It takes them whenever the whole engine waits for the GPU.
//
// A command is a list: a word, the numbers of objects, plain values. What the engine waits for is a request with a
// number of its own, which Python settles.

let commands = [];
let written = [];
let writtenBytes = 0;
const requests = new Map();
const arriving = new Map();
let numbers = 0;

const numbered = () => ++numbers;

function request(word, ...values) {
  const number = numbered();
  commands.push([word, number, ...values]);
  return new Promise((resolve, reject) => requests.set(number, { resolve, reject }));
}

// The commands since the last call, and the bytes that they write to buffers, one after another.
export function takeCommands() {
  const bytes = new Uint8Array(writtenBytes);
  let at = 0;
  for (const part of written) {
    bytes.set(part, at);
    at += part.length;
  }
  const taken = { commands, bytes: bytes.buffer };
  commands = [];
  written = [];
  writtenBytes = 0;
  return taken;
}

// Ends a request: with an error's message, or with a value.
export function settle(number, value, message) {
  const { resolve, reject } = requests.get(number);
  requests.delete(number);
  if (message === null) resolve(value);
  else reject(new Error(message));
}

// Where the content of a buffer that is being mapped goes: an ArrayBuffer, which Python fills.
export function arrivingContent(buffer) {
  return arriving.get(buffer);
}

// What the engine finds as `navigator.gpu`. adapter: `limits` and `info` as WebGPU has them.
export function offerAdapter({ limits, info }) {
  const requestDevice = async ({ requiredLimits }) => new Device(await request("device", requiredLimits));
  globalThis.navigator = { gpu: { requestAdapter: async () => ({ limits, info, requestDevice }) } };
}

class Device {
  constructor(limits) {
    this.limits = limits;
    this.queue = new Queue();
    this.lost = new Promise(() => {}); // Python sees first that a device is lost, and ends the engine
  }

  createShaderModule({ label, code }) {
    const id = numbered();
    commands.push(["module", id, label, code]);
    // why a shader was refused is the message of its pipeline's error
    return { id, getCompilationInfo: async () => ({ messages: [] }) };
  }

  async createComputePipelineAsync({ label, compute }) {
    const id = numbered();
    await request("pipeline", id, label, compute.module.id);
    return { id, getBindGroupLayout: () => null };
  }

  createBuffer(descriptor) {
    return new GPUBuffer(descriptor);
  }

  createBindGroup({ entries }) {
    return entries.map(({ binding, resource }) => [binding, resource.buffer.id]);
  }

  createCommandEncoder() {
    return new Encoder();
  }
}

class Queue {
  writeBuffer(buffer, offset, content) {
    const bytes = ArrayBuffer.isView(content)
      ? new Uint8Array(content.buffer, content.byteOffset, content.byteLength)
      : new Uint8Array(content);
    commands.push(["write", buffer.id, offset, bytes.length]);
    written.push(bytes.slice());
    writtenBytes += bytes.length;
  }

  submit(encoders) {
    for (const encoder of encoders) commands.push(["submit", encoder]);
  }
}

class GPUBuffer {
  constructor({ label = "", size, usage }) {
    this.id = numbered();
    this.size = size;
    commands.push(["buffer", this.id, label, size, usage]);
  }

  async mapAsync() {
    arriving.set(this.id, new ArrayBuffer(this.size));
    await request("map", this.id);
    this.content = arriving.get(this.id);
    arriving.delete(this.id);
  }

  getMappedRange() {
    return this.content;
  }

  destroy() {
    commands.push(["destroy", this.id]);
  }
}

class Encoder {
  constructor() {
    this.id = numbered();
    commands.push(["encoder", this.id]);
  }

  clearBuffer(buffer) {
    commands.push(["clear", this.id, buffer.id]);
  }

  copyBufferToBuffer(source, from, target, to, size) {
    commands.push(["copy", this.id, source.id, from, target.id, to, size]);
  }

  beginComputePass() {
    commands.push(["pass", this.id]);
    return new Pass(this.id);
  }

  finish() {
    return this.id;
  }
}

class Pass {
  constructor(encoder) {
    this.encoder = encoder;
  }

  setPipeline(pipeline) {
    this.pipeline = pipeline.id;
  }

  setBindGroup(_, group) {
    this.group = group;
  }

  dispatchWorkgroups(x, y = 1, z = 1) {
    commands.push(["dispatch", this.encoder, this.pipeline, this.group, [x, y, z]]);
  }

  dispatchWorkgroupsIndirect(buffer) {
    commands.push(["dispatch", this.encoder, this.pipeline, this.group, buffer.id]);
  }

  end() {
    commands.push(["end", this.encoder]);
  }
}

globalThis.GPUBuffer = GPUBuffer;
globalThis.GPUBufferUsage = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, UNIFORM: 64, STORAGE: 128, INDIRECT: 256 };
globalThis.GPUMapMode = { READ: 1 };
globalThis.performance ??= { now: () => Date.now() };
