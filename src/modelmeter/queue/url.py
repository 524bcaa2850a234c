"""The queue's URL: which queue, where, and its few settings. What is wrong with a URL is said in one line."""

import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from modelmeter.errors import WrongSetting

FORMS = (
    "postgres:",
    "nats://HOST:4222[,HOST:4222...]/STREAM[?replicas=3]",
    "pubsub://PROJECT/TOPIC?subscription=SUBSCRIPTION[&endpoint=HOST]",
)


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """The same database."""


@dataclass(frozen=True)
class NatsUrl:
    """A JetStream stream. `limit_bytes` 0: no limit of its own."""

    servers: tuple[str, ...]
    stream: str
    replicas: int = 1
    ack_wait_seconds: float = 30
    max_deliver: int = 20
    limit_bytes: int = 0
    credentials: str = ""


@dataclass(frozen=True)
class PubsubUrl:
    """A topic and its subscription of Google Cloud Pub/Sub."""

    project: str
    topic: str
    subscription: str
    endpoint: str = ""
    ack_wait_seconds: float = 60
    max_deliver: int = 20
    exactly_once: bool = False


QueueUrl: TypeAlias = PostgresUrl | NatsUrl | PubsubUrl

_STREAM = re.compile(r"[A-Za-z0-9_-]{1,200}")
_PROJECT = re.compile(r"[a-z][a-z0-9:.-]{3,61}[a-z0-9]")
_RESOURCE = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")


def parse(text: str) -> QueueUrl:
    """WrongSetting when the text is no queue's URL: it says what is wrong, and the right form."""
    if text in ("postgres:", "postgres"):
        return PostgresUrl()
    parts = urlsplit(text)
    if parts.scheme == "nats":
        return _Parser(text, parts, FORMS[1]).nats()
    if parts.scheme == "pubsub":
        return _Parser(text, parts, FORMS[2]).pubsub()
    if parts.scheme in ("postgres", "postgresql"):
        raise _wrong(text, "the queue in Postgres is in the database of database_url", FORMS[0])
    scheme = f"there is no queue called {parts.scheme!r}" if parts.scheme else "it does not say which queue"
    raise _wrong(text, scheme, ", or ".join(FORMS))


def _wrong(text: str, detail: str, form: str) -> WrongSetting:
    shown = re.sub(r"//[^/@]*@", "//...@", text)  # no password in a log
    return WrongSetting(f"queue: {shown!r}: {detail}; the form is {form}")


class _Parser:
    def __init__(self, text: str, parts: SplitResult, form: str) -> None:
        self._text = text
        self._parts = parts
        self._form = form
        self._options: dict[str, str] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name in self._options:
                raise self._wrong(f"{name} is given twice")
            self._options[name] = value
        if parts.fragment:
            raise self._wrong("nothing may follow a #")

    def _wrong(self, detail: str) -> WrongSetting:
        return _wrong(self._text, detail, self._form)

    def _number(self, name: str, default: float, low: float, high: float) -> float:
        value = self._options.pop(name, None)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            raise self._wrong(f"{name} is no number: {value!r}") from None
        if not low <= number <= high:
            raise self._wrong(f"{name} must be from {low:g} to {high:g}, not {value}")
        return number

    def _count(self, name: str, default: int, low: int, high: int) -> int:
        number = self._number(name, default, low, high)
        if number != int(number):
            raise self._wrong(f"{name} must be a whole number, not {number:g}")
        return int(number)

    def _flag(self, name: str) -> bool:
        value = self._options.pop(name, "false").lower()
        if value not in ("true", "false"):
            raise self._wrong(f"{name} must be true or false, not {value!r}")
        return value == "true"

    def _finish(self) -> None:
        if self._options:
            raise self._wrong(f"there is no option {min(self._options)!r}")

    def nats(self) -> NatsUrl:
        user, _, hosts = self._parts.netloc.rpartition("@")
        servers = []
        for host in hosts.split(","):
            try:
                one = urlsplit(f"nats://{host}")
                port = one.port or 4222
            except ValueError:
                raise self._wrong(f"the port of {host!r} is no port") from None
            if not one.hostname:
                raise self._wrong("a host is missing")
            name = f"[{one.hostname}]" if ":" in one.hostname else one.hostname
            servers.append(f"nats://{user}@{name}:{port}" if user else f"nats://{name}:{port}")
        stream = unquote(self._parts.path.strip("/"))
        if not stream:
            raise self._wrong("the stream's name is missing after the host")
        if not _STREAM.fullmatch(stream):
            raise self._wrong(f"{stream!r} is no name for a stream: letters, digits, - and _ only")
        replicas = self._count("replicas", 1, 1, 5)
        if replicas % 2 == 0:
            raise self._wrong("replicas must be 1, 3 or 5")
        found = NatsUrl(
            tuple(servers),
            stream,
            replicas,
            self._number("ack_wait_seconds", NatsUrl.ack_wait_seconds, 0.5, 3600),
            self._count("max_deliver", NatsUrl.max_deliver, 2, 1000),
            self._count("limit_bytes", 0, 0, 2**62),
            self._options.pop("credentials", ""),
        )
        self._finish()
        return found

    def pubsub(self) -> PubsubUrl:
        project = self._parts.netloc
        topic = unquote(self._parts.path.strip("/"))
        subscription = self._options.pop("subscription", "")
        if not _PROJECT.fullmatch(project):
            raise self._wrong(f"{project!r} is no project's id" if project else "the project is missing")
        for what, value in (("topic", topic), ("subscription", subscription)):
            if not value:
                raise self._wrong(f"the {what} is missing")
            if not _RESOURCE.fullmatch(value):
                raise self._wrong(f"{value!r} is no name for a {what}: 3 to 255 letters, digits and -._~+%")
        found = PubsubUrl(
            project,
            topic,
            subscription,
            self._options.pop("endpoint", ""),
            self._number("ack_wait_seconds", PubsubUrl.ack_wait_seconds, 10, 600),
            self._count("max_deliver", PubsubUrl.max_deliver, 5, 100),
            self._flag("exactly_once"),
        )
        self._finish()
        return found
