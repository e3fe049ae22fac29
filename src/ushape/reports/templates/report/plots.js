// Plots. They use the CSS variables of the page as colors, and so adapt to light, dark and print.

const KIND_MARKS = {
  missed: { symbol: "triangle", className: "missed", r: 5 },
  "false positive": { symbol: "times", className: "false-positive", r: 4 },
  "both present": { symbol: "circle", className: "present", r: 5 },
};
const DICE_AXIS = { domain: [0, 1], label: "Dice", ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] };
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
  fill(document.getElementById("validation"), (width) => drawCurve(page, width, "dice", Math.max));
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
    ariaLabel: `${name} over ${rows.length} epochs; best value ${value.toFixed(3)} in epoch ${top.epoch}`,
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
