"""What all queues outside the database share: claims whose store commits first and that are acknowledged after.

A broker delivers at least once. The claim owns a transaction in the database; `complete` commits it, then
acknowledges. Killed in between, the broker delivers again and the ledger skips what is stored.

A message over the broker's limit travels in parts. They meet in the database, in the transactions of the claims that
bring them, so that they may come to different workers in any order; the last one brings the message.
"""

import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import psycopg

from modelmeter.errors import Unavailable
from modelmeter.queue import Backlog

log = logging.getLogger(__name__)

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

_SUSPECT_DELIVERIES = 4
"""A message that came so often without being stored may be what kills the workers: it is claimed alone."""


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number` (from 0) of `count` of the message `id`, a UUID."""

    id: uuid.UUID
    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.id}/{self.number}/{self.count}"

    @classmethod
    def read(cls, text: str | None) -> "Part | None":
        """The inverse of str; ValueError when it is none."""
        if not text:
            return None
        name, number, count = text.split("/")
        part = cls(uuid.UUID(name), int(number), int(count))
        if not 0 <= part.number < part.count:
            raise ValueError(f"a part that is none: {text}")
        return part


def cut(payload: bytes, limit_bytes: int) -> list[tuple[Part | None, bytes]]:
    """The payload as one, or in parts of at most `limit_bytes` when it is longer."""
    if len(payload) <= limit_bytes:
        return [(None, payload)]
    pieces = [payload[start : start + limit_bytes] for start in range(0, len(payload), limit_bytes)]
    its_id = uuid.uuid4()
    return [(Part(its_id, number, len(pieces)), piece) for number, piece in enumerate(pieces)]


@dataclass(slots=True)
class Delivery:
    """A message as the broker gave it. `deliveries` counts this one; `handle` is the broker's own."""

    payload: bytes
    events: int
    deliveries: int
    part: Part | None
    handle: Any


class Broker(Protocol):
    """A consumer's connection to the broker. What it raises when the broker is away is Unavailable."""

    def pull(self, limit_events: int, limit_bytes: int, limit_messages: int) -> list[Delivery]:
        """What waits, roughly within the limits; waits a little when there is nothing. Its leases are kept alive."""
        ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None: ...
    def give_back(self, deliveries: Sequence[Delivery]) -> None: ...
    def backlog(self) -> Backlog: ...
    def close(self) -> None:
        """Give back what is in hand. The next call connects again."""
        ...


class Database(Protocol):
    """What a queue outside needs of the store."""

    def connect(self) -> Connection: ...
    def bury(self, connection: Connection, payload: bytes, events: int, reason: str) -> None: ...
    def join(self, connection: Connection, part: Part, payload: bytes, events: int) -> tuple[bytes, int] | None:
        """Keep the part; the whole message and its events when all parts are there (they are then kept no more)."""
        ...

    def tidy(self) -> None: ...


class OutsideClaim:
    """Messages in hand, and a transaction."""

    def __init__(self, broker: Broker, database: Database, connection: Connection) -> None:
        self.connection = connection
        self.payloads: list[bytes] = []
        self._broker = broker
        self._database = database
        self._events: list[int] = []
        self._deliveries: list[Delivery] = []

    def take(self, delivery: Delivery, max_deliver: int) -> None:
        """Into this claim, all that it does to the database with it."""
        self._deliveries.append(delivery)
        payload, events = delivery.payload, delivery.events
        if delivery.part is not None:
            whole = self._database.join(self.connection, delivery.part, payload, events)
            if whole is None:
                return
            payload, events = whole
        if delivery.deliveries > max_deliver:
            reason = f"delivered {delivery.deliveries} times and never stored"
            log.error("a message was %s: it goes to the dead letters", reason)
            self._database.bury(self.connection, payload, events, reason)
            return
        self.payloads.append(payload)
        self._events.append(events)

    def fail(self, index: int, reason: str) -> None:
        self._database.bury(self.connection, self.payloads[index], self._events[index], reason)

    def complete(self) -> None:
        self.connection.commit()
        try:
            self._broker.acknowledge(self._deliveries)
        except Exception:  # stored it is: whatever became of the broker, the ledger skips what comes again
            log.warning("what was stored could not be acknowledged and will come again, to be skipped", exc_info=True)

    def release(self) -> None:
        try:
            self.connection.rollback()
        finally:
            with contextlib.suppress(Unavailable):  # they come back by themselves
                self._broker.give_back(self._deliveries)


class OutsideConsumer:
    """Claims from a broker, one claim at a time."""

    def __init__(self, broker: Broker, database: Database, max_deliver: int) -> None:
        self._broker = broker
        self._database = database
        self._max_deliver = max_deliver
        self._connection: Connection | None = None
        self._suspects: deque[Delivery] = deque()

    def _connect(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect()
        return self._connection

    def claim(self, limit_events: int, limit_bytes: int, limit_messages: int) -> OutsideClaim | None:
        """Some messages roughly within the limits; None when there are none. The database comes first: while it is
        away, nothing is taken from the broker, so nothing is delivered in vain.
        """
        connection = self._connect()
        deliveries = self._pull(limit_events, limit_bytes, limit_messages)
        if not deliveries:
            return None
        claim = OutsideClaim(self._broker, self._database, connection)
        try:
            for delivery in sorted(deliveries, key=_part_key):
                claim.take(delivery, self._max_deliver)
        except BaseException:
            self.close()
            raise
        if not claim.payloads:  # parts whose message is not whole yet, or letters that are dead
            claim.complete()
            return None
        return claim

    def _pull(self, limit_events: int, limit_bytes: int, limit_messages: int) -> list[Delivery]:
        if self._suspects:
            return [self._suspects.popleft()]
        deliveries = self._broker.pull(limit_events, limit_bytes, limit_messages)
        well = [one for one in deliveries if one.deliveries <= _SUSPECT_DELIVERIES]
        self._suspects.extend(one for one in deliveries if one.deliveries > _SUSPECT_DELIVERIES)
        if not well and self._suspects:
            return [self._suspects.popleft()]
        return well

    def backlog(self) -> Backlog:
        return self._broker.backlog()

    def tidy(self) -> None:
        self._database.tidy()

    def close(self) -> None:
        self._suspects.clear()
        try:
            self._broker.close()
        finally:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _part_key(delivery: Delivery) -> tuple[int, int]:
    """Parts in one order in all workers, so that none waits for another's lock while it holds one the other wants."""
    return (delivery.part.id.int, delivery.part.number) if delivery.part else (0, 0)
