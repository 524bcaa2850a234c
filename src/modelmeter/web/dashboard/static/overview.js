// The overview: keeps its rows fresh, and searches while one types.
import { paced } from "./pace.js";
import { patch } from "./patch.js";
import { watch } from "./live.js";

const region = document.getElementById("live-region");
const sort = document.getElementById("sort");
let asked = 0;
let toSort = false; // kept until an answer is put in: a later question may overtake the one that wanted it

/** Asks for this very page anew and puts in what differs; the rows stay where they are. */
async function refresh({ reorder = false } = {}) {
  const number = ++asked;
  toSort ||= reorder;
  const response = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (number !== asked) return; // a later question is on its way
  sort.hidden = !patch(region, page.getElementById("live-region"), { reorder: toSort });
  toSort = false;
  const count = page.getElementById("firing-count");
  const old = document.getElementById("firing-count");
  if (old && count) old.replaceWith(count);
}

const follow = paced(() => refresh());

sort.addEventListener("click", () => {
  document.getElementById("main").focus();
  refresh({ reorder: true });
});
watch({ stored: follow, alerts: follow }, follow);

const form = document.getElementById("filters");
if (form) {
  const search = form.elements.namedItem("q");
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const url = new URL(location.href);
      if (search.value) url.searchParams.set("q", search.value);
      else url.searchParams.delete("q");
      history.replaceState(null, "", url);
      for (const link of document.querySelectorAll(".segments a, .menu-body a")) {
        const its = new URL(link.href);
        if (search.value) its.searchParams.set("q", search.value);
        else its.searchParams.delete("q");
        link.href = its;
      }
      refresh({ reorder: true });
    }, 150);
  });
  form.addEventListener("submit", () => {
    for (const input of form.querySelectorAll("input")) input.disabled = !input.value; // keeps the URL short
  });
}
