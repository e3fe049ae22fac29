// Viewer: one plane of an image on canvases, from tiles of the level that fits the zoom.

import { make } from "./dom.js";
import { clamp, levelCount, planeSize, TILE } from "./geometry.js";
import { drawPolygon, drawStroke } from "./paint.js";

const LARGEST_SCALE = 40; // Screen pixels of one image pixel.
const OVERLAYS = ["probability", "uncertainty", "prediction", "error"];

/** Shows {id, plane, index} of an image. Event "move": the part of the image that is shown changed. */
export class Viewer extends EventTarget {
  constructor(frame, tiles, layers) {
    super();
    Object.assign(this, { frame, tiles, layers, info: null, scale: 1, center: [0, 0], strokes: [], drawMarks: null });
    this.canvases = {};
    for (const name of ["image", "overlay", "mask", "marks"]) {
      this.canvases[name] = make("canvas", { class: `canvas ${name}`, "aria-hidden": "true" });
    }
    frame.append(...Object.values(this.canvases));
    tiles.addEventListener("load", () => this.update());
    new ResizeObserver(() => this.resize()).observe(frame);
  }

  /** Shows a plane of an image; fits it into the frame if its size differs from before. */
  show(info, plane, index) {
    const before = this.info && planeSize(this.info, this.plane);
    const size = planeSize(info, plane);
    const isSameView = before && this.info.id === info.id && this.plane === plane;
    Object.assign(this, { info, plane, index, size, last: levelCount(size) - 1 });
    if (!isSameView) this.fit();
    this.update();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.frame;
    this.ratio = devicePixelRatio || 1;
    for (const canvas of Object.values(this.canvases)) {
      canvas.width = Math.round(width * this.ratio);
      canvas.height = Math.round(height * this.ratio);
    }
    const wasFit = this.isFit;
    Object.assign(this, { width, height });
    if (wasFit && this.info) this.fit();
    this.update();
  }

  fit() {
    this.center = [this.size.width / 2, this.size.height / 2];
    if (this.width) this.setScale(this.fitScale());
    this.isFit = true;
    this.changed();
  }

  fitScale() {
    const { width, height, stretch } = this.size;
    return Math.min((this.width - 8) / (width * stretch[0]), (this.height - 8) / (height * stretch[1]), LARGEST_SCALE);
  }

  setScale(scale) {
    this.scale = clamp(scale, Math.min(0.5 * this.fitScale(), 1), LARGEST_SCALE);
  }

  /** Zooms so that the pixel at a place of the screen stays there. */
  zoom(factor, place = [this.width / 2, this.height / 2]) {
    if (!this.info) return;
    const before = this.toImage(place);
    this.setScale(this.scale * factor);
    const after = this.toImage(place);
    this.moveTo([this.center[0] + before[0] - after[0], this.center[1] + before[1] - after[1]]);
  }

  /** Moves the image by a distance on the screen. */
  pan(right, down) {
    if (!this.info) return;
    const [x, y] = this.center;
    const { stretch } = this.size;
    this.moveTo([x - right / (this.scale * stretch[0]), y - down / (this.scale * stretch[1])]);
  }

  moveTo([x, y]) {
    this.center = [clamp(x, 0, this.size.width), clamp(y, 0, this.size.height)];
    this.isFit = false;
    this.changed();
  }

  changed() {
    this.update();
    this.dispatchEvent(new Event("move"));
  }

  /** Returns the image pixel at a place of the frame, as fractions of pixels. */
  toImage([right, down]) {
    const { stretch } = this.size;
    return [
      this.center[0] + (right - this.width / 2) / (this.scale * stretch[0]),
      this.center[1] + (down - this.height / 2) / (this.scale * stretch[1]),
    ];
  }

  toScreen([x, y]) {
    const { stretch } = this.size;
    return [
      this.width / 2 + (x - this.center[0]) * this.scale * stretch[0],
      this.height / 2 + (y - this.center[1]) * this.scale * stretch[1],
    ];
  }

  isInImage([x, y]) {
    return x >= 0 && y >= 0 && x < this.size.width && y < this.size.height;
  }

  /** Draws everything before the next frame of the screen. */
  update() {
    this.isOutdated = true;
    this.updateMarks();
  }

