"""Every error that modelmeter raises on purpose, and whose fault it is.

ModelmeterError
├── CallerError            the request is wrong; the same request will never do (4xx)
│   ├── Malformed          400: not readable at all
│   ├── Unsupported        415: a content type or encoding that is not known
│   ├── TooLarge           413: over a limit on size
│   ├── Unprocessable      422: readable, but nothing in it can be kept
│   ├── Unanswerable       422: a question over a limit, or of what is no longer kept; ask for less
│   ├── NotAcceptable      406: no answer in the form that is accepted
│   ├── CannotCorrect      409: a correction of what is no longer kept as events
│   └── NotFound           404: no such model, metric, rule
├── Busy                   429: a limit is reached; try again later
├── Unavailable            503: ours and passing (Postgres away, queue away)
└── WrongSetting           exit 2: a setting that cannot work
"""

from typing import Any, ClassVar


class ModelmeterError(Exception):
    """The base of all of them. `extra` holds more fields for the HTTP problem document."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class CallerError(ModelmeterError):
    status = 400
    title = "Bad request"


class Malformed(CallerError):
    pass


class Unsupported(CallerError):
    status = 415
    title = "Unsupported media type"


class TooLarge(CallerError):
    status = 413
    title = "Content too large"


class Unprocessable(CallerError):
    status = 422
    title = "Nothing could be kept"


class Unanswerable(CallerError):
    status = 422
    title = "Cannot be answered"


class NotAcceptable(CallerError):
    status = 406
    title = "Not acceptable"


class CannotCorrect(CallerError):
    status = 409
    title = "Cannot be corrected"


class NotFound(CallerError):
    status = 404
    title = "Not found"


class Busy(ModelmeterError):
    """A limit is reached. `retry_after_seconds` goes into the Retry-After header."""

    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, retry_after_seconds: int = 1, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(Busy):
    status = 503
    title = "Service unavailable"


class WrongSetting(ModelmeterError):
    title = "Wrong setting"
