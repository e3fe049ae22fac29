// The parts of Observable Plot and D3 that our pages draw with.
export { axisX, axisY, dot, gridX, gridY, line, lineY, link, plot, ruleY, text } from "@observablehq/plot";
export { contours } from "d3-contour";
