// How many pixels a picture has: as many as the frame budget allows while something moves, more and more at rest. Fields
// of several widths are drawn narrower where that would be few.

const FRAME = 27; // milliseconds of rendering that leave 30 frames a second
const STILL = 900; // milliseconds that one picture at rest may take
const FEWEST = 1600; // pixels
const SLOW = { pixels: 40000, milliseconds: 4000 }; // what a slow GPU, or a processor in its place, may take for few
const FINER = 4; // times as many pixels in the next picture at rest, at most
const COARSE = 1 / 16; // of all pixels: a moving picture with fewer is drawn narrower
const SETTLED = 6; // moving pictures after which the number of pixels fits a width

export class Pacing {
  constructor() {
    this.moving = 16384; // pixels while something moves; learned from every picture
    this.narrower = 0; // widths below the chosen ones while something moves
    this.since = 0; // moving pictures of that width
    this.perPixel = 0; // milliseconds, of the last picture
    this.shown = 0; // pixels of the last picture
  }

  // Pixels of the next picture, of `full` at most; null where the last one is as fine as it gets.
  next(full, isMoving) {
    if (isMoving || this.shown === 0) return Math.min(full, this.moving);
    if (this.shown >= full) return null;
    const few = Math.min(SLOW.pixels, SLOW.milliseconds / this.perPixel);
    const pixels = Math.min(full, this.shown * FINER, Math.max(STILL / this.perPixel, this.moving, few));
    if (pixels * 1.1 >= full) return full; // or the last picture would lack some of its pixels for ever
    return pixels > this.shown * 1.1 ? pixels : null;
  }

  // Learns from a picture of so many pixels that took so long.
  finished(pixels, milliseconds, isMoving) {
    this.shown = pixels;
    const taken = Math.max(0.1, milliseconds);
    this.perPixel = taken / pixels;
    if (!isMoving) return;
    const wanted = pixels * Math.min(2, Math.max(0.3, FRAME / taken));
    // down at once, up by and by, so that the size does not swing
    const next = wanted < pixels ? wanted : pixels + (wanted - pixels) * 0.3;
    this.moving = Math.max(FEWEST, next);
  }

  // Chooses the width of the next moving pictures; `costs`: of the chosen width, and of those that are narrower.
  fit(full, costs) {
    if ((this.since += 1) < SETTLED) return;
    const now = Math.min(this.narrower, costs.length - 1);
    const share = (cost) => (this.moving * costs[now]) / (cost * full);
    // back only with room to spare, so that the width does not swing
    const widest = costs.findIndex((cost, i) => share(cost) >= (i < now ? 2 * COARSE : COARSE));
    const next = widest < 0 ? costs.length - 1 : widest;
    // fewer pixels at once, more by and by: at the fewest, a GPU may be slower than that number says
    if (next !== now) [this.since, this.moving] = [0, Math.min(this.moving, share(costs[next]) * full)];
    this.narrower = next;
  }

  // The last picture is of something else now.
  forget() {
    this.shown = 0;
  }
}

// Columns and rows of a picture with about so many pixels.
export function gridOf({ width, height }, pixels, densest) {
  const scale = Math.min(densest, Math.sqrt(pixels / (width * height)));
  return { columns: Math.max(8, Math.round(width * scale)), rows: Math.max(8, Math.round(height * scale)) };
}
