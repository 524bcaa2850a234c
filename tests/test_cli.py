"""What the commands say when something is wrong: in a line or two, what to do about it, and the exit code."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelmeter.rule import read_rules

URL = "postgresql://127.0.0.1:1/nothing"


def call(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MODELMETER_", "STATS_API_URL"))}
    done = subprocess.run(
        [sys.executable, "-m", "modelmeter", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean | (env or {}),
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, kept free of others."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_stats_without_a_server_says_how_to_start_one(closed_port: int) -> None:
    code, _, said = call("stats", "--url", f"http://127.0.0.1:{closed_port}")
    assert code == 1
    assert said.startswith(f"modelmeter: no answer from http://127.0.0.1:{closed_port} (Connection refused)")
    assert "modelmeter serve" in said


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["worker"], {}, "database_url: needed here; give --database-url or MODELMETER_DATABASE_URL"),
        (["keeper"], {}, "database_url: needed here"),
        (["migrate", "--database-url", "nonsense"], {}, "database_url: missing"),
        (["serve", "--port", "99999"], {}, "port: Input should be less than or equal to 65535 (given: '99999')"),
        (["serve"], {"MODELMETER_PROT": "1"}, "MODELMETER_PROT: unknown setting; did you mean MODELMETER_PORT?"),
        (["serve", "--rules", "/nowhere.yml"], {}, "rules: there is no file /nowhere.yml"),
        (["worker"], {"MODELMETER_LOG_LEVEL": "loud"}, "log_level: must be debug, info, warning or error"),
        (["stats", "m", "--label", "env"], {}, "label: 'env' is no LABEL=VALUE"),
        (["stats", "--url", "nonsense"], {}, "url: 'nonsense' is no http:// or https:// address"),
        (["dead-letters", "drop", "--database-url", URL], {}, "name the ids, or give --all"),
    ],
)
def test_a_wrong_setting_is_named_and_exits_with_2(arguments: list[str], env: dict[str, str], message: str) -> None:
    code, _, said = call(*arguments, env=env)
    assert code == 2
    assert f"modelmeter: {message}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", [["migrate"], ["dead-letters", "list"]])
def test_a_database_that_is_away_is_said_without_a_traceback(command: list[str]) -> None:
    code, _, said = call(*command, "--database-url", URL)
    assert code == 1
    assert said.startswith("modelmeter: the database is away: ")
    assert "Traceback" not in said


def test_the_example_rules_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(call("rules", "example")[1])
    first, *others = read_rules(path)
    assert first.words == "prediction_accuracy lower than 0.3"
    assert any(rule.matchers for rule in others)
    code, shown, _ = call("rules", "check", str(path))
    assert code == 0
    assert shown.startswith("LowAccuracy: prediction_accuracy lower than 0.3\n")


@pytest.mark.parametrize("command", [["rules", "check"], ["serve", "--rules"]])
def test_wrong_rules_are_refused_with_file_and_line(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text("groups:\n  - name: x\n    rules:\n      - alert: A\n        evnt: a < 1\n")
    code, _, said = call(*command, str(path))
    assert code == 2
    assert said == f"modelmeter: {path}:5: a rule has no field 'evnt'; did you mean event?\n"
