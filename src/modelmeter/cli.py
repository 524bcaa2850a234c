"""The command line. Thin: reads settings, calls what does the work, prints."""

import json
import logging
import os
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from modelmeter import __version__, lifeline
from modelmeter.config import Config, default_data_dir, read_config
from modelmeter.errors import ModelmeterError, WrongSetting

_START, _CLUSTER, _UPKEEP = "Begin here", "For clusters, each a process", "Upkeep"


class _Commands(TyperGroup):
    """The commands; those of `etl` are imported when they are asked for, since Polars takes its time."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), "etl"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name != "etl":
            return super().get_command(ctx, cmd_name)
        from modelmeter.etl.cli import etl_app  # noqa: PLC0415

        etl = typer.main.get_group(etl_app)
        etl.name, etl.rich_help_panel = cmd_name, _START
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
dead_letters = typer.Typer(
    no_args_is_help=True,
    help="Messages that could not be stored: look, try again, drop. In the `serve` on --data-dir or --database-url.",
)
rules_app = typer.Typer(no_args_is_help=True, help="The rules file: an example, and a check before it is used.")
app.add_typer(dead_letters, name="dead-letters", rich_help_panel=_UPKEEP)
app.add_typer(rules_app, name="rules", rich_help_panel=_UPKEEP)
queues = typer.Typer(no_args_is_help=True, help="The queue itself: make it, look at it, empty it.")
app.add_typer(queues, name="queue", rich_help_panel=_UPKEEP)

Host = Annotated[
    str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all of them.", show_default="127.0.0.1")
]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Directory of the embedded Postgres; used when no database URL is given.",
        show_default=str(default_data_dir()),
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        help="A PostgreSQL 15 to 18: postgresql://user:password@host/db. Better in the environment "
        "(MODELMETER_DATABASE_URL), where `ps` does not show it."
    ),
]
Queue = Annotated[str | None, typer.Option(help="The queue's URL.", show_default="postgres:, the same database")]
Rules = Annotated[
    Path | None,
    typer.Option(
        help="Rules file: which events make an ALERT line. `modelmeter rules example` prints one.", show_default="none"
    ),
]
Url = Annotated[str, typer.Option(envvar="STATS_API_URL", help="Where modelmeter serves.")]


def _settings(*, needs_database: bool = True, **overrides: Any) -> Config:
    config = read_config(**overrides)
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    if needs_database and not config.database_url:
        from modelmeter.store.embedded import running_conninfo  # noqa: PLC0415

        running = running_conninfo(config.data_dir)
        if running is None:
            raise WrongSetting(
                "database_url: needed here; give --database-url or MODELMETER_DATABASE_URL "
                f"(only `modelmeter serve` brings its own Postgres, and none runs on {config.data_dir})"
            )
        config = config.model_copy(update={"database_url": running})
    if config.database_url:
        from psycopg import ProgrammingError  # noqa: PLC0415
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

        try:
            conninfo_to_dict(config.database_url)
        except ProgrammingError as error:
            raise WrongSetting(
                f"database_url: {str(error).strip()}; write it like postgresql://user:password@host/db"
            ) from None
    return config


@app.command(rich_help_panel=_START)
def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    queue: Queue = None,
    rules: Rules = None,
    api_processes: Annotated[int | None, typer.Option(help="API processes.", show_default="1")] = None,
    worker_processes: Annotated[int | None, typer.Option(help="Worker processes.", show_default="1")] = None,
) -> None:
    """Everything in one command: Postgres (inside, or the one you name), API, worker and keeper.

    Prints where it listens, then the ALERT lines, on standard output; its log is on standard error. Ctrl-C or SIGTERM
    stops it, and nothing is lost. Killed in any other way, it goes on where it was when it is started again.
    """
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


@app.command(rich_help_panel=_CLUSTER)
def api(
    host: Host = None,
    port: Port = None,
    database_url: DatabaseUrl = None,
    queue: Queue = None,
    listener: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Only the HTTP API: takes events onto the queue, answers stats. Run as many as you like, behind a balancer."""
    from modelmeter.app import run_api  # noqa: PLC0415

    config = _settings(host=host, port=port, database_url=database_url, queue=queue)
    run_api(config, socket.socket(fileno=listener) if listener is not None else None)


@app.command(rich_help_panel=_CLUSTER)
def worker(database_url: DatabaseUrl = None, queue: Queue = None, rules: Rules = None) -> None:
    """Only a worker: from the queue to the database; ALERT lines on standard output. Run as many as you like."""
    from modelmeter.app import run_worker  # noqa: PLC0415

    run_worker(_settings(database_url=database_url, queue=queue, rules=rules))


@app.command(rich_help_panel=_CLUSTER)
def keeper(database_url: DatabaseUrl = None, queue: Queue = None) -> None:
    """Only the keeper: compaction and tidying. One works at a time; a second one stands by."""
    from modelmeter.app import run_keeper  # noqa: PLC0415

    run_keeper(_settings(database_url=database_url, queue=queue))


