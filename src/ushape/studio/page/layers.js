// Layers over the image: which are shown, how opaque, filled or as outlines, and the threshold.

import { byId, make } from "./dom.js";
import { outlineStyle } from "./paint.js";
import { request } from "./state.js";

const DELAY_MS = 120;
const LAYERS = [
  { name: "mask", label: "Annotation", key: "1", hasStyle: true, isShown: true, style: "fill", opacity: 50 },
  { name: "prediction", label: "Prediction", key: "2", hasStyle: true, isShown: true, style: "outline", opacity: 100 },
  { name: "probability", label: "Probability", key: "3", isShown: false, opacity: 60 },
  { name: "uncertainty", label: "Uncertainty", key: "4", isShown: false, opacity: 70 },
  { name: "error", label: "Differences", key: "5", isShown: false, opacity: 70 },
];

/** Event "change": another picture must be drawn. */
export class Layers extends EventTarget {
  constructor(session) {
    super();
    this.session = session;
    this.shownThreshold = null;
    this.image = { isShown: true, brightness: 100, contrast: 100 };
    for (const layer of LAYERS) this[layer.name] = { ...layer };
    byId("layer-list").append(this.imageRow(), ...LAYERS.map((layer) => this.layerRow(layer)));
    session.on("info state", () => this.refresh());
    if (matchMedia("(max-width: 60rem)").matches) byId("layer-details").open = false;
  }

  /** Probability from which pixels are foreground; null: as the validation chose. */
  get threshold() {
    return this.session.state?.threshold ?? null;
  }

  isVisible(name, info) {
    if (!this[name].isShown) return false;
    return name === "mask" || (Boolean(info.has_prediction) && !info.locked);
  }

  /** Returns what the tiles of a layer depend on, in addition to the place. */
  options(name, info, zoom) {
    const style = outlineStyle(this[name].style, zoom);
    if (name === "mask") return { style: info.annotated > 0 ? `${style}-hatched` : style };
    if (name === "prediction") return { style, threshold: this.threshold };
    if (name === "probability") return { classIndex: this.classIndex ?? 1 };
    if (name === "error") return { threshold: this.threshold };
    return {};
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  imageRow() {
    const rows = ["brightness", "contrast"].map((name) => {
      const slider = this.slider(`Image ${name}`, { min: 20, max: 400, value: 100 }, (value) => (this.image[name] = value));
      return make("label", { class: "range" }, name === "brightness" ? "Brightness" : "Contrast", slider);
    });
    const reset = make("button", { type: "button", class: "small" }, "Reset image");
    reset.addEventListener("click", () => {
      Object.assign(this.image, { brightness: 100, contrast: 100 });
      for (const row of rows) row.querySelector("input").value = 100;
      this.changed();
    });
    const box = this.checkbox("Image", this.image, null);
    return make("fieldset", {}, make("legend", { class: "unseen" }, "Image"), make("div", { class: "line" }, box, reset), ...rows);
  }

  layerRow({ name, label, key, hasStyle, opacity }) {
    const layer = this[name];
    const box = this.checkbox(label, layer, key);
    const slider = this.slider(`${label}: opacity`, { min: 0, max: 100, value: opacity }, (value) => (layer.opacity = value));
    const line = make("div", { class: "line" }, box, hasStyle ? this.styleChoice(label, layer) : null, slider);
    const row = make("fieldset", { "data-layer": name }, make("legend", { class: "unseen" }, label), line);
    if (name === "prediction") row.append(this.thresholdRow());
    if (name === "probability") row.append(this.classRow());
    return row;
  }

  checkbox(label, layer, key) {
    const box = make("input", { type: "checkbox", checked: layer.isShown });
    if (key) box.setAttribute("aria-keyshortcuts", `Alt+${key}`);
    box.addEventListener("change", () => {
      layer.isShown = box.checked;
      this.changed();
    });
    layer.box = box;
    return make("label", { class: "box" }, box, label);
  }

  slider(label, values, act) {
    const slider = make("input", { type: "range", "aria-label": label, ...values });
    slider.addEventListener("input", () => {
      act(slider.valueAsNumber);
      this.changed();
    });
    return slider;
  }

  styleChoice(label, layer) {
    const choice = make("select", { "aria-label": `${label}: style` }, new Option("fill", "fill"), new Option("outline", "outline"));
    choice.value = layer.style;
    choice.addEventListener("change", () => {
      layer.style = choice.value;
      this.changed();
    });
    layer.choice = choice;
    return choice;
  }

  thresholdRow() {
    this.thresholdSlider = make("input", { type: "range", min: 0.01, max: 0.99, step: 0.01, value: 0.5, "aria-label": "Threshold of the prediction" });
    this.thresholdText = make("output", {}, "0.50");
    this.thresholdSlider.addEventListener("input", () => this.slide());
    this.thresholdReset = make("button", { type: "button", class: "small", title: "Use the threshold that was chosen on the validation images" }, "As trained");
    this.thresholdReset.addEventListener("click", () => this.setThreshold(null));
    const label = make("label", { class: "range" }, "Threshold", this.thresholdSlider, this.thresholdText);
    return make("div", { class: "line" }, label, this.thresholdReset);
  }

  slide() {
    this.thresholdText.value = this.thresholdSlider.valueAsNumber.toFixed(2);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.setThreshold(this.thresholdSlider.valueAsNumber), DELAY_MS);
  }

  setThreshold(threshold) {
    if (!this.session.state) return;
    this.session.state.threshold = threshold;
    this.refresh();
    this.session.reach(() => request("/settings", { threshold })).catch(() => null);
  }

  classRow() {
    this.classChoice = make("select", { "aria-label": "Class of the probability" });
    this.classChoice.addEventListener("change", () => {
      this.classIndex = Number(this.classChoice.value);
      this.changed();
    });
    this.classLabel = make("label", { class: "range", hidden: true }, "of", this.classChoice);
    return this.classLabel;
  }

  refresh() {
    const { info, state } = this.session;
    const classes = (state?.project.classes ?? []).filter(({ index }) => index > 0);
    if (this.classChoice.options.length !== classes.length) {
      this.classChoice.replaceChildren(...classes.map(({ index, name }) => new Option(name, index)));
      this.classLabel.hidden = classes.length < 2;
    }
    const shown = this.threshold ?? info?.threshold;
    if (Number.isFinite(shown) && document.activeElement !== this.thresholdSlider) {
      this.thresholdSlider.value = shown;
      this.thresholdText.value = shown.toFixed(2);
    }
    this.thresholdReset.disabled = this.threshold === null;
    if (this.threshold !== this.shownThreshold) {
      this.shownThreshold = this.threshold;
      this.changed();
    }
    const hasPrediction = Boolean(info?.has_prediction) && !info.locked;
    for (const row of byId("layer-list").querySelectorAll("fieldset[data-layer]")) {
      row.disabled = row.dataset.layer !== "mask" && !hasPrediction;
    }
  }

  /** Shows or hides a layer, by its number on the keyboard. */
  toggle(key) {
    const layer = LAYERS.find((one) => one.key === key);
    if (layer) this[layer.name].box.click();
  }

  toggleStyle() {
    for (const { choice, style } of [this.mask, this.prediction]) {
      choice.value = style === "fill" ? "outline" : "fill";
      choice.dispatchEvent(new Event("change"));
    }
  }
}
