// Plots. They use the CSS variables of the page as colors, and so adapt to light, dark and print.

const KIND_MARKS = {
  missed: { symbol: "triangle", className: "missed", r: 5 },
  "false positive": { symbol: "times", className: "false-positive", r: 4 },
  "both present": { symbol: "circle", className: "present", r: 5 },
};
const DICE_AXIS = { domain: [0, 1], label: "Dice", ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] };
const CURVE_NAMES = { loss: "Training loss", validationLoss: "Validation loss", dice: "Validation Dice" };
const GOLDEN = 0.618034; // Its multiples modulo 1 are evenly and reproducibly spread.

/** Draws all plots, and redraws them when the width of the page changes. */
function startPlots(page) {
  let width = 0;
  new ResizeObserver(() => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    drawPlots(page);
  }).observe(document.body);
}

function drawPlots(page) {
  fill(document.getElementById("dots"), (width) => drawDots(page, width));
  fill(document.getElementById("by-size"), (width) => drawSizes(page, width));
  fill(document.getElementById("loss"), (width) => drawCurve(page, width, "loss", Math.min));
  fill(document.getElementById("validation-loss"), (width) => drawCurve(page, width, "validationLoss", Math.min));
  fill(document.getElementById("validation"), (width) => drawCurve(page, width, "dice", Math.max));
  fill(document.getElementById("object-precision"), (width) => drawObjectPrecision(page, width));
  fill(document.getElementById("object-counts"), (width) => drawObjectCounts(page, width));
  drawThresholds(page);
  const measured = page.classes.filter((own) => own.reliability.length);
  document.querySelectorAll(".reliability").forEach((place, index) => {
    fill(place, (width) => drawReliability(measured[index], width));
  });
}

/** Inserts a plot of the available width into an element, if both exist. */
function fill(place, draw) {
  const plot = place && draw(place.clientWidth);
  if (plot) place.replaceChildren(plot);
}

function plotOf(width, options) {
  return Plot.plot({ width, style: { fontSize: "13px", background: "none" }, ...options });
}

/** Strip plot of the Dice of all cases, one row for each class. */
function drawDots(page, width) {
  const dots = page.scores.filter((score) => score.dice !== null);
  if (!dots.length) return null;
  const nameOf = ({ class: own }) => page.classes[own].name;
  const means = page.classes.filter((own) => own.mean !== null);
  const hasInterval = means.filter((own) => own.interval);
  const named = page.classes.length > 1 ? page.classes : [];
  return walkable(plotOf(width, {
    height: 52 + (named.length ? 136 : 120) * page.classes.length,
    marginLeft: 12,
    marginRight: 14,
    marginBottom: 38,
    ariaLabel: "Dice of each image; each mark is a link to its pictures",
    x: DICE_AXIS,
    y: { axis: null, domain: [-1.2, named.length ? 2.1 : 1.6] },
    fy: { axis: null, domain: page.classes.map((own) => own.name) },
    marks: [
      Plot.gridX({ ticks: DICE_AXIS.ticks }),
      Plot.text(named, { x: 0, y: 1.9, fy: "name", text: "name", textAnchor: "start", dx: 4, fill: "var(--ink)" }),
      Plot.link(hasInterval, {
        x1: (own) => own.interval[0], x2: (own) => own.interval[1], y: 1.3, fy: "name", className: "interval",
      }),
      Plot.dot(means, { x: "mean", y: 1.3, fy: "name", symbol: "diamond", r: 6, className: "mean" }),
      ...caseDots(page, dots, { x: "dice", y: (_, place) => 1.9 * ((place * GOLDEN) % 1) - 1, fy: nameOf }),
    ],
  }));
}

/** Scatter plot of Dice against annotated size. */
function drawSizes(page, width) {
  const dots = page.scores.filter((score) => score.truth > 0);
  if (!dots.length) return null;
  const ticks = roundNumbers(dots.map((score) => score.truth));
  return walkable(plotOf(width, {
    height: 300,
    marginRight: 28,
    marginBottom: 42,
    ariaLabel: "Dice of each image against its number of annotated pixels",
    x: {
      type: "log", domain: [ticks[0], ticks.at(-1)], ticks: thinOut(ticks, width / 70), label: "annotated pixels",
      tickFormat: (value) => value.toLocaleString("en").replaceAll(",", "\u202f"),
    },
    y: DICE_AXIS,
    marks: [Plot.gridY({ ticks: DICE_AXIS.ticks }), ...caseDots(page, dots, { x: "truth", y: "dice" })],
  }));
}

/** Returns 1, 2, 5, 10, ... from below the smallest to above the largest value. */
function roundNumbers(values) {
  const least = values.reduce((a, b) => Math.min(a, b));
  const largest = values.reduce((a, b) => Math.max(a, b));
  const series = Array.from({ length: 45 }, (_, place) => [1, 2, 5][place % 3] * 10 ** Math.floor(place / 3));
  const first = series.findLastIndex((value) => value <= least);
  const last = series.findIndex((value) => value > largest);
  return series.slice(first, last + 1);
}