@app.command(rich_help_panel=_CLUSTER)
def migrate(
    database_url: DatabaseUrl = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for a database that is away.")] = 0,
    accept_newer: Annotated[
        bool, typer.Option("--accept-newer", help="Leave a newer release's schema as it is, as after a rollback.")
    ] = False,
) -> None:
    """Bring the database's schema up to this release."""
    from modelmeter.store.migrations import migrate_patiently  # noqa: PLC0415

    ran = migrate_patiently(_settings(database_url=database_url).database_url, wait, accept_newer=accept_newer)
    print("\n".join(f"ran {name}" for name in ran) or "the schema is up to date")


@app.command(rich_help_panel=_UPKEEP)
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
        reason = getattr(error, "reason", error)
        raise ModelmeterError(
            f"no answer from {base_url(url)} ({getattr(reason, 'strerror', None) or reason}); "
            "is it running? Start it with: modelmeter serve. If it is elsewhere: --url or STATS_API_URL"
        ) from None


def _no_label(text: str) -> Any:
    raise WrongSetting(f"label: {text!r} is no LABEL=VALUE")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


@app.command(rich_help_panel=_START)
def stats(
    name: Annotated[str | None, typer.Argument(help="A model; without it, all models.")] = None,
    version: Annotated[str | None, typer.Argument(help="A version; without it, all of the model's.")] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Begin: RFC 3339, Unix or relative, like -6h.", show_default="24 h before the end"),
    ] = None,
    end: Annotated[str | None, typer.Option(help="End, not included.", show_default="now")] = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric.", show_default="all")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VALUE", help="Only events with this label; may be given many times."),
    ] = None,
    quantiles: Annotated[
        str | None, typer.Option(help="Comma-separated, each from 0 to 1.", show_default="0.5,0.95,0.99")
    ] = None,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Print a table of stats, asked from a running server: all models, one model, or one version of it.

    Example: modelmeter stats Mistral v1 --start -6h --label env=prod
    """
    out = Console(width=None if sys.stdout.isatty() else 140, markup=False)
    if name is None:
        table = Table("model", "version", "events", "first seen", "last seen", title="models")
        for row in _get(url, "/stats")["models"]:
            table.add_row(row["name"], row["version"], _number(row["events"]), row["first_seen"], row["last_seen"])
        out.print(table)
        return
    labels = dict(one.split("=", 1) if "=" in one else _no_label(one) for one in label or ())
    quoted = urllib.parse.quote(name, safe="")
    versions = [version] if version else [row["version"] for row in _get(url, f"/stats/{quoted}")["versions"]]
    shown: Table | None = None
    for its_version in versions:
        path = f"/stats/{quoted}/{urllib.parse.quote(its_version, safe='')}"
        filters = {f"label.{key}": value for key, value in labels.items()}
        found = _get(url, path, start=start, end=end, metric=metric, quantiles=quantiles, **filters)
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


@rules_app.command("example")
def example_rules() -> None:
    """Print an example: modelmeter rules example > rules.yml"""
    print((files("modelmeter") / "examples" / "rules.yml").read_text("utf-8"), end="")


@rules_app.command("check")
def check_rules(file: Annotated[Path, typer.Argument(help="The rules file.")]) -> None:
    """Read a rules file as the server would: exit 0 if it can be used, else 2 with line and reason."""
    from modelmeter.rule import read_rules  # noqa: PLC0415

    for rule in read_rules(file):
        print(f"{rule.name}: {rule.words}")


@dead_letters.command("list")
def list_dead_letters(database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """The dead letters, newest first, with their reasons."""
    from modelmeter.store.dead_letters import DeadLetters  # noqa: PLC0415

    table = Table("id", "died at", "events", "bytes", "reason")
    for letter in DeadLetters(_settings(database_url=database_url, data_dir=data_dir).database_url).newest():
        table.add_row(
            str(letter.id),
            letter.died_at.isoformat(timespec="seconds"),
            _number(letter.events),
            _number(letter.bytes),
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
    from modelmeter.app import retry_dead_letters as run  # noqa: PLC0415

    chosen = _chosen(ids, every)
    config = _settings(database_url=database_url, data_dir=data_dir, queue=queue)
    print(f"{run(config, chosen)} back on the queue")


@dead_letters.command("drop")
def drop_dead_letters(
    ids: Ids = None, every: All = False, database_url: DatabaseUrl = None, data_dir: DataDir = None
) -> None:
    """Drop them for good."""
    from modelmeter.store.dead_letters import DeadLetters  # noqa: PLC0415

    chosen = _chosen(ids, every)
    letters = DeadLetters(_settings(database_url=database_url, data_dir=data_dir).database_url)
    print(f"{letters.drop(chosen)} dropped")


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
