"""The command line: `script/bench [NAME] [options]`. A new benchmark is a module and a line in BENCHMARKS."""

import argparse
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from bench import alerts, dashboard, ingest, lifecycle, memory, peers, query, queues, scale, stats
from bench.client import BenchError
from bench.report import Table, print_place, print_table, write_json


class Benchmark(Protocol):
    """What a benchmark's module has. `run` yields a table as soon as it is measured."""

    HELP: str

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> Iterator[Table]: ...


BENCHMARKS: dict[str, Benchmark] = {
    "ingest": ingest,
    "memory": memory,
    "stats": stats,
    "query": query,
    "peers": peers,
    "queues": queues,
    "alerts": alerts,
    "dashboard": dashboard,
    "lifecycle": lifecycle,
    "scale": scale,
}
ALONE = ("ingest", "memory", "stats", "query")
_DEFAULTS = {"seconds": 10.0, "streams": 12, "repeat": 1, "json": None, "markdown": False}


def main() -> int:
    words = sys.argv[1:]
    parser = _parser()
    options = parser.parse_args(words, argparse.Namespace(**_DEFAULTS))
    if options.benchmark:
        chosen = [(BENCHMARKS[options.benchmark], options)]
    else:
        chosen = [
            (BENCHMARKS[name], parser.parse_args([name, *words], argparse.Namespace(**_DEFAULTS))) for name in ALONE
        ]
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    tables: list[Table] = []
    failed = False
    try:
        for benchmark, its_options in chosen:
            try:
                for table in benchmark.run(its_options):
                    tables.append(table)
                    print_table(table, markdown=options.markdown)
                    failed = failed or bool(table.failures)
            except BenchError as error:
                print(f"bench: {error}", file=sys.stderr)
                failed = True
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        return 130
    finally:
        if tables:
            print_place(markdown=options.markdown)
            if options.json:
                write_json(options.json, tables)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    # SUPPRESS: a benchmark's parser must not put the defaults over what stands before its name.
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = shared.add_argument_group("for every benchmark")
    group.add_argument("--seconds", type=float, help="how long events are sent (default: 10)")
    group.add_argument("--streams", type=int, help="streams, name times version (default: 12)")
    group.add_argument("--repeat", type=int, help="runs, of which the median is kept (default: 1)")
    group.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there, too")
    group.add_argument("--markdown", action="store_true", help="print Markdown, for docs/benchmarks.md")
    parser = argparse.ArgumentParser(
        prog="script/bench",
        parents=[shared],
        description=f"Measures modelmeter. No name: {', '.join(ALONE)}.",
    )
    names = parser.add_subparsers(dest="benchmark", metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        benchmark.add_options(names.add_parser(name, parents=[shared], help=benchmark.HELP))
    return parser


def _stop(*_: object) -> None:
    """Ends what was started; a second signal must not interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
