"""Which streams and metrics there are, for the API's limits."""

import psycopg

from modelmeter.errors import Unavailable
from modelmeter.store.migrations import is_current
from modelmeter.store.sql import load

SQL = load("registry.sql")


def read_registry(conninfo: str, known_streams: int) -> tuple[set[bytes] | None, set[str]]:
    """Fingerprints of all streams (None when there are as many as `known_streams`), and all metric names."""
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5, application_name="modelmeter api") as connection:
        if not is_current(connection):
            raise Unavailable("the schema is older than this release; run: modelmeter migrate")
        row = connection.execute(SQL["count_streams"]).fetchone()
        assert row is not None
        streams = None
        if row[0] != known_streams:
            streams = {found.bytes for (found,) in connection.execute(SQL["fingerprints"])}
        return streams, {name for (name,) in connection.execute(SQL["metric_names"])}
