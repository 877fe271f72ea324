// Behind the engine's interface, and without WebGPU: paints what it was given, and keeps it for tests to look at.

import { EngineError } from "./engine_error.js";

const fake = (window.fake = { draws: [], prepared: [], compiling: window.compiling ?? null, opened: 0, fail: null, nanoseconds: 50, lose: null });

export async function openEngine(canvas) {
  const wanted = new URLSearchParams(location.search).get("fail");
  if (wanted) throw new EngineError(wanted, `${wanted} is what the test wants`);
  fake.opened += 1;
  return new Engine(canvas);
}

class Engine {
  constructor(canvas) {
    this.canvas = canvas;
    this.lost = new Promise((lose) => (fake.lose = lose));
  }

  async load(description, data) {
    const { info, colour } = description;
    const sum = new Uint8Array(data).reduce((a, b) => a + b, 0);
    const prepare = async (share) => {
      await fake.compiling;
      fake.prepared.push([colour, share]);
    };
    return { info, colour, bytes: data.byteLength, sum, shares: Math.max(1, info.shares.length), prepare };
  }

  async draw(given) {
    if (fake.fail) throw new EngineError("failed", fake.fail);
    const { width, height, pose } = given.camera;
    [this.canvas.width, this.canvas.height] = [width, height];
    const drawing = this.canvas.getContext("2d");
    const paint = (field, x, columns) => {
      const shade = drawing.createLinearGradient(0, 0, width, height);
      shade.addColorStop(0, field.colour);
      shade.addColorStop(1, `hsl(${(200 * pose[3] + 720) % 360} 60% 50%)`);
      drawing.fillStyle = shade;
      drawing.fillRect(x, 0, columns, height);
    };
    const edge = given.mode === "split" ? Math.round(given.split * width) : width;
    paint(given.fields[0], 0, edge);
    if (edge < width) paint(given.fields[1], edge, width - edge);
    fake.draws.push(JSON.parse(JSON.stringify({ ...given, fields: given.fields.map((field) => [field.colour, field.sum]) })));
    // a picture with fewer features takes less time
    const costs = given.fields.map(({ info }, i) => (info.shares[given.shares[i]]?.macs ?? info.macs) / info.macs);
    const milliseconds = (fake.nanoseconds * width * height * Math.max(...costs)) / 1e6;
    await new Promise((done) => setTimeout(done, Math.min(60, milliseconds)));
    return { milliseconds, queries: 10 * width * height };
  }

  async pixels() {
    const { width, height } = this.canvas;
    const { data } = this.canvas.getContext("2d").getImageData(0, 0, width, height);
    const colours = new Float32Array(3 * width * height);
    for (let i = 0; i < width * height; i += 1) for (let c = 0; c < 3; c += 1) colours[3 * i + c] = data[4 * i + c] / 255;
    return colours;
  }

  destroy() {}
}
