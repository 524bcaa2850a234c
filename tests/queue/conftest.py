"""Brokers, one for the whole session."""

from collections.abc import Iterator

import pytest

from tests.queue.servers import NatsServer, nats_server, pubsub_emulator


@pytest.fixture(scope="session")
def nats() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    with pubsub_emulator() as address:
        yield address
