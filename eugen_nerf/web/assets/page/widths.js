// Widths: for each field that was trained at several, a slider over the shares of its features.

const percent = (share) => `${Number((100 * share).toPrecision(3))} %`;

export class Widths {
  #chosen; // for each field the number of a share, which may still be compiling; the store has what is drawn

  // `infos`: of the fields. `prepare(field, share)` resolves once that share can be drawn without a wait.
  constructor(store, names, infos, prepare) {
    this.store = store;
    this.prepare = prepare;
    this.shares = infos.map((info) => info.shares.map(({ share }) => share));
    this.#chosen = infos.map(() => 0);
    this.rows = this.shares.map((shares, field) => (shares.length > 1 ? this.#row(field, names) : null));
    document.getElementById("widths").hidden = this.rows.every((row) => row === null);
    document.getElementById("width-rows").replaceChildren(...this.rows.flatMap((row) => (row ? [row.label] : [])));
    this.#arrange();
  }

  #row(field, names) {
    const [label, name, slider, value] = ["label", "span", "input", "output"].map((kind) => document.createElement(kind));
    const last = this.shares[field].length - 1;
    if (names.length > 1) name.textContent = name.title = names[field];
    Object.assign(slider, { type: "range", min: 0, max: last, step: 1 });
    slider.setAttribute("aria-label", names.length > 1 ? `Features of ${names[field]}` : "Features");
    slider.addEventListener("input", () => this.#choose(field, last - Number(slider.value)));
    label.append(name, slider, value);
    return { label, slider, value };
  }

  // Shows these shares, the number of one for each field.
  choose(numbers) {
    numbers.forEach((number, field) => this.#choose(field, number));
  }

  async #choose(field, number) {
    this.#chosen[field] = number;
    this.#arrange();
    // what cannot be compiled cannot be drawn either, and the picture says why
    await this.prepare(field, number).catch(() => {});
    if (this.#chosen[field] !== number || this.store.values.widths[field] === number) return;
    this.store.change({ widths: this.store.values.widths.with(field, number) });
  }

  #arrange() {
    for (const [field, row] of this.rows.entries()) {
      if (row === null) continue;
      const [shares, number] = [this.shares[field], this.#chosen[field]];
      row.slider.value = shares.length - 1 - number;
      row.value.textContent = percent(shares[number]);
      row.slider.setAttribute("aria-valuetext", `${percent(shares[number])} of the features`);
    }
  }
}
