// The line between two fields, dragged on the picture: one pixel wide, on whole pixels of the page.

const KEYS = { ArrowLeft: -0.01, ArrowRight: 0.01, PageDown: -0.1, PageUp: 0.1 };

export class SplitHandle {
  constructor(store, names) {
    this.stage = document.getElementById("stage");
    this.handle = document.getElementById("split");
    this.labels = [document.getElementById("name-first"), document.getElementById("name-second")];
    this.store = store;
    names.forEach((name, i) => (this.labels[i].textContent = name));
    this.handle.addEventListener("pointerdown", (event) => this.#down(event));
    this.handle.addEventListener("pointermove", (event) => this.#move(event));
    this.handle.addEventListener("keydown", (event) => this.#key(event));
    store.onChange(() => this.arrange());
  }

  arrange() {
    const { mode, split } = this.store.values;
    const visible = mode === "split";
    this.handle.hidden = !visible;
    const left = `${Math.round(split * this.stage.clientWidth)}px`;
    for (const element of [this.handle, ...this.labels]) element.style.left = left;
    this.labels.forEach((label) => (label.hidden = !visible));
    const percent = Math.round(100 * split);
    this.handle.setAttribute("aria-valuenow", percent);
    this.handle.setAttribute("aria-valuetext", `${percent} % ${this.labels[0].textContent}`);
  }

  #down(event) {
    this.handle.setPointerCapture(event.pointerId);
    event.preventDefault();
    this.handle.focus({ preventScroll: true });
  }

  #move(event) {
    if (!this.handle.hasPointerCapture(event.pointerId)) return;
    const box = this.stage.getBoundingClientRect();
    this.store.change({ split: Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) });
  }

  #key(event) {
    const ends = { Home: 0, End: 1 };
    if (!(event.key in KEYS) && !(event.key in ends)) return;
    const to = event.key in ends ? ends[event.key] : this.store.values.split + KEYS[event.key];
    this.store.change({ split: Math.min(1, Math.max(0, to)) });
    event.preventDefault();
  }
}
