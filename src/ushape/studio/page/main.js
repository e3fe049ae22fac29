// Start of the page: makes the parts and connects them.

import { ClassDialog } from "./classes.js";
import { attempt, byId, openDialog, say, setText } from "./dom.js";
import { EditQueue } from "./edits.js";
import { Gestures } from "./gestures.js";
import { ImageList } from "./images.js";
import { Keyboard } from "./keyboard.js";
import { Layers } from "./layers.js";
import { request, Session } from "./state.js";
import { Steps } from "./steps.js";
import { TileStore } from "./tiles.js";
import { Tools } from "./tools.js";
import { Viewer } from "./viewer.js";
import { Volume } from "./volume.js";

/** What an edit with a tool is called when it is undone. */
const EDITS = {
  brush: "The brush stroke", eraser: "The eraser stroke", polygon: "The polygon", fill: "The fill", split: "The split",
  merge: "The merge", delete: "The deletion", accept: "Accepting the prediction", accept_object: "Accepting the object",
  unmark: "The unmarking stroke", background_rest: "Marking everything else as background", clear: "Clearing the image",
};

const THEMES = { auto: "automatic", light: "light", dark: "dark" };

/** Loads the tiles again that an edit changed, and forgets its stroke when they are there. */
function followEdits(session, edits, viewer, tiles) {
  const forget = (edit) => (viewer.strokes = viewer.strokes.filter((stroke) => stroke.edit.body.edit_id !== edit.body.edit_id));
  edits.addEventListener("applied", ({ detail: { edit, answer } }) => {
    const { plane = session.plane, index = session.index } = edit.body;
    const isLocal = edit.path === "edit" && edit.body.points.length;
    if (session.info?.id === edit.id) {
      tiles.outdate(["mask", "error"], isLocal && answer.box ? { plane, index, box: answer.box } : {});
    }
    for (const stroke of viewer.strokes) if (stroke.edit.body.edit_id === edit.body.edit_id) stroke.isApplied = true;
    viewer.update();
    session.hasAskedToSave = false;
    session.state.saved.pending ||= 1; // Until the server says otherwise.
    session.poll();
  });
  edits.addEventListener("dropped", ({ detail: { edit } }) => {
    forget(edit);
    viewer.update();
  });
}

/** Says what was undone or redone, and again when the mask is saved. */
function tellSteps(session, edits) {
  let [told, since] = ["", 0];
  edits.addEventListener("applied", ({ detail: { edit, answer } }) => {
    [told, since] = ["", session.version];
    if (edit.path === "edit") return;
    told = `${EDITS[answer.tool] ?? "The edit"} was ${edit.path === "undo" ? "undone" : "redone"}.`;
    say(`${told} The mask is being saved.`);
  });
  session.on("state", () => {
    const { version, saved: { pending, error }, project: { needs_consent: isAsked } } = session.state;
    const isOld = version <= since; // It was asked for before the step was made.
    if (!told || isOld || pending || error || isAsked || edits.waiting.length) return;
    if (byId("message").textContent.startsWith(told)) say(`${told} The mask is saved.`);
    told = "";
  });
}

/** Asks, after the first edit of an image that has a mask, where the changed masks are written. */
async function askHowToSave(session, tools) {
  const { needs_consent: isNeeded } = session.state.project;
  const isBusy = tools.isDown || document.querySelector("dialog[open]");
  if (!isNeeded || isBusy || session.hasAskedToSave) return;
  session.hasAskedToSave = true;
  const save = await openDialog(byId("save-dialog"));
  if (!save) return void say("The changed mask has not been written yet. You will be asked again at the next edit.", "error");
  if (await attempt(() => request("/settings", { save }))) session.poll();
}

function showSaved(session, edits) {
  const offline = byId("offline");
  const count = edits.waiting.length;
  const unsent = count === 1 ? "1 edit is" : `${count} edits are`;
  offline.hidden = session.isOnline;
  setText(offline, session.isOnline ? "" : "ushape studio is not responding. Start it again with the same command; "
    + `this page then continues automatically. ${count ? `${unsent} kept and will be sent.` : "Nothing is lost."}`);
  const { pending = 0, error = null } = session.state?.saved ?? {};
  const saved = error ? "Not saved" : pending ? "Saving …" : "All saved";
  const sending = edits.isRefused ? "Not sent yet" : "Sending …";
  setText(byId("saved"), !session.isOnline ? "Not connected" : count ? sending : saved);
}

