"""Invariants 1 and 2: what is acknowledged is there, once, whatever was killed and whenever."""

import os
import time

from modelmeter.compactor import Compactor
from modelmeter.config import Config
from tests.acceptance.load import Load, Sent, audit
from tests.acceptance.yard import Process, Yard, ask, connect, free_port, is_ready, kill, partials, until

ROUNDS = int(os.environ.get("MODELMETER_TEST_ROUNDS", "16"))
DAY_MICROS = 86_400_000_000


def compact(conninfo: str) -> None:
    """Fold everything, the open minutes too."""
    compactor = Compactor(Config(database_url=conninfo, chunk_target_events=256))
    deadline = time.monotonic() + 60
    while compactor.run_once(time.time_ns() // 1000 + 2 * DAY_MICROS):
        assert time.monotonic() < deadline, "compaction does not come to an end"
    compactor.close()
    assert partials(conninfo, -2 * 1440) == 0


def wait_stored(conninfo: str) -> None:
    until(lambda: ask(conninfo, "SELECT count(*) FROM modelmeter.queue") == 0, "the queue is empty")
    assert ask(conninfo, "SELECT count(*) FROM modelmeter.dead_letter") == 0


def test_every_acknowledged_event_counts_once_though_everything_is_killed_at_random(yard: Yard) -> None:
    dice = yard.chance()
    port = free_port()
    settings = {"compact_interval_seconds": 0.3, "chunk_target_events": 256}
    serve = yard.serve(port, **settings)
    url = serve.url
    until(lambda: is_ready(url), "serve is ready")
    with Load([url], yard.seed) as load:
        killed: dict[str, int] = {}
        for number in range(ROUNDS):
            before = load.count
            until(lambda before=before: load.count > before, f"progress before round {number}: {load.statuses}")  # type: ignore[misc]
            time.sleep(dice.random() ** 2)  # the random moment
            victim = dice.choice(["api", "worker", "worker", "keeper", "postmaster", "backend", "backend"])
            if number % 10 == 7:
                victim = "serve"
            killed[victim] = killed.get(victim, 0) + 1
            serve = hurt(yard, serve, victim, dice.random(), port, settings)
        assert serve.code is None, serve.said
        events = load.finish()
    print(f"{len(events)} events, {load.requests} requests, {load.retries} retries, {load.statuses}, killed {killed}")
    until(lambda: is_ready(url), "serve is ready")
    until(lambda: ask(yard.conninfo, "SELECT count(*) FROM modelmeter.queue") == 0, "the queue is empty")
    assert ask(yard.conninfo, "SELECT count(*) FROM modelmeter.dead_letter") == 0
    audit(url, events, dice)
    until(lambda: partials(yard.conninfo, 1) == 0, "the keeper has compacted")
    audit(url, events, dice)


def hurt(yard: Yard, serve: Process, victim: str, chance: float, port: int, settings: dict[str, float]) -> Process:
    """Kill one; `serve` itself is started again at once, on the same port and data."""
    if victim == "serve":
        serve.kill()
        return yard.serve(port, **settings)
    if victim == "postmaster":
        found = [master] if (master := yard.postmaster()) else []
    elif victim == "backend":
        found = yard.backends()
    else:
        found = serve.children(victim)
    if found:
        kill(found[int(chance * len(found))])
    return serve


def test_four_workers_and_two_apis_on_one_queue_killed_at_random_count_every_event_once(
    yard: Yard, database_url: str
) -> None:
    dice = yard.chance()
    ports = [free_port(), free_port()]

    def start(role: str, number: int) -> Process:
        argv = [role, "--port", str(ports[number])] if role == "api" else [role]
        return yard.run(*argv, database_url=database_url)

    crew = {(role, number): start(role, number) for role, many in (("api", 2), ("worker", 4)) for number in range(many)}
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    for url in urls:
        until(lambda url=url: is_ready(url), "the API is ready")  # type: ignore[misc]
    with Load(urls, yard.seed) as load:
        for number in range(max(ROUNDS // 2, 1)):
            before = load.count
            until(lambda before=before: load.count > before, f"progress before round {number}: {load.statuses}")  # type: ignore[misc]
            time.sleep(dice.random() ** 2)
            if dice.random() < 0.25:
                cut_sessions(database_url)
                continue
            place = dice.choice([*crew])
            crew[place].kill()
            crew[place] = start(*place)
        for process in crew.values():
            assert process.code is None, process.said
        events = load.finish()
    print(f"{len(events)} events, {load.requests} requests, {load.retries} retries, {load.statuses}")
    wait_stored(database_url)
    for process in crew.values():
        if process.argv[0] == "worker":
            process.kill()
    until(lambda: is_ready(urls[0]), "the API is ready")
    audit(urls[0], events, dice)
    compact(database_url)
    audit(urls[0], events, dice)


def cut_sessions(conninfo: str) -> None:
    with connect(conninfo) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


BARRIER = 0x5151
BLOCK_COMMITS = f"""
    CREATE FUNCTION public.wait_at_the_barrier() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock_shared({BARRIER}); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER barrier AFTER INSERT ON modelmeter.chunk
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.wait_at_the_barrier();
"""
AT_THE_BARRIER = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'modelmeter worker' AND wait_event = 'advisory'
"""
CUT_WORKERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'modelmeter worker'"


def test_a_worker_killed_between_store_and_complete_stores_nothing_or_all_of_it(yard: Yard, database_url: str) -> None:
    """All is written and the worker is inside COMMIT when it dies; its session is cut there, or lives on without it."""
    dice = yard.chance()
    api = yard.run("api", "--port", "0", database_url=database_url)
    until(lambda: is_ready(api.url), "the API is ready")
    with connect(database_url) as connection, connect(database_url) as barrier:
        connection.execute(BLOCK_COMMITS.encode())
        events: list[Sent] = []
        for session_dies in (True, False):
            barrier.execute("SELECT pg_advisory_lock(%s)", (BARRIER,))
            with Load([api.url], dice.getrandbits(32), threads=2, first=len(events) + 1) as load:
                until(lambda load=load: load.requests > 5, "some load")  # type: ignore[misc]
                worker = yard.run("worker", database_url=database_url)
                until(lambda: ask(database_url, AT_THE_BARRIER) == 1, "the worker is inside COMMIT")
                worker.kill()
                if session_dies:
                    connection.execute(CUT_WORKERS)
                events += load.finish()
            barrier.execute("SELECT pg_advisory_unlock(%s)", (BARRIER,))
            worker = yard.run("worker", database_url=database_url)
            wait_stored(database_url)
            audit(api.url, events, dice, spans=2)
            worker.kill()


def test_a_batch_delivered_twice_to_two_workers_at_once_is_counted_once(yard: Yard, database_url: str) -> None:
    dice = yard.chance()
    api = yard.run("api", "--port", "0", database_url=database_url)
    until(lambda: is_ready(api.url), "the API is ready")
    with Load([api.url], yard.seed, threads=2) as load:
        until(lambda: load.requests > 20, "some load")
        events = load.finish()
    with connect(database_url) as connection, connect(database_url) as barrier:
        connection.execute(BLOCK_COMMITS.encode())
        barrier.execute("SELECT pg_advisory_lock(%s)", (BARRIER,))
        workers = [yard.run("worker", database_url=database_url)]
        until(lambda: ask(database_url, AT_THE_BARRIER) == 1, "the first worker has stored all and not committed")
        copied = connection.execute(  # the first worker's claim is not committed: its messages can still be seen
            "INSERT INTO modelmeter.queue (events, bytes, payload) SELECT events, bytes, payload FROM modelmeter.queue"
        ).rowcount
        assert copied > 0
        workers.append(yard.run("worker", database_url=database_url))
        waits_for_ledger = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'modelmeter worker' AND wait_event = 'transactionid'"
        )
        until(lambda: ask(database_url, waits_for_ledger) == 1, "the second waits for the first's ids in the ledger")
        barrier.execute("SELECT pg_advisory_unlock(%s)", (BARRIER,))
        wait_stored(database_url)
    audit(api.url, events, dice, spans=3)
    assert [worker.code for worker in workers] == [None, None]
