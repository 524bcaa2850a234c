"""A webhook: the message as Alertmanager's webhook sends it, signed, so that its receiver knows who sent it and when.

`X-Modelmeter-Signature: t=<Unix seconds>,v1=<hex>`, where hex is HMAC-SHA256(secret, t + "." + body).
`Idempotency-Key` is the same whenever the same message is sent again; it is in the body too.
"""

import hashlib
import hmac
from dataclasses import dataclass, field, replace

import msgspec

from modelmeter import __version__
from modelmeter.notification import Message, payload
from modelmeter.notify.outcome import Outcome
from modelmeter.notify.post import post
from modelmeter.window import SECOND

SIGNATURE = "X-Modelmeter-Signature"


def sign(secret: str, body: bytes, seconds: int) -> str:
    """The value of the header."""
    digest = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


@dataclass(frozen=True, slots=True)
class Webhook:
    """`secret` empty: not signed. `alert_limit` 0: all alerts."""

    name: str
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)
    send_resolved: bool = True
    alert_limit: int = 0
    timeout_seconds: float = 15
    external_url: str = ""
    kind: str = "webhook"

    def send(self, message: Message, key: str, now: int) -> Outcome:
        if self.alert_limit and len(message.alerts) > self.alert_limit:
            more = len(message.alerts) - self.alert_limit
            message = replace(message, alerts=message.alerts[: self.alert_limit], truncated=message.truncated + more)
        body = msgspec.json.encode({**payload(message, self.external_url), "deduplicationKey": key})
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"modelmeter/{__version__}",
            "Idempotency-Key": key,
        }
        if self.secret:
            headers[SIGNATURE] = sign(self.secret, body, now // SECOND)
        if self.bearer:
            headers["Authorization"] = f"Bearer {self.bearer}"
        return post(self.url, body, headers, self.timeout_seconds, [self.secret, self.bearer])
