// Alerts: keeps the page fresh, makes and ends silences, tries a rule on what has been.
import { Group, airy, alpha, clockText, dayText, durationText, numberText, shade } from "./plot.js";
import { element } from "./dom.js";
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

watch({
  alerts: () => {
    refresh();
    showSilences();
  },
});
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
const UNITS = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
const MOST_LINES = 6;
const NAME = "trial";
let group = null;
let tried = 0;

function seconds(text) {
  const parts = [...text.matchAll(/(\d+)([smhdw])/g)];
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * UNITS[unit], 0);
}

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
    const end = Math.floor(Date.now() / 1000);
    const start = end - (seconds(fields.since) || 7 * 86400);
    const step = Math.max(seconds(fields.interval) || 300, Math.ceil((end - start) / 5000));
    const rule = { alert: NAME, expr: fields.expr, for: fields.for || "0s" };
    const [result, parts] = await Promise.all([backtest(rule, fields, start, end), askJson(`/ui/expression?expr=${encodeURIComponent(fields.expr)}`)]);
    const query = new URLSearchParams({ query: parts.drawn, start, end, step });
    const lines = await fetch(`/api/v1/query_range?${query}`).then((response) => response.json());
    if (number !== tried) return;
    drawTrial(result, lines.data?.result ?? [], parts.threshold, start, end, step, fields.expr);
  } catch (error) {
    if (number === tried) tryProblem.textContent = error.message;
  } finally {
    if (number === tried) {
      button.disabled = false;
      tryResult.removeAttribute("aria-busy");
    }
  }
});

async function backtest(rule, fields, start, end) {
  return { periods: [] };
}

function drawTrial(result, lines, threshold, start, end, step, expr) {
  group?.clear();
  const { periods } = result;
  const total = periods.reduce((sum, one) => sum + ((one.end ?? end) - one.start), 0);
  const verdict = element("p", { className: "sentence", text: periods.length ? `It would have fired ${periods.length === 1 ? "once" : `${periods.length} times`}, ${durationText(Math.round(total / 60) * 60)} in all.` : "It would not have fired." });
  const holder = element("div", { className: "plot" });
  const legend = element("ul", { className: "readout" });
  const panel = element("div", { className: "panel", role: "group", tabindex: "0", "aria-label": `${expr}, ${periods.length} periods of firing` }, element("div", { className: "panel-head" }, legend), holder);
  const table = element("table", { className: "plain" },
    element("thead", {}, element("tr", {}, ...["Fired", "For", "Labels"].map((text) => element("th", { scope: "col", text })))),
    element("tbody", {}, ...periods.slice(0, 100).map((one) => element("tr", {}, element("td", { text: `${dayText(one.start)} ${clockText(one.start)}` }), element("td", { text: one.end === null ? `${durationText(Math.round((end - one.start) / 60) * 60)}, still` : durationText(one.end - one.start) }), element("td", { text: labelText(one.labels) })))));
  tryResult.replaceChildren(verdict, panel, ...(periods.length ? [element("div", { className: "scroll" }, table)] : []));

  group = new Group({ onRange: (from, to) => group.show(from, to), onBack: () => group.show(start, end), onCursor: () => {} });
  group.keys(panel);
  group.range = [start, end];
  const shown = [...lines].sort((one, other) => firedTime(other, periods, end) - firedTime(one, periods, end)).slice(0, MOST_LINES);
  const times = [];
  for (let at = start; at <= end; at += step) times.push(at);
  const place = new Map(times.map((at, index) => [at, index]));
  const columns = shown.map((line) => {
    const column = times.map(() => null);
    for (const [at, value] of line.values) if (place.has(at)) column[place.get(at)] = Number.isFinite(+value) ? +value : null;
    return column;
  });
  const { colours } = group;
  const series = columns.map((_, index) => ({ stroke: colours.series[index % 6], width: 1.5, spanGaps: false, points: { show: false } }));
  shown.forEach((line, index) => {
    const mark = element("span", { className: `swatch swatch-${index % 6}`, "aria-hidden": "true" });
    legend.append(element("li", {}, mark, element("span", { text: labelText(line.metric) })));
  });
  if (lines.length > shown.length) legend.append(element("li", { className: "quiet", text: `and ${lines.length - shown.length} more` }));
  if (threshold !== null) {
    columns.push(times.map(() => threshold));
    series.push({ stroke: alpha(colours.bad, 0.9), width: 1, dash: [5, 4], points: { show: false } });
    legend.append(element("li", { className: "quiet", text: `threshold ${numberText(threshold)}` }));
  }
  group.add(holder, { data: [times, ...columns], series, height: 220, yRange: airy, clear: [shade(() => periods.map((one) => ({ ...one, end: one.end ?? end })))] });
}

/** Lines that fired come first: those are what one looks for. */
function firedTime(line, periods, end) {
  return periods.filter((one) => Object.entries(line.metric).every(([key, value]) => key === "__name__" || one.labels[key] === value)).reduce((sum, one) => sum + (one.end ?? end) - one.start, 0);
}
