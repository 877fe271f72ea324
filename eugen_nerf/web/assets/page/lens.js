// Lenses as photographs have them, {fx, fy, cx, cy, width, height} in pixels, fitted into a picture of any shape.

// A lens for a scene without test views: 50 degrees across a square.
export function plainLens() {
  const focal = 0.5 / Math.tan((25 * Math.PI) / 180);
  return { fx: focal, fy: focal, cx: 0.5, cy: 0.5, width: 1, height: 1 };
}

// The lens for `columns` x `rows` pixels that cover a picture of `width` x `height`: the photograph fits in, in its middle.
export function fitted(lens, { width, height }, { columns, rows }) {
  const scale = Math.min(width / lens.width, height / lens.height);
  const [across, down] = [columns / width, rows / height];
  return {
    fx: lens.fx * scale * across,
    fy: lens.fy * scale * down,
    cx: ((width - lens.width * scale) / 2 + lens.cx * scale) * across,
    cy: ((height - lens.height * scale) / 2 + lens.cy * scale) * down,
    width: columns,
    height: rows,
  };
}

// Angle of view of one pixel of a picture, in radians, in its middle.
export function anglePerPixel(lens, { width, height }) {
  return 1 / (Math.abs(lens.fy) * Math.min(width / lens.width, height / lens.height));
}
