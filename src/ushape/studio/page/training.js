// The step "Train": time, plan in words, curves, time left, stop.

import { attempt, make, say, secondsText, setText } from "./dom.js";
import { curvePlot } from "./curves.js";
import { request } from "./state.js";

const JOB_NAMES = {
  check: "Checking the images", plan: "Planning", train: "Training", predict: "Predicting", report: "Writing the report",
};
const ENDED = { done: "finished", failed: "failed", stopped: "was stopped" };

/** Shows the work of the server that is running, with a button that stops it. */
export class JobBox {
  constructor(session) {
    this.session = session;
    this.text = make("p", {});
    this.bar = make("progress", { "aria-label": "Progress" });
    this.stop = make("button", { type: "button" }, "Stop");
    this.stop.addEventListener("click", () => attempt(() => request("/job/stop", {})));
    this.element = make("div", { class: "job", hidden: true }, this.text, make("div", { class: "line" }, this.bar, this.stop));
    session.on("state", () => this.refresh());
  }

  refresh() {
    const { job } = this.session.state;
    const isRunning = job?.state === "running";
    this.element.hidden = !isRunning;
    if (this.before === "running" && job && !isRunning) this.ended(job);
    this.before = job?.state;
    if (!isRunning) return;
    setText(this.text, [JOB_NAMES[job.kind] ?? job.kind, timeText(job)].filter(Boolean).join(": "));
    const total = job.elapsed_s + job.left_s;
    if (job.left_s > 0 && total > 0) this.bar.value = job.elapsed_s / total;
    else this.bar.removeAttribute("value");
    this.stop.textContent = job.kind === "train" ? "Stop and keep the best weights" : "Stop";
  }

  ended(job) {
    const reason = job.state === "failed" ? job.error?.message ?? job.error ?? "See the output in step 3." : "";
    say(`${JOB_NAMES[job.kind] ?? job.kind} ${ENDED[job.state] ?? job.state}. ${reason}`, job.state === "failed" ? "error" : "info");
    if (job.kind === "train" && job.state !== "failed" && this.session.runs.length) this.session.emit("trained");
  }
}

function timeText({ elapsed_s: elapsed, left_s: left, status }) {
  if (status) return status;
  return left > 0 ? `about ${secondsText(left)} left` : `${secondsText(elapsed ?? 0)} so far`;
}

export class TrainingStep {
  constructor(session) {
    this.session = session;
    this.minutes = make("input", { type: "number", id: "minutes", min: 0.1, max: 1440, step: "any", value: 1 });
    this.button = make("button", { type: "button", class: "primary", "aria-keyshortcuts": "t" }, "Train");
    this.fresh = make("button", { type: "button", hidden: true }, "Train from scratch");
    this.resume = make("button", { type: "button", hidden: true }, "Continue the interrupted training");
    this.note = make("p", { class: "note" });
    this.plan = make("div", { class: "plan", role: "status" });
    this.planDetails = make("details", {}, make("summary", {}, "The plan in words"), this.plan);
    this.curves = make("div", { class: "curves" });
    this.output = make("pre", { tabIndex: 0, "aria-label": "Output of the command" });
    this.outputDetails = make("details", { hidden: true }, make("summary", {}, "Output"), this.output);
    this.body = [
      make("div", { class: "line" }, make("label", { class: "range" }, "Time", this.minutes, "minutes"), this.button, this.fresh, this.resume),
      this.note, this.curves, this.planDetails, this.outputDetails,
    ];
    this.button.addEventListener("click", () => this.train());
    this.fresh.addEventListener("click", () => this.train(false));
    this.resume.addEventListener("click", () => this.start({ resume: true }));
    for (const [element, name] of [[this.planDetails, "toggle"], [this.minutes, "change"]]) {
      element.addEventListener(name, () => this.askForPlan());
    }
    session.on("state images", () => this.refresh());
  }

  /** Starts training; after the first run, from the weights of the last run. */
  async train(again = this.session.runs.length > 0) {
    const minutes = this.minutes.valueAsNumber;
    if (!(minutes > 0)) return void say("Please enter the training time in minutes.", "error");
    await this.start({ minutes, again });
  }

