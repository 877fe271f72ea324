// Vectors of three numbers, and rotations as 3x3 matrices row after row.

export function plus(a, b, share = 1) {
  return [a[0] + share * b[0], a[1] + share * b[1], a[2] + share * b[2]];
}

export function times(a, factor) {
  return [factor * a[0], factor * a[1], factor * a[2]];
}

export function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

export function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

export function unit(a) {
  const length = Math.hypot(...a);
  return length > 0 ? times(a, 1 / length) : [0, 0, 1];
}

// `vector` turned about a unit `axis` by `angle` radians (Rodrigues).
export function turned(vector, axis, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  const along = times(axis, (1 - c) * dot(axis, vector));
  return plus(plus(times(vector, c), cross(axis, vector), s), along);
}

// Unit quaternion [w, x, y, z] of a rotation whose columns are given.
export function quaternionOf([x, y, z]) {
  const trace = x[0] + y[1] + z[2];
  const squares = [trace, x[0] - y[1] - z[2], y[1] - x[0] - z[2], z[2] - x[0] - y[1]];
  const largest = squares.indexOf(Math.max(...squares));
  const own = Math.sqrt(1 + squares[largest]) / 2;
  const s = 1 / (4 * own);
  const [a, b, c] = [y[2] - z[1], z[0] - x[2], x[1] - y[0]];
  const [d, e, f] = [y[0] + x[1], z[0] + x[2], z[1] + y[2]];
  if (largest === 0) return [own, a * s, b * s, c * s];
  if (largest === 1) return [a * s, own, d * s, e * s];
  if (largest === 2) return [b * s, d * s, own, f * s];
  return [c * s, e * s, f * s, own];
}

// Columns of the rotation of a unit quaternion.
export function columnsOf([w, x, y, z]) {
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
    [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
    [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
  ];
}
