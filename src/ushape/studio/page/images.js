// The list of images: thumbnails, how much is annotated, and which one comes next and why.

import { byId, make, setText } from "./dom.js";
import { levelCount, planeSize } from "./geometry.js";
import { urlOf } from "./tiles.js";

const FILTERS = {
  all: () => true,
  open: (row) => !isKept(row) && !row.annotated,
  annotated: (row) => !isKept(row) && row.annotated > 0,
  locked: (row) => isKept(row),
};

/** Returns whether an image is held out for testing: not trained on, not predicted, not suggested. */
export function isKept(row) {
  return row.part === "test";
}

/** Returns the images to correct in the suggested order. */
export function suggested(session) {
  return session.images.filter((row) => row.rank && !isKept(row)).sort((a, b) => a.rank - b.rank);
}

/** The list; images are opened by a click, or with the arrow keys and Enter. */
export class ImageList {
  constructor(session) {
    Object.assign(this, { session, items: new Map(), list: byId("image-list") });
    session.on("images info", () => this.refresh());
    session.on("select", () => {
      this.refresh();
      this.list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
    });
    byId("filter").addEventListener("change", () => this.refresh());
    this.list.addEventListener("keydown", (event) => this.walk(event));
  }

  refresh() {
    const rows = this.session.images.filter(FILTERS[byId("filter").value]);
    const items = rows.map((row) => this.itemOf(row));
    const isSame = items.length === this.list.children.length && items.every((item, place) => item === this.list.children[place]);
    if (!isSame) this.list.replaceChildren(...items);
    const none = byId("no-images");
    none.hidden = rows.length > 0;
    setText(none, this.session.images.length ? "No image matches this filter." : "There are no images in this folder.");
  }

  itemOf(row) {
    const isCurrent = this.session.info?.id === row.id;
    const text = JSON.stringify([row, isCurrent]);
    const known = this.items.get(row.id);
    if (known?.text === text) return known.item;
    const item = known?.item ?? this.makeItem(row);
    const button = item.firstChild;
    if (isCurrent) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    setText(button.querySelector(".facts"), factsOf(row));
    const reason = button.querySelector(".reason");
    reason.hidden = !row.rank || isKept(row);
    setText(reason, row.rank ? `${row.rank === 1 ? "Next" : `Suggestion ${row.rank}`}: ${row.reason}` : "");
    button.querySelector(".share").style.setProperty("--share", row.annotated || 0);
    item.dataset.part = row.part;
    this.items.set(row.id, { item, text });
    return item;
  }

  makeItem(row) {
    const size = planeSize(row, "z");
    const index = Math.floor(size.slices / 2);
    const tile = { id: row.id, layer: "image", plane: "z", index, level: levelCount(size) - 1, x: 0, y: 0 };
    const picture = make("img", { loading: "lazy", decoding: "async", alt: "", src: urlOf(tile), width: 56, height: 56 });
    const share = make("span", { class: "share", "aria-hidden": "true" });
    const words = make("span", { class: "words" },
      make("span", { class: "name" }, row.name), make("span", { class: "facts" }), make("span", { class: "reason" }));
    const button = make("button", { type: "button" }, make("span", { class: "thumb" }, picture, share), words);
    button.addEventListener("click", () => {
      this.session.select(row.id);
      document.body.dataset.tab = "view";
    });
    return make("li", {}, button);
  }

  /** Moves the focus with the arrow keys. */
  walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const item = event.target.closest("li");
    if (!step || !item) return;
    event.preventDefault();
    (step > 0 ? item.nextElementSibling : item.previousElementSibling)?.firstChild.focus();
  }

  /** Opens the image before or after the open one. */
  go(step) {
    const rows = this.session.images.filter(FILTERS[byId("filter").value]);
    const place = rows.findIndex(({ id }) => id === this.session.info?.id);
    const row = rows[place + step];
    if (row) this.session.select(row.id);
  }
}

function factsOf(row) {
  if (row.locked) return "locked: test image";
  const share = row.annotated >= 1 ? "annotated" : row.annotated > 0 ? `${shareText(row.annotated)} annotated` : "not annotated";
  const parts = isKept(row) ? ["held out for testing", share] : [share];
  if (row.is_corrected) parts.push("edited here");
  if (row.part === "validation") parts.push("validation");
  if (Number.isFinite(row.expected_dice)) parts.push(`expected Dice ${row.expected_dice.toFixed(2)}`);
  return parts.join(", ");
}

/** Returns a share in percent, never "0%" or "100%" for a partial annotation. */
export function shareText(share) {
  const percent = 100 * share;
  if (percent < 1) return "less than 1%";
  return `${Math.min(99, Math.round(percent))}%`;
}