/** Returns at most `most` of the values, evenly spaced. */
function thinOut(values, most) {
  const step = Math.ceil(values.length / Math.max(1, most));
  return values.filter((_, place) => place % step === 0);
}

/** Returns the marks of each kind of case; each mark is a link that shows the case. */
function caseDots(page, dots, channels) {
  return Object.entries(KIND_MARKS).map(([kind, { className, ...mark }]) =>
    Plot.dot(dots, {
      ...channels,
      ...mark,
      filter: (score) => score.kind === kind,
      className,
      href: (score) => caseHash(score.case),
      ariaLabel: (score) => `${page.cases[score.case].id}: ${scoreText(page, score)}`,
    }));
}

/** Line plot of a value over the epochs with the best value marked. */
function drawCurve(page, width, name, best) {
  const rows = page.epochs.filter((row) => row[name] !== null && row.epoch !== null);
  if (!rows.length) return null;
  const value = rows.map((row) => row[name]).reduce((a, b) => best(a, b));
  const top = rows.find((row) => row[name] === value);
  return plotOf(width, {
    height: 220,
    marginLeft: 48,
    marginRight: 20,
    marginBottom: 38,
    ariaLabel: `${CURVE_NAMES[name]} over ${rows.length} epochs; best value ${value.toFixed(3)} in epoch ${top.epoch}`,
    x: { label: "epoch", ticks: Math.min(rows.length, 8), tickFormat: "d" },
    y: { label: null, nice: true, grid: true, inset: 14 },
    marks: [
      Plot.lineY(rows, { x: "epoch", y: name, stroke: "var(--blue)", strokeWidth: 2 }),
      Plot.dot([top], { x: "epoch", y: name, fill: "var(--blue)", r: 4 }),
      Plot.text([top], {
        x: "epoch", y: name, text: () => value.toFixed(3), dy: best === Math.max ? -12 : 14,
        fill: "var(--ink)", fontWeight: 600,
      }),
    ],
  });
}

const SCORE_STYLES = {
  Dice: { stroke: "var(--blue)", strokeWidth: 2.5 },
  precision: { stroke: "var(--orange)", strokeDasharray: "6 3" },
  recall: { stroke: "var(--soft)", strokeDasharray: "2 3" },
};

/** Draws a plot of Dice, precision and recall against the threshold for each class. */
function drawThresholds(page) {
  const place = document.getElementById("threshold-curves");
  if (!place) return;
  const measured = page.classes.filter((own) => own.curve.length);
  while (place.children.length < measured.length) {
    const figure = document.createElement("figure");
    figure.append(document.createElement("figcaption"), document.createElement("div"));
    figure.lastChild.className = "plot";
    place.append(figure);
  }
  measured.forEach((own, index) => {
    place.children[index].firstChild.textContent = own.name;
    fill(place.children[index].lastChild, (width) => drawThreshold(own, width));
  });
}

function drawThreshold({ name, curve, thresholds }, width) {
  const last = curve.at(-1);
  return plotOf(width, {
    height: 260,
    marginLeft: 40,
    marginRight: 66,
    marginBottom: 40,
    ariaLabel: `Scores of ${name} against the probability threshold, used: ${thresholds.join(", ")}; values in the table`,
    x: { domain: [0, 1], label: "probability threshold", ticks: 5 },
    y: { domain: [0, 1], label: null, grid: true, ticks: 5 },
    marks: [
      Plot.link(thresholds, { x1: (value) => value, y1: 0, x2: (value) => value, y2: 1, stroke: "var(--ink)" }),
      Plot.text(thresholds.slice(0, 1), { x: (value) => value, y: 1, dy: -8, text: (value) => value.toFixed(2), fill: "var(--ink)" }),
      ...Object.entries(SCORE_STYLES).map(([key, style]) => Plot.line(curve, { x: "threshold", y: key, ...style })),
      Plot.text(spread(Object.keys(SCORE_STYLES).map((key) => ({ key, value: last[key] })), 0.07), {
        x: last.threshold, y: "value", text: "key", dx: 6, textAnchor: "start", fill: "var(--ink)",
      }),
    ],
  });
}

/** Returns labels, the values of which are moved apart to a minimum distance. */
function spread(labels, distance) {
  const sorted = [...labels].sort((a, b) => a.value - b.value);
  sorted.forEach((label, place) => {
    if (place) label.value = Math.max(label.value, sorted[place - 1].value + distance);
  });
  const excess = Math.max(0, sorted.at(-1).value - 1);
  sorted.forEach((label) => { label.value -= excess; });
  return sorted;
}

