"""Everything that Apprise knows: Slack, mail, Teams, PagerDuty, Telegram and a hundred more, each by its URL.

Apprise says only whether it worked, and more in its log: what it logs while this thread sends is the reason, and never
goes anywhere else, since it may show what an URL hides.
"""

import functools
import logging
import re
import threading
import warnings
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from modelmeter.errors import WrongSetting
from modelmeter.notification import Message, text, title
from modelmeter.notify.outcome import Delivered, Failed, Outcome, clean, is_permanent

_STATUS = re.compile(r"error=(\d{3})\b")


class _Ear(logging.Handler):
    """Keeps what each thread's sending has logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._of = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        heard = getattr(self._of, "heard", None)
        if heard is not None:
            heard.append(record.getMessage())

    def listen(self) -> list[str]:
        self._of.heard = []
        return self._of.heard  # type: ignore[no-any-return]


_EAR = _Ear()


@functools.cache
def _library() -> Any:
    """Imported, with all its plugins, when it is needed: that costs seconds. What it deprecates is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import apprise  # noqa: PLC0415

        apprise.Apprise().add("json://localhost")
    log = logging.getLogger("apprise")
    log.handlers, log.propagate = [_EAR], False
    log.setLevel(logging.WARNING)
    return apprise


def check_url(url: str) -> None:
    """WrongSetting when Apprise knows no such URL; it does not show it."""
    if not _library().Apprise().add(url):
        scheme = url.split("://", 1)[0] if "://" in url else ""
        raise WrongSetting(f"Apprise cannot use this URL{f' (its scheme is {scheme}://)' if scheme else ''}")


def secrets_of(url: str) -> list[str]:
    """What of an URL must not be shown: all of it, and each of its parts but the host."""
    parts = urlsplit(url)
    pieces = re.split(r"[/?&=:@]", url.removeprefix(f"{parts.scheme}://"))
    found = {piece for piece in pieces if piece and piece != (parts.hostname or "") and not piece.isalpha()}
    found |= {piece for piece in (parts.password, parts.username) if piece}
    return [url, *found, *map(unquote, found)]


@dataclass(frozen=True, slots=True)
class Apprise:
    """One URL of Apprise's."""

    name: str
    url: str = field(repr=False)
    send_resolved: bool = True
    external_url: str = ""
    kind: str = "apprise"

    def send(self, message: Message, key: str, now: int) -> Outcome:  # noqa: ARG002  mail has a clock of its own
        library = _library()
        # The plugin itself, in this thread: Apprise's own sending shares a few threads among all destinations,
        # and those that hang would hold up the others.
        plugin = library.Apprise.instantiate(self.url)
        if plugin is None:
            return Failed("Apprise cannot use this URL", permanent=True)
        heard = _EAR.listen()
        kind = library.NotifyType.FAILURE if message.firing else library.NotifyType.SUCCESS
        plain = library.NotifyFormat.TEXT
        body = library.conversion.convert_between(
            plain, plugin.notify_format, content=text(message, key, self.external_url)
        )
        if plugin.notify(body=body, title=title(message), notify_type=kind, body_format=plain):
            return Delivered()
        reason = clean("; ".join(heard) or "Apprise could not send it, and says no more", secrets_of(self.url))
        status = _STATUS.search(" ".join(heard))
        return Failed(reason, status is not None and is_permanent(int(status[1])))
