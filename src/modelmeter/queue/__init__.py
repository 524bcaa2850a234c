"""The queue's contract. Every implementation passes the same tests (tests/queue).

A queue carries messages: bytes of hundreds or thousands of events.

enqueue     returns when the message is durable, raises Unavailable when it may not be. Order is kept roughly,
            never promised. Safe to call from many tasks at once; the implementation decides what shares a commit.
claim       takes messages for this consumer alone, waits a little when there are none. What is claimed and neither
            completed nor released comes back by itself, to any consumer, also when the process dies. So a message
            can be delivered more than once: the worker's ledger makes it count once.
complete    the messages are stored and will not come back. When the queue is in the same database, the claim's
            `connection` holds a transaction with the claim in it: what is written there commits with complete.
release     give all messages back, at once.
fail        one message of the claim can never be stored: it goes to the dead letters with a reason when the claim
            completes.
backlog     how many messages, events and bytes wait, and since when the oldest does. The bytes are what the queue
            itself counts; a queue outside may only know about how many events they are.

In a queue outside, `connection` holds a transaction of the claim's own: complete commits it, then acknowledges, so
what was stored and not acknowledged comes again and counts once all the same. A message over the producer's
`limit_bytes` travels in parts, and costs more: who can, keeps below.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import psycopg


@dataclass(frozen=True, slots=True)
class Backlog:
    messages: int
    events: int
    bytes: int
    age_seconds: float


class Producer(Protocol):
    """The API's side."""

    @property
    def limit_bytes(self) -> int: ...
    async def enqueue(self, payload: bytes, events: int) -> None: ...
    async def backlog(self) -> Backlog: ...
    async def close(self) -> None: ...


class Claim(Protocol):
    """Some messages in hand."""

    @property
    def payloads(self) -> list[bytes]: ...
    @property
    def connection(self) -> psycopg.Connection[tuple[Any, ...]]: ...
    def fail(self, index: int, reason: str) -> None: ...
    def complete(self) -> None: ...
    def release(self) -> None: ...


class Consumer(Protocol):
    """The worker's side."""

    def claim(self, limit_events: int, limit_bytes: int, limit_messages: int) -> Claim | None: ...
    def backlog(self) -> Backlog: ...
    def tidy(self) -> None: ...
    def close(self) -> None: ...


class Steward(Protocol):
    """Makes, looks at and empties the queue. `create` and `status` say what in lines for people."""

    def create(self, *, dry_run: bool) -> list[str]: ...
    def status(self) -> dict[str, object]: ...
    def purge(self, *, dry_run: bool) -> int: ...
