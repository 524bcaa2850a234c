"""A message: what travels on the queue. One or more batches in msgpack, their columns packed as in chunks.

A message has an id. Requests that came with an Idempotency-Key keep the id made from it for their own rows;
all other rows go by the message's id. The worker's ledger remembers both kinds: each row has exactly one of them.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from modelmeter.batch import Batch, Labels, take
from modelmeter.chunk import WIRE_LEVEL, pack, pack_codes, unpack_codes, unpack_floats, unpack_ints


class Keyed(msgspec.Struct, frozen=True, array_like=True):
    """The rows `[start, stop)` of the message's batch number `batch` belong to the batch with the id `id`."""

    id: bytes
    batch: int
    start: int
    stop: int


class _Columns(msgspec.Struct, frozen=True, array_like=True):
    streams: list[Labels]
    count: int
    stream: bytes
    timestamp: bytes
    metrics: dict[str, bytes]


class _Wire(msgspec.Struct, frozen=True, array_like=True, tag="m1"):
    id: bytes
    received_at: int
    keyed: list[Keyed]
    batches: list[_Columns]


@dataclass(frozen=True, slots=True)
class Message:
    """`id` has 16 bytes, `received_at` is UTC microseconds."""

    id: bytes
    received_at: int
    keyed: Sequence[Keyed]
    batches: Sequence[Batch]

    @property
    def events(self) -> int:
        return sum(len(batch) for batch in self.batches)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


def encode(message: Message) -> bytes:
    return _encoder.encode(
        _Wire(
            message.id,
            message.received_at,
            list(message.keyed),
            [
                _Columns(
                    list(batch.streams),
                    len(batch),
                    pack_codes(batch.stream, len(batch.streams)),
                    pack(batch.timestamp, WIRE_LEVEL),
                    {name: pack(column, WIRE_LEVEL) for name, column in batch.metrics.items()},
                )
                for batch in message.batches
            ],
        )
    )


def decode(data: bytes | memoryview) -> Message:
    """ValueError (msgspec's errors are) when the bytes are no message, or one whose parts do not fit together."""
    wire = _decoder.decode(data)
    batches = []
    for columns in wire.batches:
        stream = unpack_codes(columns.stream, len(columns.streams))
        if stream.size != columns.count:  # before anything of that size is made
            raise ValueError(f"a message with {stream.size} stream codes where {columns.count} were expected")
        batch = Batch(
            columns.streams,
            stream,
            unpack_ints(columns.timestamp, columns.count),
            {name: unpack_floats(packed, columns.count) for name, packed in columns.metrics.items()},
        )
        batches.append(batch)
    for keyed in wire.keyed:
        if not (0 <= keyed.batch < len(batches) and 0 <= keyed.start <= keyed.stop <= len(batches[keyed.batch])):
            raise ValueError("a message whose keyed rows lie outside it")
    if any(len(one) != 16 for one in (wire.id, *(keyed.id for keyed in wire.keyed))):
        raise ValueError("a message with an id that has not 16 bytes")
    return Message(wire.id, wire.received_at, wire.keyed, batches)


def new_id() -> bytes:
    """A UUID version 7: 48 bits of milliseconds, then chance, so that ids made later sort later (RFC 9562)."""
    raw = bytearray(time.time_ns().__floordiv__(1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def id_of_key(key: str) -> bytes:
    """The id of the batch that was sent with this Idempotency-Key: a UUID version 8 (BLAKE2b)."""
    raw = bytearray(
        hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16, person=b"idempotency-key").digest()
    )
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def format_id(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw))


def rows_without(message: Message, known: set[bytes]) -> list[Batch]:
    """The message's batches without the rows whose id is in `known`."""
    kept = []
    for number, batch in enumerate(message.batches):
        mask = np.full(len(batch), message.id not in known)
        for keyed in message.keyed:
            if keyed.batch == number:
                mask[keyed.start : keyed.stop] = keyed.id not in known
        if mask.all():
            kept.append(batch)
        elif mask.any():
            kept.append(take(batch, mask))
    return kept
