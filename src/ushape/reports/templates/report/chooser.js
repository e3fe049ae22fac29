// Which case is shown: the page's address says so ("#case-3"), whoever changed it.

const CASE_HASH = /^#case-(\d+)$/;

function caseHash(place) {
  return `#case-${place}`;
}

/** Where a link of the page leads; those in plots carry an older attribute. */
function hashOf(link) {
  return link && (link.getAttribute("href") ?? link.getAttribute("xlink:href"));
}

/** Keeps the chosen card, the list of cases and the address together. */
function startChooser(page) {
  const article = document.getElementById("chosen");
  if (!article) return;
  const chooser = { page, article, card: new Card(article, page.colors), ranked: rankCases(page) };
  fillCaseChoice(chooser);
  addEventListener("hashchange", () => followHash(chooser));
  document.addEventListener("click", ({ target }) => {
    if (hashOf(target.closest("a")) === location.hash) followHash(chooser); // No change, no event.
  });
  followHash(chooser);
}

/** Places of all cases, by their mean Dice; those without one last. */
function rankCases({ cases, scores }) {
  const dice = cases.map(() => []);
  for (const score of scores) {
    if (score.dice !== null) dice[score.case].push(score.dice);
  }
  const means = dice.map((own) => own.reduce((sum, value) => sum + value, 0) / own.length);
  const rank = (place) => (Number.isNaN(means[place]) ? Infinity : means[place]);
  return cases.map((_, place) => place).sort((a, b) => rank(a) - rank(b) || a - b);
}

function fillCaseChoice({ page, ranked }) {
  const choice = document.getElementById("case-choice");
  choice.append(new Option("choose, worst first", ""));
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

/** Shows the case that the address names, if it names one. */
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

/** Marks the case's dots in all plots. */
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
    `As scored: ${texts.join("; ")}.`,
    part ? `Shown: ${part}.` : "",
    picture === null ? "Its pictures are not in this page." : "",
  ].join(" ");
}

/** "cell Dice 0.812", "cell missed, Dice 0.000", "cell both empty" */
function scoreText(page, { class: own, dice, kind }) {
  const label = page.classes.length > 1 ? `${page.classes[own].name} ` : "";
  const what = kind === "both present" ? "" : kind;
  const score = dice === null ? "" : `Dice ${dice.toFixed(3)}`;
  return label + [what, score].filter(Boolean).join(", ");
}

function focusCard(article) {
  const heading = article.querySelector("h3");
  if (!article.contains(document.activeElement)) heading.focus({ preventScroll: true });
  article.scrollIntoView({ block: "nearest" });
}
