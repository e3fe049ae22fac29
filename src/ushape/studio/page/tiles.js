// Tiles of the layers: loaded when visible, and the least recently used ones removed.

import { isInside, TILE } from "./geometry.js";
import { prepareTile } from "./paint.js";

const LIMIT = 500; // 256 x 256 x 4 bytes each: 130 MB
const AT_ONCE = 6;
const RETRY_MS = 1500;

/** Event "load": a tile arrived. */
export class TileStore extends EventTarget {
  constructor() {
    super();
    this.entries = new Map();
    this.wanted = new Map();
    this.loading = new Map();
  }

  /** Forgets all tiles, for example because another image is shown. */
  clear() {
    for (const control of this.loading.values()) control.abort();
    for (const { bitmap } of this.entries.values()) bitmap?.close();
    this.entries.clear();
    this.wanted.clear();
    this.loading.clear();
  }

  /** Starts a new picture of a viewer: tiles that it does not request again need not be loaded. */
  begin(viewer) {
    this.viewer = viewer;
    for (const [key, { viewer: own }] of this.wanted) if (own === viewer) this.wanted.delete(key);
  }

  /** Returns a tile as {bitmap, isFresh}, and loads it if it is missing or outdated. */
  get(tile) {
    const key = keyOf(tile);
    const entry = this.entries.get(key);
    if (entry) {
      this.entries.delete(key); // The order of the map is the order of use.
      this.entries.set(key, entry);
    }
    if (!entry?.isFresh && !this.loading.has(key)) this.wanted.set(key, { tile, viewer: this.viewer });
    return entry;
  }

  /** Returns a tile only if it is there. */
  peek(tile) {
    return this.entries.get(keyOf(tile));
  }

  /** Marks tiles as outdated. They are shown until the new ones arrive. */
  outdate(layers, { plane, index, box } = {}) {
    for (const [key, entry] of this.entries) {
      const { tile } = entry;
      if (!layers.includes(tile.layer)) continue;
      const size = TILE * 2 ** tile.level;
      const area = { x0: tile.x * size, y0: tile.y * size, x1: (tile.x + 1) * size, y1: (tile.y + 1) * size };
      const isTouched = !box || tile.plane !== plane || (tile.index === index && isInside(box, area));
      if (isTouched) entry.isFresh = false;
    }
    for (const [key, control] of this.loading) {
      if (!layers.includes(control.tile.layer)) continue;
      control.abort();
      this.loading.delete(key);
    }
  }

  /** Loads the tiles that were requested, the first ones first. */
  load() {
    for (const [key, { tile }] of this.wanted) {
      if (this.loading.size >= AT_ONCE) return;
      this.wanted.delete(key);
      if (!this.loading.has(key)) this.fetch(key, tile);
    }
  }

  async fetch(key, tile) {
    const control = Object.assign(new AbortController(), { tile });
    this.loading.set(key, control);
    let bitmap = null, isFresh = true;
    try {
      const response = await fetch(urlOf(tile), { signal: control.signal });
      if (response.ok && response.status !== 204) bitmap = await prepareTile(await response.blob(), tile);
      if (response.status >= 500) isFresh = this.retry();
    } catch (error) {
      isFresh = false; // The server cannot be reached; the page loads the tile when it returns.
      if (control.signal.aborted) return;
    }
    if (control.signal.aborted) return;
    this.loading.delete(key);
    if (isFresh || !this.entries.has(key)) this.store(key, { tile, bitmap, isFresh });
    this.load();
    if (isFresh) this.dispatchEvent(new Event("load"));
  }

  /** Draws again after some time, because the server was busy. Returns false. */
  retry() {
    setTimeout(() => this.dispatchEvent(new Event("load")), RETRY_MS);
    return false;
  }

  store(key, entry) {
    this.entries.get(key)?.bitmap?.close();
    this.entries.delete(key);
    this.entries.set(key, entry);
    for (const [oldest, { bitmap }] of this.entries) {
      if (this.entries.size <= LIMIT) break;
      bitmap?.close();
      this.entries.delete(oldest);
    }
  }
}

function keyOf({ id, layer, plane, index, level, x, y, classIndex, threshold, style }) {
  return [id, layer, plane, index, level, x, y, classIndex, threshold, style].join("|");
}

/** Returns the address of a tile. */
export function urlOf({ id, layer, plane, index, level, x, y, classIndex, threshold, revision }) {
  const values = { level, x, y, layer, plane, index, class: classIndex, threshold, revision };
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  return `/api/images/${encodeURIComponent(id)}/tile?${new URLSearchParams(given)}`;
}
