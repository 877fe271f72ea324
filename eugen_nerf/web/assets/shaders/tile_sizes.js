// Sizes that the parts of a field's shader agree on.

export const THREADS = 64; // of a workgroup
export const CHUNK = 32; // numbers of a wide input that are encoded at a time
export const MOST_ACCUMULATORS = 8; // groups of four numbers that a thread sums up at a time
export const TILES = [32, 16, 8, 4]; // samples of a workgroup, the best first

// Words of a program: what an instruction begins with, and how many words it and a read of a layer take.
export const PROGRAM = { encode: 0, layer: 1, output: 2, word: 10, read: 6 };
