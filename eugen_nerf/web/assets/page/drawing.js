// The loop that draws: one picture at a time, coarse while something moves, finer and finer at rest.
import { Pacing, gridOf } from "./pacing.js";

const REST = 140; // milliseconds without a motion after which it is at rest

export class Drawing {
  #busy = false;
  #scheduled = false;
  #moved = -Infinity; // when something moved last
  #before = null; // time of the last frame

  // `scene`: {size() -> {width, height}, step(seconds), moving() -> boolean, costs() -> of a query, with the chosen
  // widths and with each below them, settings(grid, narrower) -> what engine.draw takes}; `shown(picture, now)` is called
  // after each; `failed(error)` ends it until `start`.
  constructor(session, scene, shown, failed) {
    this.session = session;
    this.scene = scene;
    this.shown = shown;
    this.failed = failed;
    this.pacing = new Pacing();
  }

  // Something moves, or is otherwise to be drawn at once.
  changed() {
    this.#moved = performance.now();
    this.#schedule();
  }

  // The session is open: draws anew.
  start() {
    this.pacing.forget();
    this.#schedule();
  }

  // The picture in all of its pixels, {columns, rows, colours}.
  async finest() {
    while (this.#busy) await new Promise((done) => setTimeout(done, 10));
    if (!this.session.ready) throw new Error("there is no picture yet");
    this.#busy = true;
    try {
      const { size, full, densest } = this.#limits();
      const grid = gridOf(size, full, densest);
      await this.session.engine.draw(this.scene.settings(grid, 0));
      return { ...grid, colours: await this.session.engine.pixels() };
    } finally {
      this.#busy = false;
      this.#schedule();
    }
  }

  #limits() {
    const size = this.scene.size();
    const densest = Math.min(2, window.devicePixelRatio || 1);
    return { size, densest, full: size.width * size.height * densest * densest };
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame((now) => {
      this.#scheduled = false;
      this.#frame(now);
    });
  }

  async #frame(now) {
    if (this.#busy || !this.session.ready) return;
    const seconds = this.#before === null ? 0 : Math.min(0.1, (now - this.#before) / 1000);
    const active = this.scene.moving();
    this.#before = active ? now : null;
    if (active) this.scene.step(seconds);
    const moving = active || performance.now() - this.#moved < REST;
    if (this.#moved !== -Infinity && moving) this.pacing.forget();
    const { size, full, densest } = this.#limits();
    const pixels = this.pacing.next(full, moving);
    if (pixels === null || size.width < 1 || size.height < 1) return;
    const began = this.#moved;
    this.#busy = true;
    try {
      const grid = gridOf(size, pixels, densest);
      const narrower = moving ? this.pacing.narrower : 0;
      const drawn = await this.session.engine.draw(this.scene.settings(grid, narrower));
      this.session.show();
      // the grid is rounded: what was requested at full size counts as full
      this.pacing.finished(pixels >= full ? full : grid.columns * grid.rows, drawn.milliseconds, moving);
      if (moving) this.pacing.fit(full, this.scene.costs());
      this.shown({ ...grid, ...drawn, moving, narrower }, performance.now());
    } catch (error) {
      this.#busy = false;
      if (this.session.ready) this.failed(error);
      return;
    }
    this.#busy = false;
    // a motion during the picture makes it one of the past
    if (began !== this.#moved) this.pacing.forget();
    this.#schedule();
  }
}
