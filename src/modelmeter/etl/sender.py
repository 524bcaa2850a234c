"""Posts event bodies so that each counts once: what fails is sent again with the same Idempotency-Key.

`Sender` sends one parcel and returns the server's answer, or raises: SendRefused when the same request will
never do, ServerAway when patience is over, SendStopped after `stop`. `SenderPool` does it on a few threads.
"""

import itertools
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import httpx
import msgspec

from modelmeter.errors import ModelmeterError, WrongSetting

JSON = "application/json"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"

DEFAULT_URL = "http://127.0.0.1:8000"
PATIENCE_SECONDS = 300.0
SENDING_THREADS = 4
STOP_GRACE_SECONDS = 5.0

_FIRST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 30.0
_TIMEOUT = httpx.Timeout(60, connect=5, pool=None)
_PASSING = frozenset({429, 502, 503, 504})  # 502 and 504: a proxy in front of a server that restarts


class SendRefused(ModelmeterError):
    """The server understood and said no: the same request will never do."""

    title = "The server refused the events"


class ServerAway(ModelmeterError):
    """Not acknowledged within the patience. The same parcel may be sent again at any time."""

    title = "The server is away"


class SendStopped(ModelmeterError):
    """`stop` was called while waiting to send again."""

    title = "Sending was stopped"


@dataclass(frozen=True, slots=True)
class Parcel:
    """One request: `body` as `content_type`, holding `events` events. `key` is its Idempotency-Key."""

    body: bytes
    content_type: str
    key: str
    events: int


class Refusal(msgspec.Struct, frozen=True):
    """Why the server kept not this one event; `index` counts from 0 in the request."""

    index: int
    code: str
    detail: str
    field: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What the server did with a parcel; `errors` are the first refusals of the `rejected`."""

    accepted: int
    rejected: int
    batch_id: str | None = None
    errors: list[Refusal] = msgspec.field(default_factory=list)


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Passing:
    reason: str
    retry_after_seconds: float = 0.0


def base_url(url: str) -> str:
    """The server's address without a final `/`, `/stats`, `/events`. WrongSetting when it is no http URL."""
    text = url.strip()
    try:
        parsed = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise WrongSetting(f"{url!r} is no URL ({error}); write it like {DEFAULT_URL}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise WrongSetting(f"{url!r} is no http:// or https:// URL; write it like {DEFAULT_URL}")
    if parsed.query or parsed.fragment:
        raise WrongSetting(f"{url!r} has a ? or # part; write it like {DEFAULT_URL}")
    text = text.rstrip("/")
    for ending in ("/stats", "/events"):
        text = text.removesuffix(ending).rstrip("/")
    return text


def backoff_seconds(attempt: int, first: float, longest: float, jitter: float) -> float:
    """How long to wait after failure `attempt` (from 0): doubled, capped; `jitter` (0 to 1) moves half."""
    return float(min(longest, first * 2.0 ** min(attempt, 60)) * (0.5 + 0.5 * jitter))


def retry_after_seconds(value: str | None, now: datetime) -> float:
    """The Retry-After header (seconds or an HTTP date) in seconds from `now`; 0 when absent or unreadable."""
    if value is None:
        return 0.0
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())


