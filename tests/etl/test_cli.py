import signal
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from modelmeter.etl.cli import etl_app
from tests.etl.stub import Fault, Stub

RUNNER = CliRunner()


def call(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return RUNNER.invoke(etl_app, [str(argument) for argument in arguments], env={"COLUMNS": "200", **(env or {})})


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "run.csv"
    rows = "".join(f"m,v1,{number},2026-01-31T12:00:00Z\n" for number in range(1_000))
    path.write_text("model,version,serial,timestamp\n" + rows)
    return path


def test_load_says_what_it_took_the_columns_for_and_what_was_acknowledged(stub: Stub, csv: Path) -> None:
    result = call("load", csv, "--map", "model=name", "--slice-events", 100, "--url", stub.url)
    assert result.exit_code == 0, result.output
    assert "1,000 rows in 10 slices; labels name, version; metrics serial" in result.stderr
    assert result.stdout.startswith("1,000 events acknowledged (10 of 10 slices), ")
    assert result.stdout.endswith(" a second; 0 refused\n")
    assert stub.events.height == 1_000


@pytest.mark.parametrize("ending", ["", "/stats"])
def test_the_older_jobs_variable_is_the_default_url(stub: Stub, csv: Path, ending: str) -> None:
    result = call("load", csv, "--map", "model=name", env={"STATS_API_URL": stub.url + ending})
    assert result.exit_code == 0, result.output
    assert {request["path"] for request in stub.requests} == {"/events"}


def test_files_of_one_content_count_once(stub: Stub, csv: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin.csv"
    twin.write_bytes(csv.read_bytes())
    result = call("load", csv, twin, "--map", "model=name", "--url", stub.url)
    assert f"{twin}: has the content of {csv}; it counts once." in result.stderr
    assert stub.events.height == len(stub.requests) * 1_000 == 1_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv"], "missing.csv: cannot be read (No such file or directory)"),
        (["."], "cannot be read (Is a directory)"),
        (["{csv}"], "Say which one it is: --map model=name"),
        (["{csv}", "--map", "modle=name"], "did you mean 'model'?"),
        (["{csv}", "missing.csv", "--map", "model=name"], "missing.csv: cannot be read"),
        (["{csv}", "--map", "model=name", "--url", "localhost"], "is no http:// or https:// URL"),
        (["{csv}", "--map", "model=name", "--patience", "long"], "is no duration"),
        (["{csv}", "--map", "model=name", "--sql", "selec"], "sql"),
    ],
)
def test_wrong_input_is_a_clear_error_and_nothing_is_sent(
    stub: Stub, csv: Path, arguments: list[str], message: str
) -> None:
    result = call("load", *(argument.format(csv=csv) for argument in arguments), env={"STATS_API_URL": stub.url})
    assert result.exit_code == 2
    assert message in result.stderr
    assert not stub.requests


def test_a_server_that_refuses_is_quoted_with_how_far_it_came(stub: Stub, csv: Path) -> None:
    stub.on_request = lambda number: Fault(413, body={"detail": "over 32 MiB"}) if number > 2 else None
    result = call("load", csv, "--map", "model=name", "--slice-events", 100, "--url", stub.url)
    assert result.exit_code == 1
    assert "413 over 32 MiB" in result.stderr
    assert result.stdout.startswith("200 events acknowledged (2 of 10 slices)")
    assert "run the same command again" in result.stderr


def test_refused_events_are_shown_and_a_load_of_nothing_else_fails(stub: Stub, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("name,version,x\n" + ",v1,1\n" * 30)
    result = call("load", path, "--url", stub.url)
    assert result.exit_code == 1
    assert "0 events acknowledged" in result.stdout
    assert "30 refused" in result.stdout
    assert f"{path}, row 1: name: missing" in result.stderr
    assert "and 20 more" in result.stderr


def test_ctrl_c_says_how_far_it_came_and_a_second_run_counts_nothing_twice(stub: Stub, csv: Path) -> None:
    reached = threading.Event()

    def away_after_three(number: int) -> Fault | None:
        if number <= 3:
            return None
        reached.set()
        return Fault(503, {"Retry-After": "60"}, is_counted=True)

    stub.on_request = away_after_three
    program = "from modelmeter.etl.cli import etl_app; etl_app()"
    arguments = ["load", str(csv), "--map", "model=name", "--slice-events", "100", "--url", stub.url]
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert reached.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Stopped." in err
    assert "run the same command again" in err
    assert out.startswith("300 events acknowledged (3 of 10 slices)")
    stub.on_request = lambda _: None
    assert call(*arguments).exit_code == 0
    assert stub.events["serial"].sort().equals(pl.Series("serial", range(1_000), dtype=pl.Float64))


def test_demo_streams_and_tells_what_was_acknowledged(stub: Stub) -> None:
    result = call("demo", "--duration", "0.4", "--rate", 500, "--history", "1m", "--models", 2, "--url", stub.url)
    assert result.exit_code == 0, result.output
    assert f"{stub.events.height:,} events acknowledged" in result.stdout
    assert "Llama v2 drifts; Mistral v1 had an incident." in result.stdout
    assert stub.events.select("name", "version").n_unique() == 4


def test_demo_without_a_server_gives_up_when_its_patience_is_over() -> None:
    result = call("demo", "--duration", "0.2", "--patience", "0.1", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "The server is away" in result.stderr


@pytest.mark.parametrize("command", ["demo", "load"])
def test_help_explains_itself(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "STATS_API_URL" in result.output
