// The engine outside a browser, as Python runs it: one job at a time, in turns with the GPU (native/native_engine.py).

import { openEngine } from "../engine/engine.js";
import { arrivingContent, offerAdapter, settle, takeCommands } from "./recorded_gpu.js";

let engine;
let field;
let scene;
let job;
let turn;

const JOBS = {
  // Opens a device and loads a field, whose numbers are in `scene` by now.
  async open({ adapter, description, tiles }) {
    offerAdapter(adapter);
    engine = await openEngine(null, { tiles });
    field = await engine.load(description, scene);
  },
  // Renders a view; `image` is the number of the buffer that holds it.
  async draw(view) {
    const { queries } = await engine.draw({ ...view, fields: [field] });
    return { queries, image: field.image.id };
  },
};

globalThis.native = {
  // An ArrayBuffer for the numbers of a scene, which Python fills.
  sceneBytes(size) {
    scene = new ArrayBuffer(size);
    return scene;
  },
  start(name, values) {
    job = { done: false };
    JOBS[name](values).then(
      (value) => (job = { done: true, value: value ?? null }),
      (error) => (job = { done: true, error: error.message }),
    );
  },
  // How far the job is, and what the GPU has to do for it, as JSON.
  take() {
    turn = takeCommands();
    return JSON.stringify({ ...job, commands: turn.commands });
  },
  takenBytes: () => turn.bytes,
  arrivingContent,
  settle,
};
