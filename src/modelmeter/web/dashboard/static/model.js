// A model's page: fetches what the URL says, draws it, and follows what happens.
import { Group, airy, alpha, durationText, heatPainter, numberText, shade, timeText } from "./plot.js";
import { paced } from "./pace.js";
import { patch } from "./patch.js";
import { watch } from "./live.js";

const LINE_HEIGHT = 172;
const HEAT_HEIGHT = 112;
const VOLUME_HEIGHT = 104;
const LEAST_SPAN = 10;

const charts = document.getElementById("charts");
const note = document.getElementById("charts-state");
const spanText = document.getElementById("span");
const chips = document.getElementById("versions");
const { name } = charts.dataset;
const places = new Map([...chips.querySelectorAll("input")].map((box, place) => [box.value, place]));

let shown = null; // what was fetched last
let panels = [];
let inFlight = null;
let refreshAgain = false;

const group = new Group({ onRange: goTo, onBack: zoomOut, onCursor: readOut, onMoving: tellSpan });
group.keys(charts);

function element(tag, { className, text, ...rest } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(rest)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const colourOf = (version) => group.colours.series[(places.get(version) ?? 0) % group.colours.series.length];

function parameters() {
  const url = new URL(location.href);
  const query = new URLSearchParams();
  for (const key of ["start", "end", "match"]) if (url.searchParams.get(key)) query.set(key, url.searchParams.get(key));
  for (const box of chips.querySelectorAll("input:checked")) query.append("v", box.value);
  query.set("focus", focused());
  return query;
}

function focused() {
  const checked = [...chips.querySelectorAll("input:checked")].map((box) => box.value);
  const wanted = new URL(location.href).searchParams.get("version") ?? charts.dataset.focus;
  return checked.includes(wanted) ? wanted : (checked.at(-1) ?? "");
}

async function load() {
  inFlight?.abort();
  const controller = new AbortController();
  inFlight = controller;
  charts.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(`${charts.dataset.path}/charts?${parameters()}`, { signal: controller.signal });
    const body = await response.json();
    if (!response.ok) throw new Error(body.detail ?? `the server answered ${response.status}`);
    draw(body);
  } catch (error) {
    if (error.name === "AbortError") return;
    note.textContent = `This could not be loaded: ${error.message}`;
    note.hidden = false;
  } finally {
    if (inFlight === controller) {
      inFlight = null;
      charts.removeAttribute("aria-busy");
      if (refreshAgain) {
        refreshAgain = false;
        load();
      }
    }
  }
}

/** New data; the same charts, unless there are others to draw. */
function draw(body) {
  const form = (one) => JSON.stringify([one.versions, one.focus, one.metrics.map((metric) => metric.name)]);
  const same = shown && panels.length && form(shown) === form(body);
  shown = body;
  const times = Array.from({ length: body.steps }, (_, place) => body.start + place * body.step);
  if (!same) build(body);
  const middle = times.map((at) => at + body.step / 2);
  group.range = [body.shown_start, body.shown_end];
  for (const panel of panels) panel.update(body, middle);
  group.show(body.shown_start, body.shown_end);
  tellSpan(body.shown_start, body.shown_end);
  readOut(null);
  note.hidden = body.metrics.length > 0;
  if (!body.metrics.length) note.textContent = "No event in this span.";
  loadEventsSoon();
}

function build(body) {
  group.clear();
  panels = [];
  charts.replaceChildren(note);
  group.range = [body.shown_start, body.shown_end];
  body.metrics.forEach((metric, number) => panels.push(metricPanel(body, number)));
  if (body.metrics.length) panels.push(volumePanel(body));
}

function head(title, unit, entries) {
  const list = element("ul", { className: "readout" });
  const values = entries.map(({ label, colour, quiet }) => {
    const value = element("span", { className: "value" });
    const mark = element("span", { className: "swatch", "aria-hidden": "true" });
    mark.style.background = colour;
    list.append(element("li", {}, mark, element("span", { className: quiet ? "quiet" : "", text: label }), value));
    return value;
  });
  const heading = element("h2", { text: title });
  if (unit) heading.append(element("span", { className: "unit quiet", text: unit }));
  return { node: element("div", { className: "panel-head" }, heading, list), values };
}

