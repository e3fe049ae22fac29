// Elements of the page, and messages to the user.

const SVG = "http://www.w3.org/2000/svg";

export function byId(id) {
  return document.getElementById(id);
}

/** Creates an HTML element; names with a hyphen, "role" and "class" are set as attributes. */
export function make(tag, values = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (name.includes("-") || name === "role" || name === "class") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function makeSvg(tag, values = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Shows a message below the image; screen readers read it aloud. */
export function say(text, kind = "info") {
  const message = byId("message");
  message.textContent = text;
  message.dataset.kind = kind;
}

/** Sets the text only if it changed, so that screen readers do not repeat it. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Asks a question in a dialog and returns whether the user agreed. */
export function askUser(title, text, agree) {
  const dialog = byId("confirm-dialog");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = agree;
  return openDialog(dialog).then((answer) => answer === "yes");
}

/** Opens a modal dialog and returns the value of the button that closed it, "" for Escape. */
export function openDialog(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

/** Returns the answer of a function of the server, or says why there is none and returns null. */
export async function attempt(request) {
  try {
    return await request();
  } catch (error) {
    if (error.name !== "AbortError") say([error.message, error.hint].filter(Boolean).join(" "), "error");
    return null;
  }
}

export function secondsText(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}
