// The state of the project as the server knows it. The page asks for it regularly.

import { say } from "./dom.js";

const BUSY_MS = 1000, IDLE_MS = 2500, HIDDEN_MS = 10000;

/** The project of this page; `isLeft`: another one is open now at this address, so the page is loaded again. */
export const project = { id: null, isLeft: false };

/** An answer of the server that is not a success. */
export class ServerError extends Error {
  constructor(status, { code = "", message = "", hint = "", ...values }) {
    super(message || `The server answered with status ${status}.`);
    Object.assign(this, { status, code, hint, values });
  }
}

/** Sends a request; a body makes it a POST. Throws a TypeError if the server cannot be reached. */
export async function request(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: {
      "Content-Type": "application/json", "X-Ushape-Studio": "1", ...(project.id && { "X-Ushape-Project": project.id }),
    },
    body: JSON.stringify(body),
  };
  const response = await fetch(`/api${path}`, options);
  if (response.status === 401) {
    project.isLeft = true;
    location.reload(); // The page then says what to do.
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new ServerError(response.status, content ?? {});
  return content;
}

/** Events: "state", "polled", "images", "info" (of the open image), "select", "online", "trained", "predicted", "foreign". */
export class Session extends EventTarget {
  constructor() {
    super();
    Object.assign(this, { state: null, images: [], info: null, runs: [], plane: "z", index: 0, isOnline: true, version: 0 });
    document.addEventListener("visibilitychange", () => this.poll());
  }

  emit(name) {
    this.dispatchEvent(new Event(name));
  }

  on(names, act) {
    for (const name of names.split(" ")) this.addEventListener(name, act);
  }

  /** Asks for the state now, and then regularly. */
  async poll() {
    clearTimeout(this.timer);
    if (!this.isPolling) {
      this.isPolling = true;
      await this.refresh().catch((error) => say(error.message, "error"));
      this.isPolling = false;
      this.emit("polled");
    }
    clearTimeout(this.timer);
    const isBusy = this.state?.job?.state === "running" || !this.isOnline;
    this.timer = setTimeout(() => this.poll(), document.hidden ? HIDDEN_MS : isBusy ? BUSY_MS : IDLE_MS);
  }

  async refresh() {
    const state = await this.reach(() => request(`/state?since=${this.version}`));
    if (!state) return;
    project.isLeft = Boolean(project.id) && project.id !== state.project.id;
    if (project.isLeft) return void location.replace(location.pathname);
    project.id = state.project.id;
    const [before, isFirst] = [this.state, !this.state];
    this.state = state;
    this.runs = state.runs.filter((run) => run.is_usable !== false); // Others have no weights yet.
    this.version = state.version;
    this.emit("state");
    const jobEnded = before?.job?.state === "running" && state.job?.state !== "running";
    const hasNewRun = before && before.runs.length !== state.runs.length;
    if (isFirst || jobEnded || hasNewRun || state.changed.length) await this.loadImages();
    if (!isFirst && this.info && (state.changed.includes(this.info.id) || jobEnded)) await this.reload(jobEnded);
  }

  /** Returns the answer of a request, or null if the server cannot be reached. */
  async reach(send) {
    try {
      const answer = await send();
      this.setOnline(true);
      return answer;
    } catch (error) {
      if (error instanceof ServerError) throw error;
      this.setOnline(false);
      return null;
    }
  }

  setOnline(isOnline) {
    if (this.isOnline === isOnline) return;
    this.isOnline = isOnline;
    this.emit("online");
  }

  async loadImages() {
    const images = await this.reach(() => request("/images"));
    if (!images) return;
    this.images = images;
    this.emit("images");
  }

  rowOf(id) {
    return this.images.find((row) => row.id === id);
  }

  /** Opens an image; one that is open keeps its slice, and the drawing that is not finished. */
  async select(id) {
    if (this.selected === id) return; // It is open, or its answer is on the way.
    this.selected = id;
    try {
      await this.open(id);
    } finally {
      if (this.selected === id) this.selected = this.info?.id;
    }
  }

  /** Asks for an image and shows it from the start, unless another one was selected meanwhile. */
  async open(id) {
    const info = await this.reach(() => request(`/images/${encodeURIComponent(id)}`));
    if (!info || this.selected !== id) return;
    this.info = info;
    if (info.shape.length < 3) this.plane = "z";
    this.index = info.shape.length < 3 ? 0 : Math.floor(info.shape[{ z: 0, y: 1, x: 2 }[this.plane]] / 2);
    history.replaceState(null, "", `#${encodeURIComponent(id)}`);
    this.emit("select");
    this.emit("info");
  }

  /** Loads what is known of the open image again; it may have been changed in another window. */
  async reload(isPredicted = false) {
    const { id, revision, has_prediction: had } = this.info;
    const info = await this.reach(() => request(`/images/${encodeURIComponent(id)}`));
    if (!info || this.info.id !== id || info.revision < this.info.revision) return;
    this.info = info;
    if (info.revision !== revision) this.emit("foreign");
    if (isPredicted || Boolean(had) !== Boolean(info.has_prediction)) this.emit("predicted");
    if (info.has_prediction && !had) say("The prediction of this image is ready.");
    this.emit("info");
  }

  /** Takes over what the server answered to an edit. */
  applied(id, answer) {
    const row = this.rowOf(id);
    if (row) Object.assign(row, { revision: answer.revision, annotated: answer.annotated, is_corrected: true });
    if (this.info?.id === id) Object.assign(this.info, answer);
    this.emit("images");
    if (this.info?.id === id) this.emit("info");
  }
}
