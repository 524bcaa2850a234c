"""The courier: sends messages, each in a thread, at most so many to one destination at a time.

A destination that hangs holds its own threads and nobody else's. What came of each is taken out with `outcomes`.
"""

import logging
import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass

from modelmeter.notify.outcome import Destination, Failed, Outcome
from modelmeter.store.deliveries import Delivery

log = logging.getLogger(__name__)

_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of one attempt."""

    delivery: Delivery
    outcome: Outcome


class Courier:
    """All but `_send` runs in one thread, that of who owns it."""

    def __init__(self) -> None:
        self._outcomes: queue.SimpleQueue[Sent] = queue.SimpleQueue()
        self._busy: Counter[str] = Counter()
        self._held: dict[int, Delivery] = {}

    def room(self, destination: str) -> int:
        """How many more may go there now."""
        return max(_AT_A_TIME - self._busy[destination], 0)

    def holds(self, delivery_id: int) -> bool:
        return delivery_id in self._held

    @property
    def under_way(self) -> int:
        return len(self._held)

    def start(self, delivery: Delivery, destination: Destination, now: int) -> None:
        self._busy[delivery.destination] += 1
        self._held[delivery.id] = delivery
        threading.Thread(
            target=self._send, args=(delivery, destination, now), name=f"send {destination.name}", daemon=True
        ).start()

    def _send(self, delivery: Delivery, destination: Destination, now: int) -> None:
        try:
            outcome = destination.send(delivery.message, delivery.key, now)
        except (
            Exception
        ) as error:  # a destination's defect stops no other; it may hold a secret, so only its type is said
            log.error("%s: a defect while sending: %s", destination.name, type(error).__name__)  # noqa: TRY400
            outcome = Failed(f"a defect while sending ({type(error).__name__})")
        self._outcomes.put(Sent(delivery, outcome))

    def outcomes(self, wait_seconds: float = 0) -> list[Sent]:
        """What is known by now, or within so many seconds when nothing is."""
        found: list[Sent] = []
        while True:
            try:
                sent = (
                    self._outcomes.get(timeout=wait_seconds)
                    if wait_seconds and not found
                    else self._outcomes.get_nowait()
                )
            except queue.Empty:
                return found
            self._busy[sent.delivery.destination] -= 1
            del self._held[sent.delivery.id]
            found.append(sent)

    def drain(self, seconds: float) -> list[Sent]:
        """What is known once nothing is under way, or after so many seconds."""
        deadline = time.monotonic() + seconds
        found = self.outcomes()
        while self._held and (left := deadline - time.monotonic()) > 0:
            found += self.outcomes(left)
        return found
