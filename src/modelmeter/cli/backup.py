"""`modelmeter backup` and `modelmeter restore`."""

from pathlib import Path
from typing import Annotated

import typer

from modelmeter.cli.options import DatabaseUrl, DataDir, settings


def backup(
    file: Annotated[Path, typer.Argument(help="Where to; a new file.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Write all that is stored, and the queue, into one file, of one moment, while everything goes on.

    Of the Postgres that `serve` runs on --data-dir, or of --database-url.
    """
    from modelmeter.store.backup import backup as make  # noqa: PLC0415

    size = make(settings(data_dir=data_dir, database_url=database_url).database_url, file)
    print(f"wrote {file}, {size:,} bytes")


def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Put a backup into a new --data-dir, which no `serve` uses yet, or into the empty database at --database-url.

    Then start `serve`, or run `migrate`: a backup of an earlier release is brought up to this one.
    """
    from modelmeter.store.backup import restore as put_back  # noqa: PLC0415

    config = settings(needs_database=False, data_dir=data_dir, database_url=database_url)
    if config.database_url:
        put_back(config.database_url, file)
        print(f"restored {file}; run: modelmeter migrate")
        return
    from modelmeter.store.embedded import EmbeddedPostgres  # noqa: PLC0415

    with EmbeddedPostgres(config.data_dir) as server:
        put_back(server.conninfo, file)
    print(f"restored {file} into {config.data_dir}; run: modelmeter serve --data-dir {config.data_dir}")
