// What is shown, in one place; parts of the page listen to its changes.

export class Store {
  #listeners = [];

  constructor(values) {
    this.values = values;
  }

  change(changes) {
    const changed = Object.keys(changes).filter((key) => this.values[key] !== changes[key]);
    if (changed.length === 0) return;
    Object.assign(this.values, changes);
    for (const listener of this.#listeners) listener(this.values, changed);
  }

  onChange(listener) {
    this.#listeners.push(listener);
  }
}
