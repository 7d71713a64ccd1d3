"""Sets power mode and clocks of a Jetson with the vendor's own programs, and knows before whether it can."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from ansible.module_utils.ai_idp.jetson import (
    REBOOT_NEEDED,
    PowerMode,
    State,
    find_mode,
    mode_problem,
    plain_name,
    read_state,
)
from ansible.module_utils.ai_idp.messages import shorten
from ansible.module_utils.ai_idp.programs import run

KEEP, MAXIMUM, DYNAMIC = "keep", "maximum", "dynamic"


class PowerError(Exception):
    """What could not be done, in one sentence."""


@dataclass(frozen=True)
class Wish:
    """``mode`` empty keeps the mode; ``variable`` is the user's name for it."""

    mode: str
    clocks: str
    variable: str


@dataclass(frozen=True)
class Programs:
    """Absolute paths; None is what is not installed. ``store`` keeps the clocks that were before."""

    nvpmodel: str | None
    jetson_clocks: str | None
    store: str


@dataclass
class Plan:
    """What is to be done, in this order."""

    target: PowerMode | None = None
    unlock: bool = False
    lock: bool = False
    steps: list[str] = field(default_factory=list)


def plan(wish: Wish, state: State, programs: Programs) -> Plan:
    """What it takes to get from the state to the wish.

    :raises PowerError: when it can't be had; then nothing was changed.
    """
    target = None
    if wish.mode:
        problem = mode_problem(wish.variable, wish.mode, state.modes)
        if problem:
            raise PowerError(problem)
        if programs.nvpmodel is None:
            raise PowerError("nvpmodel is not installed, so the power mode can't be set: install nvidia-l4t-nvpmodel.")
        target = find_mode(wish.mode, state.modes)
        if state.mode and target and plain_name(state.mode.name) == plain_name(target.name):
            target = None
    locked = state.clocks_locked
    change_clocks = {KEEP: False, MAXIMUM: not locked, DYNAMIC: bool(locked)}[wish.clocks]
    if (change_clocks or (target and locked)) and programs.jetson_clocks is None:
        raise PowerError("jetson_clocks is not installed, so the clocks can't be set: install nvidia-l4t-tools.")
    # Clocks are locked within a mode: a new mode wants them free, and locked again at its own highest.
    unlock = bool(locked) and (target is not None or wish.clocks == DYNAMIC)
    lock = wish.clocks != DYNAMIC and (change_clocks or (bool(locked) and target is not None))
    steps = [f"power mode {state.mode.name if state.mode else 'unknown'} to {target.name}"] if target else []
    if unlock != lock:
        steps.append("clocks held at their highest" if lock else "clocks follow the load")
    return Plan(target, unlock, lock, steps)


def _clocks(programs: Programs, timeout: float, *arguments: str) -> None:
    answer = run([programs.jetson_clocks or "", *arguments], timeout)
    if answer.rc != 0:
        what = " ".join(["jetson_clocks", *arguments])
        raise PowerError(f"{what} failed ({'no answer in time' if answer.rc is None else answer.rc}): {answer.output}")


def free_clocks(todo: Plan, state: State) -> str:
    """A warning about clocks that are not held though jetson_clocks did its work; empty where all are."""
    free = [clock.name for clock in state.clocks if clock.least != clock.most]
    return f"jetson_clocks ran, and these clocks are not held: {', '.join(free)}." if todo.lock and free else ""


def carry_out(todo: Plan, root: str, timeout: float, programs: Programs) -> bool:
    """Does what was planned; True where the mode waits for a reboot and nothing was changed.

    :raises PowerError: when a program fails or its work can't be seen afterwards.
    """
    if todo.unlock:
        if not os.path.exists(programs.store):
            raise PowerError(
                f"The clocks are held at their highest, and {programs.store} with those from before is not there: "
                "restart the board, which frees them, and run this again."
            )
        _clocks(programs, timeout, "--restore", programs.store)
    waits = False
    if todo.target:
        # Asked to confirm a reboot, it finds no answer, and changes nothing.
        answer = run([programs.nvpmodel or "", "-m", str(todo.target.id)], timeout)
        now = read_state(root, timeout, programs.nvpmodel).mode
        if now is None or now.id != todo.target.id:
            waits = bool(REBOOT_NEEDED.search(answer.output))
            if not waits:
                said = shorten(answer.output, 300) or "nothing"
                raise PowerError(f"nvpmodel -m {todo.target.id} did not set {todo.target.name}; it said: {said}")
    if todo.lock:
        os.makedirs(os.path.dirname(programs.store), exist_ok=True)
        # They are free now, so what was kept before is of another mode; asked to overwrite it, the program waits.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(programs.store)
        _clocks(programs, timeout, "--store", programs.store)
        _clocks(programs, timeout)
    return waits
