"""The composition root: what each process is made of."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from modelmeter import __version__, significance, telemetry
from modelmeter.alert_reader import AlertReader
from modelmeter.announcer import Announcer
from modelmeter.compactor import Compactor
from modelmeter.comparer import Comparer
from modelmeter.config import Config
from modelmeter.corrector import Corrector
from modelmeter.dispatcher import Dispatcher
from modelmeter.errors import ModelmeterError
from modelmeter.evaluator import Evaluator
from modelmeter.ingester import Ingester
from modelmeter.notify.current import CurrentNotifications
from modelmeter.partitioner import Partitioner, retire_now
from modelmeter.pinner import Pinner
from modelmeter.queue.url import PostgresUrl, parse
from modelmeter.queues import make_consumer, make_producer
from modelmeter.reader import Limits, Reader
from modelmeter.recorder import Recorder
from modelmeter.retention import read_retention
from modelmeter.rule import DEFAULT_RULES, EventRule
from modelmeter.rule_book import RuleBook
from modelmeter.rule_trial import Trial
from modelmeter.runner import Hangup, Leadership, Pulse, Stop, run_loop
from modelmeter.side_reader import SideReader
from modelmeter.store.migrations import wait_for_schema
from modelmeter.store.writer import Catalog
from modelmeter.web import (
    alertmanager,
    alerts,
    baselines,
    compare,
    corrections,
    events,
    health,
    histogram,
    notifications,
    prometheus,
    rules,
    silences,
    stats,
)
from modelmeter.web.closing import Closing
from modelmeter.web.dashboard import router as dashboard
from modelmeter.web.ingest import Gate, Ingest
from modelmeter.web.listener import BACKLOG, listen, url_of
from modelmeter.web.path import as_sent
from modelmeter.web.probe import probes
from modelmeter.web.problem import on_bug, on_error, on_http_error
from modelmeter.worker import Worker

log = logging.getLogger(__name__)

COMPACTOR_LOCK = 0x6D6D_0010
DISPATCHER_LOCK = 0x6D6D_0012
EVALUATOR_LOCK = 0x6D6D_0011
PARTITIONER_LOCK = 0x6D6D_0013
CORRECTOR_LOCK = 0x6D6D_0023
_CORRECTOR_SECONDS = 5
_PARTITIONER_SECONDS = 65  # longer than a worker's catalog takes to see that something is retired
_FAREWELL_SECONDS = 1.0
_LOOK_SECONDS = 1.0  # between two looks at the rule files
_WARM_SECONDS = 1.0
_FAREWELL_SHARE = 0.2  # of the grace, for messages under way
_IDLE_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


async def _warm() -> None:
    """Import SciPy before the first comparison needs it, but not while the start is waited for."""
    await asyncio.sleep(_WARM_SECONDS)
    await asyncio.to_thread(significance.warm)


def make_api(config: Config, closing: Closing | None = None) -> ASGIApp:
    """The ASGI application. `closing` is how its server says that streams must end."""
    producer = make_producer(config)
    ingester = Ingester(producer)
    gate = Gate(config, producer, needs_database=isinstance(parse(config.queue), PostgresUrl))
    reader = Reader(config.database_url)
    current = CurrentNotifications(config)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(gate.watch(lambda: config.database_url))
        warming = asyncio.create_task(_warm())
        yield
        for task in (watching, warming):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await ingester.drain()
        await producer.close()
        reader.close()

    api = FastAPI(
        title="modelmeter", version=__version__, lifespan=lifespan, description=_DESCRIPTION, redirect_slashes=False
    )
    api.add_exception_handler(ModelmeterError, on_error)
    api.add_exception_handler(HTTPException, on_http_error)
    api.add_exception_handler(Exception, on_bug)
    api.include_router(stats.make_router(reader, Limits.of(config)))
    api.include_router(histogram.make_router(reader, Limits.of(config)))
    api.include_router(events.make_router(reader, config.export_limit))
    corrector = Corrector(config, read_retention(config), lambda: time.time_ns() // 1000)
    api.include_router(corrections.make_router(corrector))
    sides = SideReader(config, reader)
    api.include_router(compare.make_router(Comparer(config, sides)))
    api.include_router(baselines.make_router(Pinner(config, sides)))
    api.include_router(prometheus.make_router(config, reader))
    api.include_router(silences.make_router(config))
    api.include_router(notifications.make_router(config, current))
    api.include_router(alertmanager.make_router(config, current))
    alert_reader = AlertReader(config, reader)
    api.include_router(alerts.make_router(alert_reader))
    api.include_router(rules.make_router(alert_reader, Trial(config, reader)))
    api.include_router(health.make_router(gate))
    api.include_router(dashboard.make_router(config, reader, alert_reader, closing or Closing()))
    events.describe_ingest(api)
    ingest = Ingest(config, gate, ingester, corrector)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        # The hot path goes before all of FastAPI's layers.
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in _INGEST_PATHS:
            await ingest(scope, receive, send)
        else:
            await api(as_sent(scope) if scope["type"] == "http" else scope, receive, send)

    return application


_INGEST_PATHS = frozenset(("/events", "/stats"))
_DESCRIPTION = "Events of models in, stats out. See the README for examples."


def run_api(config: Config, listener: socket.socket | None = None) -> None:
    """Serve until SIGTERM; requests in hand are answered."""
    if listener is None:
        listener = listen(config.host, config.port)
        print(f"modelmeter listens on {url_of(listener)}", flush=True)
    closing = Closing()
    server = _Server(
        uvicorn.Config(
            make_api(config, closing),
            host=config.host,
            port=config.port,
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_config=None,
            log_level=logging.WARNING,
            backlog=BACKLOG,
            timeout_graceful_shutdown=max(int(config.grace_seconds - 1), 1),
            timeout_keep_alive=75,
            server_header=False,
            proxy_headers=False,
            ws="none",
        ),
        closing,
    )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what it reads from files it looks at anew by itself
    # uvicorn ends by raising the signal that stopped it; all was answered by then, so that is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, with a farewell: for a moment each answer says that the connection closes, before idle ones are cut.

    A client that is busy is so never cut between its request and the answer, as it would be by closing at once a
    connection that only looks idle because its next request is still on the way. Streams that
    have no end are told to end first.
    """

    def __init__(self, config: uvicorn.Config, closing: Closing) -> None:
        super().__init__(config)
        self._closing = closing

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        self._closing.begin()
        ends = asyncio.get_running_loop().time() + _FAREWELL_SECONDS
        while self.server_state.connections and asyncio.get_running_loop().time() < ends:  # noqa: ASYNC110  uvicorn has no event
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


