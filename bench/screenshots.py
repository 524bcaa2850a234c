"""Pictures of every page for docs/images, from made-up models whose story is always the same: script/screenshots.

A server of its own gets nine days of events, real rules are evaluated over them, a real Chromium looks at the pages.
"""

import argparse
import io
import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from bench.client import message, send
from bench.data import ARROW, arrow
from bench.launch import Server, postgres, scratch, serving, wait_until
from modelmeter.etl.demo import Story, demo_events
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, Span, floor, to_datetime

IMAGES = Path(__file__).parent.parent / "docs" / "images"
LIMIT_BYTES = 150_000
_MODELS, _SEED, _RATE = 6, 7, 0.35
_HISTORY = 9 * DAY
_COLOURS = 255
_INTERVAL = 10 * MINUTE

RULES = """
groups:
  - name: quality
    interval: 10m
    rules:
      - alert: AccuracyLow
        expr: avg_over_time(prediction_accuracy{env="prod",region="eu"}[1h]) < 0.6
        for: 10m
        labels: {severity: critical}
        annotations: {summary: 'mean accuracy of an hour is {{ printf "%.2f" $value }}'}
      - alert: Drifting
        expr: avg_over_time(drift{env="prod",region="eu"}[6h]) > 0.42
        for: 1h
        labels: {severity: warning}
        annotations: {summary: 'mean drift of six hours is {{ printf "%.2f" $value }}'}
  - name: speed
    interval: 10m
    rules:
      - alert: SlowAnswers
        expr: quantile_over_time(0.95, inference_time{env="prod",region="eu"}[1h]) > 90
        for: 15m
        labels: {severity: warning}
"""

PAGES = {
    "overview": ("/?start=-7d", "#rows tr"),
    "model": ("/ui/models/Mistral?start=-24h&version=v1&v=v1&v=v2", "#events tbody tr"),
    "compare": ("/ui/compare?name=DeepSeek&a=v1&b=v2&start=-24h", ".comparison canvas"),
    "alerts": ("/ui/alerts", "#silences li"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/screenshots", description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--into", type=Path, default=IMAGES)
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    now = time.time_ns() // 1000
    with scratch() as folder, postgres(folder) as (conninfo, postmaster):
        rules = folder / "rules.yml"
        rules.write_text(RULES)
        with serving(folder, conninfo, postmaster) as server:
            sent = send(server.port, _messages(now), connections=2, seconds=600)
            server.wait_queryable(sent.events)
        print(f"{sent.events:,} events", flush=True)
        with psycopg.connect(conninfo, autocommit=True) as connection:
            # The keeper makes up for windows that nobody has evaluated; here that is all of the history.
            connection.execute(
                "INSERT INTO modelmeter.rule_evaluation SELECT name, %s FROM unnest(%s::text[]) AS name",
                (to_datetime(floor(now - 4 * DAY, _INTERVAL)), ["quality", "speed"]),
            )
        settings = {"rules": rules, "catch_up_limit_seconds": _HISTORY // SECOND, "units": "inference_time=ms"}
        with serving(folder, conninfo, postmaster, **settings) as server:
            _wait_for_rules(server)
            _silence(server)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
                _take(browser, server, options.into)
                browser.close()


def _messages(now: int) -> Iterator[tuple[bytes, int]]:
    """Mistral v1 has collapsed nine hours ago, and had a short spell two days before; DeepSeek v2 drifts for days."""
    start = now - _HISTORY
    story = Story(drift=Span(now - 4 * DAY, now), incident=Span(now - 9 * HOUR, now + HOUR))
    earlier = Story(drift=story.drift, incident=Span(now - 50 * HOUR, now - 47 * HOUR))
    for begin in range(start, now, DAY // 2):
        its = earlier if begin + DAY // 2 < now - 12 * HOUR else story
        frame = demo_events(_MODELS, _SEED, begin, min(begin + DAY // 2, now), _RATE, story=its)
        yield message("/events", arrow(frame), ARROW), frame.height


def _wait_for_rules(server: Server) -> None:
    query = "SELECT min(evaluated_at) > now() - make_interval(secs => %s) FROM modelmeter.rule_evaluation"
    with psycopg.connect(server.conninfo, autocommit=True) as connection:

        def done() -> bool:
            row = connection.execute(query, (2 * _INTERVAL / SECOND,)).fetchone()
            return row is not None and bool(row[0])

        wait_until(done, "the rules to be evaluated", seconds=900, step=1)


def _silence(server: Server) -> None:
    body = {"matchers": ['name="DeepSeek"'], "author": "ana", "comment": "v3 is being trained", "duration": "8h"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/silences",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()


def _take(browser: Browser, server: Server, into: Path) -> None:
    for scheme in ("light", "dark"):
        context = browser.new_context(
            base_url=f"http://127.0.0.1:{server.port}",
            viewport={"width": 1360, "height": 850},
            color_scheme=scheme,
        )
        page = context.new_page()
        for name, (path, drawn) in PAGES.items():
            page.goto(path)
            page.locator(drawn).first.wait_for()
            if name == "alerts":
                _try_rule(page)
            _save(page, into / f"{name}-{scheme}.png", full=name == "alerts")
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(PAGES["overview"][0])
        page.locator("#rows tr").first.wait_for()
        _save(page, into / f"phone-{scheme}.png")
        context.close()


def _try_rule(page: Page) -> None:
    page.locator("[name=expr]").fill('avg_over_time(prediction_accuracy{env="prod",region="eu"}[1h]) < 0.75')
    page.locator("#try-form [type=submit]").click()
    page.locator("#try-result canvas").wait_for()


def _save(page: Page, path: Path, *, full: bool = False) -> None:
    """As small as it looks the same: a palette does for pages of few colours."""
    page.mouse.move(1, 1)
    page.evaluate("scrollTo(0, 0)")
    page.evaluate("document.fonts.ready")
    picture = Image.open(io.BytesIO(page.screenshot(full_page=full, animations="disabled"))).convert("RGB")
    colours = _COLOURS
    while True:
        packed = io.BytesIO()
        # Full coverage first: a page has a few strong colours on few pixels, which must not be averaged away.
        flat = picture.quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
        flat.save(packed, "PNG", optimize=True)
        if packed.tell() <= LIMIT_BYTES or colours <= 16:
            break
        colours //= 2
    path.write_bytes(packed.getvalue())
    print(f"{path.name}: {packed.tell() / 1000:.0f} KB, {colours} colours", flush=True)


if __name__ == "__main__":
    main()