  async start(values) {
    if (await attempt(() => request("/train", values))) {
      say("Training has started. You can continue drawing in the meantime.");
      this.session.poll();
    }
  }

  /** Asks for the plan of the time that was entered, if the plan is shown. */
  askForPlan() {
    [this.asked, this.plannedFor] = [this.minutes.value, null];
    this.planAgain();
  }

  async loadPlan() {
    if (this.isPlanning) return;
    [this.hasPlan, this.plannedFor] = [false, [this.asked, this.annotations, this.jobs]];
    if (!this.annotations) return void this.notePlan(noteOf(0));
    this.isPlanning = true;
    this.notePlan("Planning …");
    const answer = await attempt(() => request(`/plan?minutes=${Number(this.asked) || 1}`));
    this.isPlanning = false;
    this.hasPlan = Boolean(answer?.lines.length);
    const lines = this.hasPlan ? answer.lines : ["There is no plan yet.", answer?.problem ?? ""];
    this.plan.replaceChildren(...lines.filter((line) => line.trim()).map((line) => make("p", {}, line)));
    this.planAgain();
  }

  /** Shows one sentence in place of the plan. */
  notePlan(text) {
    if (this.plan.textContent !== text) this.plan.replaceChildren(make("p", { class: "note" }, text));
  }

  /**
   * Asks for the plan if it is shown and there is none of the time that was entered, or if an annotation or the end of
   * other work may make one possible. During other work, it is asked for later.
   */
  planAgain() {
    if (!this.planDetails.open || this.isPlanning) return;
    const [minutes, annotations, jobs] = this.plannedFor ?? [];
    const isChanged = annotations !== this.annotations && (!this.hasPlan || !this.annotations);
    if (this.plannedFor && minutes === this.asked && !isChanged && (this.hasPlan || jobs === this.jobs)) return;
    const isBusy = this.session.state?.job?.state === "running";
    if (isBusy && this.annotations) this.notePlan("The plan will be made when the running job has finished.");
    else this.loadPlan();
  }

  refresh() {
    const { state, images, runs } = this.session;
    if (!state) return;
    const { job } = state;
    const isRunning = job?.state === "running";
    const rows = images.filter((row) => row.annotated > 0 && row.part !== "test");
    const annotated = rows.length;
    this.annotations = rows.map(({ id, revision }) => `${id} ${revision}`).join();
    this.jobs = `${job?.started} ${job?.state}`;
    this.planAgain();
    const before = runs.filter(({ path }) => !isRunning || path !== job.folder).length;
    this.button.textContent = before > 0 ? "Train again" : "Train";
    this.fresh.hidden = before < 1;
    this.resume.hidden = isRunning || !state.can_resume;
    this.button.disabled = this.fresh.disabled = isRunning || !annotated;
    setText(this.note, noteOf(annotated, before));
    this.drawCurves(job);
    const lines = job?.lines ?? [];
    this.outputDetails.hidden = !lines.length;
    setText(this.output, lines.join("\n"));
  }

  drawCurves(job) {
    const { loss = [], dice = [] } = job?.curves ?? {};
    const text = JSON.stringify([loss.length, loss.at(-1), dice.length, dice.at(-1)]);
    if (text === this.curveText) return;
    this.curveText = text;
    const plots = [["Training loss", loss, undefined], ["Validation Dice", dice, [0, 1]]].filter(([, points]) => points.length);
    this.curves.replaceChildren(...plots.map(([name, points, range]) =>
      make("figure", {}, make("figcaption", {}, `${name}: ${Number(points.at(-1)[1]).toFixed(3)}`), curvePlot(name, points, range))));
  }
}

function noteOf(annotated, runs) {
  if (!annotated) return "Draw on at least one image first (step 2).";
  const images = annotated === 1 ? "the one annotated image" : `all ${annotated} annotated images`;
  return runs > 0 ? `Continues from the last run, with ${images}.` : `Trains on ${images}. Pixels that are not annotated are ignored.`;
}
