// Charts on uPlot: one time axis and one crosshair for all of them, dragging, moving, keys, both themes.

const AXIS_WIDTH = 58;
const SECOND = 1, MINUTE = 60, HOUR = 3600, DAY = 86400;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (number) => String(number).padStart(2, "0");

export function dayText(seconds) {
  const at = new Date(seconds * 1000);
  return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
}

export function clockText(seconds, fine = false) {
  const at = new Date(seconds * 1000);
  const text = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  return fine ? `${text}:${two(at.getUTCSeconds())}` : text;
}

export function timeText(seconds, step = MINUTE) {
  return step >= DAY ? dayText(seconds) : `${dayText(seconds)} ${clockText(seconds, step < MINUTE)}`;
}

export function durationText(seconds) {
  for (const [width, unit] of [[DAY, "d"], [HOUR, "h"], [MINUTE, "min"], [SECOND, "s"]]) {
    if (seconds >= width && Number.isInteger(+(seconds / width).toFixed(2))) return `${+(seconds / width).toFixed(2)}\u202f${unit}`;
  }
  return `${(seconds / MINUTE).toFixed(0)}\u202fmin`;
}

/** Three digits that matter, as on the server. */
export function numberText(value, unit = "") {
  if (value === null || value === undefined || !Number.isFinite(value)) return "\u2013";
  const size = Math.abs(value);
  let text;
  if (size >= 1e15 || (size > 0 && size < 1e-4)) text = value.toExponential(2);
  else if (size >= 10_000) {
    const [scale, letter] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find((one) => size >= one[0]);
    text = `${+(value / scale).toPrecision(3)}${letter}`;
  } else if (size >= 1000) text = value.toFixed(0);
  else text = value === 0 ? "0" : value.toPrecision(3);
  text = text.replace("-", "\u2212");
  return unit ? `${text}\u202f${unit}` : text;
}

export function theme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    text: read("--quiet"),
    grid: read("--grid"),
    line: read("--line"),
    bad: read("--bad"),
    accent: read("--accent"),
    sheet: read("--sheet"),
    series: [0, 1, 2, 3, 4, 5].map((place) => read(`--series-${place}`)),
  };
}

