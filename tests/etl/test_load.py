import gzip
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelmeter.errors import WrongSetting
from modelmeter.etl.load import Load, Options, SourceChanged, parse_renames, prepare, send
from modelmeter.etl.sender import Sender, SenderPool, SendRefused, Tally
from tests.etl.stub import Fault, Stub

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def table(rows: int = 1_000) -> pl.DataFrame:
    random = np.random.default_rng(1)
    return pl.DataFrame(
        {
            "timestamp": [NOON + timedelta(seconds=row) for row in range(rows)],
            "name": random.choice(["Mistral", "Llama"], rows),
            "version": pl.Series(["v1"] * rows, dtype=pl.String),
            "serial": np.arange(rows, dtype=np.float64),
            "drift": random.random(rows),
        },
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    )


def run(stub: Stub, *loads: Load) -> Tally:
    tally = Tally()
    with Sender(stub.url, first_wait_seconds=0.001) as sender, SenderPool(sender) as pool:
        send(loads, pool, tally, lambda _: None)
    return tally


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    path = tmp_path / "run.parquet"
    table().write_parquet(path)
    return path


@pytest.mark.parametrize("name", ["run.csv", "run.csv.gz", "run.tsv", "run.parquet", "run.ndjson", "run.jsonl.gz"])
def test_every_kind_of_file_arrives_as_it_is(stub: Stub, tmp_path: Path, name: str) -> None:
    plain = tmp_path / name.removesuffix(".gz")
    kind = plain.suffix
    if kind == ".parquet":
        table().write_parquet(plain)
    elif kind in {".csv", ".tsv"}:
        table().write_csv(plain, separator="," if kind == ".csv" else "\t")
    else:
        table().write_ndjson(plain)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    tally = run(stub, prepare(tmp_path / name, Options(slice_events=300)))
    assert (tally.accepted, tally.rejected, tally.parcels) == (1_000, 0, 4)
    assert stub.events.equals(table())
    assert {request["Content-Type"] for request in stub.requests} == {"application/vnd.apache.arrow.stream"}


