// What the passes of every renderer have in common: the field's shaders, compiled for each share of its features when
// that is wanted first.

export class SharePasses {
  #compiled = [];

  // `compile(gpu, share)` of a subclass, done once; share: its number, 0 for all features.
  prepare(gpu, share) {
    this.#compiled[share] ??= this.compile(gpu, share);
    return this.#compiled[share];
  }
}
