"""What modelmeter says of itself at /metrics. Under `serve` all processes share one directory of counts."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS_ACCEPTED = Counter("modelmeter_events_accepted", "Events acknowledged: durable on the queue.")
EVENTS_REFUSED = Counter("modelmeter_events_refused", "Events refused, by reason.", ["code"])
REQUESTS_REFUSED = Counter("modelmeter_requests_refused", "Requests to ingest refused whole, by status.", ["status"])
INGEST_BUFFER_BYTES = Gauge("modelmeter_ingest_buffer_bytes", "Bodies in hand at the API.", multiprocess_mode="livesum")
STREAMS = Gauge("modelmeter_streams", "Streams in the database.", multiprocess_mode="mostrecent")
METRICS = Gauge("modelmeter_metrics", "Metric names in the database.", multiprocess_mode="mostrecent")
BASELINES = Gauge(
    "modelmeter_baselines", "Baselines in the database, when last asked for.", multiprocess_mode="mostrecent"
)
QUEUE_MESSAGES = Gauge("modelmeter_queue_messages", "Messages that wait.", multiprocess_mode="mostrecent")
QUEUE_EVENTS = Gauge("modelmeter_queue_events", "Events that wait.", multiprocess_mode="mostrecent")
QUEUE_BYTES = Gauge("modelmeter_queue_bytes", "Packed bytes that wait.", multiprocess_mode="mostrecent")
QUEUE_AGE_SECONDS = Gauge(
    "modelmeter_queue_age_seconds", "Age of the oldest message that waits.", multiprocess_mode="mostrecent"
)
EVENTS_STORED = Counter("modelmeter_events_stored", "Events stored by workers, each once.")
MESSAGES_STORED = Counter("modelmeter_messages_stored", "Messages that workers have stored.")
DEAD_LETTERS = Counter("modelmeter_dead_letters", "Messages that could not be stored.")
BATCH_EVENTS = Histogram(
    "modelmeter_batch_events", "Events that a worker stores at a time.", buckets=[10**power for power in range(7)]
)
STORE_SECONDS = Histogram(
    "modelmeter_store_seconds",
    "Time to store what was claimed.",
    buckets=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
)
LAG_SECONDS = Histogram(
    "modelmeter_lag_seconds",
    "Age of the oldest event of a claim when it became queryable.",
    buckets=[0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800],
)
LOOP_ERRORS = Counter("modelmeter_loop_errors", "Failed runs of a loop.", ["loop"])
COMPACTED_ROLLUPS = Counter("modelmeter_compacted_rollups", "Rollup partials folded by the compactor.")
COMPACTED_CHUNKS = Counter("modelmeter_compacted_chunks", "Small chunks joined by the compactor.")
PARTITIONS_DROPPED = Counter(
    "modelmeter_partitions_dropped", "Partitions dropped, over their retention.", ["resolution"]
)
EVENTS_WITHOUT_RAW = Counter(
    "modelmeter_events_without_raw", "Events stored in rollups only: their raw form is retired."
)
CORRECTIONS = Counter("modelmeter_corrections", "Corrections of stored events.", ["kind"])
CORRECTIONS_PENDING = Gauge(
    "modelmeter_corrections_pending", "Corrections recorded and not yet applied.", multiprocess_mode="mostrecent"
)
EVENTS_REMOVED = Counter("modelmeter_events_removed", "Stored events removed by corrections.")
ALERT_LINES_SUPPRESSED = Counter("modelmeter_alert_lines_suppressed", "ALERT lines over the limit.", ["rule"])
EVENT_NOTIFICATIONS_SUPPRESSED = Counter(
    "modelmeter_event_notifications_suppressed", "Events that fired and were not notified, over the limit.", ["rule"]
)
LIVE_LISTENERS = Gauge("modelmeter_live_listeners", "Pages that listen for what is new.", multiprocess_mode="livesum")
RULES = Gauge("modelmeter_rules", "Rules in use that are evaluated on intervals.", multiprocess_mode="mostrecent")
RULES_OK = Gauge(
    "modelmeter_rules_ok", "1 when the newest rules are in use, 0 when they were refused.", multiprocess_mode="livemin"
)
ALERTS = Gauge("modelmeter_alerts", "Alerts by state.", ["state"], multiprocess_mode="mostrecent")
ALERT_TRANSITIONS = Counter("modelmeter_alert_transitions", "Changes of an alert's state.", ["to"])
EVALUATIONS = Counter("modelmeter_evaluations", "Evaluations of rules.")
EVALUATION_FAILURES = Counter("modelmeter_evaluation_failures", "Evaluations that gave no result.")
EVALUATIONS_MISSED = Counter(
    "modelmeter_evaluations_missed", "Windows of groups that were not evaluated: too many had been missed."
)
EVALUATION_SECONDS = Histogram(
    "modelmeter_evaluation_seconds",
    "Time of a round: all groups that are due at one time.",
    buckets=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
)
EVALUATION_LAG_SECONDS = Gauge(
    "modelmeter_evaluation_lag_seconds", "How late the last round ended.", multiprocess_mode="mostrecent"
)
SAMPLES_RECORDED = Counter("modelmeter_samples_recorded", "Samples that recording rules have written.")
NOTIFICATIONS_SENT = Counter("modelmeter_notifications_sent", "Messages delivered, by kind of destination.", ["kind"])
NOTIFICATIONS_FAILED = Counter(
    "modelmeter_notifications_failed", "Attempts that failed, by kind of destination; most are tried again.", ["kind"]
)
NOTIFICATIONS_GIVEN_UP = Counter(
    "modelmeter_notifications_given_up", "Messages that were not delivered and never will be, by kind.", ["kind"]
)
NOTIFICATION_SECONDS = Histogram(
    "modelmeter_notification_seconds",
    "From the decision to tell until the message was delivered, by kind of destination.",
    ["kind"],
    buckets=[0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 21_600],
)
NOTIFICATIONS_PENDING = Gauge(
    "modelmeter_notifications_pending", "Messages that wait, by kind of destination.", ["kind"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
NOTIFICATIONS_WITHHELD = Counter(
    "modelmeter_notifications_withheld", "Alerts left out of a message: silenced, inhibited or muted.", ["why"]
)
NOTIFICATION_EVENTS_TRUNCATED = Counter(
    "modelmeter_notification_events_truncated", "Events that a message only counts, being over its limit."
)
NOTIFICATIONS_FILE_GOOD = Gauge(
    "modelmeter_notifications_file_good", "1: the notifications file as it stands is in use; 0: it is refused.",
    multiprocess_mode="mostrecent",
)  # fmt: skip
