// Keys of the page, and the dialog that lists them.

import { byId, make, openDialog } from "./dom.js";
import { TOOLS } from "./tools.js";

const STEP_PX = 10, LARGE_STEP_PX = 50;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Connects the keys with {session, tools, viewer, layers, images, steps, volume, gestures}. */
export class Keyboard {
  constructor(parts) {
    Object.assign(this, parts);
    this.sections = this.makeSections();
    this.actions = new Map(Object.values(this.sections).flat().flatMap(({ keys, act }) => keys.map((key) => [key, act])));
    this.fillHelp();
    byId("help").addEventListener("click", () => openDialog(byId("help-dialog")));
    byId("single-keys").checked = localStorage.getItem("ushape-studio-keys") !== "off";
    byId("single-keys").addEventListener("change", ({ target }) => localStorage.setItem("ushape-studio-keys", target.checked ? "on" : "off"));
    addEventListener("keydown", (event) => this.press(event));
    addEventListener("keyup", ({ key }) => key === " " && (this.gestures.hasSpace = false));
  }

  makeSections() {
    const { tools, viewer, layers, images, steps, volume } = this;
    const tool = ({ name, label, key }) => ({ keys: [key], text: label, act: () => tools.choose(name) });
    return {
      "Tools": TOOLS.map(tool),
      "Drawing": [
        { keys: ["["], text: "Smaller brush", act: () => tools.setRadius(tools.radius - Math.max(1, tools.radius * 0.15)) },
        { keys: ["]"], text: "Larger brush", act: () => tools.setRadius(tools.radius + Math.max(1, tools.radius * 0.15)) },
        { keys: [..."0123456789"].slice(1), shown: "1 to 9", text: "Class", act: ({ key }) => tools.setClass(Number(key)) },
        { keys: ["c"], text: "Close the polygon", act: () => tools.finish() },
        { keys: ["Escape"], text: "Cancel the stroke or polygon", act: () => tools.cancel() },
        { keys: ["z", "Ctrl+z", "Meta+z"], shown: "Z or Ctrl+Z", text: "Undo", act: () => tools.step("undo") },
        { keys: ["y", "Z", "Ctrl+y", "Ctrl+Z", "Meta+Z"], shown: "Y or Ctrl+Y", text: "Redo", act: () => tools.step("redo") },
        { keys: ["r"], text: "Mark everything else as background", act: () => steps.rest.click() },
      ],
      "On the image": [
        { keys: [], shown: "arrow keys", text: "Move the crosshair (Shift: faster; Alt: by 1 screen pixel)" },
        { keys: [], shown: "Enter", text: "Draw at the crosshair" },
      ],
      "View": [
        { keys: ["+", "="], shown: "+", text: "Zoom in", act: () => viewer.zoom(1.5) },
        { keys: ["-"], text: "Zoom out", act: () => viewer.zoom(1 / 1.5) },
        { keys: ["0"], text: "Fit the image", act: () => viewer.fit() },
        { keys: ["o"], text: "Switch between fill and outline", act: () => layers.toggleStyle() },
        { keys: [..."12345"].map((key) => `Alt+${key}`), shown: "Alt+1 to 5", text: "Show or hide a layer", act: ({ code }) => layers.toggle(code.at(-1)) },
        { keys: [","], text: "Previous slice", act: () => volume.setIndex(this.session.index - 1) },
        { keys: ["."], text: "Next slice", act: () => volume.setIndex(this.session.index + 1) },
      ],
      "Images and training": [
        { keys: ["n"], text: "Next suggested image", act: () => steps.next.click() },
        { keys: ["PageUp"], text: "Previous image", act: () => images.go(-1) },
        { keys: ["PageDown"], text: "Next image", act: () => images.go(1) },
        { keys: ["A"], shown: "Shift+A", text: "Accept the whole prediction", act: () => steps.accept.click() },
        { keys: ["t"], text: "Train, or train again", act: () => steps.training.button.click() },
        { keys: ["?"], text: "Show this help", act: () => openDialog(byId("help-dialog")) },
      ],
    };
  }

  fillHelp() {
    byId("help-list").replaceChildren(...Object.entries(this.sections).map(([title, rows]) => make("section", {},
      make("h3", {}, title),
      make("dl", {}, ...rows.flatMap(({ keys, shown, text }) => [
        make("dt", {}, make("kbd", {}, shown ?? (keys[0].length === 1 ? keys[0].toUpperCase() : keys[0]))), make("dd", {}, text),
      ])))));
  }

  press(event) {
    if (document.querySelector("dialog[open]") || event.isComposing) return;
    const { target } = event;
    const isText = target.matches("input:not([type=range], [type=checkbox], [type=radio]), textarea");
    const isOnImage = target === this.viewer.frame;
    if (isOnImage && this.pressOnImage(event)) return;
    const hasModifier = event.ctrlKey || event.metaKey || event.altKey;
    const needsModifier = isText || target.matches("select");
    if (!hasModifier && event.key.length === 1 && (needsModifier || !byId("single-keys").checked)) return;
    if (event.key.startsWith("Page") && target.matches("input, select, pre")) return;
    const act = this.actions.get(nameOf(event));
    if (!act) return;
    event.preventDefault();
    act(event);
  }

  /** Handles the keys that only the image has; returns whether this was one. */
  pressOnImage(event) {
    const { key } = event;
    if (key in ARROWS && !event.ctrlKey) {
      const step = event.altKey ? 1 : event.shiftKey ? LARGE_STEP_PX : STEP_PX;
      this.tools.moveCross(...ARROWS[key].map((value) => value * step));
    } else if (key === "Enter") {
      this.tools.useAtCross();
    } else if (key === " ") {
      this.gestures.hasSpace = true;
    } else {
      return false;
    }
    event.preventDefault();
    return true;
  }
}

/** Returns the name of a key as in the lists above: letters by their place in other alphabets, and without Caps Lock. */
function nameOf({ key, code, ctrlKey, metaKey, altKey, shiftKey }) {
  if (altKey && code.startsWith("Digit")) return `Alt+${code.at(-1)}`;
  const prefix = ctrlKey ? "Ctrl+" : metaKey ? "Meta+" : altKey ? "Alt+" : "";
  const isOtherLetter = code.startsWith("Key") && key.length === 1 && !/[a-z]/i.test(key);
  const name = isOtherLetter ? code.at(-1) : key;
  if (!/^[a-z]$/i.test(name)) return prefix + name;
  return prefix + (shiftKey ? name.toUpperCase() : name.toLowerCase());
}
