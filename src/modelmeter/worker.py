"""The worker: messages from the queue become chunks and rollup partials, one transaction a claim.

Every row counts once: the ids of the messages, and of the batches that came with a key, go into the ledger in the
same transaction; rows whose id is there already are left out. Killed at any statement, a retry ends the same.
A message that cannot be stored never stops the others: it goes to the dead letters.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.errors import (
    InsufficientPrivilege,
    InvalidSchemaName,
    ProgramLimitExceeded,
    UndefinedColumn,
    UndefinedFunction,
    UndefinedTable,
)

from modelmeter.batch import Batch
from modelmeter.config import Config
from modelmeter.correction import uncorrected
from modelmeter.message import Message, decode, rows_without
from modelmeter.packer import Packer, write_packed
from modelmeter.queue import Claim, Consumer
from modelmeter.store.corrections import read_since, share
from modelmeter.store.writer import Catalog, Connection, remember_batches

log = logging.getLogger(__name__)

_NOT_OF_THE_ROWS = (UndefinedTable, UndefinedColumn, UndefinedFunction, InvalidSchemaName, InsufficientPrivilege)

_COPIES = 5
"""So many times the size of its columns a claim takes at the worst moment: unpacked, joined, sorted, folded, packed."""
_UNKNOWN_EVENT_BYTES = 1024.0

OnStoring = Callable[[Connection, Sequence[Batch]], None]
"""Called in the transaction that stores the batches, before its commit; what it raises undoes both."""
OnStored = Callable[[Sequence[Batch]], None]
"""Called after the commit."""


@dataclass(slots=True)
class Stored:
    """What one claim came to."""

    messages: int = 0
    events: int = 0
    dead_letters: int = 0
    seconds: float = 0
    lag_seconds: float = 0
    without_raw: int = 0


class Worker:
    """`run_once` takes what waits; call it again at once while it returns something."""

    def __init__(
        self,
        config: Config,
        consumer: Consumer,
        catalog: Catalog,
        on_stored: OnStored,
        on_storing: OnStoring | None = None,
    ) -> None:
        self._config = config
        self._consumer = consumer
        self._catalog = catalog
        self._on_stored = on_stored
        self._on_storing = on_storing
        self._packer = Packer(config, catalog)
        self._event_bytes = _UNKNOWN_EVENT_BYTES
        self._careful = 0  # so many messages are taken one by one, since one of them cannot be stored

    def run_once(self) -> Stored | None:
        """Store one claim; None when nothing waits. Database errors pass through, the claim having been given back."""
        limit = 1 if self._careful else 1024
        began = time.monotonic()
        try:
            claim = self._consumer.claim(self.limit_events, self._config.claim_limit_bytes, limit)
        except psycopg.Error:
            self._forget()
            raise
        if claim is None:
            self._careful = 0
            return None
        try:
            stored, batches = self._store(claim)
            claim.complete()
        except psycopg.Error as error:
            self._release(claim)
            if not _is_permanent(error):
                raise
            return self._suspect(claim, error)
        except (ValueError, KeyError, IndexError, TypeError, ArithmeticError) as error:
            self._release(claim)
            return self._suspect(claim, error)
        except BaseException:
            self._release(claim)
            raise
        self._careful = max(self._careful - 1, 0)
        self._on_stored(batches)
        stored.seconds = time.monotonic() - began
        return stored

    @property
    def limit_events(self) -> int:
        """As many events as fit the memory, going by the size of those that came before; within the setting."""
        fitting = int(self._config.claim_limit_memory_bytes / (_COPIES * self._event_bytes))
        return max(min(fitting, self._config.claim_limit_events), 1)

    def _learn_size(self, batches: Sequence[Batch]) -> None:
        """What events take: larger ones are believed at once, smaller ones by and by."""
        events = sum(len(batch) for batch in batches)
        if events:
            size = sum(batch.nbytes for batch in batches) / events
            self._event_bytes = max(size, (self._event_bytes * 3 + size) / 4)

    def _release(self, claim: Claim) -> None:
        try:
            claim.release()
        except psycopg.Error:
            log.debug("could not give a claim back; it comes back by itself", exc_info=True)
        self._forget()

    def _forget(self) -> None:
        self._catalog.forget()
        self._consumer.close()

    def _suspect(self, claim: Claim, error: Exception) -> Stored:
        """Something in this claim cannot be stored: look at its messages one by one, bury the one that it is.

        A message alone gets its second chance too: what was remembered of the database may have been stale.
        """
        if len(claim.payloads) > 1 or not self._careful:
            log.warning(
                "a claim of %d messages cannot be stored (%s); trying them one by one", len(claim.payloads), error
            )
            self._careful = len(claim.payloads) + 1
            return Stored()
        again = self._consumer.claim(self._config.claim_limit_events, self._config.claim_limit_bytes, 1)
        if again is None:
            return Stored()
        if again.payloads != claim.payloads:
            again.release()
            return Stored()
        log.error("a message cannot be stored and goes to the dead letters: %s", error)
        again.fail(0, f"{type(error).__name__}: {error}")
        again.complete()
        return Stored(dead_letters=1)

    def _store(self, claim: Claim) -> tuple[Stored, list[Batch]]:
        messages: list[Message] = []
        for index, payload in enumerate(claim.payloads):
            try:
                messages.append(decode(payload))
            except ValueError as error:
                log.exception("a message cannot be read and goes to the dead letters")
                claim.fail(index, f"unreadable: {error}")
        share(claim.connection)
        received = [message.received_at for message in messages]
        corrections = read_since(claim.connection, min(received)) if received else []
        ids = [keyed.id for message in messages for keyed in message.keyed] + [message.id for message in messages]
        known = remember_batches(claim.connection, ids)
        seen: set[bytes] = set()
        batches: list[Batch] = []
        for message in messages:
            its_ids = {message.id, *(keyed.id for keyed in message.keyed)}
            twice = its_ids & (known | seen)
            its_batches = rows_without(message, twice) if twice else message.batches
            batches += uncorrected(its_batches, message.received_at, corrections)
            seen |= its_ids  # the same id twice in one claim counts once as well
        self._learn_size(batches)
        packed = self._packer.pack(batches)
        write_packed(claim.connection, packed)
        if self._on_storing is not None:
            self._on_storing(claim.connection, batches)
        oldest = min(received, default=0)
        return (
            Stored(
                len(claim.payloads),
                sum(len(batch) for batch in batches),
                len(claim.payloads) - len(messages),
                lag_seconds=max(time.time() - oldest / 1e6, 0) if oldest else 0,
                without_raw=packed.without_raw,
            ),
            batches,
        )


def _is_permanent(error: psycopg.Error) -> bool:
    """Whether it is the rows that are refused, and not the schema or our rights that are amiss for a while."""
    if isinstance(error, psycopg.errors.InternalError_):  # Citus tells of a node's refusal without its code
        return " violates " in str(error)
    refused = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError, ProgramLimitExceeded)
    return isinstance(error, refused) and not isinstance(error, _NOT_OF_THE_ROWS)
