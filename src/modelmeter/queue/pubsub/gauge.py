"""The backlog, from Cloud Monitoring."""

import os
import time

from google.cloud import monitoring_v3

from modelmeter.queue import Backlog
from modelmeter.queue.pubsub.calls import CALL_SECONDS, calls
from modelmeter.queue.url import PubsubUrl

_BACKLOG_SECONDS = 15.0
_METRICS = "pubsub.googleapis.com/subscription/"


class Gauge:
    """The backlog as Cloud Monitoring knows it: a minute or more behind. The emulator has none: it reads as empty."""

    def __init__(self, url: PubsubUrl) -> None:
        self._url = url
        self._client: monitoring_v3.MetricServiceClient | None = None
        self._known = Backlog(0, 0, 0, 0)
        self._due = 0.0
        self.events_per_message = 1.0

    def read(self) -> Backlog:
        """Events are an estimate, from the messages that this process has seen."""
        if os.environ.get("PUBSUB_EMULATOR_HOST") or time.monotonic() < self._due:
            return self._known
        with calls(self._url, f"subscription {self._url.subscription!r}"):
            if self._client is None:
                self._client = monitoring_v3.MetricServiceClient()
            messages = self._newest("num_undelivered_messages")
            self._known = Backlog(
                int(messages),
                round(messages * self.events_per_message),
                int(self._newest("backlog_bytes")),
                self._newest("oldest_unacked_message_age"),
            )
        self._due = time.monotonic() + _BACKLOG_SECONDS
        return self._known

    def _newest(self, metric: str) -> float:
        assert self._client is not None
        now = time.time()
        series = self._client.list_time_series(
            request={
                "name": f"projects/{self._url.project}",
                "filter": f'metric.type = "{_METRICS}{metric}" AND '
                f'resource.labels.subscription_id = "{self._url.subscription}"',
                "interval": {"start_time": {"seconds": int(now) - 600}, "end_time": {"seconds": int(now)}},
                "view": monitoring_v3.ListTimeSeriesRequest.TimeSeriesView.FULL,
            },
            timeout=CALL_SECONDS,
        )
        return float(sum(one.points[0].value.int64_value for one in series if one.points))  # the newest comes first
