// Test views: a list to jump to, with what was measured there.

export class Views {
  // `go(index)` moves the camera; `names` and `infos` are those of the fields, the first one's views are listed.
  constructor(store, names, infos, go) {
    this.store = store;
    this.names = names;
    this.infos = infos;
    this.go = go;
    this.count = infos[0].views.length;
    document.getElementById("views").hidden = this.count === 0;
    this.select = document.getElementById("view");
    const free = new Option("free camera", "", true, true);
    free.disabled = free.hidden = true;
    this.select.replaceChildren(free, ...infos[0].views.map((view, i) => new Option(`${i}  ${view.name}`, i)));
    this.select.addEventListener("change", () => go(Number(this.select.value)));
    document.getElementById("view-before").addEventListener("click", () => this.step(-1));
    document.getElementById("view-after").addEventListener("click", () => this.step(1));
    store.onChange(() => this.arrange());
    this.arrange();
  }

  step(by) {
    if (this.count === 0) return;
    const { view, lens } = this.store.values;
    this.go(((view ?? lens ?? 0) + by + this.count) % this.count);
  }

  arrange() {
    const { view, widths } = this.store.values;
    this.select.value = view === null ? "" : view;
    const rows = view === null ? [] : this.infos.flatMap((info, i) => this.#measured(info.views[view], this.names[i], widths[i]));
    document.getElementById("view-psnr").replaceChildren(...rows);
  }

  #measured(view, name, width) {
    if (width > 0) return []; // measured with all features
    if (typeof view?.psnr !== "number") return [];
    const [term, value] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = this.names.length > 1 ? `PSNR, ${name}` : "PSNR to the photograph";
    value.textContent = `${view.psnr.toFixed(2)} dB`;
    return [term, value];
  }
}
