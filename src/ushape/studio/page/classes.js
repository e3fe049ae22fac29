// The dialog in which classes are renamed, added and removed.

import { attempt, byId, make, openDialog } from "./dom.js";
import { request } from "./state.js";

export class ClassDialog {
  constructor(session, tools) {
    Object.assign(this, { session, tools, rows: byId("class-rows"), removed: [] });
    byId("edit-classes").addEventListener("click", () => this.open());
    byId("add-class").addEventListener("click", () => this.addRow("").querySelector("input").focus());
  }

  async open() {
    this.rows.replaceChildren();
    this.removed = [];
    const before = this.tools.classes.filter(({ index }) => index > 0);
    for (const { index, name, color } of before) this.addRow(name, index, color);
    if ((await openDialog(byId("class-dialog"))) !== "save") return;
    const classes = [...this.rows.querySelectorAll("input")]
      .map((input) => ({ name: input.value.trim(), ...(input.dataset.index ? { index: Number(input.dataset.index) } : {}) }))
      .filter(({ name, index }) => name && before.find((one) => one.index === index)?.name !== name);
    const { removed } = this;
    const isChanged = classes.length || removed.length;
    if (isChanged && (await attempt(() => request("/settings", { classes, removed })))) this.session.poll();
  }

  addRow(name, index, color) {
    const place = this.rows.children.length + 1;
    const input = make("input", { type: "text", value: name, maxLength: 40, "aria-label": `Name of class ${place}` });
    if (index !== undefined) input.dataset.index = index;
    const swatch = make("span", { class: "swatch" });
    if (color) swatch.style.background = color;
    const remove = make("button", { type: "button", class: "small", "aria-label": `Remove class ${name || place}` }, "Remove");
    const row = make("div", { class: "line" }, swatch, input, remove);
    remove.addEventListener("click", () => {
      if (index !== undefined) this.removed.push(index);
      row.remove();
      byId("add-class").focus();
    });
    this.rows.append(row);
    return row;
  }
}
