"""The command line. Thin: reads settings, calls what does the work, prints. A file for each family of commands."""

import os
import sys
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

from modelmeter import __version__, lifeline
from modelmeter.cli import processes
from modelmeter.cli.backup import backup, restore
from modelmeter.cli.compare import compare
from modelmeter.cli.dead_letters import dead_letters
from modelmeter.cli.drift import drift
from modelmeter.cli.export import export
from modelmeter.cli.forget import forget
from modelmeter.cli.notify import notify_app
from modelmeter.cli.options import START, UPKEEP
from modelmeter.cli.queue import queues
from modelmeter.cli.rules import rules_app
from modelmeter.cli.stats import stats
from modelmeter.errors import ModelmeterError, WrongSetting


class _Commands(TyperGroup):
    """The commands; those of `etl` are imported when they are asked for, since Polars takes its time."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), "etl"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name != "etl":
            return super().get_command(ctx, cmd_name)
        from modelmeter.etl.cli import etl_app  # noqa: PLC0415

        etl = typer.main.get_group(etl_app)
        etl.name, etl.rich_help_panel = cmd_name, START
        return etl


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A metrics server for AI model stats. Begin with: modelmeter serve",
    epilog="Every setting can also be given as MODELMETER_<NAME>; docs/configuration.md lists them.",
)
processes.add_to(app)
app.command(rich_help_panel=START)(stats)
app.command(rich_help_panel=START)(export)
app.command(rich_help_panel=START)(compare)
app.command(rich_help_panel=START)(drift)
for command in (forget, backup, restore):
    app.command(rich_help_panel=UPKEEP)(command)
app.add_typer(dead_letters, name="dead-letters", rich_help_panel=UPKEEP)
app.add_typer(rules_app, name="rules", rich_help_panel=UPKEEP)
app.add_typer(notify_app, name="notify", rich_help_panel=UPKEEP)
app.add_typer(queues, name="queue", rich_help_panel=UPKEEP)


@app.command(rich_help_panel=UPKEEP)
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """Run; a wrong setting exits with 2, another error of ours with 1, each in one line."""
    lifeline.hold()
    try:
        app()
    except WrongSetting as error:
        for line in error.detail.splitlines():
            print(f"modelmeter: {line}", file=sys.stderr)
        sys.exit(2)
    except ModelmeterError as error:
        print(f"modelmeter: {error.detail}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
