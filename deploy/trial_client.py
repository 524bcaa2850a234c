"""Runs in the cluster, for deploy/trial.py: posts events until it is told to stop, then counts what the server has.

Every parcel has an Idempotency-Key and is sent until it is acknowledged; every tenth is sent once more afterwards.
So `counted` must be `acknowledged`, whatever happens to the server meanwhile. `outcomes` is how each try ended.
"""

import collections
import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path

import httpx

URL, MODEL = os.environ["STATS_API_URL"], os.environ["MODEL"]
STOP = Path("/tmp/stop")  # noqa: S108  the pod's own
THREADS, EVENTS, PAUSE_SECONDS, PATIENCE_SECONDS = 6, 20, 0.03, 120

lock = threading.Lock()
outcomes: collections.Counter[str] = collections.Counter()
times: dict[str, list[float]] = {}
acknowledged = 0
longest = 0.0
began = time.monotonic()


def note(outcome: str) -> None:
    with lock:
        outcomes[outcome] += 1
        if outcome != "202":
            times.setdefault(outcome, []).append(round(time.monotonic() - began, 1))


def attempt(client: httpx.Client, body: list[dict[str, object]], key: str) -> bool:
    try:
        answer = client.post(f"{URL}/events", json=body, headers={"Idempotency-Key": key})
    except httpx.RequestError as error:
        note(f"{type(error).__name__}: {error}"[:80])
        return False
    note(str(answer.status_code))
    if answer.status_code not in {202, 429, 502, 503, 504}:
        raise SystemExit(f"{answer.status_code}: {answer.text}")
    return answer.status_code == httpx.codes.ACCEPTED


def send(number: int) -> None:
    global acknowledged, longest  # noqa: PLW0603
    with httpx.Client(timeout=10) as client:
        parcels = 0
        while not STOP.exists():
            body = [
                {"name": MODEL, "version": "v1", "sender": f"s{number}", "prediction_accuracy": 0.5, "drift": index}
                for index in range(EVENTS)
            ]
            key, started = str(uuid.uuid4()), time.monotonic()
            while not attempt(client, body, key):
                if time.monotonic() - started > PATIENCE_SECONDS:
                    raise SystemExit("not acknowledged in time")
                time.sleep(0.1)
            with lock:
                acknowledged += EVENTS
                longest = max(longest, time.monotonic() - started)
            parcels += 1
            if parcels % 10 == 0:
                attempt(client, body, key)
            time.sleep(PAUSE_SECONDS)


def count() -> int:
    """The events that the server has of this model, once it has as many as were acknowledged, or after a minute."""
    found, deadline = 0, time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{URL}/stats/{MODEL}/v1", params={"start": "-6h"}, timeout=10)
            found = answer.json()["events"] if answer.status_code == httpx.codes.OK else 0
        except httpx.RequestError:
            found = 0
        if found >= acknowledged:
            break
        time.sleep(0.5)
    time.sleep(3)  # what comes twice comes late
    return int(httpx.get(f"{URL}/stats/{MODEL}/v1", params={"start": "-6h"}, timeout=10).json()["events"])


threads = [threading.Thread(target=send, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
print("sending", file=sys.stderr, flush=True)
for thread in threads:
    thread.join()
print(
    json.dumps(
        {
            "acknowledged": acknowledged,
            "counted": count(),
            "outcomes": outcomes,
            "seconds": round(time.monotonic() - began, 1),
            "longest_seconds": round(longest, 2),
            "at": {outcome: [min(found), max(found)] for outcome, found in times.items()},
        }
    ),
    flush=True,
)
