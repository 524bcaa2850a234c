"""POST /events and POST /stats: bodies in, 202 out when durable. Bare ASGI: it is the hot path."""

import asyncio
import contextlib
from collections.abc import Callable
from time import time_ns

import msgspec
import psycopg
from starlette.types import Receive, Scope, Send

from modelmeter import telemetry
from modelmeter.batch import Labels, Refused, fingerprint
from modelmeter.config import Config
from modelmeter.corrector import Corrector
from modelmeter.decoder import Bounds, Decoded, Decoder
from modelmeter.errors import Busy, Malformed, ModelmeterError, TooLarge, Unavailable, Unprocessable, Unsupported
from modelmeter.ingester import Ingester
from modelmeter.message import id_of_key
from modelmeter.queue import Backlog, Producer
from modelmeter.retention import read_retention
from modelmeter.store.registry import read_registry
from modelmeter.web.body import Disconnected, discard_body, read_body, unpack
from modelmeter.web.borders import RawBorders
from modelmeter.web.corrections import read_replace, replacement
from modelmeter.web.problem import problem_of
from modelmeter.window import SECOND

_JSON = "json"
_CONTENT_TYPES = {
    b"application/json": _JSON,
    b"": _JSON,
    b"text/json": _JSON,
    b"application/x-ndjson": "ndjson",
    b"application/ndjson": "ndjson",
    b"application/jsonl": "ndjson",
    b"application/vnd.apache.arrow.stream": "arrow",
}
_KEY_LIMIT_BYTES = 255
_REGISTRY_SECONDS = 10
_BACKLOG_SECONDS = 0.5


class _Answer(msgspec.Struct):
    batch_id: str
    accepted: int
    rejected: int
    kept_without_raw: int
    errors: list[object]


class _Replaced(msgspec.Struct):
    correction_id: int | None
    accepted: int
    streams: int
    removed: int
    kept_without_raw: int


_encode = msgspec.json.Encoder().encode


