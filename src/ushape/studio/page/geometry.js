// Sizes of images, planes of volumes and levels of tiles. Pixels are [x, y] in the chosen plane.

export const TILE = 256;

export const AXES = { z: 0, y: 1, x: 2 };
const ACROSS = { z: ["x", "y"], y: ["x", "z"], x: ["y", "z"] }; // The axes to the right and down.

/** Returns the shape as [z, y, x]; images have one slice. */
export function depthShape(shape) {
  return shape.length === 3 ? shape : [1, ...shape];
}

/** Returns the width and height of a plane in pixels, and the relative size of its pixels. */
export function planeSize({ shape, spacing }, plane) {
  const full = depthShape(shape);
  const [right, down] = ACROSS[plane].map((axis) => AXES[axis]);
  const size = spacing && shape.length === 3 ? spacing : [1, 1, 1];
  const least = Math.min(size[right], size[down]);
  return {
    width: full[right], height: full[down], slices: full[AXES[plane]],
    stretch: [size[right] / least, size[down] / least],
  };
}

/** Returns the number of levels: the last one fits into one tile. */
export function levelCount({ width, height }) {
  return 1 + Math.max(0, Math.ceil(Math.log2(Math.max(width, height) / TILE)));
}

/** Returns the position in the volume, as {z, y, x}, of a pixel of a plane. */
export function positionOf([x, y], plane, index) {
  const [right, down] = ACROSS[plane];
  return { [plane]: index, [right]: x, [down]: y };
}

/** Returns the pixel [x, y] of a plane at a position in the volume. */
export function pixelOf(position, plane) {
  return ACROSS[plane].map((axis) => position[axis]);
}

export function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

export function isInside([y0, x0, y1, x1], tile) {
  return x0 < tile.x1 && x1 > tile.x0 && y0 < tile.y1 && y1 > tile.y0;
}

/** Drops points that are closer than a distance to the one before, except the last. */
export function simplify(points, distance) {
  const kept = [];
  points.forEach((point, place) => {
    const last = kept.at(-1);
    const isFar = !last || Math.hypot(point[0] - last[0], point[1] - last[1]) >= distance;
    if (isFar || place === points.length - 1) kept.push(point);
  });
  return kept;
}
