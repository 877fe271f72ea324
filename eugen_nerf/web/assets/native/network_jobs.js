// A network of an inference plan as a shader, for Python to run (native/network_shader.py).

import { BlockReader } from "../engine/block_reader.js";
import { queriesModule } from "../shaders/wgsl_queries.js";
import { activationNames } from "../shaders/wgsl_words.js";

let numbers;
let made;

globalThis.native = {
  activations: () => JSON.stringify(activationNames()),
  // An ArrayBuffer for the numbers of a network, which Python fills.
  numbersOf(size) {
    numbers = new ArrayBuffer(size);
    return numbers;
  },
  // The shader as JSON, or why there is none; its buffers are read by `buffer`.
  shader({ network, blocks, half, gpu }) {
    try {
      made = queriesModule(network, new BlockReader(blocks, numbers), half, gpu);
      return JSON.stringify({ code: made.code, tile: made.tile });
    } catch (error) {
      if (!error.reason) throw error;
      return JSON.stringify({ error: error.reason });
    }
  },
  buffer: (name) => made[name].buffer,
};
