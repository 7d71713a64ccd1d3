"""Times no-change runs against the lab and writes benchmarks/bench.json and bench.svg. See docs/bench.md."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from bench import light_hosts
from bench.figures import BEFORE, HOSTS, STOCK, document, failures, last_line
from bench.plot import drawn
from bench.runs import RunFailedError, adopt_orphans
from bench.session import ROOT, Bench, Options, about, say, this_side
from bench.sides import SideError

RESULT = ROOT / "benchmarks/bench.json"
PLOT = ROOT / "benchmarks/bench.svg"
HEALTHY, FAILED, COULD_NOT_RUN = 0, 1, 2


def parse(arguments: Sequence[str], playbooks: Sequence[str]) -> Options:
    """Options from the command line; ends the program, with what is allowed, where they are wrong.

    Args:
        arguments: The words after the program's name.
        playbooks: What this tree has: site and its weeks.
    """
    allowed = {"only": [*playbooks, HOSTS], "skip": [BEFORE, STOCK, HOSTS]}
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, help="runs of each playbook on each side (default: 3, with --quick 1)")
    parser.add_argument("--only", default="", metavar="A,B", help=f"some of: {', '.join(allowed['only'])}")
    parser.add_argument("--skip", default="", metavar="A,B", help=f"some of: {', '.join(allowed['skip'])}")
    parser.add_argument("--quick", action="store_true", help="one run, without the former tree, 1 and 4 light hosts")
    given = parser.parse_args(arguments)
    runs = given.runs if given.runs is not None else 1 if given.quick else 3
    if runs < 1:
        parser.error(f"--runs {runs}: takes a number from 1 on")
    words = {name: [word for word in getattr(given, name).split(",") if word] for name in allowed}
    for name, asked in words.items():
        for word in asked:
            if word not in allowed[name]:
                parser.error(f"--{name} {word}: takes {', '.join(allowed[name])}, joined by commas")
    only = words["only"]
    not_only = f"left out by --only {given.only}"
    skipped = {name: f"left out by --skip {name}" for name in words["skip"]}
    if given.quick:
        skipped.setdefault(BEFORE, "left out by --quick")
    if only and HOSTS not in only:
        skipped.setdefault(HOSTS, not_only)
    return Options(
        runs=runs,
        targets=tuple(name for name in playbooks if not only or name in only),
        left_out={name: not_only for name in playbooks if only and name not in only},
        skipped=skipped,
        sizes=light_hosts.SIZES[:2] if given.quick else light_hosts.SIZES,
    )


def stop(_number: int, _frame: FrameType | None) -> None:
    """Lets a bench that is asked to end take its light hosts away first, however often it is asked."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Measure, write, and say how it went."""
    options = parse(arguments, this_side().playbooks)
    if not (ROOT / "inventory/lab/state/known_hosts").is_file():
        print("bench: the lab is not there: make lab", file=sys.stderr)
        return COULD_NOT_RUN
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        adopt_orphans()
        origin = about(options, list(arguments))
    except (OSError, SideError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    bench = Bench(options)
    interrupted = False
    try:
        bench.measure()
    except KeyboardInterrupt:
        interrupted = True
    except RunFailedError as error:
        say(str(error))
    result = document(bench.targets, bench.edge, bench.first_run, origin)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    PLOT.write_text(drawn(result), encoding="utf-8")
    say(f"{RESULT.relative_to(ROOT)} and {PLOT.relative_to(ROOT)} are written")
    failed = failures(bench.targets, bench.edge)
    for line in failed:
        say(f"not measured: {line}")
    print(last_line(bench.targets))
    return COULD_NOT_RUN if interrupted else FAILED if failed else HEALTHY


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
