// Alerts: keeps the page fresh, makes and ends silences, tries a rule on what has been.
import { Group, airy, alpha, clockText, dayText, durationText, numberText, shade } from "./plot.js";
import { element } from "./dom.js";
import { paced } from "./pace.js";
import { watch } from "./live.js";

// What the server renders: put in anew when it differs, unless one is about to press something in it.
async function refresh() {
  const response = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const older of document.querySelectorAll("[data-fresh]")) {
    const newer = page.getElementById(older.id);
    if (newer && newer.innerHTML !== older.innerHTML && !older.contains(document.activeElement)) older.replaceChildren(...newer.childNodes);
  }
  const count = page.getElementById("firing-count");
  const old = document.getElementById("firing-count");
  if (old && count) old.replaceWith(count);
}

const follow = paced(() => Promise.all([refresh(), showSilences()]));
watch({ alerts: follow });
setInterval(() => !document.hidden && refresh(), 15_000); // ages, and rules as they are evaluated

// Silences.
const silences = document.getElementById("silences");
const form = document.getElementById("silence-form");
const problem = document.getElementById("silence-problem");
const maker = document.getElementById("make-silence");

async function askJson(url, options) {
  const response = await fetch(url, options);
  const text = await response.text();
  const body = text ? JSON.parse(text) : {};
  if (!response.ok) throw new Error(body.detail ?? `the server answered ${response.status}`);
  return body;
}

const whenText = (text) => `${dayText(Date.parse(text) / 1000)} ${clockText(Date.parse(text) / 1000)}`;

function silenceRow(one) {
  const end = element("button", { className: "button small", type: "button", text: "End now", "aria-label": `End the silence of ${one.matchers.join(", ")}` });
  end.addEventListener("click", async () => {
    end.disabled = true;
    try {
      await askJson(`/silences/${encodeURIComponent(one.id)}`, { method: "DELETE" });
    } finally {
      await showSilences();
    }
  });
  return element("li", { className: "silence" },
    element("div", { className: "alert-words" }, element("p", {}, element("code", { text: one.matchers.join(", ") })), element("p", { className: "quiet", text: `${one.comment} \u00b7 ${one.author}` })),
    element("p", { className: "alert-since" }, document.createTextNode(one.state === "pending" ? `from ${whenText(one.starts_at)} ` : ""), document.createTextNode(`until ${whenText(one.ends_at)}`)),
    element("p", { className: "alert-acts" }, end));
}

async function showSilences() {
  try {
    const body = await askJson("/silences");
    const current = body.silences.filter((one) => one.state !== "expired");
    const over = body.silences.length - current.length;
    if (silences.contains(document.activeElement) && document.activeElement.disabled === false) return;
    silences.replaceChildren(
      current.length ? element("ul", { className: "alerts" }, ...current.map(silenceRow)) : element("p", { className: "none", text: `No alert is silenced.${over ? ` ${over} ${over === 1 ? "silence is" : "silences are"} over.` : ""}` }),
    );
  } catch (error) {
    silences.replaceChildren(element("p", { className: "problem", text: `Silences could not be loaded: ${error.message}` }));
  }
}

document.addEventListener("click", (event) => {
  const silence = event.target.closest("[data-silence]");
  if (silence) {
    maker.open = true;
    form.elements.namedItem("matchers").value = silence.dataset.silence;
    form.elements.namedItem("author").focus();
    form.scrollIntoView({ block: "center" });
  }
  const trial = event.target.closest("[data-try]");
  if (trial) {
    tryForm.elements.namedItem("expr").value = trial.dataset.try;
    tryForm.elements.namedItem("for").value = trial.dataset.for;
    tryForm.scrollIntoView({ block: "start" });
    tryForm.requestSubmit();
  }
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  const fields = Object.fromEntries(new FormData(form));
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    await askJson("/silences", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...fields, matchers: [fields.matchers.trim().replace(/^\{|\}$/g, "")] }),
    });
    form.reset();
    maker.open = false;
    maker.querySelector("summary").focus();
    await showSilences();
  } catch (error) {
    problem.textContent = error.message;
  } finally {
    button.disabled = false;
  }
});
showSilences();