@pytest.mark.parametrize("name", ["a[1].csv", "a[1].parquet", "a*.ndjson"])
def test_a_files_name_is_no_pattern(stub: Stub, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        table(3).write_parquet(path)
    elif name.endswith("csv"):
        table(3).write_csv(path)
    else:
        table(3).write_ndjson(path)
        table(3).write_ndjson(tmp_path / "ab.ndjson")
    assert run(stub, prepare(path, Options())).accepted == 3


def test_a_load_that_broke_off_is_run_again_and_counts_once(stub: Stub, parquet: Path) -> None:
    stub.on_request = lambda number: Fault(400, body={"detail": "no more"}) if number > 6 else None
    with pytest.raises(SendRefused):
        run(stub, prepare(parquet, Options(slice_events=100)))
    assert 0 < stub.events.height < 1_000
    stub.on_request = lambda number: Fault(0, is_counted=True) if number % 3 == 0 else None
    tally = run(stub, prepare(parquet, Options(slice_events=100)))
    assert tally.accepted == 1_000
    assert sorted(stub.events["serial"].to_list()) == list(range(1_000))


def test_a_file_is_known_by_its_content_not_by_its_place_or_time(parquet: Path, tmp_path: Path) -> None:
    key = prepare(parquet, Options()).key
    copy = tmp_path / "sub" / "other.pq"
    copy.parent.mkdir()
    copy.write_bytes(parquet.read_bytes())
    os.utime(copy, (1, 1))
    assert prepare(copy, Options()).key == key
    table(999).write_parquet(parquet)
    assert prepare(parquet, Options()).key != key


def test_what_decides_which_rows_a_slice_holds_is_part_of_the_key(parquet: Path) -> None:
    options = [
        Options(),
        Options(slice_events=500),
        Options(sql="select * from data"),
        Options(renames={"drift": "psi"}),
        Options(renames={"serial": "psi"}),
    ]
    assert len({prepare(parquet, option).key for option in options}) == len(options)


def test_without_timestamps_a_file_written_anew_is_another_report(tmp_path: Path) -> None:
    path = write(tmp_path / "hourly.csv", "name,version,drift\nm,v1,0.1\n")
    keys = []
    for second in (1, 1, 2):
        os.utime(path, (second, second))
        keys.append(prepare(path, Options()).key)
    assert keys[0] == keys[1] != keys[2]


def test_columns_are_mapped_and_a_version_stays_as_written(stub: Stub, tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "model,build,when,acc,ok,env\nm,1.10,2026-01-31 12:00,0.5,true,prod\nm,1.9,,,,\n")
    renames = parse_renames(["model=name", "build=version", "when=timestamp", "acc=prediction_accuracy"])
    run(stub, prepare(path, Options(renames)))
    assert stub.events.to_dict(as_series=False) == {
        "name": ["m", "m"],
        "version": ["1.10", "1.9"],
        "timestamp": [NOON, None],
        "prediction_accuracy": [0.5, None],
        "ok": [1.0, None],
        "env": ["prod", None],
    }


def test_a_version_that_is_mapped_away_is_a_number_again(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "name,version,tag\nm,1,a\n")
    schema = prepare(path, Options({"version": "build", "tag": "version"})).schema
    assert schema == {"name": pl.String, "build": pl.Float64, "version": pl.String}


def test_a_number_far_down_a_csv_that_is_none_makes_the_column_text_from_the_start(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "name,version,x,y\n" + "m,v,1,1\n" * 50_000 + "m,v,n/a,1\n")
    assert prepare(path, Options()).schema["x"] == pl.String


def test_sql_selects_and_computes(stub: Stub, parquet: Path) -> None:
    sql = "select name, version, timestamp, drift * 2 as twice from data where serial < 10"
    assert run(stub, prepare(parquet, Options(sql=sql))).accepted == 10
    assert stub.events["twice"].to_list() == (table(1_000)["drift"].head(10) * 2).to_list()


def test_sql_that_groups_gives_the_same_slices_in_every_run(stub: Stub, parquet: Path) -> None:
    sql = "select name, version, serial, max(drift) as drift from data group by name, version, serial"
    for _ in range(4):
        assert run(stub, prepare(parquet, Options(sql=sql, slice_events=100))).accepted == 1_000
    assert len(stub.requests) == 40
    assert sorted(stub.events["serial"].to_list()) == list(range(1_000))
    kept = dict(stub.batches)
    stub.batches.clear()
    run(stub, prepare(parquet, Options(sql=sql, slice_events=100)))
    assert all(stub.batches[key].equals(batch) for key, batch in kept.items())


def test_ndjson_keeps_a_field_that_comes_late_and_skips_empty_lines(stub: Stub, tmp_path: Path) -> None:
    line = '{"name":"m","version":1,"x":1}\n'
    path = write(tmp_path / "f.ndjson", line * 2_000 + "\n" + '{"name":"m","version":"b","x":2.5,"env":"prod"}\n')
    assert run(stub, prepare(path, Options())).accepted == 2_001
    assert stub.events.row(-1, named=True) == {"name": "m", "version": "b", "x": 2.5, "env": "prod"}
    assert stub.events["version"].unique().sort().to_list() == ["1", "b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"name":"m","version":"v","x":"n/a"}',
            "'x' is a number in line 1 and text in line 3; a field must",
        ),
        ('{"name":"m","version":"v","x":true}', "a boolean in line 3"),
        ('{"name":"m","version":"v","x":{"a":1}}', "line 3: 'x' is nested"),
        ('{"name":"m","version":"v",', "line 3: is no JSON"),
        ("[1]", "line 3: is no JSON object"),
    ],
)
def test_ndjson_that_would_be_bent_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "f.ndjson", '{"name":"m","version":"v","x":1}\n' * 2 + line + "\n")
    with pytest.raises(WrongSetting, match=message):
        prepare(path, Options())


