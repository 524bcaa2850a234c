"""The command line. Thin: reads settings, calls what does the work, prints."""

import json
import logging
import os
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from modelmeter import __version__, lifeline
from modelmeter.config import Config, read_config
from modelmeter.errors import ModelmeterError, WrongSetting

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A metrics server for AI model stats. Begin with: modelmeter serve",
    epilog="Every setting can also be given as MODELMETER_<NAME>; docs/configuration.md lists them.",
)
dead_letters = typer.Typer(no_args_is_help=True, help="Messages that could not be stored: look, try again, drop.")
app.add_typer(dead_letters, name="dead-letters")
queues = typer.Typer(no_args_is_help=True, help="The queue itself: make it, look at it, empty it.")
app.add_typer(queues, name="queue")

Host = Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. [default: 8000]")]
DataDir = Annotated[
    Path | None, typer.Option(help="Directory of the embedded Postgres, used when no database URL is given.")
]
DatabaseUrl = Annotated[str | None, typer.Option(help="A PostgreSQL 15 to 18: postgresql://user:password@host/db.")]
Queue = Annotated[str | None, typer.Option(help="The queue's URL. [default: postgres:, the same database]")]
Rules = Annotated[Path | None, typer.Option(help="Rules file: what makes an ALERT line.")]
Url = Annotated[str, typer.Option(envvar="STATS_API_URL", help="Where modelmeter serves.")]


def _settings(*, needs_database: bool = True, **overrides: Any) -> Config:
    config = read_config(**overrides)
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    if needs_database and not config.database_url:
        raise WrongSetting("database_url: needed here; only `modelmeter serve` brings its own Postgres")
    return config


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    queue: Queue = None,
    rules: Rules = None,
    api_processes: Annotated[int | None, typer.Option(help="API processes. [default: 1]")] = None,
    worker_processes: Annotated[int | None, typer.Option(help="Worker processes. [default: 1]")] = None,
) -> None:
    """Everything in one command: Postgres (inside, or the one you name), API, worker and loops."""
    from modelmeter.rule import read_rules  # noqa: PLC0415  each command imports what it needs: --help stays quick
    from modelmeter.supervisor import Supervisor  # noqa: PLC0415

    config = _settings(
        needs_database=False,
        host=host,
        port=port,
        data_dir=data_dir,
        database_url=database_url,
        queue=queue,
        rules=rules,
        api_processes=api_processes,
        worker_processes=worker_processes,
    )
    if config.rules:
        read_rules(config.rules)
    Supervisor(config).run()


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    database_url: DatabaseUrl = None,
    queue: Queue = None,
    listener: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Only the HTTP API."""
    from modelmeter.app import run_api  # noqa: PLC0415

    config = _settings(host=host, port=port, database_url=database_url, queue=queue)
    run_api(config, socket.socket(fileno=listener) if listener is not None else None)


@app.command()
def worker(database_url: DatabaseUrl = None, queue: Queue = None, rules: Rules = None) -> None:
    """Only a worker: from the queue to the database. Run as many as you like."""
    from modelmeter.app import run_worker  # noqa: PLC0415

    run_worker(_settings(database_url=database_url, queue=queue, rules=rules))


@app.command()
def keeper(database_url: DatabaseUrl = None, queue: Queue = None) -> None:
    """Only the loops: compaction and tidying. One works at a time; a second one stands by."""
    from modelmeter.app import run_keeper  # noqa: PLC0415

    run_keeper(_settings(database_url=database_url, queue=queue))


@app.command()
def migrate(database_url: DatabaseUrl = None) -> None:
    """Bring the database's schema up to this release."""
    from modelmeter.store.migrations import migrate as run  # noqa: PLC0415

    ran = run(_settings(database_url=database_url).database_url)
    print("\n".join(f"ran {name}" for name in ran) or "the schema is up to date")


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def base_url(url: str) -> str:
    """Where the server is; an URL that ends in /stats or /events, as ETL jobs have it, will do."""
    url = url.rstrip("/")
    for ending in ("/stats", "/events"):
        url = url.removesuffix(ending)
    return url


def _get(url: str, path: str, **query: str | None) -> dict[str, Any]:
    wanted = urllib.parse.urlencode({key: value for key, value in query.items() if value is not None})
    address = f"{base_url(url)}{path}" + (f"?{wanted}" if wanted else "")
    if not address.startswith(("http://", "https://")):
        raise WrongSetting(f"url: {url!r} is no http:// or https:// address")
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  checked above
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        try:
            detail = json.load(error).get("detail", error.reason)
        except ValueError:
            detail = error.reason
        raise ModelmeterError(str(detail)) from None
    except OSError as error:
        raise ModelmeterError(f"no answer from {base_url(url)}: {getattr(error, 'reason', error)}") from None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


