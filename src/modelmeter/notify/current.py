"""The notifications that hold now: read again when the file, or a secret's file, changes. A bad one changes nothing."""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from modelmeter import telemetry
from modelmeter.config import Config
from modelmeter.errors import WrongSetting
from modelmeter.notify.file import read_notifications

log = logging.getLogger(__name__)


def _mark(sources: Iterable[Path]) -> tuple[object, ...]:
    marks: list[object] = []
    for path in sources:
        try:
            facts = path.stat()  # follows links: Kubernetes changes a link
            marks.append((facts.st_ino, facts.st_size, facts.st_mtime_ns))
        except OSError:
            marks.append(None)
    return tuple(marks)


class CurrentNotifications:
    """`now` is what holds. Safe to use from many threads. The first file must be good: WrongSetting."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self.now = read_notifications(config)
        self._mark = _mark(self.now.sources)
        telemetry.NOTIFICATIONS_FILE_GOOD.set(1)

    def refresh(self, *, forced: bool = False) -> bool:
        """Look whether the file has changed (or read it anyway); whether other notifications hold now."""
        with self._lock:
            mark = _mark(self.now.sources)
            if mark == self._mark and not forced:
                return False
            self._mark = mark
            try:
                found = read_notifications(self._config)
            except WrongSetting as error:
                telemetry.NOTIFICATIONS_FILE_GOOD.set(0)
                log.error("the notifications file is refused, what it said before holds: %s", error.detail)  # noqa: TRY400
                return False
            telemetry.NOTIFICATIONS_FILE_GOOD.set(1)
            self._mark = _mark(found.sources)
            changed = found != self.now
            if changed:
                self.now = found
                log.info("the notifications file is read again")
            return changed
