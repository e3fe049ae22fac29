// Edits on their way to the server: in order, kept while the server cannot be reached or accepts no requests.

import { say } from "./dom.js";
import { project, request } from "./state.js";

const STORE = "ushape-studio-edits-";

/** Statuses of answers that are not about the edit: no token, too slow, too many requests, ending, behind a proxy. */
const TEMPORARY = [401, 408, 429, 502, 503, 504];

/** Events: "change" (the number of waiting edits), "applied" and "dropped" (detail: edit, answer). */
export class EditQueue extends EventTarget {
  constructor(session) {
    super();
    this.session = session;
    this.waiting = [];
    this.isSending = false;
    this.isRestored = false;
    this.isRefused = false;
    session.on("online", () => session.isOnline && this.send());
    session.on("polled", () => (this.isRestored ? this.send() : this.restore()));
    addEventListener("beforeunload", (event) => this.waiting.length && !project.isLeft && event.preventDefault());
  }

  /** Name under which the edits of this project are kept. */
  get store() {
    return STORE + this.session.state?.project.id;
  }

  /** Takes up the edits that the page had not sent when it was closed, once the project is known. */
  restore() {
    if (!this.session.state) return;
    this.isRestored = true;
    this.waiting = JSON.parse(sessionStorage.getItem(this.store) ?? "[]");
    if (this.waiting.length) say(`Sending ${this.waiting.length} edits that had not been saved.`);
    this.send();
  }

  /** Adds an edit of an image: {id, path: "edit" | "undo" | "redo", body}. Returns it. */
  add(id, path, body = {}) {
    const edit = { id, path, body: { ...body, edit_id: crypto.randomUUID() } };
    this.waiting.push(edit);
    this.changed();
    this.send();
    return edit;
  }

  changed() {
    sessionStorage.setItem(this.store, JSON.stringify(this.waiting));
    this.dispatchEvent(new Event("change"));
  }

  async send() {
    if (this.isSending) return;
    this.isSending = true;
    try {
      while (this.waiting.length && (await this.sendFirst()));
    } finally {
      this.isSending = false;
    }
  }

  /** Sends the first edit; returns false if it has to be sent again later. */
  async sendFirst() {
    const edit = this.waiting[0];
    const path = `/images/${encodeURIComponent(edit.id)}`;
    let event = "applied", answer = null, done = [edit];
    try {
      answer = await this.session.reach(async () => {
        const revision = this.revisionOf(edit.id) ?? (await request(path)).revision;
        return request(`${path}/${edit.path}`, { revision, ...edit.body });
      });
      if (!answer) return false;
      this.session.applied(edit.id, answer);
    } catch (error) {
      if (error.code === "other_project") return false; // They are sent when this project is open again.
      if (TEMPORARY.includes(error.status)) return this.keep();
      event = "dropped";
      if (error.status === 409) done = this.waiting.filter(({ id }) => id === edit.id); // They were drawn on the same old mask.
      await this.explain(edit, error, done.length);
    }
    this.isRefused = false;
    this.waiting = this.waiting.filter((one) => !done.includes(one));
    this.changed();
    for (const one of done) this.dispatchEvent(new CustomEvent(event, { detail: { edit: one, answer } }));
    return true;
  }

  /** Keeps all edits until the next poll, since the server does not accept any at the moment. */
  keep() {
    this.isRefused = true;
    this.dispatchEvent(new Event("change"));
    return false;
  }

  revisionOf(id) {
    const { info } = this.session;
    return info?.id === id ? info.revision : this.session.rowOf(id)?.revision;
  }

  /** Says why edits were dropped, and loads the image again if its mask is another one now. */
  async explain(edit, error, count) {
    if (error.status === 409) {
      const lost = count === 1 ? "your last edit. Please repeat it." : `your last ${count} edits. Please repeat them.`;
      say(`This image was changed in another window, so it was reloaded without ${lost}`, "error");
    } else if (error.status === 423) {
      say("This image is held out for testing, so it cannot be changed. " + error.message, "error");
    } else {
      say([error.message, error.hint].filter(Boolean).join(" "), "error");
    }
    if (error.status !== 409) return;
    try {
      await this.session.loadImages();
      if (this.session.info?.id === edit.id) await this.session.reload();
    } catch {
      // The next poll loads what has changed.
    }
  }
}