@app.command()
def stats(
    name: Annotated[str | None, typer.Argument(help="A model; without it, all models.")] = None,
    version: Annotated[str | None, typer.Argument(help="A version; without it, all of the model's.")] = None,
    start: Annotated[str | None, typer.Option(help="Begin: RFC 3339, Unix or relative, like -6h.")] = None,
    end: Annotated[str | None, typer.Option(help="End, not included. [default: now]")] = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric.")] = None,
    quantiles: Annotated[str | None, typer.Option(help="Comma-separated. [default: 0.5,0.95,0.99]")] = None,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Print a table of stats."""
    out = Console(width=None if sys.stdout.isatty() else 140)
    if name is None:
        table = Table("model", "version", "events", "first seen", "last seen", title="models")
        for row in _get(url, "/stats")["models"]:
            table.add_row(row["name"], row["version"], _number(row["events"]), row["first_seen"], row["last_seen"])
        out.print(table)
        return
    quoted = urllib.parse.quote(name, safe="")
    versions = [version] if version else [row["version"] for row in _get(url, f"/stats/{quoted}")["versions"]]
    shown: Table | None = None
    for its_version in versions:
        path = f"/stats/{quoted}/{urllib.parse.quote(its_version, safe='')}"
        found = _get(url, path, start=start, end=end, metric=metric, quantiles=quantiles)
        for its_metric, values in found["metrics"].items():
            if shown is None:
                title = f"{name}, {found['start']} to {found['end']}"
                shown = Table("version", "metric", "count", "mean", "stddev", "min", title=title)
                for q in values["quantiles"]:
                    shown.add_column(f"p{float(q) * 100:g}", justify="right")
                shown.add_column("max", justify="right")
                shown.add_column("last", justify="right")
                for column in shown.columns[2:]:
                    column.justify = "right"
            cells = [values[key] for key in ("count", "mean", "stddev", "min")]
            cells += [*values["quantiles"].values(), values["max"], values["last"]]
            shown.add_row(its_version, its_metric, *map(_number, cells))
    out.print(shown or f"{name}: no event in this span")


@dead_letters.command("list")
def list_dead_letters(database_url: DatabaseUrl = None) -> None:
    """The dead letters, newest first, with their reasons."""
    from modelmeter.store.dead_letters import DeadLetters  # noqa: PLC0415

    table = Table("id", "died at", "events", "bytes", "reason")
    for letter in DeadLetters(_settings(database_url=database_url).database_url).newest():
        table.add_row(
            str(letter.id),
            letter.died_at.isoformat(timespec="seconds"),
            _number(letter.events),
            _number(letter.bytes),
            letter.reason,
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


Ids = Annotated[list[int] | None, typer.Argument(help="Ids from `dead-letters list`; none with --all.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


def _chosen(ids: list[int] | None, every: bool) -> list[int] | None:
    if bool(ids) == every:
        raise WrongSetting("name the ids, or give --all")
    return ids


@dead_letters.command("retry")
def retry_dead_letters(
    ids: Ids = None, every: All = False, database_url: DatabaseUrl = None, queue: Queue = None
) -> None:
    """Put them back on the queue. What was counted already is not counted again."""
    from modelmeter.app import retry_dead_letters as run  # noqa: PLC0415

    chosen = _chosen(ids, every)
    print(f"{run(_settings(database_url=database_url, queue=queue), chosen)} back on the queue")


@dead_letters.command("drop")
def drop_dead_letters(ids: Ids = None, every: All = False, database_url: DatabaseUrl = None) -> None:
    """Drop them for good."""
    from modelmeter.store.dead_letters import DeadLetters  # noqa: PLC0415

    chosen = _chosen(ids, every)
    print(f"{DeadLetters(_settings(database_url=database_url).database_url).drop(chosen)} dropped")


DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def _queue_settings(database_url: str | None, queue: str | None) -> Config:
    """A queue outside is made and looked at without the database."""
    from modelmeter.queue.url import PostgresUrl, parse  # noqa: PLC0415

    config = _settings(needs_database=False, database_url=database_url, queue=queue)
    if isinstance(parse(config.queue), PostgresUrl) and not config.database_url:
        raise WrongSetting("database_url: needed here; only `modelmeter serve` brings its own Postgres")
    return config


@queues.command("create")
def create_queue(database_url: DatabaseUrl = None, queue: Queue = None, dry_run: DryRun = False) -> None:
    """Make what the queue needs: the stream, or the topics and subscriptions. What is there already stays."""
    from modelmeter.app import make_steward  # noqa: PLC0415

    lines = make_steward(_queue_settings(database_url, queue)).create(dry_run=dry_run)
    done = "would make" if dry_run else "made"
    print("\n".join(f"{done} {line}" for line in lines) or "all that the queue needs is there")


@queues.command("status")
def show_queue(database_url: DatabaseUrl = None, queue: Queue = None) -> None:
    """What waits on the queue, and how the queue itself is."""
    from modelmeter.app import make_steward, read_backlog  # noqa: PLC0415

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
    from modelmeter.app import make_steward  # noqa: PLC0415

    if not dry_run and not sure:
        raise WrongSetting("purge drops acknowledged events for good; say --yes, or --dry-run to see how many messages")
    count = make_steward(_queue_settings(database_url, queue)).purge(dry_run=dry_run)
    print(f"{'would drop' if dry_run else 'dropped'} {'all messages' if count < 0 else f'{count:,} messages'}")


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
