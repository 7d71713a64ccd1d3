"""What is run, in which order, and what came of it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import light_hosts
from bench.figures import (
    BEFORE,
    HOSTS,
    SHARED,
    SITE,
    STOCK,
    THIS,
    Cell,
    Measured,
    NotMeasured,
    Run,
    changed_reason,
    turns,
)
from bench.runs import RunFailedError, environment, run, run_counted
from bench.sides import BEFORE_COMMIT, LAB_THERE, Side, SideError, before_side, commit_of, stock_side

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
WORK = ROOT / ".cache/bench"
SIDES = (THIS, STOCK, BEFORE)
# What was started just now, such as light hosts, is given so many seconds to come to rest.
PATIENCE_S = 300
NOT_REACHED = NotMeasured("the bench ended before it", failed=True)


@dataclass(frozen=True)
class Options:
    """What is to be timed; what is not has its reason, by name."""

    runs: int
    targets: tuple[str, ...]
    left_out: Mapping[str, str]
    skipped: Mapping[str, str]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """A playbook with its inventory on one side."""

    side: Side
    arguments: list[str]
    env: Mapping[str, str]
    log: Path

    @classmethod
    def of(cls, side: Side, inventory: Path | str, *playbooks: Path | str, log: str, **more: str) -> Job:
        """A job whose output goes to a log of that name; more are variables of its environment."""
        arguments = [str(PROGRAMS / "ansible-playbook"), "-i", str(inventory), *map(str, playbooks)]
        env = environment(os.environ, PROGRAMS, side.config) | more
        return cls(side, arguments, env, WORK / "logs" / f"{log}.log")


def this_side() -> Side:
    """This tree, as it is."""
    return Side(THIS, ROOT, ROOT / "ansible.cfg")


def with_lab(side: Side) -> Side:
    """A side whose own lab is deployed, so that nothing is left to do in it. It stays for the next bench.

    Raises:
        RunFailedError: It can't be deployed.
    """
    if not (side.tree / LAB_THERE).is_file():
        say(f"{side.name}: its lab is made once, which takes as long as `make lab` and two runs of site did there")
        env = environment(os.environ, PROGRAMS, side.config)
        site = [str(PROGRAMS / "ansible-playbook"), "-i", "inventory/lab", "playbooks/site.yml"]
        # A first run measures what the run before it deployed.
        for number, arguments in enumerate((["make", "lab"], site, site)):
            run(arguments, cwd=side.tree, env=env, log=WORK / "logs" / f"lab-{side.name}-{number}.log")
    return side


def say(text: str) -> None:
    """A line of progress, at once."""
    print(f"bench: {text}", flush=True)


def settle() -> None:
    """Wait until the machine has less to do than it has processors, or for `PATIENCE_S` seconds."""
    until = time.monotonic() + PATIENCE_S
    while os.getloadavg()[0] > len(os.sched_getaffinity(0)) and time.monotonic() < until:
        time.sleep(5)


def told(found: Run) -> str:
    """A run in a line."""
    counts = found.counts
    return (
        f"{found.wall_s:.1f} s, controller's CPU {found.cpu_s:.1f} s, {counts.task_runs} task runs, "
        f"{counts.module_starts} modules, {counts.ssh_calls} SSH calls, load {found.load_before[0]:.1f}"
    )


def by_turns[Name](jobs: Mapping[Name, Job], count: int, title: str) -> dict[Name, Cell]:
    """Runs every job that many times, by turns. One that fails or changes something has no figure and no more turns.

    What the former tree changes is said, and counted in its figures.

    Args:
        jobs: What is run, by name.
        count: Runs of each.
        title: What is said of it, before the name.
    """
    found: dict[Name, list[Run]] = {name: [] for name in jobs}
    failed: dict[Name, Cell] = {}
    for number, names in enumerate(turns(list(jobs), count), start=1):
        for name in names:
            if name in failed:
                continue
            job = jobs[name]
            where = f"{title} {name}, run {number} of {count}"
            try:
                ended = run_counted(
                    job.arguments, cwd=job.side.tree, env=job.env, callbacks=job.side.callbacks, log=job.log
                )
            except RunFailedError as error:
                failed[name] = NotMeasured(f"run {number}: {error}", failed=True)
                say(f"{where}: {error}")
                continue
            say(f"{where}: {told(ended.run)}")
            found[name].append(ended.run)
            if changed := ended.run.counts.changed:
                reason = f"run {number}: {changed_reason(changed, ended.changed_tasks)}; the log is {job.log}"
                say(f"{where}: {reason}")
                # The former tree's week 4 measures its links anew each time. What it then takes is what it takes.
                if job.side.name != BEFORE:
                    failed[name] = NotMeasured(reason, failed=True)
    return {name: failed.get(name) or Measured(tuple(runs)) for name, runs in found.items()}


class Bench:
    """Runs what the options ask for; what is not reached stays `NOT_REACHED`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.sides: dict[str, Side] = {THIS: this_side()}
        self.targets: dict[str, dict[str, Cell]] = {
            name: dict.fromkeys(SIDES, NotMeasured(options.left_out[name]) if name in options.left_out else NOT_REACHED)
            for name in self.sides[THIS].playbooks
        }
        self.targets[SITE][SHARED] = self.targets[SITE][BEFORE]
        left_out = options.skipped.get(HOSTS)
        self.edge: dict[int, Cell] = dict.fromkeys(options.sizes, NotMeasured(left_out) if left_out else NOT_REACHED)
        self.first_run: Cell = self.edge[max(options.sizes)]

    def measure(self) -> None:
        """Everything, in the order of the result file."""
        self._make_sides()
        settle()
        for target in self.options.targets:
            self._time_target(target)
        if HOSTS not in self.options.skipped:
            self._time_edge()

    def _make_sides(self) -> None:
        """The other sides; for what can't be made, or has no such playbook, the reason is kept."""
        makers: dict[str, Callable[[], Side]] = {
            STOCK: lambda: stock_side(self.sides[THIS], WORK / "stock"),
            BEFORE: lambda: with_lab(before_side(ROOT, WORK / "before")),
        }
        for name, make in makers.items():
            missing: NotMeasured | None = None
            if name in self.options.skipped:
                missing = NotMeasured(self.options.skipped[name])
            elif self.options.targets:
                try:
                    self.sides[name] = make()
                except (SideError, RunFailedError, OSError) as error:
                    say(f"the side {name} can't be measured: {error}")
                    missing = NotMeasured(str(error), failed=True)
            for target in self.options.targets:
                if missing is not None:
                    self.targets[target][name] = missing
                elif target not in self.sides[name].playbooks:
                    self.targets[target][name] = NotMeasured(f"this side has no playbooks/{target}.yml")

    def _time_target(self, target: str) -> None:
        """A playbook on every side."""
        cells = self.targets[target]
        jobs = {
            name: Job.of(side, "inventory/lab", f"playbooks/{target}.yml", log=f"{target}-{name}")
            for name, side in self.sides.items()
            if cells[name] is NOT_REACHED
        }
        if SHARED in cells:
            cells[SHARED] = cells[BEFORE]
            if BEFORE in jobs:
                weeks = [f"playbooks/{week}.yml" for week in self.sides[BEFORE].playbooks if week != SITE]
                jobs[SHARED] = Job.of(self.sides[THIS], "inventory/lab", *weeks, log=f"{target}-{SHARED}")
        for name, job in list(jobs.items()):
            try:
                self._gather_facts(job)
            except RunFailedError as error:
                say(f"{target}, {name}: {error}")
                cells[name] = NotMeasured(f"facts can't be gathered: {error}", failed=True)
                del jobs[name]
        cells.update(by_turns(jobs, self.options.runs, f"{target},"))

    def _gather_facts(self, job: Job) -> None:
        """What a run within two hours of another finds: facts, where the side's settings keep them."""
        if job.side.keeps_facts:
            arguments = ["-i", "inventory/lab", "all", "--become", "--module-name", "ansible.builtin.setup"]
            run(
                [str(PROGRAMS / "ansible"), *arguments],
                cwd=job.side.tree,
                env=job.env,
                log=WORK / "logs" / f"facts-{job.side.name}.log",
            )

    def _time_edge(self) -> None:
        """The same two roles on one light host, on four, on sixteen."""
        sizes = self.options.sizes
        folder = WORK / "edge"
        try:
            inventories = light_hosts.write_inventories(ROOT, folder, sizes)
            # Hosts that come and go: what is known of these is nothing for a later bench, nor for the lab.
            shutil.rmtree(folder / "facts", ignore_errors=True)
            facts = {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "facts")}
            side = self.sides[THIS]
            jobs = {
                size: Job.of(side, inventories[size], light_hosts.PLAYBOOK, log=f"edge-{size}", **facts)
                for size in sizes
            }
            most = jobs[max(sizes)]
            say(f"starting {max(sizes)} light hosts")
            with light_hosts.started(
                max(sizes),
                root=ROOT,
                known_hosts=folder / "state/known_hosts",
                program=PROGRAMS / "ansible-playbook",
                env=most.env,
                log=WORK / "logs/edge-hosts.log",
            ):
                say("deploying to them for the first time")
                first = run_counted(
                    most.arguments, cwd=ROOT, env=most.env, callbacks=side.callbacks, log=WORK / "logs/edge-first.log"
                )
                say(f"first run on {max(sizes)} light hosts: {told(first.run)}")
                self.first_run = Measured((first.run,))
                settle()
                self.edge = by_turns(jobs, self.options.runs, "light hosts:")
        except (RunFailedError, OSError) as error:
            say(f"light hosts: {error}")
            reason = NotMeasured(str(error), failed=True)
            self.edge = {size: reason if cell is NOT_REACHED else cell for size, cell in self.edge.items()}
            self.first_run = reason if self.first_run is NOT_REACHED else self.first_run


def about(options: Options, command: list[str]) -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "commit": commit_of(ROOT),
        "before_commit": BEFORE_COMMIT,
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "command": ["make", "bench", *command],
        "runs_each": options.runs,
        "machine": {
            "cpu_model": cpu_model(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "kernel": platform.release(),
        },
    }


def cpu_model(cpuinfo: str) -> str:
    """The processor's name; ARM machines tell none, and are named by their architecture."""
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
