// The engine with its fields, opened again when the GPU is lost.
import { openEngine } from "../engine/engine.js";
import { EngineError } from "../engine/engine_error.js";
import { readPayload } from "./page_data.js";

const ATTEMPTS = 3; // openings within one minute; after that the reader decides

export class EngineSession {
  #opened = [];

  // `fields`: as the page describes them; `onLost()` is called when the GPU is lost.
  constructor(picture, fields, onLost) {
    this.picture = picture;
    this.fields = fields;
    this.onLost = onLost;
    this.engine = null;
    this.loaded = [];
  }

  get ready() {
    return this.engine !== null;
  }

  // Opens, compiles and loads; throws an EngineError or an Error.
  async open() {
    this.close();
    this.#opened = [...this.#opened.filter((time) => performance.now() - time < 60000), performance.now()];
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    const engine = await openEngine(canvas);
    const loaded = [];
    try {
      for (const [index, field] of this.fields.entries()) {
        loaded.push(await engine.load(field.description, await readPayload(field.payload, index)));
      }
    } catch (error) {
      engine.destroy();
      throw error;
    }
    [this.engine, this.loaded, this.canvas] = [engine, loaded, canvas];
    engine.lost.then((reason) => this.#lost(engine, reason));
  }

  // Compiles a share of a field's features, both by their numbers; rejects where it cannot be drawn.
  async prepare(field, share) {
    await this.loaded[field].prepare(share);
  }

  // Puts the canvas into the page, once there is a picture in it.
  show() {
    if (this.canvas.isConnected) return;
    this.picture.querySelectorAll("canvas, #poster").forEach((element) => element.remove());
    this.picture.append(this.canvas);
  }

  close() {
    const engine = this.engine;
    this.engine = null;
    engine?.destroy();
  }

  // Whether the engine may be opened again without a click.
  get mayReopen() {
    const recent = this.#opened.filter((time) => performance.now() - time < 60000);
    return recent.length < ATTEMPTS;
  }

  #lost(engine, reason) {
    if (engine !== this.engine) return; // closed by us
    this.engine = null;
    this.onLost(new EngineError("lost", `It was lost (${reason}).`));
  }
}
