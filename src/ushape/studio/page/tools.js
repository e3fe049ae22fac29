// Tools: what a stroke, a line, a polygon or a click on the image does.

import { byId, make, makeSvg, say } from "./dom.js";
import { clamp } from "./geometry.js";
import { thin } from "./gestures.js";

const LASSO_PX = 4; // Distance on the screen between the corners of a polygon that is drawn freely.
const LASSO_POINTS = 6; // A drag with at least so many corners closes the polygon at its end.

/** `draws`: what the pointer draws; `icon`: an SVG path in a square of 24 units. */
export const TOOLS = [
  { name: "brush", label: "Brush", key: "b", draws: "stroke", icon: "M20 4 10 14M8 14c-3 0-2 5-5 5 2 2 8 2 8-2a3 3 0 0 0-3-3Z" },
  { name: "eraser", label: "Eraser (background)", short: "Eraser", key: "e", draws: "stroke", icon: "m9 19-5-5 9-9 6 6-8 8H6M9 9l6 6M12 19h8" },
  { name: "polygon", label: "Polygon", key: "p", draws: "polygon", icon: "M12 4 4 10l3 9h10l3-9Z" },
  { name: "fill", label: "Fill", key: "f", draws: "point", icon: "m5 12 7-7 7 7-7 7ZM5 12h14M20 16c1 2 1 4 0 4s-1-2 0-4" },
  { name: "split", label: "Split along a line", short: "Split", key: "s", draws: "line", icon: "M10 5a7 7 0 0 0 0 14M14 5a7 7 0 0 1 0 14M12 3v18" },
  { name: "merge", label: "Merge along a stroke", short: "Merge", key: "m", draws: "line", icon: "M9 6a6 6 0 1 0 0 12c2 0 2-2 3-2s1 2 3 2a6 6 0 1 0 0-12c-2 0-2 2-3 2s-1-2-3-2Z" },
  { name: "delete", label: "Delete object", short: "Delete", key: "d", draws: "point", icon: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 10v7M14 10v7" },
  { name: "accept_object", label: "Accept predicted object", short: "Accept", key: "a", draws: "point", icon: "m4 13 5 5L20 6" },
  { name: "unmark", label: "Mark as not annotated", short: "Unmark", key: "u", draws: "stroke", icon: "M5 5h14v14H5ZM5 12 12 5M5 19 19 5M12 19l7-7" },
  { name: "pan", label: "Move the image", short: "Move", key: "h", draws: null, icon: "M12 3v18M3 12h18M9 6l3-3 3 3M9 18l3 3 3-3M6 9l-3 3 3 3M18 9l3 3-3 3" },
];
const STEPS_BACK = [
  { name: "undo", label: "Undo", key: "z", icon: "M8 5 4 9l4 4M4 9h10a5 5 0 0 1 0 10H9" },
  { name: "redo", label: "Redo", key: "y", icon: "m16 5 4 4-4 4M20 9H10a5 5 0 0 0 0 10h5" },
];

/** The chosen tool, class and size, and the drawing that is not finished. Event "change". */
export class Tools extends EventTarget {
  constructor(session, edits, viewer) {
    super();
    Object.assign(this, { session, edits, viewer, name: "brush", classIndex: 1, radius: 8, points: [], cross: null, pointer: null });
    viewer.drawMarks = (context) => this.drawMarks(context);
    this.buildToolbar();
    session.on("state", () => this.buildClasses());
    session.on("info", () => {
      this.followSlice();
      this.refresh();
    });
    session.on("select", () => this.cancel());
    byId("size").addEventListener("input", ({ target }) => this.setRadius(target.valueAsNumber));
  }

  get tool() {
    return TOOLS.find(({ name }) => name === this.name);
  }

  get draws() {
    return this.tool.draws;
  }

  get classes() {
    const classes = this.session.state?.project.classes ?? [];
    const hasBackground = classes.some(({ index }) => index === 0);
    return hasBackground ? classes : [{ index: 0, name: "background", color: null }, ...classes];
  }

  buildToolbar() {
    this.buttons = [...TOOLS, ...STEPS_BACK].map(({ name, label, short, key, icon }) => {
      const picture = makeSvg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, makeSvg("path", { d: icon }));
      const button = make("button", {
        type: "button", title: `${label} (${key.toUpperCase()})`, "data-tool": name, "aria-label": label, "aria-keyshortcuts": key,
      }, picture, make("span", { "aria-hidden": "true" }, short ?? label));
      const isTool = TOOLS.some((tool) => tool.name === name);
      button.addEventListener("click", () => (isTool ? this.choose(name) : this.step(name)));
      return button;
    });
    byId("toolbar").replaceChildren(...this.buttons);
    this.refresh();
  }

  buildClasses() {
    const text = JSON.stringify(this.classes);
    if (text === this.classText) return;
    this.classText = text;
    if (!this.classes.some(({ index }) => index === this.classIndex)) this.classIndex = this.classes.at(-1).index;
    const choices = this.classes.map(({ index, name, color }) => {
      const swatch = make("span", { class: "swatch" });
      if (color && index) swatch.style.background = color;
      const input = make("input", { type: "radio", name: "class", value: index, checked: index === this.classIndex });
      if (index < 10) input.setAttribute("aria-keyshortcuts", index);
      input.addEventListener("change", () => this.setClass(index));
      return make("label", { class: "class" }, input, swatch, make("span", {}, name));
    });
    byId("classes").replaceChildren(...choices);
  }

  refresh() {
    const { info } = this.session;
    const isLocked = !info || Boolean(info.locked);
    for (const button of this.buttons) {
      const { tool } = button.dataset;
      if (tool === "undo" || tool === "redo") {
        button.disabled = isLocked || !(tool === "undo" ? info.can_undo : info.can_redo);
      } else {
        button.setAttribute("aria-pressed", tool === this.name);
        button.disabled = isLocked && tool !== "pan";
      }
    }
    byId("size-label").classList.toggle("off", this.draws !== "stroke");
    for (const id of ["classes", "edit-classes"]) {
      byId(id).classList.toggle("off", !["brush", "polygon", "fill"].includes(this.name));
    }
    this.viewer.frame.dataset.draws = this.draws ?? "nothing";
    this.viewer.update();
  }

  /** Removes an unfinished drawing when another slice is shown, and the cross in another plane. */
  followSlice() {
    const { plane, index } = this.session;
    if (plane !== this.plane) this.cross = null;
    const isMoved = plane !== this.plane || index !== this.index;
    Object.assign(this, { plane, index });
    if (!isMoved || !this.points.length) return;
    this.cancel();
    say("The unfinished drawing was removed because another slice is shown.");
  }

  choose(name) {
    this.cancel();
    this.name = name;
    this.refresh();
    this.dispatchEvent(new Event("change"));
  }

  setClass(index) {
    const chosen = this.classes.find((one) => one.index === index);
    if (!chosen) return;
    this.classIndex = index;
    for (const input of byId("classes").querySelectorAll("input")) input.checked = Number(input.value) === index;
    if (!["brush", "polygon", "fill"].includes(this.name)) this.choose("brush");
    this.viewer.update();
  }

  setRadius(radius) {
    this.radius = clamp(Math.round(radius), 1, 100);
    byId("size").value = this.radius;
    byId("size-value").value = this.radius;
    this.viewer.updateMarks();
  }

  /** Undoes or redoes an edit. */
  step(name) {
    const { info } = this.session;
    if (this.points.length) return this.cancel();
    if (info && !info.locked) this.edits.add(info.id, name);
  }

  hover(point) {
    this.pointer = point;
    this.viewer.updateMarks();
  }

  start(point) {
    if (this.isLocked()) return;
    this.isDown = true;
    this.cross = null;
    this.lassoFrom = this.points.length;
    if (this.draws !== "polygon") this.points = [];
    this.points.push(point);
    this.viewer.updateMarks();
  }

  isLocked() {
    const { info } = this.session;
    if (info?.locked) say(info.locked, "error");
    return !info || Boolean(info.locked);
  }

  move(points) {
    this.pointer = points.at(-1);
    if (this.isDown) {
      if (this.draws === "stroke" || this.draws === "line") this.points.push(...points);
      if (this.draws === "point") this.points = [points.at(-1)];
      if (this.draws === "polygon") this.lasso(points);
    }
    this.viewer.updateMarks();
  }

  lasso(points) {
    const distance = LASSO_PX / this.viewer.scale;
    for (const point of points) {
      const last = this.points.at(-1);
      if (Math.hypot(point[0] - last[0], point[1] - last[1]) >= distance) this.points.push(point);
    }
  }

  end() {
    if (!this.isDown) return;
    this.isDown = false;
    if (this.draws !== "polygon") return void this.commit();
    if (this.points.length - this.lassoFrom >= LASSO_POINTS) return void this.commit();
    const [first, last] = [this.points[0], this.points.at(-1)].map((point) => this.viewer.toScreen(point));
    const isClosed = this.points.length > 3 && Math.hypot(first[0] - last[0], first[1] - last[1]) < 10;
    if (isClosed) this.commit();
  }

  /** Closes the polygon. */
  finish() {
    if (this.draws === "polygon" && this.points.length > 2) this.commit();
  }

  cancel() {
    this.points = [];
    this.isDown = false;
    this.viewer.updateMarks();
  }

  /** Sends the drawing as an edit, and shows it until the server has applied it. */
  commit() {
    const points = thin(this.points, this.viewer);
    this.cancel();
    if (!points.length || (this.draws === "polygon" && points.length < 3)) return;
    this.edit(this.name, { points, radius: this.radius });
  }

  /** Sends an edit with a tool, which may be one without points, such as "accept". */
  edit(tool, values = {}) {
    if (this.isLocked()) return null;
    const { session: { info, plane, index }, viewer } = this;
    const edit = this.edits.add(info.id, "edit", { tool, class: this.classIndex, plane, index, points: [], radius: this.radius, ...values });
    const shape = TOOLS.find(({ name }) => name === tool)?.draws;
    if (shape === "stroke" || shape === "polygon") {
      const color = tool === "brush" || tool === "polygon" ? this.classColor() : null;
      viewer.strokes.push({ edit, id: info.id, plane, index, points: values.points, radius: this.radius, color, shape });
      viewer.update();
    }
    return edit;
  }

  classColor() {
    return this.classIndex ? this.classes.find(({ index }) => index === this.classIndex)?.color : null;
  }

  /** Moves the cross of the keyboard by a distance on the screen. */
  moveCross(right, down) {
    const { viewer } = this;
    if (!viewer.info) return;
    const from = viewer.toScreen(this.cross ?? viewer.toImage([viewer.width / 2, viewer.height / 2]));
    const [x, y] = viewer.toImage([from[0] + right, from[1] + down]);
    this.cross = [clamp(x, 0, viewer.size.width - 0.01), clamp(y, 0, viewer.size.height - 0.01)];
    const [sx, sy] = viewer.toScreen(this.cross);
    if (sx < 0 || sy < 0 || sx > viewer.width || sy > viewer.height) viewer.moveTo(this.cross);
    if (this.isDown && this.draws !== "polygon") this.move([this.cross]);
    this.pointer = this.cross;
    viewer.updateMarks();
  }

  /** Uses the tool at the cross of the keyboard; strokes and lines start and end there. */
  useAtCross() {
    if (!this.draws || !this.viewer.info) return;
    const point = this.cross ?? this.viewer.toImage([this.viewer.width / 2, this.viewer.height / 2]);
    if (this.isDown) {
      this.end();
      return void say("Stroke ended.");
    }
    this.start(point);
    this.cross = point;
    if (!this.isDown) return;
    if (this.draws === "point") {
      this.end();
    } else if (this.draws === "polygon") {
      this.isDown = false;
      say(`Corner ${this.points.length}. Press C to close the polygon.`);
    } else {
      say("Stroke started: move with the arrow keys, and press Enter to end it.");
    }
  }

  drawMarks(context) {
    const { viewer } = this;
    const onScreen = this.points.map((point) => viewer.toScreen(point));
    if (onScreen.length) this.drawUnfinished(context, onScreen);
    const center = this.pointer && viewer.toScreen(this.pointer);
    if (center && this.draws === "stroke") ring(context, center, Math.max(1, this.radius * viewer.scale));
    if (this.cross) crossAt(context, viewer.toScreen(this.cross));
  }

  drawUnfinished(context, onScreen) {
    const color = (this.name === "brush" || this.name === "polygon") && this.classColor();
    context.globalAlpha = 0.6;
    context.strokeStyle = context.fillStyle = color || "#888";
    context.lineJoin = context.lineCap = "round";
    context.lineWidth = this.draws === "stroke" ? 2 * this.radius * this.viewer.scale : 2;
    context.beginPath();
    context.moveTo(...onScreen[0]);
    for (const point of onScreen) context.lineTo(...point);
    if (onScreen.length === 1) context.lineTo(onScreen[0][0] + 0.01, onScreen[0][1]);
    if (this.draws === "polygon" && this.pointer) context.lineTo(...this.viewer.toScreen(this.pointer));
    if (this.draws === "polygon") context.fill();
    context.globalAlpha = 1;
    if (this.draws === "stroke") context.globalAlpha = 0.6;
    else context.strokeStyle = "#fff";
    context.stroke();
    if (this.draws === "polygon") for (const point of onScreen) ring(context, point, 3);
  }
}

function ring(context, [x, y], radius) {
  for (const [color, width] of [["#000a", 3], ["#fff", 1.2]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

function crossAt(context, [x, y]) {
  for (const [color, width] of [["#000a", 4], ["#fff", 1.5]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(x - 14, y);
    context.lineTo(x + 14, y);
    context.moveTo(x, y - 14);
    context.lineTo(x, y + 14);
    context.stroke();
  }
}
