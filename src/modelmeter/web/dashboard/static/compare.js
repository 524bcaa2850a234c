// Two sides: what the API says of them, drawn and in words.
import { alpha, numberText, theme } from "./plot.js";
import { element, shape } from "./dom.js";
import { watch } from "./live.js";

const holder = document.getElementById("comparison");
const state = document.getElementById("state");
const ORDER = ["worse", "different", "better", "no difference", "too few samples"];
const HEIGHT = 190;
let plots = [];
let shown = null;
let asked = 0;

const percent = (share) => `${numberText(share * 100)}\u202f%`;

function timeSpan(side) {
  const short = (text) => `${text.slice(0, 16).replace("T", " ")}`;
  return `${short(side.start)} to ${short(side.end)}`;
}

function probability(p) {
  if (p === null || p === undefined) return "\u2013";
  return p < 0.0001 ? "< 0.0001" : numberText(p);
}

/** The API speaks of a and b; people have names for them. */
function named(reason, a, b) {
  return reason ? `${reason.replace(/^b\b/, b).replace(/^a\b/, a)}.` : "";
}

const signed = (value) => (value > 0 ? `+${numberText(value)}` : numberText(value));

/** The verdict as a sentence about these two sides. */
function words(one, a, b) {
  const now = b[0].toUpperCase() + b.slice(1) === "Now" ? "Now" : b;
  const then = a;
  const level = `a mean of ${numberText(one.b?.mean)} instead of ${numberText(one.a?.mean)}`;
  switch (one.verdict) {
    case "worse":
    case "better":
      return `${now} is ${one.verdict} than ${then}: ${level}.`;
    case "different":
      return `${now} differs from ${then}: ${level}.`;
    case "no difference":
      return `No difference that counts between ${then} and ${b}.`;
    default:
      return "Too few samples to tell.";
  }
}

const MARKS = {
  worse: "M5 9 .8 3h8.4z",
  better: "M5 1 9.2 7H.8z",
  different: "M5 .5 9.5 5 5 9.5.5 5z",
  "no difference": "M1 3h8v1.4H1zM1 6h8v1.4H1z",
  "too few samples": "M1 4.2h8v1.6H1z",
};
const TONES = { worse: "bad", better: "good", different: "warn" };

