"""How long a run will still take, by former runs of the same: those that went like this one so far.

Nothing is computed from figures that nobody measured: without a former run there is no forecast.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ai_idp.errors import from_json, printable

KEPT_RECORDS = 6


@dataclass(frozen=True)
class Record:
    """A run that ended well: how long it took, and when each step first began (both in seconds since its begin)."""

    what: str
    seconds: float
    steps: Mapping[str, float]


@dataclass(frozen=True)
class Left:
    """A forecast: so many seconds, as a former run (`what`) needed them from the same step on."""

    seconds: float
    what: str


class Forecast:
    """The steps of a run so far, held against former runs."""

    def __init__(
        self, former: Sequence[Record] = (), path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`former` is sorted from old to new; `path` is the file that a good end is added to."""
        self._former = former
        self._path = path
        self._clock = clock
        self._begun = clock()
        self._steps: dict[str, float] = {}
        self._known = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the run's begin."""
        return self._clock() - self._begun

    def begin(self, step: str) -> None:
        """A step begins; of one that comes again, the first time counts."""
        if step in self._steps:
            return
        self._steps[step] = self.elapsed
        if any(step in record.steps for record in self._former):
            self._known = step

    def left(self) -> Left | None:
        """What is left, by the former run that began the same step after the most similar time; None if none did.

        A step that takes longer than it did then is as good as over.
        """
        if not self._known:
            newest = self._former[-1] if self._former else None
            return None if newest is None else Left(max(newest.seconds - self.elapsed, 0.0), newest.what)
        began = self._steps[self._known]
        alike = [record for record in self._former if self._known in record.steps]
        record = min(reversed(alike), key=lambda record: abs(record.steps[self._known] - began))
        then = record.steps[self._known]
        following = min((at for at in record.steps.values() if at > then), default=record.seconds)
        since = min(self.elapsed - began, following - then)
        return Left(record.seconds - then - since, record.what)

    def keep(self) -> None:
        """Remembers this run, which ended well."""
        if self._path is None:
            return
        record = Record(f"the run of {datetime.now(UTC).astimezone():%Y-%m-%d %H:%M}", round(self.elapsed, 1),
                        {step: round(at, 1) for step, at in self._steps.items()})  # fmt: skip
        records = [*remembered(self._path), record][-KEPT_RECORDS:]
        # A forecast is a service: that it can't be kept is no reason for a good run to end badly.
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps([asdict(record) for record in records]) + "\n", encoding="utf-8")
            partial.replace(self._path)


def remembered(path: Path) -> list[Record]:
    """The runs that a file remembers, oldest first; none where it is missing or not what was written."""
    try:
        records = [
            Record(
                printable(str(one["what"])), float(one["seconds"]), {str(k): float(v) for k, v in one["steps"].items()}
            )
            for one in from_json(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return []
    # JSON as Python reads it knows numbers without end.
    return [one for one in records if all(math.isfinite(at) for at in (one.seconds, *one.steps.values()))]


def forecast_of(root: Path, name: str) -> Forecast:
    """The forecast of a run called `name` (letters, digits, - and _) of the project at `root`.

    Runs of this machine are remembered below .ansible; lab/runs has typical ones of the lab.
    """
    path = root / ".ansible" / "forecast" / f"{name}.json"
    return Forecast([*remembered(root / "lab" / "runs" / f"{name}.json"), *remembered(path)], path)
