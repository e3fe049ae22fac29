// Initialization of the page.

/** Expands collapsed content for printing. */
function unfoldForPaper() {
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details:not([open])")];
    for (const details of unfolded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of unfolded) details.open = false;
  });
}

function startHighlights(page) {
  for (const article of document.querySelectorAll(".card:not(.chosen)")) {
    new Card(article, page.colors).show(page.pictures[article.dataset.picture]);
  }
}

const page = JSON.parse(document.getElementById("page-data").textContent);
document.documentElement.classList.add("has-script");
startTooltip();
startTables();
startHighlights(page);
startPlots(page);
startChooser(page);
unfoldForPaper();