class Gate:
    """What this process knows of the limits: streams, metrics, the queue's backlog. Refreshed in the background."""

    def __init__(self, config: Config, producer: Producer, *, needs_database: bool = True) -> None:
        """`needs_database`: whether nothing can be accepted while it is away; not so with a queue outside."""
        self._config = config
        self._producer = producer
        self._needs_database = needs_database
        self._streams: set[bytes] = set()
        self._metrics: set[str] = set()
        self.raw_borders = RawBorders(read_retention(config))
        self._ready = False
        self._trouble = "starting; the queue has not answered yet"
        self._backlog = Backlog(0, 0, 0, 0)
        self.buffered_bytes = 0

    async def watch(self, conninfo: Callable[[], str]) -> None:
        """Keep the picture fresh, for ever."""
        if self._needs_database:
            await self._watch_queue(conninfo)
        else:
            await asyncio.gather(self._watch_queue(conninfo), self._watch_registry(conninfo))

    async def _read_registry(self, conninfo: Callable[[], str]) -> None:
        found = await asyncio.to_thread(read_registry, conninfo(), len(self._streams))
        if found.streams is not None:
            self._streams = found.streams
        self._metrics |= found.metrics
        self.raw_borders.learn(found)

    async def _watch_registry(self, conninfo: Callable[[], str]) -> None:
        """Beside a queue outside: while the database is away, the limits go by what was known last."""
        while True:
            with contextlib.suppress(psycopg.Error, ModelmeterError, OSError):
                await self._read_registry(conninfo)
            await asyncio.sleep(_REGISTRY_SECONDS)

    async def _watch_queue(self, conninfo: Callable[[], str]) -> None:
        due = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                began = loop.time()
                self._backlog = await self._producer.backlog()
                if self._needs_database and loop.time() >= due:
                    await self._read_registry(conninfo)
                    due = loop.time() + _REGISTRY_SECONDS
                self._ready = True
                self._report()
                await asyncio.sleep(max(_BACKLOG_SECONDS, 10 * (loop.time() - began)))
            except (psycopg.Error, ModelmeterError, OSError) as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                self._trouble = reason if isinstance(error, ModelmeterError) else f"the database is away: {reason}"
                self._ready = False
                due = 0
                await asyncio.sleep(_BACKLOG_SECONDS)

    def _report(self) -> None:
        telemetry.STREAMS.set(len(self._streams))
        telemetry.METRICS.set(len(self._metrics))
        telemetry.QUEUE_MESSAGES.set(self._backlog.messages)
        telemetry.QUEUE_EVENTS.set(self._backlog.events)
        telemetry.QUEUE_BYTES.set(self._backlog.bytes)
        telemetry.QUEUE_AGE_SECONDS.set(self._backlog.age_seconds)

    @property
    def trouble(self) -> str | None:
        """Why nothing can be accepted now; None when it can."""
        return None if self._ready else self._trouble

    def check(self, size: int) -> None:
        """Raise when a body of `size` bytes cannot be taken now."""
        if not self._ready:
            raise Unavailable(self._trouble, retry_after_seconds=1)
        if self._backlog.bytes > self._config.queue_limit_bytes:
            raise Busy(
                f"the queue holds {self._backlog.bytes} bytes, over its limit of {self._config.queue_limit_bytes}; "
                "the workers are behind",
                retry_after_seconds=5,
            )
        self.check_buffer(size)

    def check_buffer(self, size: int, mine: int = 0) -> None:
        """Raise when `size` bytes are too many beside the bodies in hand, of which `mine` are the same body's."""
        others = self.buffered_bytes - mine
        if others and others + size > self._config.ingest_buffer_limit_bytes:
            raise Busy(
                f"over {self._config.ingest_buffer_limit_bytes} bytes of requests are in hand", retry_after_seconds=1
            )

    def admit_stream(self, labels: Labels) -> None:
        print_ = fingerprint(labels)
        if print_ in self._streams:
            return
        limit = self._config.stream_limit
        if len(self._streams) >= limit:
            raise Refused(
                None,
                "stream_limit",
                f"a new stream, and there are {limit} already, the limit (stream_limit): {dict(labels)!r:.200}",
            )
        self._streams.add(print_)

    def admit_metric(self, name: str) -> None:
        if name in self._metrics:
            return
        limit = self._config.metric_limit
        if len(self._metrics) >= limit:
            raise Refused(
                name, "metric_limit", f"{name}: a new metric, and there are {limit} already, the limit (metric_limit)"
            )
        self._metrics.add(name)


