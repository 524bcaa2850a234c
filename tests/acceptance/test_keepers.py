"""Two keepers and Postgres, killed at random: each transition is written once, none is lost."""

import signal
import time
from itertools import pairwise

import httpx
import psycopg

from tests.acceptance.yard import Yard, ask, connect, kill, until

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
"""
SECONDS = 25


def test_of_two_keepers_killed_at_random_each_transition_is_written_once(yard: Yard) -> None:
    dice = yard.chance()
    rules = yard.home / "rules.yml"
    rules.write_text(RULES)
    serve = yard.serve(rules=rules)
    url = serve.url
    until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "serve is ready")
    second = yard.run("keeper", rules=rules, database_url=yard.conninfo)
    until(lambda: ask(yard.conninfo, "SELECT count(*) FROM modelmeter.rule_evaluation"), "a first evaluation")
    began = time.monotonic()
    killed = 0
    while time.monotonic() < began + SECONDS:
        level = 1 if int(time.monotonic() - began) // 4 % 2 else -1
        try:
            httpx.post(f"{url}/events", json={"name": "Mistral", "version": "v1", "level": level}, timeout=5)
        except httpx.HTTPError:
            time.sleep(0.1)
        if dice.random() < 0.08:
            killed += 1
            victim = dice.choice(["first", "second", "stopped", "postgres"])
            if victim == "second":
                second.kill()
                second = yard.run("keeper", rules=rules, database_url=yard.conninfo)
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
    print(f"{killed} kills")
    behind = "SELECT extract(epoch FROM now() - min(evaluated_at)) < 3 FROM modelmeter.rule_evaluation"
    until(lambda: ask(yard.conninfo, behind), "the rules are evaluated again", 30)
    with connect(yard.conninfo) as connection:
        _check(connection)


def _check(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    changes = connection.execute(
        "SELECT rule_name, from_state, to_state, at, transition_id FROM modelmeter.alert_history ORDER BY rule_name, at"
    ).fetchall()
    assert {row[0] for row in changes} == {"High", "HighForAWhile"}
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