  /** Draws only what the tools show, such as the stroke that is being drawn, before the next frame. */
  updateMarks() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      if (!this.width || !this.info) return;
      if (this.isOutdated) this.drawLayers();
      this.isOutdated = false;
      const context = this.clear(this.canvases.marks);
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      this.drawMarks?.(context, this);
    });
  }

  /** Returns the context of a canvas without its former content. */
  clear(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    return context;
  }

  drawLayers() {
    for (const name of ["image", "overlay", "mask"]) this.clear(this.canvases[name]);
    this.tiles.begin(this);
    const image = this.layers.image;
    const isPlain = image.brightness === 100 && image.contrast === 100; // A filter costs time in each frame.
    this.canvases.image.style.filter = isPlain ? "" : `brightness(${image.brightness}%) contrast(${image.contrast}%)`;
    if (image.isShown) this.drawLayer(this.canvases.image, "image", 1);
    for (const name of OVERLAYS) {
      if (this.layers.isVisible(name, this.info)) {
        this.drawLayer(this.canvases.overlay, name, this.layers[name].opacity / 100);
      }
    }
    this.canvases.mask.style.opacity = this.layers.mask.opacity / 100;
    if (this.layers.isVisible("mask", this.info)) {
      const isComplete = this.drawLayer(this.canvases.mask, "mask", 1);
      if (isComplete) this.strokes = this.strokes.filter((stroke) => !stroke.isApplied);
      this.drawStrokes();
    }
    this.tiles.load();
  }

  /** Draws the visible tiles of a layer; returns whether all of them are up to date. */
  drawLayer(canvas, layer, alpha) {
    const context = canvas.getContext("2d");
    context.globalAlpha = alpha;
    const pixels = this.scale * this.ratio; // Screen pixels of one image pixel.
    const level = clamp(Math.floor(-Math.log2(pixels) + 0.01), 0, this.last);
    context.imageSmoothingEnabled = layer === "image" && pixels < 2;
    const side = TILE * 2 ** level;
    const [x0, y0] = this.toImage([0, 0]), [x1, y1] = this.toImage([this.width, this.height]);
    const [columns, rows] = [this.size.width, this.size.height].map((length) => Math.ceil(length / side));
    let isComplete = true;
    for (let y = clamp(Math.floor(y0 / side), 0, rows); y < Math.min(rows, y1 / side); y += 1) {
      for (let x = clamp(Math.floor(x0 / side), 0, columns); x < Math.min(columns, x1 / side); x += 1) {
        isComplete = this.drawTile(context, this.tileOf(layer, level, x, y)) && isComplete;
      }
    }
    context.globalAlpha = 1;
    return isComplete;
  }

  tileOf(layer, level, x, y) {
    const { id, revision } = this.info;
    return { id, layer, plane: this.plane, index: this.index, level, x, y, revision, ...this.layers.options(layer, this.info, this.scale * this.ratio) };
  }

  /** Draws a tile, or the part of a coarser one that is there; returns whether it is up to date. */
  drawTile(context, tile) {
    const entry = this.tiles.get(tile);
    if (entry?.bitmap) this.place(context, tile, entry.bitmap);
    if (entry) return entry.isFresh;
    for (let up = 1; tile.level + up <= this.last; up += 1) {
      const coarse = { ...tile, level: tile.level + up, x: tile.x >> up, y: tile.y >> up };
      const found = this.tiles.peek(coarse);
      if (found?.bitmap) {
        this.place(context, tile, found.bitmap, coarse);
        break;
      }
    }
    return false;
  }

  /** Draws the pixels of a tile from its own bitmap or from that of a coarser tile. */
  place(context, tile, bitmap, source = tile) {
    const side = TILE * 2 ** tile.level;
    const { width, height } = this.size;
    const [x0, y0] = [tile.x * side, tile.y * side];
    const [x1, y1] = [Math.min(x0 + side, width), Math.min(y0 + side, height)];
    const unit = 2 ** source.level;
    const [left, top] = [source.x * TILE * unit, source.y * TILE * unit];
    const from = this.toScreen([x0, y0]).map((value) => Math.round(value * this.ratio));
    const to = this.toScreen([x1, y1]).map((value) => Math.round(value * this.ratio));
    const part = [(x0 - left) / unit, (y0 - top) / unit, (x1 - x0) / unit, (y1 - y0) / unit];
    if (source === tile) part.splice(0, 4, 0, 0, bitmap.width, bitmap.height);
    context.drawImage(bitmap, ...part, ...from, to[0] - from[0], to[1] - from[1]);
  }

  /** Draws the edits that the tiles do not show yet. */
  drawStrokes() {
    const context = this.canvases.mask.getContext("2d");
    context.save();
    this.useImagePixels(context);
    for (const { points, radius, color, id, plane, index, shape } of this.strokes) {
      if (id !== this.info.id || plane !== this.plane || index !== this.index) continue;
      context.globalCompositeOperation = color ? "source-over" : "destination-out";
      context.strokeStyle = context.fillStyle = color ?? "#000";
      if (shape === "polygon") drawPolygon(context, points);
      else drawStroke(context, points, radius);
    }
    context.restore();
  }

  /** Makes the units of a canvas the pixels of the image. */
  useImagePixels(context) {
    const [x, y] = this.toScreen([0, 0]);
    const [right, down] = this.size.stretch.map((value) => value * this.scale * this.ratio);
    context.setTransform(right, 0, 0, down, x * this.ratio, y * this.ratio);
  }
}
