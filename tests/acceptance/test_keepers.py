"""Two keepers and Postgres, killed at random: each transition is written once and told under one key, none is lost."""

import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import httpx
import psycopg

from tests.acceptance.yard import Yard, ask, connect, kill, until
from tests.notifying import Request, inbox, webhooks

RULES = """
groups:
  - name: swings
    interval: 1s
    rules:
      - alert: High
        expr: last_over_time(level[3s]) > 0
        no_data: ok
      - alert: HighForAWhile
        expr: last_over_time(level[3s]) > 0
        for: 2s
        no_data: ok
      - alert: Seen
        event: number >= 0
"""
SECONDS = 18


def test_of_two_keepers_killed_at_random_each_transition_is_written_and_told_once(yard: Yard) -> None:
    rules, file = yard.home / "rules.yml", yard.home / "notifications.yml"
    rules.write_text(RULES)
    with inbox() as box:
        file.write_text(webhooks(a=box.url).replace('"1m"', '"1s"'))
        accepted = _swing(yard, {"rules": rules, "notifications": file})
        until(lambda: accepted <= _events_told(box.requests).keys(), "every event is told", 30)
        left = "SELECT (SELECT count(*) FROM modelmeter.notification) + (SELECT count(*) FROM modelmeter.delivery) = 0"
        until(lambda: ask(yard.conninfo, left), "all is told", 30)
        with connect(yard.conninfo) as connection:
            _check(connection)
        until(lambda: _all_told(yard.conninfo, box.requests), "every transition is told", 30)
    assert len(accepted) > 10
    keys = _events_told(box.requests)
    assert {len(its_keys) for its_keys in keys.values()} == {1}, "an event is told under one key"


def _swing(yard: Yard, settings: dict[str, Path]) -> set[float]:
    """Let alerts come and go while processes die; the numbers of the events that were accepted."""
    dice = yard.chance()
    serve = yard.serve(0, **settings, alert_lines_per_second=1000)
    url = serve.url
    until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "serve is ready")
    second = yard.run("keeper", **settings, database_url=yard.conninfo)
    until(lambda: ask(yard.conninfo, "SELECT count(*) FROM modelmeter.rule_evaluation"), "a first evaluation")
    began = time.monotonic()
    killed = number = 0
    accepted: set[float] = set()
    while time.monotonic() < began + SECONDS:
        level = 1 if int(time.monotonic() - began) // 4 % 2 else -1
        try:
            event = {"name": "Mistral", "version": "v1", "level": level, "number": number}
            if httpx.post(f"{url}/events", json=event, timeout=5).status_code == 202:
                accepted.add(number)
        except httpx.HTTPError:
            time.sleep(0.1)
        number += 1
        if dice.random() < 0.08:
            killed += 1
            victim = dice.choice(["first", "second", "stopped", "postgres"])
            if victim == "second":
                second.kill()
                second = yard.run("keeper", **settings, database_url=yard.conninfo)
            elif victim == "postgres":
                master = yard.postmaster()
                if master is not None:
                    kill(master)
            else:
                for keeper in serve.children("keeper"):
                    keeper.send_signal(signal.SIGSTOP if victim == "stopped" else signal.SIGKILL)
                    if victim == "stopped":
                        time.sleep(1.5)
                        keeper.send_signal(signal.SIGCONT)
        time.sleep(0.2)
    print(f"{killed} kills, {len(accepted)} of {number} events accepted")
    behind = "SELECT extract(epoch FROM now() - min(evaluated_at)) < 3 FROM modelmeter.rule_evaluation"
    until(lambda: ask(yard.conninfo, behind), "the rules are evaluated again", 30)
    return accepted


def _events_told(requests: Sequence[Request]) -> dict[float, set[str]]:
    """The keys of the messages that held each event, by its number."""
    found: dict[float, set[str]] = defaultdict(set)
    for request in list(requests):
        numbers = [one["value"] for one in request.json["alerts"] if one["event"]]
        assert len(numbers) == len(set(numbers))
        for number in numbers:
            found[number].add(request.json["deduplicationKey"])
    return found


def _all_told(conninfo: str, requests: Sequence[Request]) -> bool:
    """Whether the last transition of each alert is told. Fails when one is told twice, or one is lost.

    What changes and changes back before its group has looked is no news, as documented: such go missing in pairs.
    """
    told: dict[str, dict[tuple[str, object], set[str]]] = defaultdict(lambda: defaultdict(set))
    for request in list(requests):
        for one in request.json["alerts"]:
            if not one["event"]:
                at = one["startsAt" if one["status"] == "firing" else "endsAt"]
                change = one["status"], datetime.fromisoformat(at)
                told[one["labels"]["alertname"]][change].add(request.json["deduplicationKey"])
    with connect(conninfo) as connection:
        changes = connection.execute(
            "SELECT rule_name, CASE to_state WHEN 'firing' THEN 'firing' ELSE 'resolved' END, at"
            " FROM modelmeter.alert_history WHERE 'firing' IN (from_state, to_state) ORDER BY rule_name, at"
        ).fetchall()
    assert changes
    missing = 0
    for rule in ("High", "HighForAWhile"):
        happened: list[tuple[str, object]] = [(str(status), at) for name, status, at in changes if name == rule]
        keys = told[rule]
        assert keys.keys() <= set(happened), f"{rule}: told what never was: {keys.keys() - set(happened)}"
        assert all(len(its_keys) == 1 for its_keys in keys.values()), f"{rule}: told under two keys: {keys}"
        gap = 0
        for one_of_them in happened:
            gap = gap + 1 if one_of_them not in keys else 0 if gap % 2 == 0 else -1000
            assert gap >= 0, f"{rule}: a transition is not told: {happened} but {sorted(keys)}"
            missing += one_of_them not in keys
        if gap % 2:
            return False
    print(f"{len(changes)} transitions, {missing} of them over before they were told")
    return True


def _check(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    changes = connection.execute(
        "SELECT rule_name, from_state, to_state, at, transition_id FROM modelmeter.alert_history ORDER BY rule_name, at"
    ).fetchall()
    assert {row[0] for row in changes} == {"High", "HighForAWhile"}, "events have no history"
    for rule in ("High", "HighForAWhile"):
        states = [(before, after) for name, before, after, _, _ in changes if name == rule]
        assert states[0][0] == "inactive"
        assert all(one[1] == following[0] for one, following in pairwise(states)), f"{rule}: a change is lost: {states}"
    told = {row[4] for row in changes if row[2] == "firing" or row[1] == "firing"}
    # The dispatcher takes notifications meanwhile; no one that still waits is without its transition.
    waiting = {row[0] for row in connection.execute("SELECT transition_id FROM modelmeter.notification")}
    assert waiting <= told
    row = connection.execute(
        "SELECT count(*), count(DISTINCT (rule_name, fingerprint, at)) FROM modelmeter.alert_history"
    )
    assert len(set(row.fetchone() or ())) == 1