/** Average precision of objects against the IoU threshold, a line for each class. */
function drawObjectPrecision(page, width) {
  const measured = page.classes.filter((own) => own.objectPrecision.length);
  if (!measured.length) return null;
  const points = measured.flatMap((own) => own.objectPrecision.map((point) => ({ ...point, name: own.name })));
  const named = measured.length > 1 ? measured.map((own) => ({ key: own.name, value: own.objectPrecision[0].precision })) : [];
  return plotOf(width, {
    height: 260,
    marginLeft: 40,
    marginRight: 20,
    marginBottom: 40,
    ariaLabel: "Average precision of objects against the IoU threshold; values in the table",
    x: { domain: [0.5, 0.95], label: "IoU threshold", tickFormat: (value) => value.toFixed(2) },
    y: { domain: [0, 1], label: null, grid: true, ticks: 5 },
    marks: [
      Plot.line(points, { x: "iou", y: "precision", z: "name", stroke: "var(--blue)", strokeWidth: 2 }),
      Plot.dot(points, { x: "iou", y: "precision", fill: "var(--blue)", r: 3 }),
      Plot.text(named.length ? spread(named, 0.07) : [], {
        x: 0.51, y: "value", text: "key", dy: -8, textAnchor: "start", fill: "var(--ink)",
      }),
    ],
  });
}

/** Scatter plot of the numbers of predicted and annotated objects; each mark is a link to its case. */
function drawObjectCounts(page, width) {
  const dots = page.scores.filter((score) => score.objects);
  if (!dots.length) return null;
  const most = Math.max(1, ...dots.flatMap((score) => score.objects));
  const label = (score) => {
    const name = page.classes.length > 1 ? `${page.classes[score.class].name} ` : "";
    return `${page.cases[score.case].id}: ${name}${score.objects[0]} annotated, ${score.objects[1]} predicted`;
  };
  return walkable(plotOf(width, {
    height: 260,
    marginLeft: 44,
    marginRight: 20,
    marginBottom: 40,
    ariaLabel: "Number of predicted objects against that of annotated objects in each image",
    x: { domain: [0, most], nice: true, label: "annotated objects", ticks: 5, tickFormat: "~s" },
    y: { domain: [0, most], nice: true, label: "predicted objects", grid: true, ticks: 5, tickFormat: "~s" },
    marks: [
      Plot.link([0], { x1: 0, y1: 0, x2: most, y2: most, stroke: "var(--soft)", strokeDasharray: "4 4" }),
      Plot.dot(dots, {
        x: (score) => score.objects[0], y: (score) => score.objects[1], r: 4.5, className: "present",
        href: (score) => caseHash(score.case), ariaLabel: label,
      }),
    ],
  }));
}

/** Reliability diagram: observed frequency of the class by predicted probability. */
function drawReliability({ name, reliability }, width) {
  const side = Math.min(width, 380);
  return plotOf(side, {
    height: side,
    marginLeft: 48,
    marginBottom: 42,
    ariaLabel: `Reliability diagram of ${name}; its values are in the table`,
    x: { domain: [0, 1], label: "mean probability", grid: true, ticks: 5 },
    y: { domain: [0, 1], label: "observed frequency", grid: true, ticks: 5 },
    r: { range: [0, 9] },
    marks: [
      Plot.link([0], { x1: 0, y1: 0, x2: 1, y2: 1, stroke: "var(--soft)", strokeDasharray: "4 4" }),
      Plot.line(reliability, { x: "probability", y: "fraction", stroke: "var(--blue)", strokeWidth: 2 }),
      Plot.dot(reliability, { x: "probability", y: "fraction", r: "pixels", fill: "var(--blue)", fillOpacity: 0.6 }),
    ],
  });
}

/** Makes all marks one tab stop; the arrow keys move between them by increasing Dice. */
function walkable(svg) {
  const links = [...svg.querySelectorAll("a")];
  links.forEach((link, place) => {
    const shape = link.firstElementChild;
    link.setAttribute("aria-label", shape.getAttribute("aria-label"));
    shape.removeAttribute("aria-label");
    link.setAttribute("tabindex", place ? -1 : 0);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const next = links[links.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    event.target.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });
  return svg;
}

/** Shows the name of the mark under the pointer or with the focus. */
function startTooltip() {
  const tooltip = document.getElementById("tooltip");
  const show = ({ target }) => {
    const link = target.closest(".plot a");
    tooltip.hidden = !link;
    if (link) placeTooltip(tooltip, link);
  };
  for (const name of ["pointerover", "focusin"]) document.addEventListener(name, show);
  document.addEventListener("focusout", () => { tooltip.hidden = true; });
}

function placeTooltip(tooltip, link) {
  tooltip.textContent = link.getAttribute("aria-label");
  const dot = link.getBoundingClientRect();
  const left = dot.left + dot.width / 2 - tooltip.offsetWidth / 2;
  const most = document.documentElement.clientWidth - tooltip.offsetWidth - 4;
  tooltip.style.left = `${scrollX + Math.max(4, Math.min(left, most))}px`;
  tooltip.style.top = `${scrollY + dot.top - tooltip.offsetHeight - 6}px`;
}
