"""Unit tests of rules come to the verdicts of Debian's promtool, file for file, and of every random one."""

import math
import os
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelmeter.errors import WrongSetting
from modelmeter.promql.memory import parse_values
from modelmeter.rule import read_groups
from modelmeter.unit_test import _Run, run_file
from modelmeter.window import MINUTE

RULES = Path(__file__).parent / "unit" / "rules.yml"


def promtool(path: Path) -> tuple[bool, str]:
    """Its verdict, and what it says."""
    if shutil.which("promtool") is None:
        pytest.fail("promtool is missing, and these tests need its opinion: apt-get install prometheus")
    found = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return found.returncode == 0, found.stdout + found.stderr


def write(path: Path, tests: list[dict[str, Any]], **more: Any) -> Path:
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests, **more}))
    return path


def found_by_us(test: dict[str, Any], names: list[str], minutes: int) -> dict[str, Any]:
    """The test with what we find as what is expected, every minute."""
    run = _Run(test, read_groups(RULES), MINUTE, {}, "ok")
    checks = []
    for minute in range(minutes + 1):
        assert run._evaluate(minute * MINUTE) == []
        for name in names:
            alerts = [
                {
                    "exp_labels": {key: value for key, value in alert.labels if key != "alertname"},
                    "exp_annotations": dict(alert.annotations),
                }
                for group in run._groups
                for rule in group.alerts
                if rule.name == name
                for alert in run._alerts[group.name, rule.key].values()
                if alert.state.fired_at is not None
            ]
            checks.append({"eval_time": f"{minute}m", "alertname": name, "exp_alerts": alerts})
    return test | {"alert_rule_test": checks}


STATES = ["AtOnce", "AfterAWhile", "Kept", "KeptAfterAWhile", "Slow", "Reset", "Absent", "Joined", "StillPending"]


def random_series(dice: random.Random) -> list[dict[str, str]]:
    """Series that come and go, jump, reset and fall silent."""
    series = []
    for job in ("a", "b"):
        for instance in ("1", "2")[: dice.randint(1, 2)]:
            words: list[str] = []
            while len(words) < 12:
                words.append(
                    dice.choice(["5", "20", "60", "_", "_x4", "20x3", "5x2", "stale", "0+7x4", "60-15x3", "NaN", "20"])
                )
            series.append({"series": f'load{{job="{job}", instance="{instance}"}}', "values": " ".join(["_", *words])})
        counter = " ".join(dice.choice(["0+30x5", "100+90x3", "_x3", "0x2", "500+1x4"]) for _ in range(6))
        series.append({"series": f'requests_total{{job="{job}"}}', "values": f"_ {counter}"})
        series.append({"series": f'limit_of{{job="{job}"}}', "values": dice.choice(["15x40", "50x40", "10x20"])})
    return series


def test_random_histories_have_the_alerts_that_promtool_finds(tmp_path: Path) -> None:
    seed = int(os.environ.get("MODELMETER_TEST_SEED") or 20260301)
    print(f"MODELMETER_TEST_SEED={seed}")
    dice = random.Random(seed)
    # 61 s, and none at 0: no sample on the border of a range, which Prometheus 2 counts in and 3 does not.
    tests = [found_by_us({"interval": "61s", "input_series": random_series(dice)}, STATES, 30) for _ in range(10)]
    alerts = [check for test in tests for check in test["alert_rule_test"] if check["exp_alerts"]]
    assert {check["alertname"] for check in alerts} == set(STATES)
    path = write(tmp_path / "test.yml", tests)
    agreed, said = promtool(path)
    assert agreed, said[:4000]
    assert run_file(path, "ok").failures == []
    # And when something else is expected, both say so.
    for check in dice.sample(alerts, 2):
        kept = check["exp_alerts"]
        check["exp_alerts"] = kept[1:]
        path = write(tmp_path / "wrong.yml", tests)
        assert not promtool(path)[0]
        (failure,) = run_file(path, "ok").failures
        assert f"alertname: {check['alertname']}" in failure
        check["exp_alerts"] = kept


