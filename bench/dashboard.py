"""The dashboard in a real Chromium: first paint, bytes over the wire, and frames while panning, with 100 models."""

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
from playwright.sync_api import Browser, Page, sync_playwright

from bench.client import BenchError, message, send
from bench.data import ARROW, METRICS, SEED, arrow
from bench.launch import Server, modelmeter
from bench.report import Column, Row, Table
from bench.stats import DAY_MICROS

HELP = "the dashboard in Chromium: first paint, bytes, frames while panning; 100 models, 3 metrics, 30 days"

_DAYS = 30
_PER_BODY = 50_000
_FRAME_MS = 1000 / 60
_GOAL_PAINT_MS, _GOAL_KB = 1000, 200

PAINT = (
    Column("page", "page"),
    Column("server_ms", "server ms", ",.0f"),
    Column("paint_ms", "first paint ms", ",.0f"),
    Column("drawn_ms", "all drawn ms", ",.0f"),
    Column("kilobytes", "KB on the wire", ",.0f"),
    Column("requests", "requests", ",.0f"),
    Column("goal_ms", "goal ms", ",.0f"),
    Column("goal_kilobytes", "goal KB", ",.0f"),
)
FRAMES = (
    Column("gesture", "gesture"),
    Column("frames", "frames", ",.0f"),
    Column("p50_ms", "p50 ms", ",.1f"),
    Column("p99_ms", "p99 ms", ",.1f"),
    Column("longest_ms", "longest ms", ",.1f"),
    Column("late", "over 1.5 frames", ",.0f"),
    Column("work_p99_ms", "script p99 ms", ",.1f"),
)

PAGES = {
    "overview, 24 h": ("/?all=1", "#rows tr"),
    "overview, 30 days": ("/?all=1&start=-30d", "#rows tr"),
    "a model, 24 h": ("/ui/models/model-042", "#charts canvas"),
    "a model, 30 days": ("/ui/models/model-042?start=-30d", "#charts canvas"),
}

