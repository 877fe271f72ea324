// The camera: where it is, how it is turned (columns right, up, back in scene coordinates), how far its pivot is.
import { columnsOf, cross, dot, plus, quaternionOf, times, turned, unit } from "./vectors.js";

const UP = [0, 0, 1];
const STEEPEST = 0.02; // radians between the line of sight and the vertical, at least

export class Camera {
  constructor() {
    this.position = [0, -3, 0];
    this.distance = 3;
    this.#look([1, 0, 0], [0, 0, 1], [0, -1, 0]);
  }

  #look(right, up, back) {
    [this.right, this.up, this.back] = [right, up, back];
  }

  // 3x4 camera-to-scene matrix, row after row.
  get pose() {
    return [0, 1, 2].flatMap((i) => [this.right[i], this.up[i], this.back[i], this.position[i]]);
  }

  // [x, y, z, qw, qx, qy, qz, distance]
  get numbers() {
    return [...this.position, ...quaternionOf([this.right, this.up, this.back]), this.distance];
  }

  setNumbers([x, y, z, ...rest]) {
    this.position = [x, y, z];
    this.distance = rest[4];
    const length = Math.hypot(...rest.slice(0, 4));
    this.#look(...columnsOf(rest.slice(0, 4).map((n) => n / length)));
  }

  // Takes a pose, and the point of its line of sight that is nearest to `centre` as its pivot.
  setPose(pose, centre, least) {
    const column = (j) => [pose[j], pose[4 + j], pose[8 + j]];
    this.position = column(3);
    const back = unit(column(2));
    const right = unit(cross(column(1), back));
    this.#look(right, cross(back, right), back);
    this.distance = Math.max(least, dot(plus(this.position, centre, -1), back));
  }

  // Looks at the whole of a box from obliquely above.
  lookAt(centre, distance) {
    const back = unit([0.55, -0.75, 0.4]);
    const right = unit(cross(UP, back));
    this.#look(right, cross(back, right), back);
    this.position = plus(centre, back, distance);
    this.distance = distance;
  }

  // About the pivot, by radians.
  orbit(across, down) {
    const pivot = plus(this.position, this.back, -this.distance);
    this.turn(across, down);
    this.position = plus(pivot, this.back, this.distance);
  }

  // About the camera itself, by radians.
  turn(across, down) {
    const about = (axis, angle) => this.#look(...[this.right, this.up, this.back].map((v) => turned(v, axis, angle)));
    about(UP, -across);
    const angle = Math.acos(Math.min(1, Math.max(-1, dot(this.back, UP))));
    const upright = this.up[2] >= 0 ? 1 : -1;
    const allowed = [STEEPEST, Math.PI - STEEPEST].map((steep) => upright * (angle - steep)).sort((a, b) => a - b);
    about(this.right, -Math.min(allowed[1], Math.max(allowed[0], down)));
    const back = unit(this.back);
    const right = unit(cross(this.up, back));
    this.#look(right, cross(back, right), back);
  }

  // By shares of the distance to the pivot.
  pan(across, up) {
    const moved = plus(times(this.right, across * this.distance), this.up, up * this.distance);
    this.position = plus(this.position, moved);
  }

  zoom(factor) {
    const distance = Math.min(1e4, Math.max(1e-3, this.distance * factor));
    this.position = plus(this.position, this.back, distance - this.distance);
    this.distance = distance;
  }

  // In scene units; the pivot comes along.
  fly(across, up, forward) {
    this.position = plus(plus(plus(this.position, this.right, across), this.up, up), this.back, -forward);
  }
}
