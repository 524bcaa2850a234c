"""Which queue the setting `queue` names, and each side of it. The clients of queues outside come as extras."""

import asyncio
import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from modelmeter.config import Config
from modelmeter.errors import WrongSetting
from modelmeter.queue import Backlog, Consumer, Producer, Steward
from modelmeter.queue.outside import Broker, OutsideConsumer
from modelmeter.queue.url import NatsUrl, PostgresUrl, PubsubUrl, parse
from modelmeter.store.dead_letters import DeadLetters
from modelmeter.store.outside import OutsideDatabase
from modelmeter.store.queue import PostgresConsumer, PostgresProducer, PostgresSteward


class _Kind(Protocol):
    """What the package of each queue outside has, each made with its URL."""

    make_producer: Callable[[Any], Producer]
    make_broker: Callable[[Any], Broker]
    make_steward: Callable[[Any], Steward]


def make_producer(config: Config) -> Producer:
    """The API's side."""
    url = parse(config.queue)
    return PostgresProducer(config.database_url) if isinstance(url, PostgresUrl) else _kind(url).make_producer(url)


def make_consumer(config: Config) -> Consumer:
    """The worker's side."""
    url = parse(config.queue)
    if isinstance(url, PostgresUrl):
        return PostgresConsumer(config.database_url)
    return OutsideConsumer(_kind(url).make_broker(url), OutsideDatabase(config.database_url), url.max_deliver)


def make_steward(config: Config) -> Steward:
    """Who makes, looks at and empties it."""
    url = parse(config.queue)
    return PostgresSteward(config.database_url) if isinstance(url, PostgresUrl) else _kind(url).make_steward(url)


def _kind(url: NatsUrl | PubsubUrl) -> _Kind:
    """The implementation of a queue outside; its client is an extra."""
    extra = "nats" if isinstance(url, NatsUrl) else "pubsub"
    try:
        module: Any = importlib.import_module(f"modelmeter.queue.{extra}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("modelmeter"):
            raise
        raise WrongSetting(
            f"queue: {extra}:// needs the package of {error.name}: pip install 'modelmeter[{extra}]'"
        ) from None
    kind: _Kind = module
    return kind


def read_backlog(config: Config) -> Backlog:
    """What waits on the queue now."""

    async def read() -> Backlog:
        producer = make_producer(config)
        try:
            return await producer.backlog()
        finally:
            await producer.close()

    return asyncio.run(read())


def retry_dead_letters(config: Config, ids: Sequence[int] | None) -> int:
    """Back onto the queue, whichever it is (all, when `ids` is None); how many."""
    letters = DeadLetters(config.database_url)
    if isinstance(parse(config.queue), PostgresUrl):
        return letters.retry(ids)

    async def retry() -> int:
        producer = make_producer(config)
        count = 0
        try:
            for letter_id, events, payload in letters.read(ids):
                await producer.enqueue(payload, events)  # killed after this, it is sent again, and counts once
                count += letters.drop([letter_id])
        finally:
            await producer.close()
        return count

    return asyncio.run(retry())
