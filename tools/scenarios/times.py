"""Where the time of the scenarios goes: read from what Molecule says, and told at the end."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PHASE = re.compile(r"\[(?P<scenario>\S+) > (?P<phase>\w+)\] (?P<what>Executing$|Executed:)")
_TESTS = re.compile(r"(?P<count>\d+ passed)")


@dataclass
class Timing:
    """What one scenario took, phase by phase, as its lines come in."""

    scenario: str
    clock: Callable[[], float]
    phases: dict[str, float] = field(default_factory=dict)
    tests: str = ""
    _phase: str = ""
    _since: float = 0.0

    def read(self, line: str) -> None:
        """Look at a line that Molecule or the tests have printed.

        Args:
            line: The line, colours and all.
        """
        plain = _COLOUR.sub("", line).rstrip()
        if found := _PHASE.search(plain):
            self.end()
            if found["what"] == "Executing":
                self._phase, self._since = found["phase"], self.clock()
        elif self._phase == "verify" and (counted := _TESTS.search(plain)):
            self.tests = counted["count"]

    def end(self) -> None:
        """End the phase that runs, which is also what a failure does."""
        if self._phase:
            self.phases[self._phase] = self.phases.get(self._phase, 0.0) + self.clock() - self._since
        self._phase = ""


def report(timings: list[tuple[Timing, float, bool]], seconds: float, at_a_time: int) -> dict[str, Any]:
    """Return the times of a run, the slowest scenario and the slowest phase first.

    Args:
        timings: For each scenario its phases, its seconds and whether it passed.
        seconds: What the whole run took.
        at_a_time: How many scenarios ran side by side.

    Returns:
        The content of times.json.
    """
    scenarios = [
        {
            "scenario": timing.scenario,
            "passed": passed,
            "seconds": round(took, 1),
            "phases": {
                name: round(spent, 1) for name, spent in sorted(timing.phases.items(), key=lambda item: -item[1])
            },
        }
        for timing, took, passed in sorted(timings, key=lambda timing: -timing[1])
    ]
    return {"seconds": round(seconds, 1), "at_a_time": at_a_time, "scenarios": scenarios}


def slowest(times: dict[str, Any], count: int = 10) -> list[str]:
    """Return the slowest phases as lines for people.

    Args:
        times: What report returned.
        count: How many lines are wanted.

    Returns:
        Lines such as "   41.2 s  nginx_gateway  verify", the slowest first.
    """
    phases = [
        (spent, scenario["scenario"], phase)
        for scenario in times["scenarios"]
        for phase, spent in scenario["phases"].items()
    ]
    return [f"{spent:7.1f} s  {name}  {phase}" for spent, name, phase in sorted(phases, reverse=True)[:count]]
