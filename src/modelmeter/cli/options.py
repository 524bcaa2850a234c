"""Options that many commands share, and the settings that they lead to."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from modelmeter.config import Config, default_data_dir, read_config
from modelmeter.errors import WrongSetting

START, CLUSTER, UPKEEP = "Begin here", "For clusters, each a process", "Upkeep"

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
Notifications = Annotated[
    Path | None,
    typer.Option(
        help="Notifications file: who is told of which alert. `modelmeter notify example` prints one.",
        show_default="none: ALERT lines",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Url = Annotated[str, typer.Option(envvar="STATS_API_URL", help="Where modelmeter serves.")]


def settings(*, needs_database: bool = True, **overrides: Any) -> Config:
    """Those of the environment, with the options on top; the embedded Postgres that runs, when one is needed."""
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

        from modelmeter.store.conninfo import with_timeouts  # noqa: PLC0415

        try:
            config = config.model_copy(update={"database_url": with_timeouts(config.database_url)})
        except ProgrammingError as error:
            raise WrongSetting(
                f"database_url: {str(error).strip()}; write it like postgresql://user:password@host/db"
            ) from None
    return config
