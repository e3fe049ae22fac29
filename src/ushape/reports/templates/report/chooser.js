// Selection of the case shown. It is stored in the fragment of the URL ("#case-3").

const CASE_HASH = /^#case-(\d+)$/;

function caseHash(place) {
  return `#case-${place}`;
}

/** Returns the target of a link; links in plots use the older attribute xlink:href. */
function hashOf(link) {
  return link && (link.getAttribute("href") ?? link.getAttribute("xlink:href"));
}

/** Keeps the selected card, the list of cases and the URL in sync. */
function startChooser(page) {
  const article = document.getElementById("chosen");
  if (!article) return;
  const chooser = { page, article, card: new Card(article, page.colors), ranked: rankCases(page) };
  fillCaseChoice(chooser);
  addEventListener("hashchange", () => followHash(chooser));
  document.addEventListener("click", ({ target }) => {
    if (hashOf(target.closest("a")) === location.hash) followHash(chooser); // The URL does not change, so there is no hashchange event.
  });
  followHash(chooser);
}

/** Returns the indices of all cases by increasing mean Dice of the annotated classes; cases without come last. */
function rankCases({ cases, scores }) {
  const dice = cases.map(() => []);
  for (const score of scores) {
    if (score.truth) dice[score.case].push(score.dice);
  }
  const means = dice.map((own) => own.reduce((sum, value) => sum + value, 0) / own.length);
  const rank = (place) => (Number.isNaN(means[place]) ? Infinity : means[place]);
  return cases.map((_, place) => place).sort((a, b) => rank(a) - rank(b) || a - b);
}

function fillCaseChoice({ page, ranked }) {
  const choice = document.getElementById("case-choice");
  choice.append(new Option("select (by increasing Dice)", ""));
  choice.append(...ranked.map((place) => new Option(page.cases[place].id, place)));
  choice.addEventListener("change", () => goToCase(choice.value));
  for (const [name, step] of [["worse", -1], ["better", 1]]) {
    const neighbor = () => ranked[ranked.indexOf(Number(choice.value)) + step];
    document.getElementById(name).addEventListener("click", () => goToCase(neighbor()));
  }
}

function goToCase(place) {
  location.hash = caseHash(place);
}

/** Shows the case given in the URL, if there is one. */
async function followHash(chooser) {
  const place = Number(location.hash.match(CASE_HASH)?.[1] ?? NaN);
  const { page, article, card, ranked } = chooser;
  const chosen = page.cases[place];
  const choice = document.getElementById("case-choice");
  if (!chosen) return;
  choice.value = place;
  updateButtons(ranked, place);
  markCurrent(place);
  describeCase(article, page, place);
  await card.show(page.pictures[chosen.picture] ?? null);
  focusCard(article);
}

function updateButtons(ranked, place) {
  const rank = ranked.indexOf(place);
  document.getElementById("worse").disabled = rank <= 0;
  document.getElementById("better").disabled = rank < 0 || rank === ranked.length - 1;
}

/** Highlights the marks of the case in all plots. */
function markCurrent(place) {
  for (const link of document.querySelectorAll(".plot a")) {
    const isCurrent = hashOf(link) === caseHash(place);
    if (isCurrent) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

function describeCase(article, page, place) {
  const { id, group, picture } = page.cases[place];
  const texts = page.scores.filter((score) => score.case === place).map((score) => scoreText(page, score));
  const part = page.pictures[picture]?.part;
  article.dataset.picture = picture ?? "";
  article.querySelector("h3").textContent = id;
  article.querySelector(".facts").textContent = [
    `Group ${group}.`,
    `Result: ${texts.join("; ")}.`,
    part ? `Shown: ${part}.` : "",
    picture === null ? "This page contains no picture of this image." : "",
  ].join(" ");
}

/** "cell Dice 0.812", "cell missed, Dice 0.000", "cell false positive", "cell both empty" */
function scoreText(page, { class: own, dice, kind, truth }) {
  const label = page.classes.length > 1 ? `${page.classes[own].name} ` : "";
  const what = kind === "both present" ? "" : kind;
  const score = truth ? `Dice ${dice.toFixed(3)}` : "";
  return label + [what, score].filter(Boolean).join(", ");
}

function focusCard(article) {
  const heading = article.querySelector("h3");
  if (!article.contains(document.activeElement)) heading.focus({ preventScroll: true });
  article.scrollIntoView({ block: "nearest" });
}
