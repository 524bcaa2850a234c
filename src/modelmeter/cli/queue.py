"""`modelmeter queue`: the queue itself."""

import logging
import time
from typing import Annotated

import typer

from modelmeter.cli.options import DatabaseUrl, DryRun, Queue, settings
from modelmeter.config import Config
from modelmeter.errors import Unavailable, WrongSetting

log = logging.getLogger(__name__)

queues = typer.Typer(no_args_is_help=True, help="The queue itself: make it, look at it, empty it.")


def _queue_settings(database_url: str | None, queue: str | None) -> Config:
    """A queue outside is made and looked at without the database."""
    from modelmeter.queue.url import PostgresUrl, parse  # noqa: PLC0415

    config = settings(needs_database=False, database_url=database_url, queue=queue)
    if isinstance(parse(config.queue), PostgresUrl) and not config.database_url:
        raise WrongSetting("database_url: needed here; only `modelmeter serve` brings its own Postgres")
    return config


@queues.command("create")
def create_queue(
    database_url: DatabaseUrl = None,
    queue: Queue = None,
    dry_run: DryRun = False,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for a broker that is away.")] = 0,
) -> None:
    """Make what the queue needs: the stream, or the topics and subscriptions. What is there already stays."""
    from modelmeter.queues import make_steward  # noqa: PLC0415

    steward = make_steward(_queue_settings(database_url, queue))
    deadline = time.monotonic() + wait
    while True:
        try:
            lines = steward.create(dry_run=dry_run)
            break
        except Unavailable as error:
            if time.monotonic() >= deadline:
                raise
            log.warning("%s; trying again", error.detail)
            time.sleep(1)
    done = "would make" if dry_run else "made"
    print("\n".join(f"{done} {line}" for line in lines) or "all that the queue needs is there")


@queues.command("status")
def show_queue(database_url: DatabaseUrl = None, queue: Queue = None) -> None:
    """What waits on the queue, and how the queue itself is."""
    from modelmeter.queues import make_steward, read_backlog  # noqa: PLC0415

    config = _queue_settings(database_url, queue)
    facts = make_steward(config).status()
    backlog = read_backlog(config)
    facts |= {
        "messages": f"{backlog.messages:,}",
        "events": f"{backlog.events:,}",
        "bytes": f"{backlog.bytes:,}",
        "oldest": f"{backlog.age_seconds:.1f} s",
    }
    for name, value in facts.items():
        print(f"{name}: {value}")


@queues.command("purge")
def purge_queue(
    database_url: DatabaseUrl = None,
    queue: Queue = None,
    dry_run: DryRun = False,
    sure: Annotated[bool, typer.Option("--yes", help="Do it: acknowledged events are lost for good.")] = False,
) -> None:
    """Drop all that waits. Acknowledged events are lost by this."""
    from modelmeter.queues import make_steward  # noqa: PLC0415

    if not dry_run and not sure:
        raise WrongSetting("purge drops acknowledged events for good; say --yes, or --dry-run to see how many messages")
    count = make_steward(_queue_settings(database_url, queue)).purge(dry_run=dry_run)
    print(f"{'would drop' if dry_run else 'dropped'} {'all messages' if count < 0 else f'{count:,} messages'}")