NUMBERS = (
    0, -0.0, 1, -1, 0.5, 7.25, 100, 999.99, 1000, 1234567, 123456789, 1e5, 1e6, 1e7, 9e9, 1e-3, 1e-4, 1e-5, 1.5e-7,
    -3.3e-9, 86400, 90061.5, 3599.9, 61, 1500000000.123, 1024, 1048576, 0.1, 1 / 3, 12345.678, math.inf, -math.inf,
    math.nan, 59.9999, -100.5, 1e-10, 123456, 1234567.5, 0.00012345,
)  # fmt: skip
HOSTS = ("example.com:80", "example.com", "10.0.0.1:9090", "10.0.0.1", "a.b.c:1", "[::1]:90", "x")
WORDS = ("hello", "two words", "HELLO", "its", "über", "a-b_c d", "")


def test_templates_are_filled_in_as_promtool_does(tmp_path: Path) -> None:
    tests: list[dict[str, Any]] = []
    for number, value in enumerate(NUMBERS):
        labels = {"word": WORDS[number % len(WORDS)], "host": HOSTS[number % len(HOSTS)]}
        shown = ",".join(f'{key}="{text}"' for key, text in labels.items())
        written = {math.inf: "Inf", -math.inf: "-Inf"}.get(value, "NaN" if math.isnan(value) else repr(float(value)))
        test: dict[str, Any] = {
            "interval": "1m",
            "input_series": [{"series": f"number{{{shown}}}", "values": written}],
            "external_labels": {"region": "eu"},
            "external_url": "https://example.com/prefix",
        }
        found = found_by_us(test, ["Templates"], 0)
        (alert,) = found["alert_rule_test"][0]["exp_alerts"]
        notes: dict[str, str] = alert["exp_annotations"]
        for name in ("wrong", "none", "bad", "logic"):  # what Go says of its own errors is not ours to the letter
            assert notes[name].startswith("<error expanding template: error executing template __alert_Templates: "), (
                name,
                notes[name],
            )
        tests.append(found)
    path = tmp_path / "test.yml"
    for test in tests:
        notes = test["alert_rule_test"][0]["exp_alerts"][0]["exp_annotations"]
        for name in ("wrong", "none", "bad", "logic"):
            del notes[name]
    rules = yaml.safe_load(RULES.read_text())
    for name in ("wrong", "none", "bad", "logic"):
        del rules["groups"][1]["rules"][0]["annotations"][name]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": rules["groups"][1:]}))
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}))
    agreed, said = promtool(path)
    assert agreed, _differences(said)


def _differences(said: str) -> str:
    """What differs, annotation by annotation."""
    lines = []
    for wanted, got in re.findall(r"exp:\[(.*?)\],? *\n\s*got:\[(.*?)\]\n", said, re.DOTALL):
        ours = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', wanted)
        theirs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', got)
        lines += [
            f"{key}: ours {one!r}, theirs {other!r}"
            for (key, one), (_, other) in zip(ours, theirs, strict=False)
            if one != other
        ]
    return "\n".join(sorted(set(lines))) or said[:3000]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1 2 3", [1, 2, 3]),
        ("_ 1", [None, 1]),
        ("_x3 1", [None, None, None, 1]),
        ("1x2", [1, 1, 1]),
        ("0+10x3", [0, 10, 20, 30]),
        ("-2+4x2", [-2, 2, 6]),
        ("1-2x2", [1, -1, -3]),
        ("1e3 0x1f", [1000, 31]),
    ],
)
def test_series_are_written_as_in_prometheus(text: str, values: list[float | None]) -> None:
    assert parse_values(text) == values


@pytest.mark.parametrize("text", ["x", "1+2", "1x", "{{count:1}}", "1+2xy"])
def test_what_is_no_series_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_values(text)


def test_a_wrong_test_file_says_what_is_wrong(tmp_path: Path) -> None:
    for text, reason in [
        ("tests: [{input_serie: []}]", "no field 'input_serie'"),
        ("rule_files: [nothing.yml]", "nothing.yml"),
        ("evaluation_interval: soon", "no duration"),
        ("tests: [{input_series: [{series: 'a{', values: '1'}]}]", "parse error"),
    ]:
        (tmp_path / "test.yml").write_text(text)
        with pytest.raises(WrongSetting, match=re.escape(reason)):
            run_file(tmp_path / "test.yml")
