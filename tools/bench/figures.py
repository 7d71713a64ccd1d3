"""What was counted, and what follows from it: medians, ratios, the result file and its last line. Nothing runs here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

SCHEMA = 1
THIS, STOCK, BEFORE = "this", "stock", "before"
# This tree with the weeks alone that the former one has, in one run: what the former one's site is held against.
SHARED = "this_shared_weeks"
SITE, HOSTS = "site", "hosts"
NOT_MEASURED = "not_measured"
SHOWN_TASKS = 5


@dataclass(frozen=True)
class Counts:
    """What one run did. Task runs were run, task skips only had their condition worked out, for one host each."""

    task_headers: int
    task_runs: int
    task_skips: int
    module_starts: int
    module_starts_local: int
    ssh_calls: int
    changed: int


@dataclass(frozen=True)
class Run:
    """One run; seconds of the controller's processor are those of ansible-playbook and all that it started."""

    started_at: str
    wall_s: float
    cpu_s: float
    load_before: tuple[float, float, float]
    load_after: tuple[float, float, float]
    counts: Counts

    def figures(self) -> dict[str, float]:
        """All that a median can be taken of."""
        return {"wall_s": self.wall_s, "cpu_s": self.cpu_s, **asdict(self.counts)}

    def written(self) -> dict[str, Any]:
        """The run as the result file has it."""
        load = {"load_before": list(self.load_before), "load_after": list(self.load_after)}
        return {"started_at": self.started_at, **self.figures(), **load}


@dataclass(frozen=True)
class Measured:
    """Runs of one playbook on one side."""

    runs: tuple[Run, ...]

    def median(self) -> dict[str, float]:
        """Each figure's median by itself."""
        return medians([run.figures() for run in self.runs])

    def written(self) -> dict[str, Any]:
        """As the result file has it."""
        return {"status": "measured", "median": self.median(), "runs": [run.written() for run in self.runs]}


@dataclass(frozen=True)
class NotMeasured:
    """Why there is no figure; `failed` tells what went wrong from what was left out."""

    reason: str
    failed: bool = False

    def written(self) -> dict[str, Any]:
        """As the result file has it."""
        return {"status": NOT_MEASURED, "reason": self.reason}


Cell = Measured | NotMeasured


def read_counts(counts: str, modules: bytes, ssh: bytes) -> tuple[Counts, list[str]]:
    """Counts of a run and the tasks that changed something.

    Args:
        counts: What the callback wrote, as JSON.
        modules: One byte for each module that was started: h on a host, l on the controller.
        ssh: One byte for each call of an SSH program.

    Raises:
        ValueError: A count is missing or is none.
    """
    told = json.loads(counts)
    found = {
        "module_starts": modules.count(b"h"),
        "module_starts_local": modules.count(b"l"),
        "ssh_calls": len(ssh),
    }
    names = [field.name for field in fields(Counts)]
    for name in names:
        if name not in found:
            if not isinstance(told.get(name), int):
                raise ValueError(f"the run's counts have no {name}")
            found[name] = told[name]
    return Counts(**{name: found[name] for name in names}), [str(task) for task in told.get("changed_tasks", [])]


def changed_reason(count: int, tasks: Sequence[str]) -> str:
    """What is said of a run that should have changed nothing and did."""
    shown = "; ".join(tasks[:SHOWN_TASKS])
    more = f"; and {count - SHOWN_TASKS} more" if count > SHOWN_TASKS else ""
    return f"a run that should change nothing changed {count}: {shown}{more}"


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure that the rows have."""
    return {name: round(median(row[name] for row in rows), 3) for name in rows[0]}


def ratios(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float | None]:
    """Ours divided by theirs, for each figure; None where theirs is nothing."""
    return {name: round(value / theirs[name], 4) if theirs[name] else None for name, value in ours.items()}


def compared(cells: Mapping[str, Cell]) -> dict[str, Any]:
    """This tree's medians divided by each other side's; by the former one's those of the weeks that it has, too."""
    found: dict[str, Any] = {}
    for side, cell in cells.items():
        if side in (THIS, SHARED):
            continue
        ours = cells.get(SHARED, cells[THIS]) if side == BEFORE else cells[THIS]
        missing = next((one for one in (ours, cell) if isinstance(one, NotMeasured)), None)
        if missing is not None:
            found[side] = missing.written()
        elif isinstance(ours, Measured) and isinstance(cell, Measured):
            found[side] = {"status": "measured", **ratios(ours.median(), cell.median())}
    return found


def shares(seconds: Mapping[int, float]) -> dict[int, float]:
    """What an added host costs, as a share of the first, for each number of hosts but the first.

    Args:
        seconds: Wall seconds by number of hosts, that of one host among them.
    """
    first = seconds[1]
    return {count: round((value - first) / (count - 1) / first, 4) for count, value in seconds.items() if count > 1}


def growth(cells: Mapping[int, Cell]) -> dict[str, Any]:
    """Time by number of light hosts, and the share of an added one where it can be told."""
    seconds = {count: cell.median()["wall_s"] for count, cell in cells.items() if isinstance(cell, Measured)}
    written: dict[str, Any] = {
        "seconds": {str(count): cell.written() for count, cell in cells.items()},
        "share_of_first": {str(count): value for count, value in (shares(seconds) if 1 in seconds else {}).items()},
    }
    for count, cell in cells.items():
        if count > 1 and str(count) not in written["share_of_first"]:
            missing = cell if isinstance(cell, NotMeasured) else cells[1]
            written["share_of_first"][str(count)] = missing.written()
    return written


def document(
    targets: Mapping[str, Mapping[str, Cell]], edge: Mapping[int, Cell], first_run: Cell, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The result file.

    Args:
        targets: For each playbook (site, week1, ...) what each side gave.
        edge: What each number of light hosts gave.
        first_run: What the run took that deployed to the most of them.
        about: Commit, date, machine and what was asked for.
    """
    return {
        "schema": SCHEMA,
        **about,
        "targets": {
            name: {side: cell.written() for side, cell in cells.items()} | {"ratios": compared(cells)}
            for name, cells in targets.items()
        },
        "edge": growth(edge) | {"first_run": first_run.written()},
    }


def last_line(targets: Mapping[str, Mapping[str, Cell]]) -> str:
    """The three figures of the whole site that the bench is asked for; the first is of the weeks that both have."""
    cells = targets[SITE]
    ratio = {side: found.get("wall_s", NOT_MEASURED) for side, found in compared(cells).items()}
    ours = cells[THIS]
    seconds = f"{ours.median()['wall_s']:.1f}" if isinstance(ours, Measured) else NOT_MEASURED
    return " ".join(
        [*(f"ratio_noop_vs_{side}={_short(ratio[side])}" for side in (BEFORE, STOCK)), f"seconds_noop={seconds}"]
    )


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else NOT_MEASURED


def turns[Name](sides: Sequence[Name], count: int) -> list[list[Name]]:
    """Which side runs when: each round begins with another, so that none always has the quiet moment."""
    return [[*sides[turn % len(sides) :], *sides[: turn % len(sides)]] for turn in range(count)]


def failures(targets: Mapping[str, Mapping[str, Cell]], edge: Mapping[int, Cell]) -> list[str]:
    """What went wrong, a line each; what was left out is not among it."""
    named = {f"{name}, {side}": cell for name, cells in targets.items() for side, cell in cells.items()}
    named |= {f"{count} light hosts": cell for count, cell in edge.items()}
    return [f"{name}: {cell.reason}" for name, cell in named.items() if isinstance(cell, NotMeasured) and cell.failed]
