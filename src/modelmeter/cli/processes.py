"""The processes: all in one, or each by itself; and the migration that they wait for."""

import socket
from typing import Annotated

import typer

from modelmeter.cli.options import (
    CLUSTER,
    START,
    DatabaseUrl,
    DataDir,
    Host,
    Notifications,
    Port,
    Queue,
    Rules,
    settings,
)


def add_to(app: typer.Typer) -> None:
    """Put the commands into `app`."""
    app.command(rich_help_panel=START)(serve)
    for command in (api, worker, keeper, migrate):
        app.command(rich_help_panel=CLUSTER)(command)


def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    queue: Queue = None,
    rules: Rules = None,
    notifications: Notifications = None,
    api_processes: Annotated[int | None, typer.Option(help="API processes.", show_default="1")] = None,
    worker_processes: Annotated[int | None, typer.Option(help="Worker processes.", show_default="1")] = None,
) -> None:
    """Everything in one command: Postgres (inside, or the one you name), API, worker and keeper.

    Prints where it listens, then the ALERT lines, on standard output; its log is on standard error. Ctrl-C or SIGTERM
    stops it, and nothing is lost. Killed in any other way, it goes on where it was when it is started again.
    """
    from modelmeter.notify.file import read_notifications  # noqa: PLC0415
    from modelmeter.rule import read_rules  # noqa: PLC0415  each command imports what it needs: --help stays quick
    from modelmeter.supervisor import Supervisor  # noqa: PLC0415

    config = settings(
        needs_database=False,
        host=host,
        port=port,
        data_dir=data_dir,
        database_url=database_url,
        queue=queue,
        rules=rules,
        notifications=notifications,
        api_processes=api_processes,
        worker_processes=worker_processes,
    )
    if config.rules:
        read_rules(config.rules)
    read_notifications(config)
    if any(name.startswith("retention_") for name in config.model_fields_set):
        from modelmeter.retention import read_retention  # noqa: PLC0415

        read_retention(config)
    Supervisor(config).run()


def api(
    host: Host = None,
    port: Port = None,
    database_url: DatabaseUrl = None,
    queue: Queue = None,
    notifications: Notifications = None,
    listener: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Only the HTTP API: takes events onto the queue, answers stats. Run as many as you like, behind a balancer."""
    from modelmeter.app import run_api  # noqa: PLC0415

    config = settings(host=host, port=port, database_url=database_url, queue=queue, notifications=notifications)
    run_api(config, socket.socket(fileno=listener) if listener is not None else None)


def worker(database_url: DatabaseUrl = None, queue: Queue = None, rules: Rules = None) -> None:
    """Only a worker: from the queue to the database; ALERT lines on standard output. Run as many as you like."""
    from modelmeter.app import run_worker  # noqa: PLC0415

    run_worker(settings(database_url=database_url, queue=queue, rules=rules))


def keeper(
    database_url: DatabaseUrl = None, queue: Queue = None, rules: Rules = None, notifications: Notifications = None
) -> None:
    """Only the keeper: rules, notifications, compaction, retention, tidying. One works at a time; others stand by."""
    from modelmeter.app import run_keeper  # noqa: PLC0415

    run_keeper(settings(database_url=database_url, queue=queue, rules=rules, notifications=notifications))


def migrate(
    database_url: DatabaseUrl = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for a database that is away.")] = 0,
    accept_newer: Annotated[
        bool, typer.Option("--accept-newer", help="Leave a newer release's schema as it is, as after a rollback.")
    ] = False,
    distribute: Annotated[
        bool, typer.Option("--distribute", help="With Citus: then spread what grows over its nodes, by stream.")
    ] = False,
    shards: Annotated[
        int, typer.Option(min=1, max=1024, help="Pieces to move between nodes; fixed by the first --distribute.")
    ] = 32,
) -> None:
    """Bring the database's schema up to this release."""
    from modelmeter.store.migrations import migrate_patiently  # noqa: PLC0415

    url = settings(database_url=database_url).database_url
    done = [f"ran {name}" for name in migrate_patiently(url, wait, accept_newer=accept_newer)]
    if distribute:
        from modelmeter.store import distribution  # noqa: PLC0415

        done += [f"distributed {table}" for table in distribution.distribute(url, shards)]
    print("\n".join(done) or "the schema is up to date")
