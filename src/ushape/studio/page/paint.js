// From the pixels of the server to what is shown: outlines, hatching, colors of probabilities.

const NOT_ANNOTATED_ALPHA = 200; // Such pixels are gray and less opaque than this.
const HATCH_PX = 16;
const HATCH = [210, 210, 210, 170];
const THIN_FROM = 2; // Outlines are one pixel wide from this zoom, and two pixels before.
const TINTS = { probability: [217, 121, 11], uncertainty: [200, 40, 150] };

/** Decodes a tile and applies the style of its layer. */
export async function prepareTile(blob, tile) {
  const bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  if (tile.layer === "image" || tile.layer === "error") return bitmap;
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  if (tile.layer in TINTS) tint(pixels.data, TINTS[tile.layer]);
  else restyle(pixels, tile.style);
  return createImageBitmap(pixels);
}

/** Shows gray values as a color that is more opaque where the value is higher. */
function tint(data, [red, green, blue]) {
  for (let place = 0; place < data.length; place += 4) {
    const value = data[place];
    data[place] = red;
    data[place + 1] = green;
    data[place + 2] = blue;
    data[place + 3] = value;
  }
}

/** Draws areas without annotation hatched, and areas of one color filled or as an outline. */
function restyle({ data, width, height }, style = "fill") {
  const colors = new Uint32Array(data.buffer);
  const source = style.startsWith("outline") ? colors.slice() : null;
  const isHatched = style.endsWith("hatched"), reach = style.includes("thin") ? 1 : 2;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const place = y * width + x;
      const alpha = data[4 * place + 3];
      if (!alpha) continue;
      if (alpha < NOT_ANNOTATED_ALPHA) {
        colors[place] = 0;
        if (isHatched && (x + y) % HATCH_PX < 2) data.set(HATCH, 4 * place);
      } else if (source && !isEdge(source, x, y, width, height, reach)) {
        colors[place] = 0;
      }
    }
  }
}

/** Returns the style of an outline at a zoom (screen pixels of one image pixel). */
export function outlineStyle(style, zoom) {
  return style === "outline" && zoom >= THIN_FROM ? "outline-thin" : style;
}

/** Returns whether a pixel within a reach of one or two from (x, y) has another color. */
function isEdge(colors, x, y, width, height, reach) {
  const own = colors[y * width + x];
  return (x > 0 && colors[y * width + x - 1] !== own)
    || (x < width - 1 && colors[y * width + x + 1] !== own)
    || (y > 0 && colors[(y - 1) * width + x] !== own)
    || (y < height - 1 && colors[(y + 1) * width + x] !== own)
    || (reach > 1 && isEdgeOfTwo(colors, x, y, width, height));
}

function isEdgeOfTwo(colors, x, y, width, height) {
  const own = colors[y * width + x];
  return (x > 1 && colors[y * width + x - 2] !== own)
    || (x < width - 2 && colors[y * width + x + 2] !== own)
    || (y > 1 && colors[(y - 2) * width + x] !== own)
    || (y < height - 2 && colors[(y + 2) * width + x] !== own);
}

/** Draws a stroke of the brush as a line with round ends. */
export function drawStroke(context, points, radius) {
  context.lineWidth = 2 * radius;
  context.lineCap = "round";
  context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points) context.lineTo(...point);
  if (points.length === 1) context.lineTo(points[0][0] + 0.01, points[0][1]);
  context.stroke();
}

export function drawPolygon(context, points) {
  context.beginPath();
  for (const point of points) context.lineTo(...point);
  context.closePath();
  context.fill();
}
