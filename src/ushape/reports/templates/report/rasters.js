// Pictures: planes of pixels, compared and drawn. A plane is a Uint8Array, row by row.

const IGNORED = 255;
const Verdict = { NOTHING: 0, HIT: 1, MISS: 2, FALSE_ALARM: 3 };
const DRAWN_PX = 720; // Longest side of a canvas, so that outlines stay fine on small pictures.

/** The planes of one of the page's pictures, decoded: {width, height, image, truth, percents}. */
async function loadPicture(picture) {
  const sources = [picture.image, picture.truth, ...picture.classes.map((own) => own.percent)];
  const [image, truth, ...percents] = await Promise.all(sources.map(loadImage));
  return {
    image,
    width: image.naturalWidth,
    height: image.naturalHeight,
    truth: readPlane(truth),
    percents: percents.map(readPlane),
  };
}

async function loadImage(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

/** The red channel; gray pictures have three equal ones. */
function readPlane(image) {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return Uint8Array.from({ length: data.length / 4 }, (_, pixel) => data[4 * pixel]);
}

/** 1 where the pixel's class is one of the members. */
function maskOf(classes, members) {
  return classes.map((index) => (members.includes(index) ? 1 : 0));
}

/** The verdict on each pixel, and how many there are of each: {verdicts, hits, misses, alarms}. */
function compare(truth, members, percent, threshold) {
  const counts = [0, 0, 0, 0];
  const verdicts = truth.map((index, pixel) => {
    const verdict = judge(index, members.includes(index), percent[pixel] >= threshold);
    counts[verdict] += 1;
    return verdict;
  });
  return { verdicts, hits: counts[1], misses: counts[2], alarms: counts[3] };
}

function judge(index, isTrue, isFound) {
  if (index === IGNORED) return Verdict.NOTHING;
  if (isTrue) return isFound ? Verdict.HIT : Verdict.MISS;
  return isFound ? Verdict.FALSE_ALARM : Verdict.NOTHING;
}

/** Dice, or null where truth and prediction are empty. */
function diceOf({ hits, misses, alarms }) {
  const size = 2 * hits + misses + alarms;
  return size ? (2 * hits) / size : null;
}

/** The image with truth (solid) and prediction (dashed) outlined. */
function drawOutlines(canvas, planes, members, percent, threshold, colors) {
  const context = startDrawing(canvas, planes);
  const width = canvas.width / 180; // Some two pixels of a screen.
  strokePath(context, outlineOf(maskOf(planes.truth, members), planes, 0.5), colors.truth, width);
  const path = outlineOf(percent, planes, threshold - 0.5);
  strokePath(context, path, colors.prediction, width, [3.2 * width, 2 * width]);
}

/** The image tinted by the verdict on each pixel. */
function drawErrors(canvas, planes, verdicts, colors) {
  const context = startDrawing(canvas, planes);
  context.globalAlpha = 0.6;
  context.imageSmoothingEnabled = false;
  context.drawImage(tintOf(verdicts, planes, colors), 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
}

function startDrawing(canvas, { image, width, height }) {
  const scale = Math.max(1, DRAWN_PX / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return context;
}

/** Where a plane crosses a level, as a path in pixels of the plane. */
function outlineOf(plane, { width, height }, level) {
  const [{ coordinates }] = Plot.contours().size([width, height]).thresholds([level])(plane);
  const rings = coordinates.flat().map((ring) => `M${ring.map((point) => point.join(" ")).join("L")}Z`);
  return { path: new Path2D(rings.join("")), width };
}

/** Strokes on a dark line that is wider, so that it shows on any image. */
function strokePath(context, { path, width }, color, lineWidth, dash = []) {
  const scale = context.canvas.width / width;
  context.save();
  context.scale(scale, scale);
  for (const [style, factor, pattern] of [["rgba(0, 0, 0, 0.45)", 1.8, []], [color, 1, dash]]) {
    context.strokeStyle = style;
    context.lineWidth = (factor * lineWidth) / scale;
    context.setLineDash(pattern.map((length) => length / scale));
    context.stroke(path);
  }
  context.restore();
}

function tintOf(verdicts, { width, height }, colors) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const tints = [null, colors.hit, colors.truth, colors.prediction].map(channelsOf);
  verdicts.forEach((verdict, pixel) => {
    if (verdict) pixels.data.set(tints[verdict], 4 * pixel);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** "rgb(1, 2, 3)" -> [1, 2, 3, 255] */
function channelsOf(color) {
  return color ? [...color.match(/\d+/g).map(Number), 255] : null;
}
