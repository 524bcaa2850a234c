"""What a person sees and does, in a real Chromium over real data."""

import hashlib
import json
import time
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FloatRect, Page, expect

from modelmeter.window import DAY, HOUR, MINUTE, SECOND, to_datetime
from tests.history import labels_of
from tests.web.conftest import Served
from tests.web.dashboard.test_pages import SCRIPT

FIRST_PAINT_LIMIT_BYTES = 200_000


def fill(served: Served, *, seed: int = 1) -> None:
    """Two models with two versions over two days; the accuracy of Mistral v2 falls ten hours ago."""
    rng = np.random.default_rng(seed)
    now = int(time.time()) * SECOND
    lines = []
    for name in ("Mistral", "Llama"):
        for version in ("v1", "v2"):
            for at in range(now - 2 * DAY, now, 5 * MINUTE):
                fell = name == "Mistral" and version == "v2" and at > now - 10 * HOUR
                lines.append(
                    {
                        "name": name,
                        "version": version,
                        "env": "prod" if rng.random() < 0.8 else "test",
                        "timestamp": at / SECOND,
                        "prediction_accuracy": round(float(rng.normal(0.4 if fell else 0.86, 0.03)), 4),
                        "inference_time": round(float(rng.lognormal(3, 0.4)), 3),
                    }
                )
    answer = served.post("\n".join(map(json.dumps, lines)), content_type="application/x-ndjson")
    assert answer.json()["accepted"] == len(lines)
    served.store()


def send(served: Served, **event: object) -> None:
    served.post(json.dumps({"name": "Mistral", "version": "v2", **event}))
    served.store()


