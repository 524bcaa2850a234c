"""The pages over HTTP: what they say, what they allow, and how they travel."""

import re
import time

from modelmeter.window import DAY, SECOND
from tests.history import event, labels_of, store
from tests.web.conftest import Served, serve

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


def test_an_empty_server_says_what_to_do_next(served: Served) -> None:
    page = served.client.get("/")
    assert page.status_code == 200
    assert f"curl {served.url}/events --json" in page.text
    assert "No event has come yet" in page.text


def test_no_page_has_anything_inline_and_the_policy_forbids_it(served: Served) -> None:
    store(served.database_url, event(int(time.time()) * SECOND, labels=labels_of("Mistral", "v1")))
    for path in ("/", "/ui/models/Mistral"):
        page = served.client.get(path)
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert not re.search(r"<[^>]+\s(style|on\w+)\s*=", page.text)
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style", page.text)
        assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text)


def test_text_from_events_stays_text(served: Served) -> None:
    now = int(time.time()) * SECOND
    labels = labels_of(f"Mi{SCRIPT}", f'v"{SCRIPT}', **{"env": SCRIPT, f"l{SCRIPT}": "x"})
    store(served.database_url, event(now, labels=labels, **{f"m{SCRIPT}": 0.5}))
    shown = served.client.get("/").text
    assert "Mi&lt;script&gt;" in shown
    assert "<script>document" not in shown
    assert "<img" not in shown
    link = re.search(r'href="(/ui/models/[^"]+)"', shown)
    assert link
    page = served.client.get(link[1].replace("&amp;", "&"))
    assert page.status_code == 200
    assert "<script>document" not in page.text
    assert "<img" not in page.text


def test_files_are_cached_for_ever_under_a_name_that_changes(served: Served) -> None:
    page = served.client.get("/").text
    files = re.findall(r'(?:href|src)="(/ui/static/[^"]+)"', page)
    assert len(files) >= 3
    for path in files:
        file = served.client.get(path)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
        again = served.client.get(path, headers={"if-none-match": file.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        plain = served.client.get(path, headers={"accept-encoding": "identity"})
        assert plain.content == file.content
        assert "content-encoding" not in plain.headers
    missing = served.client.get(f"{files[0].rsplit('/', 1)[0]}/none.js")
    assert missing.status_code == 404


def test_a_page_is_packed_for_who_takes_it(served: Served) -> None:
    packed = served.client.get("/", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    plain = served.client.get("/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert re.sub(r'data-now="\d+"', "", packed.text) == re.sub(r'data-now="\d+"', "", plain.text)


def test_a_filter_that_cannot_be_read_is_said_on_the_page(served: Served) -> None:
    store(served.database_url, event(int(time.time()) * SECOND))
    page = served.client.get("/", params={"match": '{env="prod'})
    assert page.status_code == 200
    assert "this filter cannot be read" in page.text
    assert served.client.get("/", params={"start": "yesterday-ish"}).status_code == 200
    answer = served.client.get("/ui/models/Mistral/charts", params={"match": '{env="prod'})
    assert (answer.status_code, answer.json()["field"]) == (400, "match")


def test_no_span_is_too_wide_or_too_far_for_a_page(served: Served) -> None:
    store(served.database_url, event(int(time.time()) * SECOND))
    spans = (
        {"start": "0"},
        {"end": "9999-12-30T00:00:00Z"},
        {"start": "0", "end": "9999-12-30T00:00:00Z"},
        {"end": "0"},
    )
    for span in spans:
        for path in ("/", "/ui/models/Mistral", "/ui/models/Mistral/charts", "/ui/alerts", "/ui/compare"):
            assert served.client.get(path, params=span).status_code == 200, (path, span)


def test_the_url_narrows_the_rows(served: Served) -> None:
    now = int(time.time()) * SECOND
    store(
        served.database_url,
        event(now, labels=labels_of("Mistral", "v1", env="prod")),
        event(now, labels=labels_of("Mistral", "v2", env="test")),
        event(now, labels=labels_of("Llama", "v1", env="prod")),
        event(now - 3 * DAY, labels=labels_of("Old", "v1", env="prod")),
    )

    def names(**parameters: str) -> list[tuple[str, str]]:
        text = served.client.get("/", params=parameters).text
        return re.findall(r'<span class="name">([^<]+)</span> <span class="pill">([^<]+)</span>', text)

    assert len(names()) == 4
    assert names(q="mistral V2") == [("Mistral", "v2")]
    assert sorted(names(match='{env=~"pr.*"}')) == [("Llama", "v1"), ("Mistral", "v1"), ("Old", "v1")]
    assert names(match='{name="Llama",env!="test"}') == [("Llama", "v1")]
    assert "Silent" in served.client.get("/", params={"q": "Old"}).text
    assert names(q="nothing of that name") == []


def test_a_model_whose_name_has_a_slash_has_a_page(served: Served) -> None:
    now = int(time.time()) * SECOND
    store(served.database_url, event(now, labels=labels_of("org/model?x", "v/1"), score=0.5))
    link = re.search(r'href="(/ui/models/[^"]+)"', served.client.get("/").text)
    assert link
    path = link[1].replace("&amp;", "&")
    assert served.client.get(path).status_code == 200
    charts = served.client.get(path.split("?", 1)[0] + "/charts").json()
    assert charts["versions"] == ["v/1"]
    assert sum(charts["events"][0]) == 1
    assert [metric["name"] for metric in charts["metrics"]] == ["score"]


def test_raw_events_of_a_span_come_for_the_table(served: Served) -> None:
    now = int(time.time()) * SECOND
    store(served.database_url, *(event(now - age * SECOND, drift=age) for age in range(5)))
    found = served.client.get(
        "/ui/models/Mistral/events", params={"version": "v1", "start": "-1h", "limit": "3"}
    ).json()
    assert [one["drift"] for one in found["events"]] == [0, 1, 2]


def test_an_unknown_model_is_not_found_and_the_page_says_so(served: Served) -> None:
    page = served.client.get("/ui/models/Nobody")
    assert page.status_code == 404
    assert "there is no model &#39;Nobody&#39;" in page.text
    assert served.client.get("/ui/models/Nobody/charts").status_code == 404


def test_a_database_that_is_away_is_said_on_the_page() -> None:
    with serve("host=/nowhere dbname=none", ready=False) as served:
        page = served.client.get("/?q=x")
        assert (page.status_code, page.headers["retry-after"]) == (503, "1")
        assert "the database is away" in page.text
        assert 'href="/?q=x"' in page.text
