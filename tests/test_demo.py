"""script/demo, run as a person runs it: what it shows, and that nothing of it is left."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent
HOME = re.compile(r"^its data is in (/tmp/modelmeter-demo-\w+)/data$", re.MULTILINE)

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv/bin/modelmeter").exists(), reason="script/setup has not made .venv, which the demo uses"
)


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo in a session of its own, as in a terminal; at the end it is killed if it still runs."""
    process = subprocess.Popen(
        [ROOT / "script/demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "MODELMETER_DATABASE_URL": "nonsense", "STATS_API_URL": "http://127.0.0.1:1"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def leftovers(home: str) -> list[str]:
    """The processes that work for the demo in `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            if home in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def test_the_demo_shows_stats_and_alerts_and_leaves_nothing() -> None:
    with demo("--once") as process:
        shown, _ = process.communicate(timeout=150)
    assert process.returncode == 0, shown
    for model in ("Mistral", "Llama", "Qwen"):
        for version in ("v1", "v2"):
            assert re.search(rf"{model} +│ {version} +│ [\d,]+ +│", shown), shown
    assert re.search(r"v1 +│ prediction_accuracy +│ +[\d,]+ │", shown)
    assert re.search(
        r"^ALERT prediction_accuracy lower than 0\.3, {'name': 'Mistral', 'version': 'v1', ", shown, re.MULTILINE
    )
    assert 1 <= shown.count("\nALERT ") <= 10
    assert re.search(r"^== The server is at (http://127\.0\.0\.1:\d+), .* \1/docs$", shown, re.MULTILINE)
    home = HOME.search(shown)
    assert home
    assert not Path(home[1]).exists()
    assert leftovers(home[1]) == []


def test_ctrl_c_ends_it_and_leaves_nothing() -> None:
    with demo("--port", "0") as process:
        assert process.stdout
        shown = ""
        while "== modelmeter etl demo" not in shown:
            line = process.stdout.readline()
            assert line, shown
            shown += line
        home = HOME.search(shown)
        assert home
        assert leftovers(home[1])
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert not Path(home[1]).exists()
    assert leftovers(home[1]) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--nonsense"]])
def test_it_says_how_it_is_used(arguments: list[str]) -> None:
    with demo(*arguments) as process:
        shown, _ = process.communicate(timeout=30)
    assert "usage: script/demo" in shown
    assert process.returncode == (0 if arguments == ["--help"] else 2)