export function alpha(colour, share) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${share})`;
}

function timeLabels(plot, splits, axis, space, step) {
  return splits.map((at, place) => {
    const previous = place ? splits[place - 1] : null;
    const newDay = previous === null || Math.floor(at / DAY) !== Math.floor(previous / DAY);
    if (step >= DAY) return dayText(at);
    if (at % DAY === 0 || (newDay && place > 0)) return dayText(at);
    return clockText(at, step < MINUTE);
  });
}

/** What all plots of a page share: the range of time, the crosshair, and what a gesture does. */
export class Group {
  /** `onRange(start, end, how)`: `how` is "zoom" or "move"; `onBack()`: zoom out; `onCursor(index)`. */
  constructor({ onRange, onBack, onCursor, onMoving }) {
    this.plots = [];
    this.range = [0, 1];
    this.key = `g${Math.random()}`;
    this.colours = theme();
    Object.assign(this, { onRange, onBack, onCursor, onMoving });
    this.frame = 0;
    this.wanted = null;
  }

  clear() {
    for (const one of this.plots) {
      one.observer.disconnect();
      one.plot.destroy();
    }
    this.plots = [];
    this.colours = theme();
  }

  /** All plots at once, in one frame. */
  show(start, end) {
    this.range = [start, end];
    for (const { plot } of this.plots) plot.setScale("x", { min: start, max: end });
  }

  /** As show(), but no more than once a frame: for gestures. */
  follow(start, end) {
    this.wanted = [start, end];
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.show(...this.wanted);
      this.onMoving?.(...this.wanted);
    });
  }

  add(holder, { data, series, bands, height, yRange, yLabels, draw = [], clear = [], hideTime = false }) {
    const group = this;
    const { colours } = this;
    const axis = { stroke: colours.text, font: "11px Inter, system-ui, sans-serif", grid: { stroke: colours.grid, width: 1 }, ticks: { show: false } };
    const options = {
      width: Math.max(holder.clientWidth, 120),
      height,
      padding: [8, 12, hideTime ? 4 : 0, 0],
      legend: { show: false },
      tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
      scales: { x: { time: true, auto: false, min: this.range[0], max: this.range[1] }, y: { range: yRange } },
      axes: [
        { ...axis, values: timeLabels, size: hideTime ? 6 : 26, gap: 6, space: 76, show: true, ...(hideTime ? { values: (plot, splits) => splits.map(() => "") } : {}) },
        { ...axis, size: AXIS_WIDTH, gap: 8, space: 30, values: yLabels ?? ((plot, splits) => axisNumbers(splits)) },
      ],
      series: [{}, ...series],
      bands,
      cursor: {
        sync: { key: this.key, setSeries: false, filters: { pub: (kind) => kind === "mousemove" || kind === "mouseleave" } },
        drag: { x: true, y: false, setScale: false, dist: 6 },
        y: false,
        points: { size: 7 },
        bind: {
          mousedown: (plot, target, handler) => (event) => {
            if (event.button !== 0 || event.shiftKey) return null;
            return handler(event);
          },
          dblclick: () => () => {
            group.onBack();
            return null;
          },
        },
      },
      hooks: {
        drawClear: clear,
        draw,
        setCursor: [(plot) => group.onCursor(plot.cursor.idx)],
        setSelect: [
          (plot) => {
            const { left, width } = plot.select;
            if (width < 6) return;
            const start = plot.posToVal(left, "x");
            const end = plot.posToVal(left + width, "x");
            plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            group.onRange(start, end, "zoom");
          },
        ],
      },
    };
    const plot = new uPlot(options, data, holder);
    const observer = new ResizeObserver(() => {
      const width = holder.clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height });
    });
    observer.observe(holder);
    this.movable(plot);
    this.plots.push({ plot, observer });
    return plot;
  }

  /** Shift and drag, or a finger, moves in time; so does a horizontal wheel. */
  movable(plot) {
    const over = plot.over;
    over.style.touchAction = "pan-y";
    let from = null;
    over.addEventListener("pointerdown", (event) => {
      if (!(event.shiftKey || event.pointerType === "touch") || event.button !== 0) return;
      from = { x: event.clientX, range: this.range, moved: false };
      over.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    over.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [start, end] = from.range;
      const shift = ((from.x - event.clientX) / over.clientWidth) * (end - start);
      from.moved = from.moved || Math.abs(from.x - event.clientX) > 3;
      if (from.moved) this.follow(start + shift, end + shift);
    });
    const stop = () => {
      if (from?.moved) this.settle();
      from = null;
    };
    over.addEventListener("pointerup", stop);
    over.addEventListener("pointercancel", stop);
    let timer = 0;
    over.addEventListener(
      "wheel",
      (event) => {
        if (Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
        event.preventDefault();
        const [start, end] = this.wanted ?? this.range;
        const shift = (event.deltaX / over.clientWidth) * (end - start);
        this.follow(start + shift, end + shift);
        clearTimeout(timer);
        timer = setTimeout(() => this.settle(), 200);
      },
      { passive: false },
    );
  }

  settle() {
    const [start, end] = this.wanted ?? this.range;
    this.wanted = null;
    this.onRange(start, end, "move");
  }

  /** Keys on whatever holds a chart. */
  keys(holder) {
    holder.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const [start, end] = this.range;
      const length = end - start;
      const steps = { ArrowLeft: [-0.2, -0.2], ArrowRight: [0.2, 0.2], "+": [0.2, -0.2], "=": [0.2, -0.2], "-": [-0.5, 0.5] }[event.key];
      if (!steps) return;
      event.preventDefault();
      this.onRange(start + steps[0] * length, end + steps[1] * length, steps[0] === steps[1] ? "move" : "zoom");
    });
  }
}

function axisNumbers(splits) {
  const known = splits.filter((value) => value !== null);
  if (known.length < 2) return splits.map((value) => (value === null ? "" : numberText(value)));
  const apart = Math.abs(known[1] - known[0]);
  const most = Math.max(...known.map(Math.abs), 0);
  return splits.map((value) => {
    if (value === null) return "";
    if (most >= 10_000) return numberText(value);
    const digits = Math.max(0, Math.min(6, Math.ceil(-Math.log10(apart) - 1e-9)));
    return value.toFixed(digits).replace("-", "\u2212");
  });
}

/** A range around what is visible, with air; never flatter than a tenth of the level. */
export function airy(plot, low, high) {
  if (low === null || high === null || !Number.isFinite(low)) return [0, 1];
  const least = 0.1 * Math.max(Math.abs(low), Math.abs(high)) || 1;
  if (high - low < least) {
    const middle = (low + high) / 2;
    return [middle - least / 2, middle + least / 2];
  }
  const air = (high - low) * 0.06;
  return [low >= 0 && low - air < 0 ? 0 : low - air, high + air];
}

/** Periods that overlap as one, so that none is shaded twice. */
function joined(periods) {
  const spans = periods.map(({ start, end }) => [start, end ?? Date.now() / 1000]).sort((one, other) => one[0] - other[0]);
  const found = [];
  for (const [start, end] of spans) {
    const last = found.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else found.push([start, end]);
  }
  return found;
}

/** Shades spans of time behind the lines. `periods` gives [{start, end}]; end null is now. */
export function shade(periods) {
  return (plot) => {
    const { ctx, bbox } = plot;
    const { bad } = theme();
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const [start, end] of joined(periods())) {
      const left = plot.valToPos(start, "x", true);
      const right = Math.max(plot.valToPos(end, "x", true), left + 2 * devicePixelRatio);
      ctx.fillStyle = alpha(bad, 0.1);
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
      ctx.fillStyle = bad;
      ctx.fillRect(left, bbox.top, right - left, 2 * devicePixelRatio);
    }
    ctx.restore();
  };
}

/** Draws a heatmap: painted once, then only stretched. `heat` is as the server sends it; `grid` {start, step, steps}. */
export function heatPainter(heat, grid, colour) {
  const shares = Uint8Array.from(atob(heat.shares), (letter) => letter.charCodeAt(0));
  const rows = heat.edges.length - 1;
  const low = heat.edges[0];
  const high = heat.edges[rows];
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  let picture = null;

  function paint(height) {
    const canvas = new OffscreenCanvas(grid.steps, height);
    const context = canvas.getContext("2d");
    const image = context.createImageData(grid.steps, height);
    for (let row = 0; row < rows; row++) {
      const top = Math.round((1 - (heat.edges[row + 1] - low) / (high - low)) * height);
      const bottom = Math.round((1 - (heat.edges[row] - low) / (high - low)) * height);
      for (let step = 0; step < grid.steps; step++) {
        const share = shares[step * rows + row];
        if (!share) continue;
        const strength = 12 + 243 * (share / 255) ** 0.8;
        for (let y = top; y < Math.max(bottom, top + 1); y++) {
          const at = (y * grid.steps + step) * 4;
          image.data[at] = r;
          image.data[at + 1] = g;
          image.data[at + 2] = b;
          image.data[at + 3] = strength;
        }
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  return {
    range: [low, high],
    draw(plot) {
      const { ctx, bbox } = plot;
      const height = Math.max(Math.round(bbox.height), 1);
      if (!picture || picture.height !== height) picture = paint(height);
      const left = plot.valToPos(grid.start, "x", true);
      const right = plot.valToPos(grid.start + grid.step * grid.steps, "x", true);
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      ctx.imageSmoothingEnabled = false;
      ctx.drawImage(picture, left, bbox.top, right - left, bbox.height);
      ctx.restore();
    },
  };
}