function metricPanel(body, number) {
  const metric = body.metrics[number];
  const { versions } = body;
  const { node, values } = head(metric.name, metric.unit, versions.map((version) => ({ label: version, colour: colourOf(version) })));
  const lineHolder = element("div", { className: "plot" });
  const heatHolder = element("div", { className: "plot" });
  const heatNote = element("p", { className: "plot-note quiet", text: `Distribution of ${body.focus}` });
  const panel = element("div", { className: "panel", role: "group", tabindex: "0", "aria-label": metric.name }, node, lineHolder, heatNote, heatHolder);
  charts.append(panel);

  // The band's edges come before the lines, so that the lines lie on top.
  const series = [];
  const bands = [];
  for (const version of versions) {
    const edge = { stroke: "transparent", width: 0, points: { show: false } };
    series.push({ ...edge }, { ...edge });
    bands.push({ series: [series.length, series.length - 1], fill: alpha(colourOf(version), 0.13) });
  }
  for (const version of versions) {
    series.push({ stroke: colourOf(version), width: version === body.focus ? 2 : 1.5, spanGaps: false, points: { size: 4, show: lonely } });
  }
  const empty = [[0], ...series.map(() => [null])];
  const line = group.add(lineHolder, { data: empty, series, bands, height: LINE_HEIGHT, yRange: airy, clear: [shade(() => shown.periods)], hideTime: true });
  let painter = null;
  const heat = group.add(heatHolder, {
    data: [[0], [null]],
    series: [{ show: true, stroke: "transparent", points: { show: false } }],
    height: HEAT_HEIGHT,
    yRange: () => painter?.range ?? [0, 1],
    draw: [(plot) => painter?.draw(plot)],
  });
  return {
    update(next, times) {
      const its = next.metrics[number];
      this.metric = its;
      const columns = [times];
      versions.forEach((_, place) => columns.push(its.low[place], its.high[place]));
      versions.forEach((_, place) => columns.push(its.mean[place]));
      line.setData(columns, false);
      painter = its.heat ? heatPainter(its.heat, next, colourOf(next.focus)) : null;
      heatNote.hidden = heatHolder.hidden = !its.heat;
      heat.setData([times, times.map(() => null)], false);
      panel.setAttribute("aria-label", `${its.name}: ${versions.map((version, place) => `${version} ${overall(its, place, "mean", its.unit)}`).join(", ")}`);
    },
    read(index) {
      const its = this.metric;
      versions.forEach((_, place) => {
        let text = overall(its, place, "mean", its.unit);
        if (index !== null) {
          const [mean, low, high] = [its.mean[place][index], its.low[place][index], its.high[place][index]];
          text = mean === null ? "\u2013" : `${numberText(mean, its.unit)}  (${numberText(low)} to ${numberText(high)})`;
        }
        if (values[place].textContent !== text) values[place].textContent = text;
      });
    },
  };
}

/** A point that has no neighbours would not be seen as a line. */
function lonely(plot, series, from, to, gaps) {
  const column = plot.data[series];
  for (let at = Math.max(from, 0); at <= to; at++) {
    if (column[at] !== null && column[at - 1] == null && column[at + 1] == null) return true;
  }
  return false;
}

/** The mean over what is visible, weighted by the number of events. */
function overall(metric, place, key, unit) {
  const [start, end] = group.range;
  let sum = 0;
  let count = 0;
  metric.count[place].forEach((events, at) => {
    const when = shown.start + at * shown.step;
    if (events && when + shown.step > start && when < end) {
      sum += events * metric[key][place][at];
      count += events;
    }
  });
  return count ? numberText(sum / count, unit) : "\u2013";
}

function volumePanel(body) {
  const { versions } = body;
  const { node, values } = head("Volume", "", versions.map((version) => ({ label: version, colour: colourOf(version) })));
  const unit = node.querySelector("h2").appendChild(element("span", { className: "unit quiet" }));
  const holder = element("div", { className: "plot" });
  const panel = element("div", { className: "panel", role: "group", tabindex: "0", "aria-label": "Volume" }, node, holder);
  charts.append(panel);
  const bars = uPlot.paths.bars({ size: [0.82, 60], align: 0 });
  const series = [...versions].reverse().map((version) => ({ fill: alpha(colourOf(version), 0.75), stroke: "transparent", width: 0, paths: bars, points: { show: false } }));
  const plot = group.add(holder, {
    data: [[0], ...series.map(() => [null])],
    series,
    height: VOLUME_HEIGHT,
    yRange: (_, low, high) => [0, (high || 1) * 1.08],
    clear: [shade(() => shown.periods)],
  });
  return {
    update(next, times) {
      this.events = next.events;
      unit.textContent = `events in ${durationText(next.step)}`;
      const total = times.map(() => 0);
      const stacked = next.events.map((column) => column.map((count, at) => (total[at] += count)));
      plot.setData([times, ...stacked.reverse()], false);
    },
    read(index) {
      versions.forEach((_, place) => {
        const [start, end] = group.range;
        const count =
          index === null
            ? this.events[place].reduce((sum, events, at) => {
                const when = shown.start + at * shown.step;
                return when + shown.step > start && when < end ? sum + events : sum;
              }, 0)
            : this.events[place][index];
        const text = numberText(count).replace(/\.0+$/, "");
        if (values[place].textContent !== text) values[place].textContent = text;
      });
    },
  };
}

const at = document.getElementById("at");

function readOut(index) {
  if (!shown) return;
  const known = index === undefined || index === null ? null : index;
  for (const panel of panels) panel.read(known);
  let text = "";
  if (known !== null) {
    const when = shown.start + known * shown.step;
    text = timeText(when, shown.step);
    const firing = shown.periods.filter((one) => one.start < when + shown.step && (one.end ?? Infinity) > when);
    if (firing.length) text += ` \u00b7 ${[...new Set(firing.map((one) => one.rule))].join(", ")} firing`;
  }
  if (at.textContent !== text) at.textContent = text;
}