def test_nested_ndjson_loads_when_sql_names_the_columns(stub: Stub, tmp_path: Path) -> None:
    path = write(tmp_path / "f.ndjson", '{"name":"m","version":"v","x":1,"raw":{"a":[1]}}\n')
    assert run(stub, prepare(path, Options(sql="select name, version, x from data"))).accepted == 1


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("f.txt", b"x", Options(), "unknown kind of file"),
        ("f.parquet.gz", b"x", Options(), "unknown kind of file"),
        ("f.parquet", b"x", Options(), "cannot be read as parquet"),
        ("f.csv", b"", Options(), "empty"),
        ("f.csv", b"name,version,x\nm,v,1,2,3\n", Options(), "cannot be read as csv"),
        (
            "f.csv",
            b"name,version,x\n" + b"m,v,1\n" * 50_000 + b"m,v,1,2\n",
            Options(),
            "cannot be read as csv",
        ),
        ("f.csv", b"name,version,x\n\xff\xfe,v,1\n", Options(), "utf-8"),
        (
            "f.csv.gz",
            gzip.compress(b"name,version,x\n" + b"m,v,1\n" * 999)[:-20],
            Options(),
            "cannot be read as csv",
        ),
        ("f.ndjson.gz", gzip.compress(b'{"name":"m"}\n' * 999)[:-9], Options(), "cannot be read as ndjson"),
        ("f.ndjson.gz", b"plain", Options(), "cannot be read as ndjson"),
        ("f.csv", b"nam,version,x\nm,v,1\n", Options(), "--map nam=name"),
        ("f.csv", b"name,version,x\nm,v,1\n", Options(sql="selec"), "sql"),
        ("f.csv", b"name,version,x\nm,v,1\n", Options(sql="select y from data"), '"y"'),
        ("f.csv", b"name,version,x\nm,v,1\n", Options(sql="select * from dta"), "dta"),
        (
            "f.csv",
            b"name,version,x\nm,v,q\n",
            Options(sql="select cast(x as int) x, name, version from data"),
            "q",
        ),
    ],
)
def test_a_file_that_cannot_be_loaded_whole_is_refused_before(
    tmp_path: Path, name: str, content: bytes, options: Options, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WrongSetting, match=message):
        prepare(path, options)


def test_refused_events_are_told_by_their_row_in_the_file(stub: Stub, tmp_path: Path) -> None:
    lines = [f"m,v1,{number},2026-01-31" for number in range(10)]
    lines[3], lines[7] = "m,v1,3,soon", ",v1,7,2026-01-31"
    path = write(tmp_path / "f.csv", "name,version,x,timestamp\n" + "\n".join(lines))
    tally = run(stub, prepare(path, Options(slice_events=6)))
    assert (tally.accepted, tally.rejected) == (8, 2)
    assert [example.partition(": ")[0] for example in sorted(tally.examples)] == [
        f"{path}, row 4",
        f"{path}, row 8",
    ]
    assert "'soon'" in min(tally.examples)


def test_a_slice_in_which_no_row_can_be_sent_is_counted_all_the_same(stub: Stub, tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "name,version,x,timestamp\nm,v,1,soon\nm,v,1,later\n")
    tally = run(stub, prepare(path, Options()))
    assert (tally.accepted, tally.rejected, tally.parcels, stub.requests) == (0, 2, 1, [])


def test_a_file_that_changes_while_it_is_loaded_stops_the_load(stub: Stub, parquet: Path) -> None:
    load = prepare(parquet, Options())
    os.utime(parquet, (1, 1))
    with pytest.raises(SourceChanged, match="was changed"):
        run(stub, load)
    assert not stub.requests


def test_a_wide_file_goes_in_smaller_slices(tmp_path: Path) -> None:
    path = tmp_path / "wide.parquet"
    wide = {f"m{column}": [0.5] * 10 for column in range(998)}
    pl.DataFrame({"name": ["m"] * 10, "version": ["v"] * 10, **wide}).write_parquet(path)
    assert prepare(path, Options()).slice_rows == 500


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_a_file_without_rows_is_no_event_and_no_error(stub: Stub, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        table(0).write_csv(path)
    else:
        table(0).write_parquet(path)
    load = prepare(path, Options())
    assert (load.rows, load.slices, run(stub, load).accepted) == (0, 0, 0)


@pytest.mark.parametrize("pair", ["model", "=name", "model="])
def test_a_map_of_another_form_is_refused(pair: str) -> None:
    with pytest.raises(WrongSetting, match="write it as column=field"):
        parse_renames([pair])


def test_a_column_mapped_twice_is_refused() -> None:
    with pytest.raises(WrongSetting, match="mapped twice"):
        parse_renames(["a=b", "a=c"])