class Ingest:
    """The ASGI endpoint."""

    def __init__(self, config: Config, gate: Gate, ingester: Ingester, corrector: Corrector) -> None:
        self._config = config
        self._gate = gate
        self._ingester = ingester
        self._corrector = corrector
        self._decoder = Decoder(gate.admit_stream, gate.admit_metric)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._respond(scope, receive, send)
        except Disconnected:
            return
        except ModelmeterError as error:
            telemetry.REQUESTS_REFUSED.labels(str(error.status)).inc()
            response = problem_of(error)
            if isinstance(error, (TooLarge, Busy)):
                response.headers["Connection"] = "close"  # the rest of the body is not read
            await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        content_type = encoding = key = b""
        length = 0
        query = read_replace(scope["query_string"]) if scope["query_string"] else None
        for header, value in scope["headers"]:
            if header == b"content-type":
                content_type = value.split(b";", 1)[0].strip().lower()
            elif header == b"content-encoding":
                encoding = value
            elif header == b"idempotency-key":
                key = value
            elif header == b"content-length":
                length = int(value)
        kind = _CONTENT_TYPES.get(content_type)
        if kind is None:
            raise Unsupported(
                f"Content-Type {content_type.decode('latin-1')!r} is not known; send application/json, "
                "application/x-ndjson or application/vnd.apache.arrow.stream"
            )
        if len(key) > _KEY_LIMIT_BYTES:
            raise Malformed(f"the Idempotency-Key is over {_KEY_LIMIT_BYTES} bytes")
        limit = self._config.body_limit_bytes
        try:
            if length > limit:
                raise TooLarge(
                    f"the body is {length} bytes, over {limit}; send fewer events at a time", limit_bytes=limit
                )
            self._gate.check(length)
        except ModelmeterError:
            if not any(header == b"expect" for header, _ in scope["headers"]):
                await discard_body(receive, limit)
            raise
        self._gate.buffered_bytes += length

        def take(size: int) -> None:
            """A body of unknown length counts as it comes."""
            nonlocal length
            if size > length:
                self._gate.check_buffer(size, mine=length)
                self._gate.buffered_bytes += size - length
                length = size

        try:
            body = await read_body(receive, limit, take)
            if encoding:
                body = unpack(body, encoding.decode("latin-1"), limit)
            decoded = self._decode(kind, body)
            del body
            if query is None:
                status, answer = 202, await self._answer(decoded, key)
            else:
                status, answer = 200, await self._replace(decoded, key, query, scope["client"])
        finally:
            self._gate.buffered_bytes -= length
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    def _decode(self, kind: str, body: bytes) -> Decoded:
        now = time_ns() // 1000
        bounds = Bounds(now, self._gate.raw_borders.earliest(now), now + self._config.future_limit_seconds * SECOND)
        if kind == _JSON:
            return self._decoder.json(body, bounds)
        if kind == "ndjson":
            return self._decoder.ndjson(body, bounds)
        return self._decoder.arrow(body, bounds, self._config.body_limit_bytes)

    async def _replace(
        self, decoded: Decoded, key: bytes, query: dict[str, str], client: tuple[str, int] | None
    ) -> bytes:
        """The body of the 200, when all is done. Nothing is replaced when an event is refused."""
        for code, count in decoded.codes.items():
            telemetry.EVENTS_REFUSED.labels(code).inc(count)
        if decoded.rejected or not decoded.accepted:
            raise Unprocessable(
                f"nothing is replaced, since an event is refused: {decoded.refusals[0].detail}",
                rejected=decoded.rejected,
                errors=decoded.refusals,
            )
        now = time_ns() // 1000
        by = query.get("by") or (client[0] if client else "")
        correction = replacement(
            decoded.batches, now, query.get("start"), query.get("end"), by, query.get("reason", "")
        )
        key_id = id_of_key(key.decode("latin-1")) if key else None
        outcome = await asyncio.to_thread(self._corrector.correct, correction, decoded.batches, key_id)
        telemetry.EVENTS_ACCEPTED.inc(decoded.accepted)
        return _encode(
            _Replaced(
                outcome.id or None,
                decoded.accepted,
                outcome.streams,
                outcome.removed,
                self._gate.raw_borders.count_without_raw(decoded.batches, now),
            )
        )

    async def _answer(self, decoded: Decoded, key: bytes) -> bytes:
        """The body of the 202. Unprocessable when there is nothing to acknowledge."""
        for code, count in decoded.codes.items():
            telemetry.EVENTS_REFUSED.labels(code).inc(count)
        if not decoded.accepted:
            raise Unprocessable(
                decoded.refusals[0].detail,
                batch_id=None,
                accepted=0,
                rejected=decoded.rejected,
                errors=decoded.refusals,
            )
        key_id = id_of_key(key.decode("latin-1")) if key else None
        batch_id = await self._ingester.submit(decoded.batches, key_id)
        telemetry.EVENTS_ACCEPTED.inc(decoded.accepted)
        without_raw = self._gate.raw_borders.count_without_raw(decoded.batches, time_ns() // 1000)
        return _encode(_Answer(batch_id, decoded.accepted, decoded.rejected, without_raw, list(decoded.refusals)))
