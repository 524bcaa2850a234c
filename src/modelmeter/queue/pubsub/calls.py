"""Names, clients and errors of Pub/Sub."""

import contextlib
import os
from collections.abc import Iterator

import grpc
from google.api_core import exceptions as google_errors
from google.auth.exceptions import GoogleAuthError
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from modelmeter.errors import Unavailable
from modelmeter.queue.url import PubsubUrl

CALL_SECONDS = 10.0
EVENTS, PART = "events", "part"
_AWAY = (google_errors.GoogleAPICallError, google_errors.RetryError, GoogleAuthError, TimeoutError)


def client_options(url: PubsubUrl) -> dict[str, str]:
    return {"api_endpoint": url.endpoint} if url.endpoint else {}


def topic_name(url: PubsubUrl, suffix: str = "") -> str:
    return f"projects/{url.project}/topics/{url.topic}{suffix}"


def subscription_name(url: PubsubUrl, suffix: str = "") -> str:
    return f"projects/{url.project}/subscriptions/{url.subscription}{suffix}"


def open_subscriber(url: PubsubUrl) -> SubscriberClient:
    """Unary calls only. To an emulator, too, without gRPC's own limit of 4 MiB on an answer."""
    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    if emulator:
        channel = grpc.insecure_channel(emulator, options=[("grpc.max_receive_message_length", -1)])
        return SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
    return SubscriberClient(client_options=client_options(url))


def away(error: BaseException) -> Unavailable:
    reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return Unavailable(f"the queue is away (Pub/Sub): {reason}", retry_after_seconds=1)


def _missing(url: PubsubUrl, what: str) -> Unavailable:
    return Unavailable(f"the queue's {what} is not there in {url.project}; run: modelmeter queue create")


@contextlib.contextmanager
def calls(url: PubsubUrl, what: str) -> Iterator[None]:
    """Google's errors become ours."""
    try:
        yield
    except google_errors.NotFound as error:
        raise _missing(url, what) from error
    except _AWAY as error:
        raise away(error) from error
