"""`modelmeter forget`: events taken out again, at every resolution, by a running server."""

import getpass
import socket
import sys
from typing import Annotated, Any

import typer

from modelmeter.cli.options import DryRun, Url
from modelmeter.cli.server import send


def _whoami() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name, as in a container
        return socket.gethostname()


def forget(
    match: Annotated[str, typer.Option(help='Of the streams whose labels match: \'{name="Mistral",env="test"}\'.')],
    start: Annotated[str, typer.Option(help="Begin: RFC 3339, Unix or relative, like -6h; 0 is since ever.")],
    end: Annotated[str, typer.Option(help="End, not included; now is possible.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    by: Annotated[str | None, typer.Option(help="Who, for the record.", show_default="user@host")] = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Take events out of everything that is stored: counts them, asks, removes them, and leaves a record.

    Example: modelmeter forget --match '{name="Mistral",env="test"}' --start 2026-01-31T00:00:00Z --end now --dry-run
    """
    query = {"match": match, "start": start, "end": end}
    counted = send("DELETE", url, "/events", {**query, "dry_run": "true"})
    if dry_run:
        print(f"would remove {_said(counted)}; nothing was done")
        return
    if sys.stdin.isatty() and not yes:
        typer.confirm(f"Remove {_said(counted)}?", abort=True)
    done = send("DELETE", url, "/events", {**query, "by": by or _whoami(), "reason": reason})
    print(f"removed {_said(done)}; correction {done['correction_id']}")


def _said(outcome: dict[str, Any]) -> str:
    return f"{outcome['removed']:,} events of {outcome['streams']:,} streams"
