"""Which streams and metrics there are, for the API's limits, and what of them is retired."""

from dataclasses import dataclass

import psycopg

from modelmeter.errors import Unavailable
from modelmeter.retention import RAW
from modelmeter.store.migrations import is_current
from modelmeter.store.retirement import read_classes, read_retired
from modelmeter.store.sql import load

SQL = load("registry.sql")


@dataclass(frozen=True, slots=True)
class Registry:
    """Fingerprints of all streams (None: as many as were known), all metric names; the classes by name, those of
    streams that have one by fingerprint, and the border of raw events of each class that has one, in microseconds.
    """

    streams: set[bytes] | None
    metrics: set[str]
    classes: dict[str, int]
    class_of: dict[bytes, int]
    raw_from: dict[int, int]


def read_registry(conninfo: str, known_streams: int) -> Registry:
    """What is there now; Unavailable when the schema is older than this release."""
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5, application_name="modelmeter api") as connection:
        if not is_current(connection):
            raise Unavailable("the schema is older than this release; run: modelmeter migrate")
        row = connection.execute(SQL["count_streams"]).fetchone()
        assert row is not None
        streams = None
        if row[0] != known_streams:
            streams = {found.bytes for (found,) in connection.execute(SQL["fingerprints"])}
        classes = read_classes(connection)
        return Registry(
            streams,
            {name for (name,) in connection.execute(SQL["metric_names"])},
            classes,
            {found.bytes: number for found, number in connection.execute(SQL["classed"])} if classes else {},
            {number: until for (number, kind), until in read_retired(connection).items() if kind == RAW},
        )
