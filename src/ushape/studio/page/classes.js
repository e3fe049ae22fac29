// The dialog in which classes are renamed and added.

import { attempt, byId, make, openDialog } from "./dom.js";
import { request } from "./state.js";

export class ClassDialog {
  constructor(session, tools) {
    Object.assign(this, { session, tools, rows: byId("class-rows") });
    byId("edit-classes").addEventListener("click", () => this.open());
    byId("add-class").addEventListener("click", () => this.addRow("").querySelector("input").focus());
  }

  async open() {
    this.rows.replaceChildren();
    const before = this.tools.classes.filter(({ index }) => index > 0);
    for (const { index, name, color } of before) this.addRow(name, index, color);
    if ((await openDialog(byId("class-dialog"))) !== "save") return;
    const classes = [...this.rows.querySelectorAll("input")]
      .map((input) => ({ name: input.value.trim(), ...(input.dataset.index ? { index: Number(input.dataset.index) } : {}) }))
      .filter(({ name, index }) => name && before.find((one) => one.index === index)?.name !== name);
    if (classes.length && (await attempt(() => request("/settings", { classes })))) this.session.poll();
  }

  addRow(name, index, color) {
    const place = this.rows.children.length + 1;
    const input = make("input", { type: "text", value: name, maxLength: 40, "aria-label": `Name of class ${place}` });
    if (index !== undefined) input.dataset.index = index;
    const swatch = make("span", { class: "swatch" });
    if (color) swatch.style.background = color;
    const row = make("div", { class: "line" }, swatch, input);
    this.rows.append(row);
    return row;
  }
}