# How far apart frames are, and how long the page's own scripts took in each.
_RECORD = """() => {
  window.frames_ = []; window.work_ = [];
  let last = performance.now();
  const look = (now) => {
    window.frames_.push(now - last); last = now;
    window.raf_ = requestAnimationFrame(look);
  };
  if (!window.patched_) {
    window.patched_ = true;
    const original = requestAnimationFrame.bind(window);
    window.requestAnimationFrame = (callback) => original((now) => {
      const began = performance.now(); callback(now);
      queueMicrotask(() => window.work_.push(performance.now() - began)); // uPlot draws in a microtask, before this one
    });
  }
  window.raf_ = requestAnimationFrame(look);
}"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=int, default=100, help="models, one version each (default: 100)")
    parser.add_argument("--events", type=int, default=1_000_000, help="events of all of them (default: 1000000)")
    parser.add_argument("--loads", type=int, default=9, help="loads of each page, of which the median is kept")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium", help="the browser")


def run(options: argparse.Namespace) -> Iterator[Table]:
    with modelmeter() as server:
        print(f"  {options.events:,} events of {options.models} models", flush=True)
        sent = send(server.port, _messages(options.models, options.events), connections=2, seconds=3_600)
        server.wait_queryable(sent.events)
        server.wait_compacted(seconds=600)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=options.chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            notes = [
                f"{sent.events:,} events of {options.models} models, {len(METRICS)} metrics, {_DAYS} days; compacted.",
                f"Chromium {browser.version} without a screen, 1440 by 900, on the same machine as the server.",
            ]
            yield Table("Dashboard: first paint", PAINT, _paints(browser, server, options.loads), [
                *notes, "Nothing cached; medians. Paint is the browser's first-contentful-paint.",
            ])  # fmt: skip
            yield Table("Dashboard: frames", FRAMES, _frames(browser, server), [
                *notes,
                "Without a graphics card all drawing is done by the processor. Script: the page's work in a frame.",
            ])  # fmt: skip
            browser.close()


def _messages(models: int, events: int) -> Iterator[tuple[bytes, int]]:
    """Arrow bodies in order of time; every model has a rhythm and a level of its own."""
    rng = np.random.default_rng(SEED)
    end = time.time_ns() // 1000
    start = end - _DAYS * DAY_MICROS
    names = np.array([f"model-{number:03}" for number in range(models)])
    level = rng.uniform(0.7, 0.95, models)
    for first in range(0, events, _PER_BODY):
        count = min(_PER_BODY, events - first)
        at = start + ((first + np.arange(count)) * (_DAYS * DAY_MICROS / events)).astype(np.int64)
        model = rng.integers(0, models, count)
        rhythm = np.sin(2 * np.pi * (at % DAY_MICROS) / DAY_MICROS)
        frame = pl.DataFrame(
            {
                "timestamp": pl.Series(at, dtype=pl.Int64),
                "name": names[model],
                "version": np.full(count, "v1"),
                METRICS[0]: rng.normal(level[model], 0.03).round(4),
                METRICS[1]: rng.gamma(2, 0.05, count).round(4),
                METRICS[2]: rng.lognormal(2 + 0.2 * rhythm, 0.5).round(3),
            }
        )
        yield message("/events", arrow(frame), ARROW), count


def _paints(browser: Browser, server: Server, loads: int) -> list[Row]:
    rows: list[Row] = []
    for name, (path, drawn) in PAGES.items():
        found: list[dict[str, float]] = [_paint(browser, server, path, drawn) for _ in range(loads)]
        medians = {key: statistics.median(one[key] for one in found) for key in found[0]}
        rows.append({"page": name, **medians, "goal_ms": _GOAL_PAINT_MS, "goal_kilobytes": _GOAL_KB})
    return rows


def _paint(browser: Browser, server: Server, path: str, drawn: str) -> dict[str, float]:
    context = browser.new_context(base_url=f"http://127.0.0.1:{server.port}", viewport={"width": 1440, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    wire = {"bytes": 0.0, "requests": 0.0}

    def count(one: dict[str, float]) -> None:
        wire["bytes"] += one["encodedDataLength"]
        wire["requests"] += 1

    session.on("Network.loadingFinished", count)
    began = time.perf_counter()
    page.goto(path, wait_until="commit")
    page.locator(drawn).first.wait_for()
    drawn_ms = (time.perf_counter() - began) * 1e3
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    page.wait_for_load_state("load")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    server_ms = page.evaluate("performance.getEntriesByType('navigation')[0].serverTiming[0]?.duration ?? 0")
    context.close()
    return {
        "server_ms": server_ms,
        "paint_ms": paint,
        "drawn_ms": drawn_ms,
        "kilobytes": wire["bytes"] / 1000,
        "requests": wire["requests"],
    }


def _frames(browser: Browser, server: Server) -> list[Row]:
    context = browser.new_context(base_url=f"http://127.0.0.1:{server.port}", viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(PAGES["a model, 30 days"][0])
    page.locator("#charts canvas").first.wait_for()
    page.locator("#events tbody tr").first.wait_for()
    box = page.locator("#charts .u-over").first.bounding_box()
    if box is None:
        raise BenchError("the chart has no size")
    y = box["y"] + box["height"] / 2
    rows = [_record(page, "nothing (the browser alone)", lambda _: time.sleep(0.016))]
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + box["width"] * 0.7, y)
    page.mouse.down()
    rows.append(
        _record(
            page,
            "panning a model's 30 days (7 charts)",
            lambda step: page.mouse.move(box["x"] + box["width"] * (0.7 - 0.5 * abs(np.sin(step / 60))), y),
        )
    )
    page.mouse.up()
    page.keyboard.up("Shift")
    rows.append(
        _record(
            page,
            "crosshair over 7 charts",
            lambda step: page.mouse.move(box["x"] + box["width"] * (0.1 + 0.8 * abs(np.sin(step / 60))), y),
        )
    )
    page.goto(PAGES["overview, 30 days"][0])
    page.locator("#rows tr").first.wait_for()
    page.mouse.move(700, 500)
    rows.append(_record(page, "scrolling the overview, 100 rows", lambda _: page.mouse.wheel(0, 40)))
    context.close()
    return rows


def _record(page: Page, gesture: str, move: Callable[[int], object], steps: int = 240) -> Row:
    page.evaluate(_RECORD)
    for step in range(steps):
        move(step)
    frames, work = page.evaluate("() => { cancelAnimationFrame(window.raf_); return [window.frames_, window.work_]; }")
    gaps = np.array(frames[2:])
    return {
        "gesture": gesture,
        "frames": gaps.size,
        "p50_ms": float(np.median(gaps)),
        "p99_ms": float(np.quantile(gaps, 0.99)),
        "longest_ms": float(gaps.max()),
        "late": int((gaps > 1.5 * _FRAME_MS).sum()),
        "work_p99_ms": float(np.quantile(work, 0.99)) if work else 0.0,
    }
