// Pointers and wheel: one finger or the left button draws, everything else moves the image.

import { simplify } from "./geometry.js";

const WHEEL_SPEED = 0.0015, PINCH_SPEED = 0.01;

/** Connects the pointers on the frame of a viewer with a tool: start, move, end, cancel, hover. */
export class Gestures {
  constructor(viewer, tools) {
    Object.assign(this, { viewer, tools, pointers: new Map(), mode: null, hasSpace: false });
    const frame = viewer.frame;
    frame.addEventListener("pointerdown", (event) => this.down(event));
    frame.addEventListener("pointermove", (event) => this.move(event));
    frame.addEventListener("pointerup", (event) => this.up(event));
    frame.addEventListener("pointercancel", (event) => this.up(event, true));
    frame.addEventListener("pointerleave", () => tools.hover(null));
    frame.addEventListener("dblclick", () => tools.finish());
    frame.addEventListener("contextmenu", (event) => event.preventDefault());
    frame.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  placeOf(event) {
    const box = this.viewer.frame.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (!this.viewer.info) return;
    this.viewer.frame.focus({ preventScroll: true });
    event.preventDefault();
    this.viewer.frame.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.placeOf(event));
    if (this.pointers.size > 1) {
      if (this.mode === "draw") this.tools.cancel();
      this.mode = "pinch";
    } else if (event.button === 0 && !this.hasSpace && this.tools.draws) {
      this.mode = "draw";
      this.tools.start(this.viewer.toImage(this.placeOf(event)));
    } else {
      this.mode = "pan";
    }
  }

  move(event) {
    if (!this.viewer.info) return;
    const place = this.placeOf(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return void this.tools.hover(this.viewer.toImage(place));
    if (this.mode === "draw") {
      const events = event.getCoalescedEvents?.() ?? [];
      const points = (events.length ? events : [event]).map((one) => this.viewer.toImage(this.placeOf(one)));
      this.tools.move(points);
    } else if (this.mode === "pinch" && this.pointers.size > 1) {
      this.pinch(event.pointerId, place);
    } else if (this.mode === "pan") {
      this.viewer.pan(place[0] - before[0], place[1] - before[1]);
    }
    this.pointers.set(event.pointerId, place);
  }

  /** Moves and zooms with two fingers. */
  pinch(id, place) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, value]) => value);
    const before = this.pointers.get(id);
    const [long, short] = [place, before].map((one) => Math.hypot(one[0] - other[0], one[1] - other[1]));
    const middle = [(place[0] + other[0]) / 2, (place[1] + other[1]) / 2];
    this.viewer.pan((place[0] - before[0]) / 2, (place[1] - before[1]) / 2);
    if (short > 1) this.viewer.zoom(long / short, middle);
  }

  up(event, isCanceled = false) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.mode === "draw") isCanceled ? this.tools.cancel() : this.tools.end();
    if (!this.pointers.size) this.mode = null;
  }

  wheel(event) {
    event.preventDefault();
    if (event.shiftKey) return void this.viewer.pan(-event.deltaY - event.deltaX, 0);
    const lines = event.deltaMode === 1 ? 16 : 1;
    const speed = event.ctrlKey ? PINCH_SPEED : WHEEL_SPEED;
    this.viewer.zoom(Math.exp(-event.deltaY * lines * speed), this.placeOf(event));
  }
}

/** Drops points of a stroke that cannot be told apart at the zoom at which it was drawn. */
export function thin(points, viewer) {
  return simplify(points, 1 / Math.max(viewer.scale, 0.01)).map((point) => point.map((value) => Math.round(100 * value) / 100));
}
