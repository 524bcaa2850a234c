"""Migrations: numbered files of SQL, append-only, each run once, in its own transaction, recorded with a digest."""

import hashlib
import logging
import time
from collections.abc import Callable
from importlib import resources

import psycopg

from modelmeter.errors import Unavailable, WrongSetting

log = logging.getLogger(__name__)

_LOCK = 0x6D6D_0001  # an advisory lock: two processes that migrate at once take turns


def _files() -> list[tuple[int, str, str]]:
    found = [
        (int(file.name[:4]), file.name, file.read_text("utf-8"))
        for file in resources.files(__package__).iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found)


def latest() -> int:
    """The number of the newest migration that this release knows."""
    return _files()[-1][0]


def migrate(conninfo: str) -> list[str]:
    """Bring the schema up to this release; the names of what was run. WrongSetting when it is a newer release's."""
    ran = []
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        connection.execute("SET lock_timeout = '10s'")
        connection.execute("SET client_min_messages = warning")
        connection.execute("CREATE SCHEMA IF NOT EXISTS modelmeter")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS modelmeter.migration (number integer PRIMARY KEY, name text NOT NULL,"
            " digest text NOT NULL, ran_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {row[0] for row in connection.execute("SELECT number FROM modelmeter.migration")}
        files = _files()
        unknown = sorted(done - {number for number, _, _ in files})
        if unknown:
            raise WrongSetting(
                f"the database has migration {unknown[-1]}, which this release does not know: "
                "it was made by a newer modelmeter; run that one"
            )
        for number, name, sql in files:
            if number not in done:
                with connection.transaction():
                    connection.execute(sql.encode())
                    connection.execute(
                        "INSERT INTO modelmeter.migration (number, name, digest) VALUES (%s, %s, %s)",
                        (number, name, hashlib.sha256(sql.encode()).hexdigest()),
                    )
                ran.append(name)
    return ran


def migrate_patiently(conninfo: str, patience_seconds: float, *, accept_newer: bool = False) -> list[str]:
    """The same for a database that may come up later. Unavailable when it has not within the patience.

    With `accept_newer` a newer release's schema is left as it is: after a rollback this release runs on it.
    """
    deadline = time.monotonic() + patience_seconds
    said = ""
    while True:
        try:
            if accept_newer:
                with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as connection:
                    if is_current(connection):
                        return []
            return migrate(conninfo)
        except psycopg.OperationalError as error:
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            if time.monotonic() >= deadline:
                raise Unavailable(f"the database is away: {reason}") from None
            if reason != said:
                said = reason
                log.warning("the database is away: %s; trying again", reason)
            time.sleep(1)


def wait_for_schema(conninfo: str, is_over: Callable[[float], bool]) -> None:
    """Return when the schema is there, or when `is_over`, which is given the seconds to wait, says so."""
    said = ""
    while True:
        try:
            with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as connection:
                if is_current(connection):
                    return
            reason = "the schema is older than this release; run: modelmeter migrate"
        except psycopg.OperationalError as error:
            reason = f"the database is away: {(str(error).strip().splitlines() or [repr(error)])[0]}"
        if reason != said:
            said = reason
            log.warning("%s; waiting", reason)
        if is_over(0.5):
            return


def is_current(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether the schema is the one that this release needs, or a later one."""
    row = connection.execute("SELECT to_regclass('modelmeter.migration') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return False
    row = connection.execute("SELECT coalesce(max(number), 0) FROM modelmeter.migration").fetchone()
    return row is not None and int(str(row[0])) >= latest()