// A rule, tried.
const tryForm = document.getElementById("try-form");
const tryProblem = document.getElementById("try-problem");
const tryResult = document.getElementById("try-result");
let group = null;
let tried = 0;

const labelText = (labels) => Object.entries(labels).filter(([key]) => key !== "__name__" && key !== "alertname").map(([key, value]) => `${key} ${value}`).join(", ") || "all";

tryForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  tryProblem.textContent = "";
  const number = ++tried;
  const fields = Object.fromEntries(new FormData(tryForm));
  const button = tryForm.querySelector("[type=submit]");
  button.disabled = true;
  tryResult.setAttribute("aria-busy", "true");
  try {
    const found = await askJson(`/ui/trial?${new URLSearchParams(fields)}`);
    if (number !== tried) return;
    drawTrial(found, fields.expr);
  } catch (error) {
    if (number === tried) tryProblem.textContent = error.message;
  } finally {
    if (number === tried) {
      button.disabled = false;
      tryResult.removeAttribute("aria-busy");
    }
  }
});

function drawTrial(found, expr) {
  group?.clear();
  const { times, threshold, lines, firings } = found;
  const [start, end] = [times[0], times.at(-1)];
  const step = times[1] - times[0];
  const total = firings.reduce((sum, one) => sum + ((one.end ?? end) - one.start), 0);
  const often = found.count === 1 ? "once" : `${found.count} times`;
  const words = found.count ? `It would have fired ${often}, ${roughly(total)} in all.` : found.series ? "It would not have fired." : "There is nothing that this expression looks at in this time.";
  const holder = element("div", { className: "plot" });
  const legend = element("ul", { className: "readout" });
  const panel = element("div", { className: "panel", role: "group", tabindex: "0", "aria-label": `${expr}: ${words}` }, element("div", { className: "panel-head" }, legend), holder);
  const columns = ["Fired", "For", "Value", "Labels"];
  const rows = firings.slice(0, 100).map((one) => [
    `${dayText(one.start)} ${clockText(one.start)}`,
    one.end === null ? `${roughly(end - one.start)}, still` : roughly(one.end - one.start),
    numberText(one.value),
    labelText(one.labels),
  ]);
  const table = element("table", { className: "plain" },
    element("thead", {}, element("tr", {}, ...columns.map((text) => element("th", { scope: "col", text })))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((text) => element("td", { text }))))));
  tryResult.replaceChildren(element("p", { className: "sentence", text: words }), ...(lines.length ? [panel] : []), ...(rows.length ? [element("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": "When it would have fired" }, table)] : []));
  if (!lines.length) return;

  group = new Group({ onRange: (from, to) => group.show(from, to), onBack: () => group.show(start, end), onCursor: () => {} });
  group.keys(panel);
  group.range = [start, end];
  const { colours } = group;
  const data = lines.map((line) => line.values);
  const series = lines.map((_, index) => ({ stroke: colours.series[index % 6], width: 1.5, spanGaps: false, points: { show: false } }));
  lines.forEach((line, index) => {
    legend.append(element("li", {}, element("span", { className: `swatch swatch-${index % 6}`, "aria-hidden": "true" }), element("span", { text: labelText(line.labels) })));
  });
  if (found.series > lines.length) legend.append(element("li", { className: "quiet", text: `and ${found.series - lines.length} more` }));
  if (threshold !== null) {
    data.push(times.map(() => threshold));
    series.push({ stroke: alpha(colours.bad, 0.9), width: 1, dash: [5, 4], points: { show: false } });
    legend.append(element("li", { className: "quiet", text: `threshold ${numberText(threshold)}` }));
  }
  group.add(holder, { data: [times, ...data], series, height: 220, yRange: airy, clear: [shade(() => firings.map((one) => ({ start: one.start, end: one.end ?? end + step })))] });
}

/** 40 s, 12 min, 3.5 h, 2.1 d */
function roughly(seconds) {
  for (const [width, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (seconds >= width * 2) return `${+(seconds / width).toPrecision(2)}\u202f${unit}`;
  return durationText(Math.max(seconds, 1));
}
