"""What is retired: since when each resolution of each class of streams is whole. And the classes themselves.

The border of a resolution is the start of a partition, and moves on only. What lies before it is not written any
more, and is dropped after: who reads the border and the data in one snapshot knows what is whole.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import psycopg

from modelmeter.errors import WrongSetting
from modelmeter.retention import KINDS, Keep, Retention
from modelmeter.store.corrections import share
from modelmeter.store.sql import load
from modelmeter.window import SECOND, to_datetime, to_micros

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SQL = load("retention.sql")

_LOCK = 0x6D6D_0003  # an advisory lock: two processes that declare classes take turns


def read_retired(connection: Connection) -> dict[tuple[int, str], int]:
    """(class, kind) to the border in microseconds; kinds are raw, 1m, 1h, 1d. What is not there is whole."""
    return {(class_id, kind): to_micros(until) for class_id, kind, until in connection.execute(SQL["retired"])}


def retire(connection: Connection, borders: Mapping[tuple[int, str], int]) -> bool:
    """Move the borders on. Whether one moved; none does while a correction is not applied."""
    classes, kinds = [class_id for class_id, _ in borders], [kind for _, kind in borders]
    until = [to_datetime(at) for at in borders.values()]
    with connection.transaction():
        share(connection)  # none is recorded while we look whether there is one
        return connection.execute(SQL["retire"], (classes, kinds, until)).rowcount > 0


def read_classes(connection: Connection) -> dict[str, int]:
    """The numbers of the classes by name."""
    return {name: class_id for class_id, name, _ in connection.execute(SQL["classes"])}


def read_keeps(connection: Connection, retention: Retention) -> dict[int, Keep]:
    """How long each class is kept; class 0 is all other streams. One that the settings no longer name keeps its own."""
    keeps: dict[int, Keep] = {0: retention.keep}
    for class_id, _, keep in connection.execute(SQL["classes"]):
        keeps[class_id] = {kind: None if keep[kind] is None else keep[kind] * SECOND for kind in KINDS}
    return keeps


def declare_classes(connection: Connection, retention: Retention) -> None:
    """Give new classes their numbers, and known ones the spans that the settings have now; `connection` is idle.

    WrongSetting: Citus spreads the chunks, and it knows no partitions of partitions.
    """
    if not retention.classes:
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if connection.execute(SQL["is_distributed"]).fetchone() == (True,) and connection.execute(
            SQL["count_distributed"]
        ).fetchone() != (0,):
            raise WrongSetting(
                "retention_classes: not on Citus, which knows no partitions of partitions; "
                "leave it empty, or keep such streams in a database of their own"
            )
        for one in retention.classes:
            keep = {kind: None if span is None else span // SECOND for kind, span in one.keep.items()}
            scope = {"name": one.name, "keep": json.dumps(keep)}
            connection.execute(SQL["add_class"], scope)
            connection.execute(SQL["change_class"], scope)