def check_access(page: Page) -> None:
    """axe finds nothing, in either theme."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
        assert found.violations_count == 0, f"{scheme}: {found.generate_report()}"
    page.emulate_media(color_scheme="light")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")  # charts are made anew


def test_the_model_that_got_worse_stands_first_and_says_since_when(served: Served, page: Page) -> None:
    fill(served)
    page.goto("/")
    first = page.locator("#rows tr").first
    expect(first).to_contain_text("Mistral v2")
    expect(first).to_contain_text("prediction_accuracy down")
    expect(first).to_contain_text("since")
    expect(page.locator("#rows tr")).to_have_count(4)
    check_access(page)
    page.get_by_role("searchbox").fill("llama")
    expect(page.locator("#rows tr")).to_have_count(2)
    assert parse_qs(urlsplit(page.url).query) == {"q": ["llama"]}
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(2)


def test_first_paint_is_light_on_the_wire(served: Served, page: Page) -> None:
    fill(served)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    received = {"bytes": 0}
    session.on(
        "Network.loadingFinished", lambda one: received.update(bytes=received["bytes"] + one["encodedDataLength"])
    )
    for path in ("/", "/ui/models/Mistral"):
        received["bytes"] = 0
        page.goto(path)
        if "models" in path:
            expect(page.locator("#charts canvas").first).to_be_visible()
        assert 0 < received["bytes"] < FIRST_PAINT_LIMIT_BYTES, path


def test_new_events_appear_by_themselves_and_rows_keep_their_places(served: Served, page: Page) -> None:
    fill(served)
    page.goto("/")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    order = page.locator("#rows .name").all_inner_texts()
    page.evaluate("window.unreloaded = true")
    send(served, name="Aardvark", version="v1", prediction_accuracy=0.5)
    expect(page.locator("#rows")).to_contain_text("Aardvark")
    assert page.locator("#rows .name").all_inner_texts()[: len(order)] == order
    assert page.evaluate("window.unreloaded")
    assert page.locator("#rows .name").last.inner_text() == "Aardvark"
    page.get_by_role("button", name="Sort anew").click()
    expect(page.locator("#rows .name").last).to_have_text("Mistral")
    expect(page.get_by_role("button", name="Sort anew")).to_be_hidden()


def test_an_empty_page_fills_by_itself(served: Served, page: Page) -> None:
    page.goto("/")
    expect(page.locator("pre").first).to_contain_text("curl")
    check_access(page)
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    send(served, prediction_accuracy=0.9)
    expect(page.locator("#rows tr")).to_have_count(1)


def test_a_lost_connection_says_so_and_comes_back(served: Served, page: Page) -> None:
    fill(served)
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Live")
    page.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('offline'))")
    expect(page.locator("#live")).to_have_attribute("data-state", "lost")
    expect(page.locator("#live")).to_contain_text("Connection lost")
    send(served, name="Meanwhile", version="v1", prediction_accuracy=0.5)
    page.context.set_offline(False)
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator("#rows")).to_contain_text("Meanwhile")


def test_text_from_events_never_runs(served: Served, page: Page) -> None:
    labels = dict(labels_of(f"Mi{SCRIPT}", f"v{SCRIPT}", env=SCRIPT))
    send(served, **labels, **{f"m{SCRIPT}": 0.5})
    page.goto("/")
    expect(page.locator("#rows .name")).to_have_text(f"Mi{SCRIPT}")
    page.locator("#rows a").first.click()
    expect(page.locator("#charts h2").first).to_contain_text(f"m{SCRIPT}")
    expect(page.locator("#events tbody tr")).to_have_count(1)
    expect(page.locator("#events")).to_contain_text(SCRIPT)
    assert page.title().startswith("Mi<script>")
    assert page.locator("main img, main script").count() == 0


def plot_box(page: Page) -> FloatRect:
    over = page.locator("#charts .u-over").first
    expect(over).to_be_visible()
    box = over.bounding_box()
    assert box
    return box


def test_dragging_zooms_in_with_finer_data_and_back_goes_back(served: Served, page: Page) -> None:
    fill(served)
    page.goto("/ui/models/Mistral")
    expect(page.locator("#span")).to_contain_text("steps of 5")
    expect(page.locator("#charts .panel")).to_have_count(3)
    expect(page.locator("#events tbody tr")).to_have_count(50)
    check_access(page)
    box = plot_box(page)
    y = box["y"] + box["height"] / 2
    with page.expect_response(lambda one: "/charts?" in one.url) as fetched:
        page.mouse.move(box["x"] + box["width"] * 0.5, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.55, y, steps=4)
        page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=4)
        page.mouse.up()
    zoomed = fetched.value.json()
    assert zoomed["step"] < 60
    assert 0.08 * DAY / SECOND < zoomed["shown_end"] - zoomed["shown_start"] < 0.12 * DAY / SECOND
    query = parse_qs(urlsplit(page.url).query)
    assert float(query["end"][0]) - float(query["start"][0]) == pytest.approx(2.4 * 3600, rel=0.2)
    expect(page.locator("#events-note")).to_contain_text("of what is shown")
    page.go_back()
    expect(page.locator("#span")).to_contain_text("steps of 5")


def test_keys_move_and_zoom_and_one_crosshair_reads_all_charts(served: Served, page: Page) -> None:
    fill(served)
    page.goto("/ui/models/Mistral?version=v2")
    expect(page.locator("#charts .panel")).to_have_count(3)
    page.locator("#charts .panel").first.focus()
    with page.expect_response(lambda one: "/charts?" in one.url) as fetched:
        page.keyboard.press("+")
    shown = fetched.value.json()
    assert shown["shown_end"] - shown["shown_start"] == pytest.approx(0.6 * DAY / SECOND, rel=0.01)
    with page.expect_response(lambda one: "/charts?" in one.url) as fetched:
        page.keyboard.press("ArrowLeft")
    assert fetched.value.json()["shown_start"] < shown["shown_start"]
    box = plot_box(page)
    expect(page.locator("#at")).to_be_empty()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
    page.mouse.move(box["x"] + box["width"] * 0.51, box["y"] + 20)
    expect(page.locator("#at")).not_to_be_empty()
    expect(page.locator(".panel").nth(1).locator(".value").first).to_contain_text(" to ")


def test_the_model_page_follows_new_events(served: Served, page: Page) -> None:
    fill(served)
    page.goto("/ui/models/Mistral?start=-1h")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator("#events tbody tr").first).to_be_visible()
    send(served, prediction_accuracy=0.123, note="just now")
    expect(page.locator("#events")).to_contain_text("just now")


def test_a_phone_shows_everything_without_scrolling_sideways(served: Served, page: Page) -> None:
    fill(served)
    page.set_viewport_size({"width": 375, "height": 800})
    for path in ("/", "/ui/models/Mistral"):
        page.goto(path)
        if "models" in path:
            expect(page.locator("#charts .panel")).to_have_count(3)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, path
        check_access(page)


def fire(served: Served, rule: str, labels: dict[str, str], since: int, until: int | None) -> None:
    """An alert that fired `since` (and until when), as the evaluator writes it."""
    named = json.dumps({**labels, "alertname": rule})
    key = hashlib.md5(f"{rule}{named}".encode()).hexdigest()
    moments = [(since, "inactive", "firing", "condition"), (until, "firing", "inactive", "cleared")]
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        for at, before, after, reason in moments:
            if at is not None:
                connection.execute(
                    "INSERT INTO modelmeter.alert_history (at, group_name, rule_name, fingerprint, labels, from_state,"
                    " to_state, reason, value) VALUES (%s, 'quality', %s, %s, %s, %s, %s, %s, 0.4)",
                    (to_datetime(at), rule, key, named, before, after, reason),
                )
        if until is None:
            connection.execute(
                "INSERT INTO modelmeter.alert (group_name, rule_name, fingerprint, labels, annotations, state, value,"
                " reason, active_at, fired_at, evaluated_at)"
                " VALUES ('quality', %s, %s, %s, '{}', 'firing', 0.4, 'condition', %s, %s, now())",
                (rule, key, named, to_datetime(since), to_datetime(since)),
            )


def test_two_versions_are_compared_in_words_numbers_and_pictures(served: Served, page: Page) -> None:
    fill(served)
    page.goto("/ui/compare")
    page.get_by_role("link", name="Mistral").click()
    expect(page.locator(".comparison")).to_have_count(2)
    first = page.locator(".comparison").first
    expect(first).to_contain_text("prediction_accuracy")
    expect(first.locator(".sentence")).to_contain_text("v2 is worse than v1")
    expect(first.locator(".tests")).to_contain_text("Kolmogorov-Smirnov")
    expect(first.locator("canvas")).to_be_visible()
    check_access(page)
    page.get_by_role("link", name="itself, the day before").click()
    expect(page.locator(".sentence").first).to_contain_text("Now is worse than before")
    page.locator("select[name=b]").select_option("v1")
    expect(page.locator(".comparison")).to_have_count(2)
    assert parse_qs(urlsplit(page.url).query)["b"] == ["v1"]


def test_alerts_show_on_every_page_and_can_be_silenced(served: Served, page: Page) -> None:
    fill(served)
    now = int(time.time()) * SECOND
    labels = {"name": "Llama", "version": "v1"}
    fire(served, "AccuracyLow", labels, now - 9 * HOUR, now - 7 * HOUR)
    fire(served, "AccuracyLow", labels, now - HOUR, None)
    page.goto("/")
    expect(page.locator("#rows tr").first).to_contain_text("Firing")
    expect(page.locator("#rows tr").first).to_contain_text("Llama")
    page.get_by_role("link", name="Alerts").click()
    expect(page.locator(".alert")).to_have_count(1)
    expect(page.locator(".lane rect")).to_have_count(2)
    expect(page.locator(".lane-words")).to_contain_text("2 times")
    expect(page.locator("#silences")).to_contain_text("No alert is silenced")
    page.get_by_role("button", name="Silence", exact=True).first.click()
    page.get_by_label("Who").fill("ana")
    page.get_by_label("Why").fill("<b>retraining</b>")
    check_access(page)
    page.locator("#silence-form [type=submit]").click()
    expect(page.locator("#silences li")).to_contain_text('version="v1"')
    expect(page.locator("#silences li")).to_contain_text("<b>retraining</b>")
    page.get_by_role("button", name="End the silence").click()
    expect(page.locator("#silences li")).to_have_count(0)
    fire(served, "Another", {"name": "Llama", "version": "v2"}, now, None)
    expect(page.locator(".alert")).to_have_count(2)  # by itself
    page.goto("/ui/models/Llama?version=v1")
    expect(page.locator(".notes li")).to_have_count(2)
    expect(page.locator("#charts .panel")).to_have_count(3)
    red = page.evaluate("""() => {
      const canvas = document.querySelector('#charts canvas');
      const all = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      let count = 0;
      for (let at = 0; at < all.length; at += 4)
        count += all[at] === 179 && all[at + 1] === 38 && all[at + 2] === 30;
      return count;
    }""")
    assert red > 50, "no period is shaded"


def test_a_silence_that_is_refused_says_why(served: Served, page: Page) -> None:
    assert served
    page.goto("/ui/alerts")
    page.get_by_text("Make a silence").click()
    page.locator("[name=matchers]").fill("name Mistral")
    page.get_by_label("Who").fill("ana")
    page.get_by_label("Why").fill("why")
    page.locator("#silence-form [type=submit]").click()
    expect(page.locator("#silence-problem")).to_contain_text("matchers")


def test_a_rule_is_tried_on_the_last_week_and_the_chart_shows_where(served: Served, page: Page) -> None:
    fill(served)
    page.goto("/ui/alerts")
    page.get_by_label("Expression").fill('avg_over_time(prediction_accuracy{env="prod"}[1h]) < 0.7')
    page.get_by_role("button", name="Try", exact=True).click()
    expect(page.locator("#try-result .sentence")).to_contain_text("would have fired once")
    expect(page.locator("#try-result canvas")).to_be_visible()
    expect(page.locator("#try-result tbody tr")).to_contain_text("version v2")
    check_access(page)
    page.get_by_label("Expression").fill("avg_over_time(prediction_accuracy[1h] <")
    page.get_by_role("button", name="Try", exact=True).click()
    expect(page.locator("#try-problem")).to_contain_text("parse error")
