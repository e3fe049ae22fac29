// The panel that leads through the steps: check, draw, train, review and correct, report.

import { askUser, attempt, byId, make, say, setText } from "./dom.js";
import { isKept, shareText, suggested } from "./images.js";
import { request } from "./state.js";
import { JobBox, TrainingStep } from "./training.js";

const PREDICTED_AT_ONCE = 50; // Of a larger dataset, only the images that will probably be viewed next.

/** The five steps. The one that comes next is open; the user may open others. */
export class Steps {
  constructor(session, tools) {
    Object.assign(this, { session, tools, current: null });
    this.job = new JobBox(session);
    this.training = new TrainingStep(session);
    this.steps = [
      this.makeStep("Check the images", this.checkBody()),
      this.makeStep("Draw", this.drawBody()),
      this.makeStep("Train", this.training.body),
      this.makeStep("Review and correct", this.correctBody()),
      this.makeStep("Report", this.reportBody()),
    ];
    byId("steps").append(make("h2", { class: "unseen" }, "Steps"), this.job.element, make("ol", {}, ...this.steps.map(({ item }) => item)));
    session.on("state images info", () => this.refresh());
    session.on("state", () => this.followCheck());
    session.on("trained", () => this.predictImages());
  }

  makeStep(title, body) {
    const fact = make("span", { class: "fact" });
    const number = make("span", { class: "number", "aria-hidden": "true" });
    const details = make("details", {}, make("summary", {}, number, make("h3", {}, title), fact), make("div", { class: "body" }, ...body));
    return { item: make("li", { class: "step" }, details), details, fact };
  }

  button(text, act, values = {}) {
    const button = make("button", { type: "button", ...values }, text);
    button.addEventListener("click", act);
    return button;
  }

  checkBody() {
    this.checkButton = this.button("Check", async () => {
      const answer = await attempt(() => request("/check", {}));
      if (answer) this.showFindings(answer.findings);
      this.session.poll();
    });
    this.summary = make("p", {});
    this.findings = make("ul", { class: "findings" });
    return [this.summary, this.findings, this.checkButton];
  }

  drawBody() {
    this.drawText = make("p", {});
    this.rest = this.button("Mark everything else as background", () => this.tools.edit("background_rest"), { "aria-keyshortcuts": "r" });
    this.clear = this.button("Clear this image", async () => {
      if (await askUser("Clear this image?", "All annotations of this image are removed. You can undo this.", "Clear")) this.tools.edit("clear");
    });
    this.apart = this.button("Hold out this image for testing", () => this.setApart());
    this.apartNote = make("p", { class: "note" },
      "Scores are unbiased only if they come from images that are not used for training and whose predictions you have not seen. "
      + "Annotate such images completely by hand, and hold them out for testing.");
    const classNote = make("p", { class: "note" }, "A few strokes are enough: some inside the objects, and some on the background with the eraser. "
      + "Hatched areas are not annotated and are ignored in training.");
    return [this.drawText, classNote, make("div", { class: "buttons" }, this.rest, this.clear), this.apartNote, this.apart];
  }

  async setApart() {
    const { info } = this.session;
    const apart = !isKept(this.session.rowOf(info.id));
    if (!(await attempt(() => request(`/images/${encodeURIComponent(info.id)}/apart`, { apart })))) return;
    say(apart ? "This image is held out for testing: it is not used for training, and its prediction is not shown." : "This image is used for training again.");
    await this.session.loadImages();
    await this.session.open(info.id);
  }

  correctBody() {
    this.nextText = make("p", {});
    this.next = this.button("Go to the next image", () => this.goToNext(), { class: "primary", "aria-keyshortcuts": "n" });
    this.accept = this.button("Accept this prediction", () => this.acceptHere(), { "aria-keyshortcuts": "Shift+A" });
    this.predict = this.button("Predict all images", async () => {
      if (await attempt(() => request("/predict", { ids: null }))) this.session.poll();
    });
    this.acceptAll = this.button("Accept all predictions", () => this.acceptEverything());
    this.expected = make("p", { class: "note" });
    return [this.nextText, make("div", { class: "buttons" }, this.next, this.accept, this.predict, this.acceptAll), this.expected];
  }

