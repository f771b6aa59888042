"""`make bench`: measures, prints, judges; a whole run writes its figures into docs/performance.md.

    make bench                                   everything, about ten minutes
    make bench ARGS=--quick                      embedded stores, 32 connections, under two minutes
    make bench ARGS="--only refresh --connections 32 --quick"
    make bench ARGS="--sign-ins 200"             only the times of refused sign-ins
    make bench ARGS=--growth                     with few and many users, families, clients, roles
    make bench-peers                             ours and servers of others

Exit code 1: a target was missed, and is named.
"""

import argparse
import json
import os
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import report, targets
from benchmarks.about import about
from benchmarks.plans import PATHS
from benchmarks.rounds import Bench, Ended, Selection, refused_sign_ins
from benchmarks.tables import CELL_HEAD, cell_rows, columns, grouped

QUICK = {"stores": ("embedded",), "connections": (32,), "rounds": 2, "seconds": 0.8, "sign_ins": 60}
# What is compared differs by less than three samples do.
GROWTH = {"rounds": 7, "seconds": 0.8}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="embedded stores, 32 connections, fewer and shorter samples"
    )
    parser.add_argument("--only", nargs="+", metavar="PATH", choices=PATHS, help=", ".join(PATHS))
    parser.add_argument("--stores", nargs="+", choices=("embedded", "postgresql"))
    parser.add_argument("--alg", nargs="+", dest="algs", choices=("RS256", "ES256", "PS256", "EdDSA"))
    parser.add_argument("--connections", nargs="+", type=int, metavar="N")
    parser.add_argument("--rounds", type=int, metavar="N", help="samples of each cell")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of each sample")
    parser.add_argument("--workers", type=int, metavar="N", default=os.cpu_count() or 1)
    parser.add_argument(
        "--sign-ins", type=int, metavar="N", help="only N refused sign-ins of each kind, and their time"
    )
    parser.add_argument("--growth", action="store_true", help="how cost grows; about seven minutes")
    parser.add_argument("--people", nargs="+", type=int, metavar="N", help="users in each, for --growth")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="servers of others, from this environment")
    parser.add_argument("--json", action="store_true", help="figures as JSON on standard output")
    parser.add_argument("--no-report", action="store_true", help="leave docs/performance.md as it is")
    return parser.parse_args()


def selection(given: argparse.Namespace) -> Selection:
    chosen: dict[str, Any] = dict(QUICK) if given.quick else dict(GROWTH) if given.growth else {}
    if given.only:
        chosen |= {"paths": tuple(given.only), "sign_ins": 0, "starts": 1}
    for name in ("stores", "algs", "connections", "people"):
        if getattr(given, name):
            chosen[name] = tuple(getattr(given, name))
    for name in ("rounds", "seconds"):
        if getattr(given, name):
            chosen[name] = getattr(given, name)
    return Selection(workers=given.workers, **chosen)


def show(results: dict[str, Any]) -> None:
    for (stores, alg), cells in grouped(results["cells"]).items():
        print(f"\n{stores}, {alg}")
        print(columns(CELL_HEAD, cell_rows(cells)))
    print(f"\nR = {results['about']['r_ms']:.3f} ms CPU for one RSA-2048 signature")
    for each in results["verifier"]:
        figures = ", ".join(f"{name} {each[f'{name}_us']:.0f} µs" for name in ("cold", "warm", "again"))
        print(f"verifier alone, {each['alg']}: {figures}")
    for each in results["memory"]:
        print(
            f"memory, {each['stores']}: {each['after_mb']:.0f} MB PSS, with stores "
            f"{each['after_with_stores_mb']:.0f}; at rest {each['at_rest_mb']:.0f} and "
            f"{each['at_rest_with_stores_mb']:.0f}"
        )
    for each in results["starts"]:
        print(f"start, {each['stores']}: the first {each['first_s']:.1f} s" + second(each["second_s"]))
    if results["sign_ins"]:
        show_sign_ins(results["sign_ins"])


def second(seconds: float | None) -> str:
    return "" if seconds is None else f", the second {seconds:.1f} s"


def show_sign_ins(found: dict[str, Any]) -> None:
    for kind, each in found["kinds"].items():
        print(f"sign-in, {kind}: {each['median_ms']:.1f} ms, p {each['p']:.2f} against a wrong password")
    print(f"their medians are {found['apart_percent']:.1f} % apart")


def judge(verdicts: list[targets.Verdict]) -> int:
    missed = [each for each in verdicts if not each.holds]
    for each in missed:
        print(f"MISSED  {each}", file=sys.stderr)
    return 1 if missed else 0


def run(given: argparse.Namespace, chosen: Selection) -> tuple[str, dict[str, Any], list[targets.Verdict]]:
    """The kind of the run, its results and what they mean."""
    if given.growth:
        from benchmarks.growth import measured

        results = measured(chosen)
        return "growth", results, targets.of_growth(results)
    if given.peers:
        from benchmarks.peers.comparison import compare

        results = compare(chosen, given.peers.absolute())
        return "peers", results, targets.of_peers(results)
    results = Bench(chosen).run()
    return "paths", results, targets.of_paths(results)


def end(*_: object) -> None:
    raise Ended


def main() -> int:
    # Ended from outside, it tells what it knows, and ends what it has started.
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    given = options()
    if given.sign_ins:
        found = refused_sign_ins(given.sign_ins, given.workers)
        print(json.dumps({"sign_ins": found})) if given.json else show_sign_ins(found)
        return 0
    chosen = selection(given)
    kind, results, verdicts = run(given, chosen)
    r_ms = statistics.median(results.pop("r_ms"))
    conditions = {"workers": chosen.workers, "rounds": chosen.rounds, "seconds": chosen.seconds, "r_ms": r_ms}
    results["about"] = about() | conditions
    if given.json:
        print(json.dumps(results))
    elif kind == "paths":
        show(results)
    else:
        print(report.SECTIONS[kind](results)[0])
    if not (given.no_report or given.quick or given.only):
        report.write(kind, results)
    return judge(verdicts)


if __name__ == "__main__":
    sys.exit(main())