function tellSpan(start, end) {
  const length = end - start;
  const text = `${timeText(start, length < 600 ? 1 : 60)} to ${timeText(end, length < 600 ? 1 : 60)}, steps of ${durationText(shown?.step ?? 60)}`;
  if (spanText.textContent !== text) spanText.textContent = text;
}

/** A new range: into the URL, onto the charts at once, and finer data from the server. */
function goTo(start, end, how) {
  if (end - start < LEAST_SPAN) {
    const middle = (start + end) / 2;
    [start, end] = [middle - LEAST_SPAN / 2, middle + LEAST_SPAN / 2];
  }
  const url = new URL(location.href);
  const digits = end - start < 600 ? 1 : 0;
  url.searchParams.set("start", start.toFixed(digits));
  url.searchParams.set("end", end.toFixed(digits));
  if (how === "zoom") history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  group.show(start, end);
  tellSpan(start, end);
  markRange();
  load();
  refreshRows();
}

function zoomOut() {
  const [start, end] = group.range;
  const length = end - start;
  goTo(start - length / 2, end + length / 2, "zoom");
}

function move(share) {
  const [start, end] = group.range;
  goTo(start + share * (end - start), end + share * (end - start), "move");
}

function markRange() {
  const url = new URL(location.href);
  const current = url.searchParams.get("end") ? "" : (url.searchParams.get("start") ?? "-24h");
  for (const link of document.querySelectorAll("nav.segments a")) {
    if (link.dataset.range === current) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

document.getElementById("zoom-out").addEventListener("click", zoomOut);
document.getElementById("earlier").addEventListener("click", () => move(-0.5));
document.getElementById("later").addEventListener("click", () => move(0.5));
addEventListener("popstate", () => {
  markRange();
  load();
  refreshRows();
});
chips.addEventListener("change", () => {
  const url = new URL(location.href);
  url.searchParams.delete("v");
  for (const box of chips.querySelectorAll("input:checked")) url.searchParams.append("v", box.value);
  history.replaceState(null, "", url);
  load();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (!shown) return;
  const body = shown;
  shown = null;
  draw(body);
});

// The table of versions, rendered by the server.
const region = document.getElementById("live-region");
let rowsNumber = 0;

async function refreshRows() {
  const number = ++rowsNumber;
  const response = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!response.ok || number !== rowsNumber) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (number === rowsNumber) patch(region, page.getElementById("live-region"));
}

const follow = paced(() => {
  const fixed = new URL(location.href).searchParams.get("end"); // a fixed span stands still
  return Promise.all([refreshRows(), fixed ? null : loadLater()]);
});

/** Not while a gesture's own question is on its way. */
function loadLater() {
  if (!inFlight) return load();
  refreshAgain = true;
  return null;
}

watch({
  stored: (message) => {
    if (!message?.versions || message.versions.some(([its]) => its === name)) follow();
  },
  alerts: follow,
});

// Raw events of what is visible.
const table = document.getElementById("events");
const eventsNote = document.getElementById("events-note");
const MOST_EVENTS = 50;
let eventsTimer = 0;
let eventsNumber = 0;

function loadEventsSoon() {
  clearTimeout(eventsTimer);
  eventsTimer = setTimeout(loadEvents, 250);
}

async function loadEvents() {
  const number = ++eventsNumber;
  const version = shown.focus;
  if (!version) return;
  const query = new URLSearchParams({ start: shown.shown_start, end: shown.shown_end, limit: MOST_EVENTS });
  const match = new URL(location.href).searchParams.get("match");
  if (match) query.set("match", match);
  const response = await fetch(`${charts.dataset.path}/events?version=${encodeURIComponent(version)}&${query}`);
  const body = await response.json();
  if (number !== eventsNumber) return;
  if (!response.ok) {
    eventsNote.textContent = body.detail;
    return;
  }
  const first = ["timestamp"];
  const keys = new Set(body.events.flatMap((event) => Object.keys(event)));
  for (const key of ["name", "version", "timestamp"]) keys.delete(key);
  const isNumber = (key) => body.events.some((event) => typeof event[key] === "number");
  const columns = [...first, ...[...keys].filter((key) => !isNumber(key)), ...[...keys].filter(isNumber)];
  const headRow = element("tr", {}, ...columns.map((key) => element("th", { scope: "col", text: key, className: isNumber(key) ? "num" : "" })));
  const rows = body.events.map((event) =>
    element("tr", {}, ...columns.map((key) => {
      const value = event[key];
      const text = key === "timestamp" ? value.replace("T", " ").replace("Z", "") : value === undefined ? "" : String(value);
      return element("td", { text, className: typeof value === "number" ? "num" : key === "timestamp" ? "time" : "" });
    })),
  );
  table.replaceChildren(element("thead", {}, headRow), element("tbody", {}, ...rows));
  eventsNote.textContent = body.events.length
    ? `${version}, ${body.events.length === MOST_EVENTS ? `the newest ${MOST_EVENTS}` : body.events.length} of what is shown above`
    : `No event of ${version} in this span.`;
}

load();