  reportBody() {
    this.score = make("p", {});
    this.runs = make("ul", { class: "runs" });
    this.report = make("a", { href: "/api/report", target: "_blank", rel: "noopener" }, "Open the report");
    return [this.score, this.report, this.runs];
  }

  /** Predicts after training: all images or, if there are many, those that will probably be viewed next. */
  async predictImages() {
    const { images, info } = this.session;
    const near = [...suggested(this.session), ...images].filter((row) => !isKept(row) && row.id !== info?.id).slice(0, PREDICTED_AT_ONCE - 1);
    const open = info && !info.locked ? [info.id] : [];
    const ids = images.length > PREDICTED_AT_ONCE ? [...new Set([...open, ...near.map(({ id }) => id)])] : null;
    await request("/predict", { ids }).catch(() => null); // Another window may have started it.
    this.session.poll();
  }

  /** Opens the image that is suggested next, other than the open one. */
  async goToNext() {
    const answer = await attempt(() => request("/next"));
    if (!answer) return;
    const other = suggested(this.session).find(({ id }) => id !== this.session.info?.id);
    const { id, reason } = answer.id && answer.id !== this.session.info?.id ? answer : other ?? {};
    if (!id) return void say("There is no other image to correct.");
    await this.session.select(id);
    document.body.dataset.tab = "view";
    say(`${this.session.rowOf(id)?.name ?? id}: ${reason}`);
  }

  acceptHere() {
    if (!this.session.info?.has_prediction) return void say("There is no prediction of this image yet.", "error");
    if (this.tools.edit("accept")) say("The prediction is now the annotation of this image. You can correct or undo it.");
  }

  /** Accepts the predictions of all images without annotation. */
  async acceptEverything() {
    await this.session.loadImages(); // The last predictions may have come since the page asked.
    const rows = this.session.images.filter((row) => !isKept(row) && row.has_prediction && row.annotated < 1);
    const text = `The predictions become the annotations of ${rows.length} ${rows.length === 1 ? "image" : "images"}. Your own annotations are kept. You can undo this in each image.`;
    if (!rows.length) return void say("There are no predictions for images without annotations.");
    if (!(await askUser("Accept all predictions?", text, "Accept"))) return;
    for (const { id } of rows) this.tools.edits.add(id, "edit", { tool: "accept", class: 1, points: [], plane: "z", index: 0 });
  }

  /** Asks for the findings when a check ended, and at the start. */
  async followCheck() {
    const { job } = this.session.state;
    const token = job?.kind === "check" ? `${job.started}${job.state}` : "";
    if (token === this.checkToken || job?.state === "running") return;
    this.checkToken = token;
    const answer = await attempt(() => request("/check"));
    if (answer) this.showFindings(answer.findings);
  }

  showFindings(findings) {
    if (!findings) return;
    this.findings.replaceChildren(...findings.map(({ severity, title, message, hint, images }) => {
      const names = (images ?? []).slice(0, 5).join(", ") + ((images ?? []).length > 5 ? ", …" : "");
      return make("li", { "data-severity": severity }, make("b", {}, title || message), " ",
        title && message !== title ? message : "", hint ? make("span", { class: "note" }, ` ${hint}`) : null,
        names ? make("span", { class: "note" }, ` (${names})`) : null);
    }));
    this.found = findings.length;
    this.refresh();
  }

  /** Returns the number of the step that comes next. */
  nextStep({ runs, state: { job } }, annotated) {
    if (job?.state === "running" && job.kind === "train") return 2;
    if (!annotated) return 1;
    return runs.length ? 3 : 2;
  }

