"""Tables of numbers: printed for people or as Markdown, kept as JSON, merged by the median."""

import datetime as dt
import json
import os
import platform
import re
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """`key` of the row, its heading, and how a number is written: a format spec, e.g. `,.0f`."""

    key: str
    title: str
    spec: str = ""

    def text(self, row: Row) -> str:
        value = row.get(self.key)
        if value is None:
            return "-"
        return format(value, self.spec) if isinstance(value, int | float) and self.spec else str(value)


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[Column, ...]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What gave no number, and why. The rest of the table stands."""


def median_row(rows: list[Row]) -> Row:
    """Of each number the median over the repeats that have it; of anything else the last."""
    merged: Row = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if row.get(key) is not None]
        if values and all(isinstance(value, int | float) for value in values):
            merged[key] = statistics.median(values)
        else:
            merged[key] = values[-1] if values else None
    return merged


def print_table(table: Table, *, markdown: bool) -> None:
    console = Console(width=1_000, highlight=False)  # wide: a number must not be cut
    drawn = RichTable(box=box.MARKDOWN if markdown else box.SIMPLE_HEAD, pad_edge=markdown)
    for column in table.columns:
        drawn.add_column(column.title, justify="right" if column.spec else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(column.text(row) for column in table.columns))
    print(f"{'### ' if markdown else ''}{table.title}{chr(10) if markdown else ''}")
    console.print(drawn)
    for note in table.notes:
        print(f"{'- ' if markdown else '  '}{note}")
    for failure in table.failures:
        print(f"{'- ' if markdown else '  '}FAILED {failure}")
    print()


def write_json(path: Path, tables: list[Table]) -> None:
    content = {
        **place(),
        "tables": [
            {"title": table.title, "rows": table.rows, "notes": table.notes, "failures": table.failures}
            for table in tables
        ],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def place() -> dict[str, str]:
    """When, of which commit and on what machine the numbers are."""
    return {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{_cpu()}, {os.cpu_count()} cores, {_memory()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def print_place(*, markdown: bool) -> None:
    facts = place()
    line = f"Commit {facts['commit']}, {facts['at']}, Python {facts['python']}, {facts['machine']}."
    print(line if markdown else f"  {line}")
    print()


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