@contextlib.contextmanager
def _loop_of(config: Config) -> Iterator[tuple[Stop, Pulse, Hangup]]:
    """What a process that is one loop needs: it stops at a signal, tells how it is, and waits for the schema."""
    stop, pulse, hangup = Stop(), Pulse(), Hangup()
    stop.install()
    hangup.install()
    with contextlib.ExitStack() as stack:
        if config.metrics_port:
            stack.enter_context(probes(config.host, config.metrics_port, pulse.trouble))

        def is_over(seconds: float) -> bool:
            pulse.beat()
            return stop.wait(seconds)

        wait_for_schema(config.database_url, is_over)
        yield stop, pulse, hangup


def _event_rules(book: RuleBook) -> Sequence[EventRule]:
    return [rule for group in book.groups for rule in group.events] if book.has_files else DEFAULT_RULES


def run_worker(config: Config) -> None:
    """Store what the queue brings until SIGTERM; the claim in hand is finished."""
    book = RuleBook(config.rules)
    book.read()
    announcer = Announcer(config, _event_rules(book))
    looked_at = time.monotonic()
    consumer = make_consumer(config)
    retention = read_retention(config)
    catalog = Catalog(config.database_url, retention)
    worker = Worker(config, consumer, catalog, announcer.tell, announcer.judge)
    idle = 0
    gathering = 0.0
    is_retired = False

    def run_once() -> bool:
        nonlocal gathering, is_retired, looked_at
        if time.monotonic() - looked_at >= _LOOK_SECONDS:
            looked_at = time.monotonic()
            if book.look():
                announcer.use(_event_rules(book))
        if not is_retired:  # before the first event: a year of history on the first day makes no year of partitions
            retire_now(config.database_url, retention)
            is_retired = True
        stored = worker.run_once()
        if stored is None:
            announcer.flush()
            return False
        full = stored.events * 2 > worker.limit_events
        gathering = 0.0 if full else max(config.freshness_seconds - stored.seconds, 0.0)
        telemetry.EVENTS_STORED.inc(stored.events)
        telemetry.MESSAGES_STORED.inc(stored.messages)
        telemetry.DEAD_LETTERS.inc(stored.dead_letters)
        telemetry.EVENTS_WITHOUT_RAW.inc(stored.without_raw)
        telemetry.BATCH_EVENTS.observe(stored.events)
        telemetry.STORE_SECONDS.observe(stored.seconds)
        telemetry.LAG_SECONDS.observe(stored.lag_seconds)
        return True

    def pause(busy: bool) -> float:
        nonlocal idle
        idle = 0 if busy else min(idle + 1, len(_IDLE_SECONDS) - 1)
        return gathering if busy else _IDLE_SECONDS[idle]

    with _loop_of(config) as (stop, pulse, hangup):
        hangup.on_signal(book.ask)
        run_loop("worker", run_once, stop, pause, pulse)
    consumer.close()
    catalog.close()