  refresh() {
    const { state, images, info, runs } = this.session;
    if (!state) return;
    const usable = images.filter((row) => !isKept(row));
    const annotated = usable.filter((row) => row.annotated > 0).length;
    const kept = images.length - usable.length;
    const predicted = usable.filter((row) => row.has_prediction).length;
    const [check, draw, train, correct, report] = this.steps;
    setText(this.summary, summaryOf(images, kept));
    setText(check.fact, this.found ? `${this.found} findings` : this.found === 0 ? "no findings" : `${images.length} images`);
    setText(draw.fact, `${annotated} of ${usable.length} images`);
    setText(train.fact, runs.length ? `${runs.length} ${runs.length === 1 ? "run" : "runs"}` : "");
    setText(correct.fact, runs.length ? `${predicted} predicted` : "");
    this.refreshButtons(info, state, annotated);
    this.refreshScore(runs, report);
    this.follow(this.nextStep(this.session, annotated), state.job?.state === "running" && state.job.kind === "train");
  }

  refreshButtons(info, state, annotated) {
    const isLocked = !info || Boolean(info.locked);
    const row = info && this.session.rowOf(info.id);
    setText(this.drawText, info ? drawTextOf(info) : "Choose an image.");
    this.rest.disabled = isLocked || !(info.annotated > 0);
    this.clear.disabled = isLocked || !(info.annotated > 0);
    this.apart.hidden = this.apartNote.hidden = !row || (Boolean(info.has_prediction) && !isKept(row));
    this.apart.textContent = row && isKept(row) ? "Use this image for training again" : "Hold out this image for testing";
    this.accept.disabled = isLocked || !info.has_prediction;
    const isBusy = state.job?.state === "running";
    this.predict.disabled = isBusy || !this.session.runs.length;
    this.acceptAll.disabled = isBusy || !this.session.runs.length;
    this.next.disabled = !annotated && !this.session.runs.length;
    const [first] = suggested(this.session).filter(({ id }) => id !== info?.id);
    setText(this.nextText, first ? `Next: ${first.name}. ${first.reason}` : "After training, the image that is expected to help most is suggested here.");
    const expected = row?.expected_dice;
    setText(this.expected, Number.isFinite(expected) ? `Expected Dice of this prediction: ${expected.toFixed(2)}` : "");
  }

  refreshScore(runs, report) {
    const [last] = runs; // The newest run comes first.
    setText(report.fact, Number.isFinite(last?.score) ? `Dice ${last.score.toFixed(3)}` : "");
    setText(this.score, last ? scoreText(last) : "The report appears here after training.");
    this.report.hidden = !last?.has_report;
    const text = JSON.stringify(runs);
    if (text === this.runText) return;
    this.runText = text;
    this.runs.replaceChildren(...runs.map((run) => make("li", {}, make("code", {}, run.name), ` ${scoreText(run)}`)));
  }

  /** Opens the step that comes next, when it changes; the one before stays open, except during training. */
  follow(place, isTraining) {
    this.steps.forEach(({ item }, own) => {
      item.dataset.state = own < place ? "done" : own === place ? "current" : "later";
      if (own === place) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
    const key = `${place}${isTraining}`;
    if (key === this.current) return;
    this.current = key;
    this.steps.forEach(({ details }, own) => (details.open = own === place || (own === place - 1 && !isTraining)));
  }
}

function summaryOf(images, kept) {
  const masks = images.filter((row) => row.has_mask).length;
  const parts = [`${images.length} images`, `${masks} with a mask`];
  if (kept) parts.push(`${kept} held out for testing`);
  return `${parts.join(", ")}.`;
}

function drawTextOf({ annotated, locked, objects }) {
  if (locked) return locked;
  const share = annotated >= 1 ? "All pixels of this image are" : annotated > 0 ? `${shareText(annotated)} of this image is` : "No pixel of this image is";
  const count = Number.isFinite(objects) && objects > 0 ? ` It has ${objects} ${objects === 1 ? "object" : "objects"}.` : "";
  return `${share} annotated.${count}`;
}

function scoreText({ score, interval, images }) {
  if (!Number.isFinite(score)) return "No score: no images were held out for testing.";
  const range = interval ? ` (${interval.map((value) => value.toFixed(3)).join(" to ")})` : "";
  return `Dice ${score.toFixed(3)}${range}${images ? `, trained on ${images} images` : ""}.`;
}
