"""`modelmeter rules`: rule files checked, shown, tested and tried on what is stored."""

import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from modelmeter.cli.options import Url
from modelmeter.errors import ModelmeterError, WrongSetting

rules_app = typer.Typer(no_args_is_help=True, help="Rule files: an example, a check, unit tests, a trial on past data.")

File = Annotated[Path, typer.Argument(help="The rules file, a directory of them, or a pattern.")]


@rules_app.command("example")
def example_rules() -> None:
    """Print an example: modelmeter rules example > rules.yml"""
    print((files("modelmeter") / "examples" / "rules.yml").read_text("utf-8"), end="")


@rules_app.command("check")
def check_rules(file: File) -> None:
    """Read rules as the server would: exit 0 if they can be used, else 2 with line and reason."""
    from modelmeter.rule import EventRule, read_groups  # noqa: PLC0415

    for group in read_groups(file):
        for rule in group.rules:
            print(f"{rule.name}: {rule.words if isinstance(rule, EventRule) else rule.query}")


@rules_app.command("show")
def show_rules(file: File) -> None:
    """Print the rules as they are evaluated: every `compare` written out as a plain expression.

    Which version comes before which, and what a baseline is, only the server knows: for these, POST /rules/test.
    """
    import yaml  # noqa: PLC0415

    from modelmeter.rule import read_groups  # noqa: PLC0415
    from modelmeter.rule_document import rule_fields  # noqa: PLC0415
    from modelmeter.window import format_duration  # noqa: PLC0415

    groups = []
    for group in read_groups(file):
        shown: dict[str, object] = {"name": group.name}
        if group.interval:
            shown["interval"] = format_duration(group.interval)
        groups.append(shown | {"rules": [rule_fields(rule) for rule in group.rules]})
    yaml.safe_dump({"groups": groups}, sys.stdout, sort_keys=False, allow_unicode=True, width=120)


@rules_app.command("test")
def run_tests(
    tests: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Unit tests, in promtool's format.")],
    no_data: Annotated[
        str | None,
        typer.Option(
            help="What silence means for a rule that does not say: keep, alert, or ok, as in Prometheus.",
            show_default="the setting, keep",
        ),
    ] = None,
) -> None:
    """Run unit tests of rules, in the files of `promtool test rules`: exit 1 when one fails."""
    from modelmeter.cli.options import settings  # noqa: PLC0415
    from modelmeter.unit_test import run_file  # noqa: PLC0415

    silence = settings(needs_database=False, no_data=no_data).no_data

    failed = 0
    for path in tests:
        print(f"Unit Testing:  {path}")
        verdict = run_file(path, silence)
        if not verdict.failures:
            print("  SUCCESS\n")
            continue
        failed += 1
        print("  FAILED:")
        for failure in verdict.failures:
            print(f"    {failure}\n")
    if failed:
        raise ModelmeterError(f"{failed} of {len(tests)} files failed")


@rules_app.command("backtest")
def backtest_rules(
    file: Annotated[Path, typer.Argument(help="The rules file: what is to be tried.")],
    since: Annotated[str, typer.Option(help="How far back to begin.")] = "7d",
    step: Annotated[
        str | None,
        typer.Option(help="How often rules are evaluated.", show_default="the group's interval, 1m at least"),
    ] = None,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Print what the rules would have done to a running server's data: what would have fired, when, for how long.

    Nothing is kept and nobody is told. Example: modelmeter rules backtest rules.yml --since 7d
    """
    from modelmeter.cli.server import send  # noqa: PLC0415
    from modelmeter.rule.file import read_text  # noqa: PLC0415
    from modelmeter.window import parse_duration  # noqa: PLC0415

    try:
        parse_duration(since)
    except ValueError as error:
        raise WrongSetting(f"since: {error}") from None
    query = {"start": f"-{since}", "step": step}
    found = send("POST", url, "/rules/backtest", query, content=read_text(file).encode())
    out = Console(width=None if sys.stdout.isatty() else 140, markup=False)
    shown = Table("rule", "labels", "fired", "for", "flaps", "when", title=f"{found['start']} to {found['end']}")
    failures = []
    for rule in found["rules"]:
        if rule["error"]:
            failures.append(f"{rule['name']}: {rule['error']}")
            continue
        for alert in rule["alerts"]:
            labels = ", ".join(f"{key}={value}" for key, value in alert["labels"].items() if key != "alertname")
            line = _timeline(alert["intervals"], found["start"], found["end"])
            lasted = _lasted(alert["firing_seconds"])
            shown.add_row(rule["name"], labels, str(alert["firings"]), lasted, str(alert["flaps"]), line)
        if not rule["alerts"]:
            shown.add_row(rule["name"], "-", "0", "-", "0", "\u00b7" * _CELLS)
    out.print(shown)
    for rule in found["rules"]:
        for alert in rule.get("alerts", []):
            for one in alert["intervals"]:
                if one["state"] == "firing":
                    labels = ", ".join(f"{key}={value}" for key, value in alert["labels"].items() if key != "alertname")
                    value = "-" if one["value"] is None else f"{one['value']:.6g}"
                    out.print(f"{one['start']} to {one['end'] or 'now'}  {rule['name']} {labels}, value {value}")
    if failures:
        raise ModelmeterError("; ".join(failures))


_CELLS = 48


def _timeline(intervals: list[dict[str, Any]], start: str, end: str) -> str:
    """The span in cells: firing, pending or neither, whatever was worst in each."""
    from modelmeter.window import rfc3339_to_micros  # noqa: PLC0415

    first, last = rfc3339_to_micros(start), rfc3339_to_micros(end)
    width = max((last - first) / _CELLS, 1)
    cells = ["\u00b7"] * _CELLS
    for state, mark in (("pending", "\u2591"), ("firing", "\u2588")):
        for one in intervals:
            if one["state"] == state:
                until = last if one["end"] is None else rfc3339_to_micros(one["end"])
                begin = max(int((rfc3339_to_micros(one["start"]) - first) / width), 0)
                for cell in range(begin, min(int((until - first) / width) + 1, _CELLS)):
                    cells[cell] = mark
    return "".join(cells)


def _lasted(seconds: float) -> str:
    from modelmeter.window import SECOND, format_duration  # noqa: PLC0415

    return format_duration(round(seconds) * SECOND)