function verdictMark(verdict) {
  return element("span", { className: `state ${TONES[verdict] ?? "quiet"}` }, shape("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, shape("path", { d: MARKS[verdict] ?? MARKS.different })), document.createTextNode(verdict[0].toUpperCase() + verdict.slice(1)));
}

/** The difference with its confidence interval on a line through zero. */
function intervalPicture(one) {
  if (!one.interval) return null;
  const [low, high] = one.interval;
  const reach = Math.max(Math.abs(low), Math.abs(high)) * 1.15 || 1;
  const x = (value) => 100 + (value / reach) * 96;
  const picture = shape("svg", { viewBox: "0 0 200 22", class: `interval ${TONES[one.verdict] ?? ""}`, role: "img", "aria-label": `Difference ${signed(one.difference)}, 95 % interval ${signed(low)} to ${signed(high)}` });
  picture.append(
    shape("path", { class: "zero", d: "M100 1v20" }),
    shape("path", { class: "range", d: `M${x(low).toFixed(1)} 11H${x(high).toFixed(1)}` }),
    shape("circle", { cx: x(one.difference).toFixed(1), cy: 11, r: 4 }),
  );
  return picture;
}

function numbersTable(one, a, b) {
  const quantiles = Object.keys(one.a?.quantiles ?? one.b?.quantiles ?? {});
  const rows = [
    ["values", (side) => side?.count],
    ["mean", (side) => side?.mean],
    ...quantiles.map((q) => [`p${+(q * 100).toFixed(2)}`, (side) => side?.quantiles?.[q]]),
    ["standard deviation", (side) => side?.stddev],
  ];
  return element("table", { className: "plain sides" },
    element("thead", {}, element("tr", {}, element("td"), element("th", { scope: "col", className: "num" }, element("span", { className: "swatch swatch-0", "aria-hidden": "true" }), document.createTextNode(a)), element("th", { scope: "col", className: "num" }, element("span", { className: "swatch swatch-1", "aria-hidden": "true" }), document.createTextNode(b)))),
    element("tbody", {}, ...rows.map(([label, pick]) => element("tr", {}, element("th", { scope: "row", text: label }), ...[one.a, one.b].map((side) => {
      const value = pick(side);
      return element("td", { className: "num", text: label === "values" && value !== undefined ? value.toLocaleString("en").replaceAll(",", "\u202f") : numberText(value) });
    })))));
}

function testsList(one) {
  const pairs = [
    ["p, adjusted", probability(one.p)],
    ["Cohen\u2019s d", signed(one.cohens_d)],
    ["Cliff\u2019s delta", signed(one.cliffs_delta)],
    ["Welch t", one.welch ? `${numberText(one.welch.statistic)}, p ${probability(one.welch.p)}` : "\u2013"],
    ["Mann-Whitney U", one.mann_whitney ? `${numberText(one.mann_whitney.statistic)}, p ${probability(one.mann_whitney.p)}` : "\u2013"],
    ["Kolmogorov-Smirnov", one.ks ? `${numberText(one.ks.statistic)}, p ${probability(one.ks.p)}` : "\u2013"],
    ["PSI", numberText(one.psi)],
    ["Jensen-Shannon", numberText(one.jensen_shannon)],
    ["Wasserstein", numberText(one.wasserstein)],
  ];
  return element("dl", { className: "tests" }, ...pairs.map(([term, value]) => element("div", {}, element("dt", { text: term }), element("dd", { text: value }))));
}

/** Both distributions as densities over each other. */
function drawDistributions(into, histogram, a, b) {
  const { edges } = histogram;
  const colours = theme();
  const totals = ["a", "b"].map((side) => histogram[side].reduce((sum, count) => sum + count, 0) || 1);
  // What lies in the outermost half percent on both sides would press all else together.
  const both = histogram.a.map((count, at) => count / totals[0] + histogram.b[at] / totals[1]);
  let [first, last, sum] = [0, both.length - 1, 0];
  while (first < last && (sum += both[first]) < 0.008) first++;
  sum = 0;
  while (last > first && (sum += both[last]) < 0.008) last--;
  const x = [edges[first]];
  const columns = [[0], [0]];
  for (let at = first; at <= last; at++) {
    const width = edges[at + 1] - edges[at] || 1;
    x.push(edges[at + 1]);
    columns.forEach((column, side) => {
      const density = histogram[side ? "b" : "a"][at] / totals[side] / width;
      if (at === first) column[0] = density;
      column.push(density);
    });
  }
  const shifted = columns.map((column) => column.slice(1).concat(column.at(-1)));
  const axis = { stroke: colours.text, font: "11px Inter, system-ui, sans-serif", ticks: { show: false }, grid: { stroke: colours.grid, width: 1 } };
  const stepped = uPlot.paths.stepped({ align: 1 });
  const note = element("p", { className: "plot-note quiet", "aria-hidden": "true", text: "\u00a0" });
  const plot = new uPlot({
    width: Math.max(into.clientWidth, 120),
    height: HEIGHT,
    padding: [8, 12, 0, 4],
    legend: { show: false },
    scales: { x: { time: false }, y: { range: (_, low, high) => [0, (high || 1) * 1.06] } },
    axes: [{ ...axis, size: 26, gap: 6, values: (_, splits) => splits.map((value) => numberText(value)) }, { ...axis, show: false }],
    series: [{}, ...[0, 1].map((side) => ({ stroke: colours.series[side], fill: alpha(colours.series[side], 0.14), width: 1.6, paths: stepped, points: { show: false } }))],
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    hooks: {
      setCursor: [(its) => {
        const at = its.cursor.idx;
        if (at === null || at === undefined || first + at > last) return void (note.textContent = "\u00a0");
        const bin = first + at;
        note.textContent = `${numberText(edges[bin])} to ${numberText(edges[bin + 1])}: ${a} ${percent(histogram.a[bin] / totals[0])}, ${b} ${percent(histogram.b[bin] / totals[1])}`;
      }],
    },
  }, [x, ...shifted], into);
  into.append(note);
  const observer = new ResizeObserver(() => into.clientWidth && into.clientWidth !== plot.width && plot.setSize({ width: into.clientWidth, height: HEIGHT }));
  observer.observe(into);
  plots.push({ plot, observer });
}

function draw(body) {
  for (const { plot, observer } of plots) {
    observer.disconnect();
    plot.destroy();
  }
  plots = [];
  shown = body;
  const same = holder.dataset.a === holder.dataset.b;
  const a = same ? "before" : holder.dataset.a;
  const b = same ? "now" : holder.dataset.b;
  const metrics = Object.entries(body.metrics).sort(([one, its], [other, their]) => ORDER.indexOf(its.verdict) - ORDER.indexOf(their.verdict) || Math.abs(their.cohens_d ?? 0) - Math.abs(its.cohens_d ?? 0) || one.localeCompare(other));
  const count = (verdict) => metrics.filter(([, one]) => one.verdict === verdict).length;
  const summary = ORDER.filter(count).map((verdict) => `${count(verdict)} ${verdict}`).join(", ");
  const sides = element("p", { className: "summary" },
    element("b", { text: metrics.length ? `${summary[0].toUpperCase()}${summary.slice(1)}` : "Nothing to compare" }),
    element("span", { className: "quiet", text: ` \u00b7 ${a}: ${body.a.events.toLocaleString("en")} events, ${timeSpan(body.a)} \u00b7 ${b}: ${body.b.events.toLocaleString("en")} events, ${timeSpan(body.b)}` }));
  const panels = metrics.map(([metric, one]) => {
    const plotHolder = element("div", { className: "plot" });
    const panel = element("article", { className: "card comparison" },
      element("div", { className: "comparison-words" },
        element("div", { className: "panel-head flat" }, element("h2", { text: metric }), verdictMark(one.verdict)),
        element("p", { className: "sentence", text: words(one, a, b) }),
        one.interval ? element("p", { className: "quiet", text: `Difference ${signed(one.difference)}, 95\u202f% interval ${signed(one.interval[0])} to ${signed(one.interval[1])}. ${named(one.reason, a, b)}` }) : element("p", { className: "quiet", text: named(one.reason, a, b) }),
        intervalPicture(one),
        numbersTable(one, a, b)),
      element("div", { className: "comparison-picture" }, plotHolder, testsList(one)));
    return { panel, plotHolder, one };
  });
  holder.replaceChildren(sides, ...panels.map(({ panel }) => panel));
  if (!metrics.length) holder.append(element("p", { className: "none", text: "No event on either side in these spans. Choose a longer range." }));
  for (const { plotHolder, one } of panels) if (one.histogram) drawDistributions(plotHolder, one.histogram, a, b);
}

async function load() {
  if (!holder?.dataset.url) return;
  const number = ++asked;
  try {
    const response = await fetch(holder.dataset.url);
    const body = await response.json();
    if (number !== asked) return;
    if (!response.ok) throw new Error(body.detail ?? `the server answered ${response.status}`);
    draw(body);
  } catch (error) {
    if (shown) return;
    holder.replaceChildren(state);
    state.textContent = `This could not be compared: ${error.message}`;
  }
}

const form = document.getElementById("sides");
form?.addEventListener("submit", () => {
  for (const input of form.querySelectorAll("input")) input.disabled = !input.value;
});
for (const select of form?.querySelectorAll("select") ?? []) select.addEventListener("change", () => form.requestSubmit());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown && draw(shown));

let wait = 0;
watch({
  stored: (message) => {
    if (!holder || (message?.versions && !message.versions.some(([name]) => name === holder.dataset.name))) return;
    clearTimeout(wait);
    wait = setTimeout(load, 1000); // the numbers of a day hardly move: no need to hurry
  },
});
load();
