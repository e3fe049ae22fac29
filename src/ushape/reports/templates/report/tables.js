// Tables that can be sorted by column, and links from rows to the pictures of their case.

function startTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th").forEach((head, column) => addSortButton(table, head, column));
  }
  if (document.getElementById("chosen")) document.querySelectorAll("tr[data-case]").forEach(linkToCase);
}

function addSortButton(table, head, column) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => {
    const isRising = head.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", isRising ? "ascending" : "descending");
    sortRows(table.tBodies[0], column, isRising ? 1 : -1);
  });
  head.append(button);
}

/** Sorts the rows; rows without a value stay at the end in both directions. */
function sortRows(body, column, direction) {
  const keyed = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
  keyed.sort((a, b) => {
    if (!a.text || !b.text) return Boolean(b.text) - Boolean(a.text);
    return direction * compareTexts(a.text, b.text);
  });
  body.append(...keyed.map(({ row }) => row));
}

/** Compares numbers by value and texts in natural order: a_2 before a_10. */
function compareTexts(a, b) {
  const [first, second] = [a, b].map((text) => Number(text.replace(/[\s%]/g, "")));
  if (Number.isFinite(first) && Number.isFinite(second)) return first - second;
  return a.localeCompare(b, "en", { numeric: true });
}

function linkToCase(row) {
  const link = document.createElement("a");
  link.href = caseHash(row.dataset.case);
  link.append(...row.cells[0].childNodes);
  row.cells[0].append(link);
}
