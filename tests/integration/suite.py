"""How much of the suite is run, and what takes its time.

``AI_IDP_PROFILE`` is ``quick`` (the default, for CI) or ``full`` (by hand, before a release or after a change to what
is proven). In the quick profile some tests take a part of their cases, another part for each commit: ``rotation``.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ("quick", "full")
# What `rotation` chose, by what was chosen from; printed before the first test.
CHOSEN: dict[str, list[str]] = {}


def profile_of(environment: Mapping[str, str]) -> str:
    """The profile that was asked for.

    Args:
        environment: the variables of the environment.

    Returns:
        One of ``PROFILES``.

    Raises:
        ValueError: there is no such profile.
    """
    asked = environment.get("AI_IDP_PROFILE", "") or PROFILES[0]
    if asked not in PROFILES:
        raise ValueError(f"AI_IDP_PROFILE is {asked!r}; it is quick (the default) or full: set it to one of them")
    return asked


def seeded[Case](cases: Sequence[Case], count: int, seed: str) -> list[Case]:
    """Some of the cases, in their order: the same ones for the same seed.

    Args:
        cases: all of them.
        count: how many are wanted; all when there are no more.
        seed: any text.
    """
    by_hash = sorted(range(len(cases)), key=lambda place: hashlib.sha256(f"{seed} {cases[place]}".encode()).hexdigest())
    return [cases[place] for place in sorted(by_hash[:count])]


def commit() -> str:
    """The commit of the checkout; empty where git knows none, which is a seed too."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


PROFILE = profile_of(os.environ)
# For clients that ask while nginx reloads: it closes kept connections then, perhaps just as a request goes out on one,
# and HTTP has clients ask again (RFC 9110, 9.2.2). On a connection of its own no request is lost.
ALONE = httpx.Limits(max_keepalive_connections=0)
FULL = PROFILE == "full"
COMMIT = commit()


def rotation[Case](what: str, cases: Sequence[Case], count: int) -> list[Case]:
    """All cases in the full profile; in the quick one some of them, which the commit decides.

    Args:
        what: names the cases where those that run are printed.
        cases: all of them.
        count: how many the quick profile takes.
    """
    chosen = list(cases) if FULL else seeded(cases, count, COMMIT)
    CHOSEN[what] = [f"{len(chosen)} of {len(cases)}", *map(str, chosen)]
    return chosen


def booleans_as_text(root: Path, inventory: str) -> dict[str, str]:
    """Every boolean of the roles with the value that it has in an inventory, as the command line gives it: as text.

    Args:
        root: the project.
        inventory: name of the inventory. What is set for a group of hosts is not for all, and is left out.
    """
    values: dict[str, Any] = {}
    set_here = root / "inventory" / inventory / "group_vars"
    for path in [*root.glob("roles/*/defaults/main.yml"), *set_here.glob("all/*.yml")]:
        values |= yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in set_here.glob("*.yml"):
        of_group = yaml.safe_load(path.read_text(encoding="utf-8"))
        values = {name: value for name, value in values.items() if name not in of_group}
    booleans = {name: value for name, value in sorted(values.items()) if isinstance(value, bool)}
    words = {True: ("true", "yes", "True", "1"), False: ("false", "no", "False", "0")}
    return {name: words[value][number % 4] for number, (name, value) in enumerate(booleans.items())}


def write_proof(name: str, figures: list[dict[str, Any]]) -> None:
    """Write the figures of a full proof with their date, to be committed by who made them.

    Args:
        name: of the file.
        figures: one entry for each case.
    """
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    proof = {"date": datetime.now(UTC).date().isoformat(), "commit": COMMIT, "load_average": load, "figures": figures}
    path = ROOT / "benchmarks" / "proofs" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(proof, indent=1) + "\n", encoding="utf-8")


class Durations:
    """How long each test and each run of a playbook took, for the report at the end."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.runs: list[dict[str, Any]] = []

    def add_phase(self, test: str, phase: str, seconds: float, outcome: str) -> None:
        """A phase of a test: setup, call or teardown. Its outcome is that of the first phase that did not pass."""
        entry = self.tests.setdefault(test, {"outcome": "passed"})
        entry[phase] = round(seconds, 1)
        if entry["outcome"] == "passed":
            entry["outcome"] = outcome

    def add_run(self, playbook: str, seconds: float, code: int) -> None:
        """A run of a playbook, with the test that it was started for."""
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        self.runs.append({"playbook": playbook, "seconds": round(seconds, 1), "code": code, "test": test})

    def report(self) -> dict[str, Any]:
        """What is written down: everything, slowest first."""
        tests = [
            {"test": name, "seconds": round(sum(entry.get(phase, 0.0) for phase in PHASES), 1), **entry}
            for name, entry in self.tests.items()
        ]
        tests.sort(key=lambda test: -test["seconds"])
        return {
            "profile": PROFILE,
            "commit": COMMIT,
            "seconds": round(sum(test["seconds"] for test in tests), 1),
            "playbook_seconds": round(sum(run["seconds"] for run in self.runs), 1),
            "chosen": CHOSEN,
            "tests": tests,
            "runs": sorted(self.runs, key=lambda run: -run["seconds"]),
        }


PHASES = ("setup", "call", "teardown")
DURATIONS = Durations()
