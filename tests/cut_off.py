"""Runs of playbooks that are left running, or killed in the middle of a step."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def begin(command: Sequence[str | Path]) -> subprocess.Popen[str]:
    """Start a run in a group of processes of its own, and leave it running.

    Args:
        command: ``ansible-playbook`` with its arguments.
    """
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def cut_off(command: Sequence[str | Path], reached: Callable[[str], bool], seconds: float = 0.2) -> None:
    """Kill a run and all that it started, as soon as it is in a step.

    Args:
        command: ``ansible-playbook`` with its arguments.
        reached: whether a line that it says is the step's; asked of each line until one is.
        seconds: how long it is let go on then, so that it is in the step and not before it.

    Raises:
        AssertionError: the run ended before.
    """
    run, said = begin(command), ""
    assert run.stdout
    for line in run.stdout:
        said += line
        if reached(line):
            time.sleep(seconds)
            os.killpg(run.pid, signal.SIGKILL)
            break
    assert run.wait(timeout=60) == -signal.SIGKILL, said


def task_of(name: str) -> Callable[[str], bool]:
    """Tell the line that announces a task, by a part of its name."""
    return lambda line: line.startswith("TASK [") and name in line
