"""`modelmeter stats` and `modelmeter export` against a real server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.web.conftest import Served
from tests.web.test_asking import DAY, EVENTS


@pytest.fixture(scope="module")
def stocked(shared: Served) -> Served:
    assert shared.post(json.dumps(EVENTS)).json()["rejected"] == 0
    assert shared.store() == len(EVENTS)
    return shared


SPAN = ("--start", f"{DAY}09:00:00Z", "--end", f"{DAY}15:00:00Z")


def call(served: Served, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "modelmeter", *arguments, "--url", served.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "140"},
    )
    return done.returncode, done.stdout, done.stderr


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip()[1:-1].split("│")]


def test_stats_are_a_table_of_groups(stocked: Served) -> None:
    code, shown, _ = call(stocked, "stats", "Mistral", *SPAN, "--by", "env", "--metric", "drift", "--quantiles", "0.5")
    assert code == 0
    rows = [cells(line) for line in shown.splitlines() if "drift" in line]
    assert rows == [
        ["", "drift", "1", "5", "0", "5", "5", "5", "5"],
        ["prod", "drift", "2", "2", "1", "1", "2", "3", "3"],
        ["test", "drift", "1", "2", "0", "2", "2", "2", "2"],
    ]
    code, shown, _ = call(stocked, "stats", *SPAN, "--where", "drift>=3", "--match", '{version=~"v.*"}')
    assert code == 0
    assert [cells(line)[:4] for line in shown.splitlines() if "drift" in line] == [["Mistral", "v1", "drift", "2"]]


def test_stats_over_time_are_a_plot(stocked: Served) -> None:
    code, shown, _ = call(stocked, "stats", "Mistral", "v1", *SPAN, "--step", "1h", "--metric", "drift")
    assert code == 0
    (row,) = [cells(line) for line in shown.splitlines() if "drift" in line]
    assert row == ["v1", "drift", "3", "2", "5", "5", "···▄█·"]


def test_stats_are_told_as_json_and_csv_too(stocked: Served) -> None:
    code, shown, _ = call(stocked, "stats", "Mistral", *SPAN, "--format", "json", "--exact")
    assert code == 0
    assert json.loads(shown)["resolution"] == "raw"
    code, shown, _ = call(stocked, "stats", "Mistral", *SPAN, "--format", "csv", "--step", "1h")
    assert shown.splitlines()[0].startswith("version,start,events,metric,count,mean")
    code, shown, _ = call(stocked, "stats", "--format", "json")
    assert {model["name"] for model in json.loads(shown)["models"]} == {"Mistral", "Llama"}
    code, _, said = call(stocked, "stats", "Mistral", "--where", "drift")
    assert code == 1
    assert said.startswith("modelmeter: where: 'drift' is no comparison; write metric>number, joined by and")
    assert "Mistral: no event in this span" in call(stocked, "stats", "Mistral")[1]


def test_an_export_is_a_file_of_the_form_of_its_name(stocked: Served, tmp_path: Path) -> None:
    for suffix, read in (
        ("parquet", pl.read_parquet),
        ("csv", pl.read_csv),
        ("ndjson", pl.read_ndjson),
        ("arrow", pl.read_ipc_stream),
    ):
        file = tmp_path / f"mistral.{suffix}"
        code, _, said = call(stocked, "export", "Mistral", "--start", "0", "--output", str(file))
        assert (code, said) == (0, "")
        frame = read(file)
        assert frame["drift"].to_list() in ([1, 2, 3, 5], [2, 1, 3, 5])
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".arrow", ".csv", ".ndjson", ".parquet"]


def test_an_export_without_a_file_goes_to_standard_output(stocked: Served) -> None:
    code, shown, _ = call(
        stocked, "export", "Mistral", "v1", "--start", "0", "--where", "drift>2", "--label", "env=prod"
    )
    assert code == 0
    assert [json.loads(line)["drift"] for line in shown.splitlines()] == [3]


def test_an_export_that_fails_leaves_no_file(stocked: Served, tmp_path: Path) -> None:
    code, _, said = call(stocked, "export", "Mistrl", "--output", str(tmp_path / "a.parquet"))
    assert (code, said) == (1, "modelmeter: there is no model 'Mistrl'; the nearest are Mistral\n")
    code, _, said = call(stocked, "export", "Mistral", "--output", str(tmp_path / "a.xlsx"))
    assert (code, said) == (
        2,
        "modelmeter: format: 'a.xlsx' does not tell it; give --format parquet|arrow|csv|ndjson\n",
    )
    code, _, said = call(stocked, "export", "Mistral", "--output", str(tmp_path / "no" / "a.csv"))
    assert code == 1
    assert "cannot be written (No such file or directory)" in said
    assert list(tmp_path.iterdir()) == []
