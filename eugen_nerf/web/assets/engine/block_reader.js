// The numbers of a scene's binary part, and the buffers that they are gathered in for the GPU.

import { refuse } from "../shaders/wgsl_words.js";

// Blocks of a binary, by their numbers: `[type, offset, count, scale]` each, see docs/explanation/web_page.md.
export class BlockReader {
  constructor(blocks, binary) {
    this.blocks = blocks;
    this.binary = binary;
  }

  // float32 `[count]` of a block of float32, or of scaled float16.
  floats(number, count) {
    const [type, offset, , scale] = this.block(number, count, { f32: 4, f16: 2 });
    if (type === "f32") return new Float32Array(this.binary, offset, count);
    const halves = new Uint16Array(this.binary, offset, count);
    return Float32Array.from(halves, (half) => scale * fromHalf(half));
  }

  // uint32 `[count]`: what the shaders unpack themselves.
  words(number, count) {
    const [, offset] = this.block(number, count, { u32: 4 });
    return new Uint32Array(this.binary, offset, count);
  }

  block(number, count, sizes) {
    const block = this.blocks[number];
    if (!Array.isArray(block)) refuse("a block of its numbers is missing");
    const [type, offset, length] = block;
    const fits = Object.hasOwn(sizes, type) && length === count && Number.isInteger(offset) && offset % 4 === 0;
    if (!fits || offset < 0 || offset + count * sizes[type] > this.binary.byteLength) {
      refuse(`a block of ${count} numbers was expected, and another one was found`);
    }
    return block;
  }
}

// IEEE 754 half precision.
export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

// Arrays put one after another into one buffer; each begins at a multiple of so many numbers.
export class Gathered {
  constructor(type, multiple) {
    this.type = type;
    this.multiple = multiple;
    this.parts = [];
    this.length = 0;
  }

  // Where an array begins, in multiples.
  add(numbers) {
    const at = this.length / this.multiple;
    this.parts.push([this.length, numbers]);
    this.length += Math.ceil(numbers.length / this.multiple) * this.multiple;
    return at;
  }

  joined() {
    const all = new this.type(Math.max(this.length, this.multiple));
    for (const [at, numbers] of this.parts) all.set(numbers, at);
    return all;
  }
}
