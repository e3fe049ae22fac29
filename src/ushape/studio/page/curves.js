// Curves of a training run, as SVG with the colors of the page.

import { makeSvg } from "./dom.js";

const WIDTH = 300, HEIGHT = 110, LEFT = 34, BOTTOM = 18, TOP = 8;

/** Returns a plot of [[step, value], ...]; its label describes what it shows. */
export function curvePlot(name, points, range) {
  const steps = points.map(([step]) => step), values = points.map(([, value]) => value).filter(Number.isFinite);
  const [low, high] = range ?? spread(Math.min(...values), Math.max(...values));
  const [first, last] = [Math.min(...steps), Math.max(...steps, Math.min(...steps) + 1)];
  const across = (step) => LEFT + ((step - first) / (last - first)) * (WIDTH - LEFT - 6);
  const down = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const path = points.filter(([, value]) => Number.isFinite(value))
    .map(([step, value], place) => `${place ? "L" : "M"}${across(step).toFixed(1)} ${down(value).toFixed(1)}`).join("");
  const [end] = points.slice(-1);
  const ticks = [low, (low + high) / 2, high].flatMap((value) => [
    makeSvg("line", { class: "grid", x1: LEFT, x2: WIDTH - 6, y1: down(value), y2: down(value) }),
    makeSvg("text", { x: LEFT - 5, y: down(value) + 4, "text-anchor": "end" }, shortNumber(value)),
  ]);
  const stepTexts = [[first, "start"], [last, "end"]].map(([step, anchor]) =>
    makeSvg("text", { x: across(step), y: HEIGHT - 3, "text-anchor": anchor }, anchor === "end" ? `step ${step}` : String(step)));
  return makeSvg("svg", {
    class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": `${name}: ${shortNumber(points[0][1])} at step ${points[0][0]}, now ${shortNumber(end[1])} at step ${end[0]}`,
  }, ...ticks, ...stepTexts, makeSvg("path", { class: "line", d: path }),
  makeSvg("circle", { class: "end", cx: across(end[0]), cy: down(end[1]), r: 3 }));
}

function spread(low, high) {
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

function shortNumber(value) {
  if (!Number.isFinite(value)) return "–";
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2);
}