class Sender:
    """One server. Safe for many threads; keeps connections alive. `notice` is told of every wait."""

    def __init__(
        self,
        url: str,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        first_wait_seconds: float = _FIRST_WAIT_SECONDS,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.url = base_url(url)
        self._patience_seconds = patience_seconds
        self._first_wait_seconds = first_wait_seconds
        self._notice = notice or (lambda _: None)
        self._stopped = threading.Event()
        self._client = httpx.Client(timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def stop(self) -> None:
        """End every wait: a `send` that is waiting raises SendStopped, a request on its way is finished."""
        self._stopped.set()

    def send(self, parcel: Parcel) -> Answer:
        """The server's answer, once it has the events; else SendRefused, ServerAway, SendStopped."""
        failed_at = 0.0
        attempt = 0
        while True:
            if self._stopped.is_set():
                raise SendStopped("stopped before the events were acknowledged")
            outcome = self._post(parcel)
            if isinstance(outcome, Answer):
                return outcome
            now = time.monotonic()
            failed_at = failed_at or now
            left = failed_at + self._patience_seconds - now
            if left <= 0 or outcome.retry_after_seconds > left:
                asked = f"; it asks to wait {outcome.retry_after_seconds:.0f} s" if left > 0 else ""
                raise ServerAway(
                    f"{self.url}: {outcome.reason}{asked}. Gave up after {now - failed_at:.0f} s "
                    f"of at most {self._patience_seconds:.0f} s."
                )
            backoff = backoff_seconds(attempt, self._first_wait_seconds, _LONGEST_WAIT_SECONDS, random.random())
            wait = min(max(outcome.retry_after_seconds, backoff), left)
            self._notice(f"{outcome.reason}; trying again in {wait:.1f} s")
            attempt += 1
            self._stopped.wait(wait)

    def _post(self, parcel: Parcel) -> Answer | _Passing:
        headers = {"Content-Type": parcel.content_type, "Idempotency-Key": parcel.key}
        try:
            response = self._client.post(f"{self.url}/events", content=parcel.body, headers=headers)
        except httpx.RequestError as error:
            return _Passing(f"no answer ({str(error) or type(error).__name__})")
        status = response.status_code
        if status in _PASSING:
            wait = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
            return _Passing(f"the server is busy ({_explain(response)})", wait)
        if status in {200, 202, 422}:
            try:
                return msgspec.json.decode(response.content, type=Answer)
            except msgspec.MsgspecError as error:
                if status != 422:
                    raise SendRefused(
                        f"{self.url}/events answered {status}, but not as modelmeter does: {error}. Is the URL right?"
                    ) from None
        if response.is_redirect:
            raise SendRefused(f"{self.url}/events redirects to {response.headers.get('Location')}; use that URL")
        raise SendRefused(f"{self.url}/events: {_explain(response)}", status=status)


def _explain(response: httpx.Response) -> str:
    """The status with the problem document's detail, or else the beginning of the text."""
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
        said = problem.detail or problem.title
    except msgspec.MsgspecError:
        said = " ".join(response.text.split())[:200]
    return f"{response.status_code} {said or response.reason_phrase}"


class Tally:
    """What was acknowledged so far, counted by many threads. `examples` are the first refusals."""

    def __init__(self, example_limit: int = 10) -> None:
        self.expected_parcels: int | None = None
        self.parcels = 0
        self.accepted = 0
        self.rejected = 0
        self.examples: list[str] = []
        self._example_limit = example_limit
        self._lock = threading.Lock()

    def count(self, accepted: int, rejected: int, refusals: Iterable[str] = ()) -> None:
        """Add one answer; `refusals` say where and why."""
        with self._lock:
            self.parcels += 1
            self.accepted += accepted
            self.rejected += rejected
            self.examples += itertools.islice(refusals, self._example_limit - len(self.examples))


_Task = tuple[Parcel, Callable[[Answer], None]]


class SenderPool:
    """Sends parcels on a few threads, so that reading, sending and the server's commit overlap.

    `put` blocks while all are busy: at most `2 * threads` parcels are in memory. A parcel's `done` is called
    with its answer, by that thread. The first failure stops the pool; `put` or `finish` raises it. Leaving
    the context by an exception lets the requests on their way come back for a few seconds, and sends no more.
    """

    def __init__(self, sender: Sender, threads: int = SENDING_THREADS) -> None:
        self._sender = sender
        self._tasks: queue.Queue[_Task | None] = queue.Queue(threads)
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        # Daemons: a second Ctrl-C must not wait for a server that does not answer.
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self._abort()

    def put(self, parcel: Parcel, done: Callable[[Answer], None]) -> None:
        """Send `parcel` when a thread is free. Raises the pool's first failure."""
        self._raise_failure()
        self._tasks.put((parcel, done))

    def finish(self) -> None:
        """Wait until everything is acknowledged. Raises the pool's first failure."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._raise_failure()

    def _abort(self) -> None:
        with self._lock:
            self._failure = self._failure or SendStopped("stopped")
        self._sender.stop()
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        try:
            for _ in self._threads:
                self._tasks.put(None, timeout=max(0.0, deadline - time.monotonic()))
        except queue.Full:
            return
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _raise_failure(self) -> None:
        with self._lock:
            if self._failure is not None:
                raise self._failure

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._failure is not None:
                continue  # drain, so that `put` and `finish` never block for good
            parcel, done = task
            try:
                answer = self._sender.send(parcel)
                done(answer)
            except BaseException as error:
                with self._lock:
                    self._failure = self._failure or error
                self._sender.stop()
