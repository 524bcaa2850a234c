"""`modelmeter dead-letters`: what could not be stored."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from modelmeter.cli.options import DatabaseUrl, DataDir, Queue, settings
from modelmeter.errors import WrongSetting

dead_letters = typer.Typer(
    no_args_is_help=True,
    help="Messages that could not be stored: look, try again, drop. In the `serve` on --data-dir or --database-url.",
)


@dead_letters.command("list")
def list_dead_letters(database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """The dead letters, newest first, with their reasons."""
    from modelmeter.store.dead_letters import DeadLetters  # noqa: PLC0415

    table = Table("id", "died at", "events", "bytes", "reason")
    for letter in DeadLetters(settings(database_url=database_url, data_dir=data_dir).database_url).newest():
        table.add_row(
            str(letter.id),
            letter.died_at.isoformat(timespec="seconds"),
            f"{letter.events:,}",
            f"{letter.bytes:,}",
            letter.reason,
        )
    Console(width=None if sys.stdout.isatty() else 140, markup=False).print(table)


Ids = Annotated[list[int] | None, typer.Argument(help="Ids from `dead-letters list`; none with --all.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


def _chosen(ids: list[int] | None, every: bool) -> list[int] | None:
    if bool(ids) == every:
        raise WrongSetting("name the ids, or give --all")
    return ids


@dead_letters.command("retry")
def retry_dead_letters(
    ids: Ids = None,
    every: All = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    queue: Queue = None,
) -> None:
    """Put them back on the queue. What was counted already is not counted again."""
    from modelmeter.queues import retry_dead_letters as run  # noqa: PLC0415

    chosen = _chosen(ids, every)
    config = settings(database_url=database_url, data_dir=data_dir, queue=queue)
    print(f"{run(config, chosen)} back on the queue")


@dead_letters.command("drop")
def drop_dead_letters(
    ids: Ids = None, every: All = False, database_url: DatabaseUrl = None, data_dir: DataDir = None
) -> None:
    """Drop them for good."""
    from modelmeter.store.dead_letters import DeadLetters  # noqa: PLC0415

    chosen = _chosen(ids, every)
    letters = DeadLetters(settings(database_url=database_url, data_dir=data_dir).database_url)
    print(f"{letters.drop(chosen)} dropped")
