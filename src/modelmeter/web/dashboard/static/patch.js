// Puts a newer rendering of a part of the page in the place of the older one, and touches only what differs.

/**
 * Rows are known by data-key and keep their places unless `reorder`; new ones come last, gone ones go.
 * Returns whether the newer rendering has another order.
 */
export function patch(older, newer, { reorder = false } = {}) {
  const rows = older.querySelector("#rows");
  const fresh = newer.querySelector("#rows");
  if (!rows || !fresh || older.querySelector("thead").textContent !== newer.querySelector("thead").textContent) {
    older.replaceChildren(...newer.childNodes);
    return false;
  }
  const summary = older.querySelector(".summary");
  const newSummary = newer.querySelector(".summary");
  if (summary && newSummary && summary.textContent !== newSummary.textContent) summary.replaceWith(newSummary);
  const known = new Map([...rows.children].map((row) => [row.dataset.key, row]));
  const ordered = [];
  for (const row of [...fresh.children]) {
    const old = known.get(row.dataset.key);
    known.delete(row.dataset.key);
    if (old) patchRow(old, row);
    ordered.push(old ?? row);
    if (!old) rows.append(row);
  }
  for (const row of known.values()) row.remove();
  if (reorder) rows.append(...ordered);
  return [...rows.children].some((row, place) => row !== ordered[place]);
}

function patchRow(old, row) {
  if (old.className !== row.className) old.className = row.className;
  const cells = [...row.children];
  [...old.children].forEach((cell, place) => {
    const next = cells[place];
    if (cell.innerHTML === next.innerHTML) return;
    const changed = cell.textContent !== next.textContent;
    if (cell.contains(document.activeElement)) return;
    cell.replaceChildren(...next.childNodes);
    if (changed) {
      cell.classList.remove("fresh");
      void cell.offsetWidth; // starts the animation anew
      cell.classList.add("fresh");
    }
  });
}
