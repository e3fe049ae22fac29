// Volumes: plane, slice, and on wide screens all three planes next to each other.

import { byId, make } from "./dom.js";
import { clamp, depthShape, pixelOf, planeSize, positionOf } from "./geometry.js";
import { Viewer } from "./viewer.js";

const NAMES = { z: "xy (slices along z)", y: "xz (slices along y)", x: "yz (slices along x)" };
const SHORT = { z: "xy", y: "xz", x: "yz" };

export class Volume {
  constructor(session, viewer, layers) {
    Object.assign(this, { session, viewer, layers, isVolume: false, indices: { z: 0, y: 0, x: 0 } });
    byId("plane").append(...Object.entries(NAMES).map(([plane, name]) => new Option(name, plane)));
    byId("plane").addEventListener("change", ({ target }) => this.setPlane(target.value));
    byId("slice").addEventListener("input", ({ target }) => this.setIndex(target.valueAsNumber));
    this.small = Object.keys(NAMES).map((plane) => this.makeSmall(plane));
    byId("planes").append(...this.small.map(({ figure }) => figure));
    session.on("select", () => this.open());
    session.on("info", () => this.show());
  }

  /** Makes a small view of a plane; a click moves the slices of the other planes to its place. */
  makeSmall(plane) {
    const frame = make("div", { class: "frame small" });
    const button = make("button", { type: "button", class: "small", "aria-label": `Draw in the plane ${SHORT[plane]}` }, "Draw here");
    button.addEventListener("click", () => this.setPlane(plane));
    const figure = make("figure", {}, frame, make("figcaption", {}, SHORT[plane], button));
    const viewer = new Viewer(frame, this.viewer.tiles, this.layers);
    viewer.drawMarks = (context) => this.drawLines(context, viewer, plane);
    frame.addEventListener("pointerdown", (event) => {
      const box = frame.getBoundingClientRect();
      this.moveTo(positionOf(viewer.toImage([event.clientX - box.left, event.clientY - box.top]), plane, this.indices[plane]));
    });
    return { plane, figure, viewer };
  }

  open() {
    const { info } = this.session;
    this.isVolume = info.shape.length === 3;
    byId("volume").hidden = !this.isVolume;
    byId("stage").dataset.volume = this.isVolume;
    const [z, y, x] = depthShape(info.shape).map((length) => Math.floor(length / 2));
    this.indices = { z, y, x };
    if (this.isVolume) this.session.index = this.indices[this.session.plane];
  }

  get slices() {
    return planeSize(this.session.info, this.session.plane).slices;
  }

  setPlane(plane) {
    if (!this.isVolume) return;
    this.session.plane = plane;
    this.session.index = this.indices[plane];
    this.session.emit("info");
  }

  setIndex(index) {
    if (!this.isVolume) return;
    this.session.index = clamp(index, 0, this.slices - 1);
    this.indices[this.session.plane] = this.session.index;
    this.session.emit("info");
  }

  moveTo(position) {
    const shape = depthShape(this.session.info.shape);
    ["z", "y", "x"].forEach((axis, place) => (this.indices[axis] = clamp(Math.floor(position[axis]), 0, shape[place] - 1)));
    this.setIndex(this.indices[this.session.plane]);
  }

  show() {
    const { info, plane, index } = this.session;
    if (!this.isVolume) return;
    byId("plane").value = plane;
    const slice = byId("slice");
    slice.max = this.slices - 1;
    slice.value = index;
    slice.setAttribute("aria-valuetext", `slice ${index + 1} of ${this.slices}`);
    byId("slice-value").value = `${index + 1} of ${this.slices}`;
    for (const one of this.small) {
      one.figure.hidden = one.plane === plane;
      if (one.plane !== plane) one.viewer.show(info, one.plane, this.indices[one.plane]);
    }
  }

  /** Draws the positions of the slices that the other views show. */
  drawLines(context, viewer, plane) {
    const [x, y] = viewer.toScreen(pixelOf({ ...this.indices }, plane).map((value) => value + 0.5));
    context.strokeStyle = "#5cb8f0";
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, viewer.height);
    context.moveTo(0, y);
    context.lineTo(viewer.width, y);
    context.stroke();
  }
}