@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop of the keeper. Of many keepers, the one that holds the advisory lock runs it; `pause` as in run_loop.

    `lead` is called whenever this keeper has become the leader.
    """

    name: str
    lock: int
    run_once: Callable[[], bool]
    pause: Callable[[bool], float]
    lead: Callable[[], None] = lambda: None


def run_keeper(config: Config) -> None:
    """The loops of which one instance is enough, each in a thread, each led by one of the keepers."""
    compactor = Compactor(config)
    corrector = Corrector(config, read_retention(config))
    dispatcher = Dispatcher(config)
    partitioner = Partitioner(config)
    consumer = make_consumer(config)
    book = RuleBook(config.rules)
    book.read()
    evaluator = Evaluator(config, book, Recorder(make_producer(config)))

    def compact() -> bool:
        consumer.tidy()
        return compactor.run_once()

    loops = [
        _Loop("compactor", COMPACTOR_LOCK, compact, lambda busy: 0.05 if busy else config.compact_interval_seconds),
        _Loop("corrector", CORRECTOR_LOCK, corrector.run_once, lambda _: _CORRECTOR_SECONDS),
        _Loop(
            "evaluator",
            EVALUATOR_LOCK,
            lambda: evaluator.run_once(evaluator.now()),
            lambda _: evaluator.wait_seconds(),
            evaluator.forget,
        ),
        _Loop("dispatcher", DISPATCHER_LOCK, dispatcher.run_once, dispatcher.pause),
        _Loop("partitioner", PARTITIONER_LOCK, partitioner.run_once, lambda _: _PARTITIONER_SECONDS),
    ]
    with _loop_of(config) as (stop, pulse, hangup):
        hangup.on_signal(book.ask)
        hangup.on_signal(dispatcher.reload)
        pulses = [Pulse() for _ in loops]
        threads = [
            threading.Thread(target=_lead, args=(config, loop, stop, its_pulse), name=loop.name)
            for loop, its_pulse in zip(loops, pulses, strict=True)
        ]
        for thread in threads:
            thread.start()
        while not stop.wait(1):
            if all(its_pulse.trouble() is None for its_pulse in pulses):
                pulse.beat()
        for thread in threads:
            thread.join()
        dispatcher.close(config.grace_seconds * _FAREWELL_SHARE)
    evaluator.close()


def _lead(config: Config, loop: _Loop, stop: Stop, pulse: Pulse) -> None:
    leadership = Leadership(config.database_url, loop.lock, loop.lead)
    run_loop(loop.name, lambda: leadership.held() and loop.run_once(), stop, loop.pause, pulse)
    leadership.close()
