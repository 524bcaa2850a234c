"""Every setting, read once, in one place: a default, a unit and a help line each.

A setting comes from the command line or from `MODELMETER_<NAME>`. All errors are reported together,
and an unknown `MODELMETER_` name gets a «did you mean».
"""

import difflib
import glob
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelmeter.direction import split_patterns
from modelmeter.errors import WrongSetting

MEBIBYTE = 1024 * 1024


def default_data_dir() -> Path:
    """Where the embedded Postgres lives: /var/lib/modelmeter for root, else the user's data directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/modelmeter")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "modelmeter"


def read_units(text: str) -> dict[str, str]:
    """`inference_time=ms,cost=USD` to metric and unit. ValueError when it is not of that form."""
    found: dict[str, str] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        metric, equals, unit = (one.strip() for one in part.partition("="))
        if not (metric and equals and unit):
            raise ValueError(f"{part!r} is no metric and unit; write them like inference_time=ms,cost=USD")
        found[metric] = unit
    return found


class Config(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(env_prefix="MODELMETER_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on; 0 takes a free one.")
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Directory of the embedded Postgres; used when no database URL is given.",
    )
    database_url: str = Field(
        "", description="PostgreSQL 15 to 18, as postgresql://user:password@host/database. Empty: embedded."
    )
    queue: str = Field("postgres:", description="The queue's URL. postgres: is the same database.")
    rules: Path | None = Field(
        None,
        description="Rules file (YAML, Prometheus' format), a directory of such, or a pattern like rules/*.yml. "
        "Without one: prediction_accuracy < 0.3.",
    )
    notifications: Path | None = Field(
        None,
        description="Notifications file (YAML, Alertmanager's form): who is told of which alert, and how. "
        "Without one: ALERT lines.",
    )
    api_processes: int = Field(1, ge=1, le=64, description="API processes that `serve` starts.")
    worker_processes: int = Field(1, ge=1, le=64, description="Worker processes that `serve` starts.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of a worker's or keeper's own /healthz and /metrics; 0: none."
    )
    grace_seconds: float = Field(10, gt=0, description="After SIGTERM, how long work in hand may take.")
    log_level: str = Field("info", description="debug, info, warning or error.")

    body_limit_bytes: int = Field(32 * MEBIBYTE, ge=1024, description="Largest request body, packed or unpacked.")
    ingest_buffer_limit_bytes: int = Field(
        96 * MEBIBYTE, ge=1024, description="Bodies in hand at one API process; beyond it, 429."
    )
    stream_limit: int = Field(100_000, ge=1, description="Streams (sets of labels) in the database.")
    metric_limit: int = Field(10_000, ge=1, description="Different metric names in the database.")
    future_limit_seconds: int = Field(600, ge=0, description="How far ahead of now a timestamp may be.")
    queue_limit_bytes: int = Field(4096 * MEBIBYTE, ge=1024, description="Packed backlog in the queue; beyond it, 429.")
    freshness_seconds: float = Field(
        0.25, ge=0, description="How long a busy worker gathers before it stores: the larger, the cheaper an event."
    )
    claim_limit_events: int = Field(500_000, ge=1, description="Events that a worker takes at a time.")
    claim_limit_bytes: int = Field(64 * MEBIBYTE, ge=1024, description="Packed bytes that a worker takes at a time.")
    claim_limit_memory_bytes: int = Field(
        512 * MEBIBYTE,
        ge=16 * MEBIBYTE,
        description="Memory that a worker's claim may take unpacked, with all copies on its way to the database; "
        "it takes fewer events at a time where they have many metrics.",
    )
    minutely_rate: float = Field(
        20,
        ge=0,
        description="Events a second above which a stream gets rollups of a minute, not only of an hour; "
        "below it the raw events are as quick to read and much smaller.",
    )
    query_timeout_seconds: float = Field(120, gt=0, description="How long a PromQL query may take.")
    query_limit_samples: int = Field(
        50_000_000, ge=1, description="Raw samples, and series times steps, that a PromQL query may hold in memory."
    )
    query_limit_series: int = Field(100_000, ge=1, description="Series that a PromQL query may touch.")
    query_exact_limit_samples: int = Field(
        10_000, ge=0, description="Up to so many samples a quantile over time is exact; beyond, within 1.1 %."
    )
    higher_is_better: str = Field(
        "*accuracy*,*precision*,*recall*,f1,f1_*,*_f1,auc,*_auc,*score*,*reward*,*throughput*,bleu*,rouge*",
        description="Metrics of which more is better, with commas between; `*` stands for any letters.",
    )
    lower_is_better: str = Field(
        "*_time,*_time_*,*latency*,*duration*,*drift*,*error*,*loss,*cost*,*perplexity*,*toxicity*,*hallucination*,"
        "rmse,mae,mse",
        description="Metrics of which less is better. It goes before higher_is_better; a name goes before a pattern.",
    )
    baseline_limit: int = Field(1_000, ge=1, description="Baselines in the database.")
    stats_limit_groups: int = Field(10_000, ge=1, description="Groups (`by=`) in one answer of /stats.")
    stats_limit_points: int = Field(
        100_000, ge=1, description="Windows (`step=`), groups times windows, and bins times windows, in one answer."
    )
    stats_limit_rollups: int = Field(2_000_000, ge=1, description="Rollups that one answer of /stats may read.")
    stats_limit_samples: int = Field(
        10_000_000,
        ge=1,
        description="Raw samples that one answer may read: `where=`, `exact=true`, a `step` of no whole minutes.",
    )
    export_limit: int = Field(
        2, ge=1, le=6, description="Streams of raw events (GET /events) at a time in an API process; beyond it, 429."
    )
    chunk_target_events: int = Field(16_384, ge=64, description="Events that the compactor packs into a chunk.")
    compact_interval_seconds: float = Field(10, gt=0, description="How often the compactor runs.")
    ledger_days: int = Field(7, ge=1, description="How long an Idempotency-Key is remembered.")
    retention_raw: str = Field(
        "30d", description="How long raw events are kept: a duration of days at least, or forever."
    )
    retention_1m: str = Field("90d", description="The same for rollups of a minute; never shorter than the finer ones.")
    retention_1h: str = Field("2y", description="The same for rollups of an hour.")
    retention_1d: str = Field("forever", description="The same for rollups of a day.")
    retention_classes: str = Field(
        "",
        description="Streams with a retention of their own: a list in YAML or JSON, of name, match, raw, 1m, 1h, 1d.",
    )
    retention_history: str = Field("1y", description="How long the history of alerts is kept.")
    alert_lines_per_second: int = Field(
        20,
        ge=0,
        description="ALERT lines a second for each event rule, then one says how many more; and notifications.",
    )

    live_limit_listeners: int = Field(
        200, ge=0, description="Pages of the dashboard that one API process keeps fresh; beyond it, 429."
    )
    units: str = Field(
        "",
        description="What metrics are measured in, for the dashboard: inference_time=ms,cost=USD. "
        "Without it the name tells: latency_seconds.",
    )
    evaluation_interval_seconds: float = Field(
        15, ge=1, description="How often a group of rules is evaluated that says no interval of its own."
    )
    catch_up_limit_seconds: float = Field(
        3600, ge=0, description="How far back windows that no keeper has evaluated are made up for."
    )
    silence_horizon_seconds: float = Field(
        86_400, ge=60, description="no_data: alert means a series that had events within this time, and has none now."
    )
    no_data: Literal["keep", "alert", "ok"] = Field(
        "keep", description="What silence means for a rule that does not say: keep, alert or ok (as in Prometheus)."
    )
    rule_group_limit: int = Field(1000, ge=1, description="Groups of rules that may be made over HTTP.")
    external_url: str = Field(
        "", description="Where people reach modelmeter; for links in annotations and notifications."
    )

    notification_timeout_seconds: float = Field(
        15, gt=0, le=600, description="How long a destination may take to answer."
    )
    notification_give_up_seconds: float = Field(
        21_600, ge=1, description="How long a notification is tried before it is given up."
    )
    notification_limit_alerts: int = Field(
        1000, ge=1, le=10_000, description="Alerts in one message, and events that a group keeps for its next one."
    )
    notification_limit_pending: int = Field(
        10_000, ge=1, description="Messages that may wait for one destination; beyond it, they are given up at once."
    )
    notification_history_days: float = Field(
        30, gt=0, description="How long the history of messages, and silences that are over, are kept."
    )
    notification_history_limit: int = Field(1_000_000, ge=1, description="Lines of the history of messages.")
    silence_limit: int = Field(10_000, ge=1, description="Silences that are not over.")

    @field_validator("notifications")
    @classmethod
    def _file_exists(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @field_validator("units")
    @classmethod
    def _units_can_be_read(cls, value: str) -> str:
        read_units(value)
        return value

    @field_validator("rules")
    @classmethod
    def _rules_exist(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir() and not value.is_file() and not glob.has_magic(str(value)):
            raise ValueError(f"there is no file {value}")
        return value

    @field_validator("external_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")

    @field_validator("higher_is_better", "lower_is_better")
    @classmethod
    def _patterns(cls, value: str) -> str:
        split_patterns(value)
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.lower() not in {"debug", "info", "warning", "error"}:
            raise ValueError("must be debug, info, warning or error")
        return value.lower()


def read_config(**overrides: object) -> Config:
    """The settings from the environment, with those of the command line (not None) on top.

    WrongSetting names every wrong value and every unknown MODELMETER_ variable at once.
    """
    problems = []
    known = {f"MODELMETER_{name.upper()}" for name in Config.model_fields}
    for name in sorted(os.environ):
        if name.startswith("MODELMETER_") and not name.startswith("MODELMETER_TEST_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            problems.append(f"{name}: unknown setting" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        config = Config(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problems += [
            f"{item['loc'][0] if item['loc'] else 'setting'!s}: {item['msg'].removeprefix('Value error, ')} "
            f"(given: {str(item['input'])!r})"
            for item in error.errors()
        ]
    if problems:
        raise WrongSetting("\n".join(problems))
    return config
