// Pictures: comparison and drawing of pixel planes. A plane is a row-major Uint8Array.

const IGNORED = 255;
const Verdict = { NOTHING: 0, TRUE_POSITIVE: 1, FALSE_NEGATIVE: 2, FALSE_POSITIVE: 3 };
const DRAWN_PX = 720; // Minimum of the longest side of a canvas, so that outlines of small pictures are thin.

/** Decodes the planes of a picture: {width, height, image, truth, percents}. */
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

/** Returns the red channel of a gray image. */
function readPlane(image) {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return Uint8Array.from({ length: data.length / 4 }, (_, pixel) => data[4 * pixel]);
}

/** Returns 1 where the class of a pixel is one of the members. */
function maskOf(classes, members) {
  return classes.map((index) => (members.includes(index) ? 1 : 0));
}

/** Compares truth and prediction: {verdicts, truePositives, falseNegatives, falsePositives}. */
function compare(truth, members, percent, threshold) {
  const counts = [0, 0, 0, 0];
  const verdicts = truth.map((index, pixel) => {
    const verdict = judge(index, members.includes(index), percent[pixel] >= threshold);
    counts[verdict] += 1;
    return verdict;
  });
  return { verdicts, truePositives: counts[1], falseNegatives: counts[2], falsePositives: counts[3] };
}

function judge(index, isTrue, isFound) {
  if (index === IGNORED) return Verdict.NOTHING;
  if (isTrue) return isFound ? Verdict.TRUE_POSITIVE : Verdict.FALSE_NEGATIVE;
  return isFound ? Verdict.FALSE_POSITIVE : Verdict.NOTHING;
}

/** Returns the Dice, or null if truth and prediction are empty. */
function diceOf({ truePositives, falseNegatives, falsePositives }) {
  const size = 2 * truePositives + falseNegatives + falsePositives;
  return size ? (2 * truePositives) / size : null;
}

/** Draws the image with the outlines of truth (solid) and prediction (dashed). */
function drawOutlines(canvas, planes, members, percent, threshold, colors) {
  const context = startDrawing(canvas, planes);
  const width = canvas.width / 180; // About two screen pixels.
  strokePath(context, outlineOf(maskOf(planes.truth, members), planes, 0.5), colors.truth, width);
  const path = outlineOf(percent, planes, threshold - 0.5);
  strokePath(context, path, colors.prediction, width, [3.2 * width, 2 * width]);
}

/** Draws the image tinted by the verdict of each pixel. */
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

/** Returns the contour of a plane at a level as a path in plane coordinates. */
function outlineOf(plane, { width, height }, level) {
  const [{ coordinates }] = Plot.contours().size([width, height]).thresholds([level])(plane);
  const rings = coordinates.flat().map((ring) => `M${ring.map((point) => point.join(" ")).join("L")}Z`);
  return { path: new Path2D(rings.join("")), width };
}

/** Strokes a path on top of a wider dark line, so that it is visible on any image. */
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