/** Says, once, what could not be saved or opened. */
function tellProblems(session) {
  const { project: { problems }, saved: { error } } = session.state;
  const text = [error, ...problems].filter(Boolean).join(" ");
  if (text && text !== session.toldProblems) say(text, "error");
  session.toldProblems = text;
}

function showLock({ info, images }) {
  const lock = byId("lock");
  lock.hidden = !info?.locked;
  setText(lock, info?.locked ?? "");
  const empty = byId("empty");
  empty.hidden = Boolean(info);
  setText(empty, images.length ? "Choose an image on the left." : "There are no images here.");
}

function startTheme() {
  const button = byId("theme");
  const set = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    byId("theme-name").textContent = `Theme: ${THEMES[theme]}`;
    button.setAttribute("aria-label", `Theme: ${THEMES[theme]}`);
    localStorage.setItem("ushape-studio-theme", theme);
  };
  const names = Object.keys(THEMES);
  let theme = localStorage.getItem("ushape-studio-theme");
  if (!(theme in THEMES)) theme = "auto";
  set(theme);
  button.addEventListener("click", () => {
    theme = names[(names.indexOf(theme) + 1) % names.length];
    set(theme);
  });
}

function startTabs() {
  const buttons = document.querySelectorAll("#tabs button");
  const refresh = () => {
    for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.tab === document.body.dataset.tab);
  };
  for (const button of buttons) button.addEventListener("click", () => (document.body.dataset.tab = button.dataset.tab));
  new MutationObserver(refresh).observe(document.body, { attributes: true });
  refresh();
}

/** Opens the image of the address, or the suggested one, or the first one. */
async function openFirst(session) {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const next = session.rowOf(wanted) ? null : await request("/next").catch(() => null);
  const id = session.rowOf(wanted)?.id ?? session.rowOf(next?.id)?.id ?? session.images[0]?.id;
  if (id) await attempt(() => session.select(id));
}

async function start() {
  startTheme();
  startTabs();
  const session = new Session();
  const tiles = new TileStore();
  const layers = new Layers(session);
  const edits = new EditQueue(session);
  const viewer = new Viewer(byId("frame"), tiles, layers);
  const tools = new Tools(session, edits, viewer);
  const gestures = new Gestures(viewer, tools);
  const images = new ImageList(session);
  const volume = new Volume(session, viewer, layers);
  const steps = new Steps(session, tools);
  new ClassDialog(session, tools);
  new Keyboard({ session, tools, viewer, layers, images, steps, volume, gestures });

  const showSavedNow = () => showSaved(session, edits);
  session.on("state online", showSavedNow);
  edits.addEventListener("change", showSavedNow);
  session.on("online", () => viewer.update());
  session.on("state", () => setText(byId("project-name"), session.state.project.name));
  session.on("state", () => tellProblems(session));
  session.on("state", () => askHowToSave(session, tools));
  session.on("images info", () => showLock(session));
  session.on("select", () => {
    tiles.clear();
    viewer.strokes = viewer.strokes.filter(({ isApplied }) => !isApplied);
  });
  session.on("info", () => viewer.show(session.info, session.plane, session.index));
  session.on("foreign", () => tiles.outdate(["mask", "error"]));
  session.on("predicted", () => tiles.outdate(["prediction", "probability", "uncertainty", "error"]));
  followEdits(session, edits, viewer, tiles);
  tellSteps(session, edits);
  layers.addEventListener("change", () => {
    viewer.update();
    for (const { viewer: small } of volume.small) small.update();
  });
  const showZoom = () => setText(byId("zoom"), `${Math.max(1, Math.round(100 * viewer.scale))}%`);
  viewer.addEventListener("move", showZoom);
  byId("zoom-in").addEventListener("click", () => viewer.zoom(1.5));
  byId("zoom-out").addEventListener("click", () => viewer.zoom(1 / 1.5));
  byId("zoom-fit").addEventListener("click", () => viewer.fit());
  viewer.frame.addEventListener("pointermove", () => {
    const [x, y] = tools.pointer ?? [];
    const isInside = tools.pointer && viewer.info && viewer.isInImage(tools.pointer);
    setText(byId("position"), isInside ? `x ${Math.floor(x)}, y ${Math.floor(y)}` : "");
  });

  await session.poll();
  await openFirst(session);
  if (!session.isOnline) showSavedNow();
}

start();
