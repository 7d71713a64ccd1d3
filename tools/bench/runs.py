"""One run of an Ansible program: started, counted, timed, and ended with all that it started."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Counts, Run, read_counts

HERE = Path(__file__).resolve().parent
CALLBACKS = HERE / "callback_plugins"
COUNTED = HERE / "counted"
# A run of the former tree takes eight minutes on two cores; one that takes this long hangs.
RUN_TIMEOUT_S = 2400.0
GRACE_S = 10.0
LOG_LINES = 12
_PR_SET_CHILD_SUBREAPER = 36


class RunFailedError(Exception):
    """An Ansible program did not end well; the message says how, and where its output is."""


@dataclass(frozen=True)
class Ended:
    """A run that went through, and the tasks that changed something in it."""

    run: Run
    changed_tasks: list[str]


def adopt_orphans() -> None:
    """Makes this process the parent of what its children leave behind.

    SSH's connection masters are such orphans: without this their processor time would be nobody's.

    Raises:
        OSError: The kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "orphaned processes can't be adopted")


def environment(inherited: Mapping[str, str], programs: Path, config: Path) -> dict[str, str]:
    """What an Ansible program is started with: the side's settings and nobody else's.

    Args:
        inherited: The caller's environment; its settings of Ansible are left out, a vault's password file is kept.
        programs: The folder with the Ansible programs, first in PATH.
        config: The side's ansible.cfg.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if (not name.startswith("ANSIBLE_") or name == "ANSIBLE_VAULT_PASSWORD_FILE")
        and name not in ("AI_IDP_HOME", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")
    }
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_NOCOLOR": "1",
    }


def run_counted(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], callbacks: Sequence[Path], log: Path
) -> Ended:
    """Runs a playbook once with fresh SSH connections, and says what it took.

    Args:
        arguments: The program and its arguments.
        cwd: The tree that is run.
        env: From `environment`.
        callbacks: Folders of callback plugins that the side has by itself.
        log: The file for the program's output.

    Raises:
        RunFailedError: It failed, hung, or its counts are not there.
    """
    with tempfile.TemporaryDirectory(prefix="ai-idp-bench-") as name:
        folder = Path(name)
        counting = {
            "AI_IDP_BENCH_DIR": name,
            "ANSIBLE_CALLBACK_PLUGINS": os.pathsep.join(str(path) for path in (*callbacks, CALLBACKS)),
            "ANSIBLE_SSH_EXECUTABLE": str(COUNTED / "ssh"),
            "ANSIBLE_SFTP_EXECUTABLE": str(COUNTED / "sftp"),
            # Connections of one run are not found by the next.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
        }
        started_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        load_before, cpu_before = os.getloadavg(), _children_cpu_s()
        start = time.monotonic()
        wall_s = run(arguments, cwd=cwd, env={**env, **counting}, log=log) - start
        try:
            counts, changed_tasks = _read(folder)
        except (OSError, ValueError) as error:
            raise RunFailedError(f"what it did was not counted ({error}); its output is in {log}") from error
        return Ended(
            Run(
                started_at=started_at,
                wall_s=round(wall_s, 3),
                cpu_s=round(_children_cpu_s() - cpu_before, 3),
                load_before=load_before,
                load_after=os.getloadavg(),
                counts=counts,
            ),
            changed_tasks,
        )


def _read(folder: Path) -> tuple[Counts, list[str]]:
    """Counts from a run's folder. Without a host that is reached by SSH there is no file of that."""
    ssh = folder / "ssh"
    counts = (folder / "counts.json").read_text(encoding="utf-8")
    return read_counts(counts, (folder / "modules").read_bytes(), ssh.read_bytes() if ssh.exists() else b"")


def run(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> float:
    """Runs a program to its end and ends what it left; the clock's seconds when the program itself had ended.

    Raises:
        RunFailedError: It failed or hung.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait(RUN_TIMEOUT_S)
            ended = time.monotonic()
        except subprocess.TimeoutExpired as error:
            raise RunFailedError(f"it did not end within {RUN_TIMEOUT_S:.0f} s; its output is in {log}") from error
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_S)
            _end_children()
    if code != 0:
        raise RunFailedError(f"it ended with code {code}; its output is in {log}:\n{_complaint(log)}")
    return ended


def _complaint(log: Path) -> str:
    """What Ansible complains of first, or the end of what it said."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(("fatal:", "failed:", "[ERROR]"))]
    return "\n".join(lines[starts[0] :][:LOG_LINES] if starts else lines[-LOG_LINES:])


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _children() -> list[int]:
    """Processes whose parent is this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name in parentheses may hold anything; see proc(5) for the fields after it.
            if int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def _end_children() -> None:
    """Ends what a program left running, so that its processor time is known and the next run starts alone."""
    deadline = time.monotonic() + GRACE_S
    while children := _children():
        number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        for pid in children:
            with suppress(OSError):
                os.kill(pid, number)
        time.sleep(0.05)
        for pid in children:
            with suppress(OSError):
                os.waitpid(pid, os.WNOHANG)
