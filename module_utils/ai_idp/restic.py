# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One consistent copy of folders with restic, and its way back.

While the copy is made everything that writes to the folders is held, so that all of them are of one moment. On the way
back every byte of the repository is read first, and what is in the folders' places is put aside, never removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TAG = "ai-idp"
MISSING = "Is there a repository at the following location?"
STAGING = ".ai-idp-restore"
ASIDE = ".before-restore"
LAST_LINES = 4
# Twice as long as between two looks of Docker's at a container.
SETTLE_SECONDS = 90
PAUSE_SECONDS = 1

# A program with its arguments; what came of it: status, output, errors.
Run = Callable[[Sequence[str]], tuple[int, str, str]]


class ResticError(Exception):
    """It did not work; the message is what a reader needs to know."""


@dataclass(frozen=True)
class Writers:
    """What writes to the folders.

    Attributes:
        units: services that are stopped while they are copied, in this order.
        projects: folders of compose projects, whose containers are halted meanwhile.
    """

    units: Sequence[str]
    projects: Sequence[str]


def program(password: str, timeout: float) -> Run:
    """Give what runs restic and its like, with the repository's password in the environment.

    Args:
        password: of the repository.
        timeout: seconds that one call may take.
    """

    def run(arguments: Sequence[str]) -> tuple[int, str, str]:
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "RESTIC_PASSWORD": password, "RESTIC_PROGRESS_FPS": "0.01"}
        try:
            done = subprocess.run(
                list(arguments),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            raise ResticError(f"{arguments[0]} was not done within {timeout:g} s") from None
        except OSError as error:
            raise ResticError(f"{arguments[0]} can't be run: {error.strerror}") from error
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    return run


def _said(output: str, errors: str) -> str:
    lines = [line.strip() for line in (errors or output).splitlines() if line.strip()]
    return " / ".join(lines[-LAST_LINES:])[:600] or "it gave no reason"


class Repository:
    """A repository of restic."""

    def __init__(self, run: Run, place: str) -> None:
        self._run = run
        self._place = place

    def _restic(self, *arguments: str) -> str:
        code, output, errors = self._run(["restic", "--repo", self._place, "--no-cache", *arguments])
        if code:
            raise ResticError(f"restic {arguments[0]} failed on {self._place}: {_said(output, errors)}")
        return output

    def is_there(self) -> bool:
        """Tell whether there is a repository that the password opens.

        Raises:
            ResticError: it can't be reached, or has another password.
        """
        code, output, errors = self._run(["restic", "--repo", self._place, "--no-cache", "cat", "config"])
        if code and MISSING in errors + output:
            return False
        if code:
            raise ResticError(f"{self._place} can't be opened: {_said(output, errors)}")
        return True

    def make(self) -> None:
        """Make an empty repository."""
        self._restic("init")

    def copy(self, paths: Sequence[str], host: str) -> dict[str, Any]:
        """Copy folders into it; returns restic's own summary."""
        output = self._restic("backup", "--json", "--tag", TAG, "--host", host, "--", *paths)
        for line in reversed(output.splitlines()):
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict) and told.get("message_type") == "summary":
                    return told
        raise ResticError("restic backup ended without a summary")

    def snapshots(self) -> list[dict[str, Any]]:
        """List what was copied, the oldest first."""
        try:
            told = json.loads(self._restic("snapshots", "--json", "--tag", TAG) or "[]")
        except ValueError as error:
            raise ResticError("restic snapshots does not answer JSON") from error
        return sorted((one for one in told or [] if isinstance(one, dict)), key=lambda one: str(one.get("time", "")))

    def check(self, *, whole: bool) -> None:
        """Check the repository's structure, and with ``whole`` every byte of what is in it.

        Raises:
            ResticError: something of it is damaged.
        """
        try:
            self._restic("check", *(["--read-data"] if whole else []))
        except ResticError as error:
            raise ResticError(
                f"the copy is damaged, and nothing was touched: {error}" if whole else str(error)
            ) from error

    def bring(self, snapshot: str, path: str, target: str) -> None:
        """Write a folder of a snapshot below ``target``, and compare what was written with what was copied."""
        self._restic("restore", snapshot, "--include", path, "--target", target, "--verify")


@contextlib.contextmanager
def held(run: Run, writers: Writers) -> Iterator[None]:
    """Hold what writes; whatever happens then, it goes on afterwards.

    Raises:
        ResticError: something could not be held, or did not go on.
    """
    undo: list[list[str]] = []
    problems: list[str] = []
    try:
        for unit in writers.units:
            if run(["systemctl", "is-active", "--quiet", unit])[0]:
                continue
            undo.append(["systemctl", "start", unit])
            _must(run, ["systemctl", "stop", unit])
        for project in writers.projects:
            running = run(["docker", "compose", "--project-directory", project, "ps", "--quiet", "--status", "running"])
            if running[0] or not running[1].strip():
                continue
            undo.append(["docker", "compose", "--project-directory", project, "unpause"])
            _must(run, ["docker", "compose", "--project-directory", project, "pause"])
        yield
    finally:
        for command in reversed(undo):
            code, output, errors = run(command)
            if code:
                problems.append(f"{' '.join(command)}: {_said(output, errors)}")
    if problems:
        raise ResticError(f"what was held does not go on: {'; '.join(problems)}")


def settled(run: Run, projects: Sequence[str], patience: float = SETTLE_SECONDS) -> None:
    """Wait until Docker calls containers healthy again, which it asks them for now and then.

    Raises:
        ResticError: they are not, after that many seconds.
    """
    until = time.monotonic() + patience
    for project in projects:
        command = ["docker", "compose", "--project-directory", project, "ps", "--format", "{{.Name}} {{.Health}}"]
        while True:
            told = run(command)[1].splitlines()
            sick = [line.split(" ")[0] for line in told if line.endswith(("unhealthy", "starting"))]
            if not sick:
                break
            if time.monotonic() > until:
                raise ResticError(f"the copy is made, but {', '.join(sick)} did not become healthy again")
            time.sleep(PAUSE_SECONDS)


def _must(run: Run, command: list[str]) -> None:
    code, output, errors = run(command)
    if code:
        raise ResticError(f"{' '.join(command)} failed: {_said(output, errors)}")


def back_up(run: Run, repository: Repository, paths: Sequence[str], writers: Writers, host: str) -> dict[str, Any]:
    """Make one copy of the folders that are there.

    Returns:
        ``snapshot``, ``paths``, ``files``, ``bytes_added`` and ``held_seconds``, how long what writes was held.

    Raises:
        ResticError: there is no whole copy.
    """
    there = [path for path in paths if os.path.isdir(path)]
    if not there:
        raise ResticError(f"there is nothing to copy: none of {', '.join(paths)} is there")
    if not repository.is_there():
        repository.make()
    began = time.monotonic()
    with held(run, writers):
        told = repository.copy(there, host)
    seconds = round(time.monotonic() - began, 1)
    repository.check(whole=False)
    settled(run, writers.projects)
    return {
        "snapshot": str(told.get("snapshot_id", ""))[:8],
        "paths": there,
        "files": int(told.get("total_files_processed", 0)),
        "bytes_added": int(told.get("data_added", 0)),
        "held_seconds": seconds,
    }


def chosen(snapshots: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any]:
    """Find the snapshot that is to be restored: ``latest``, or the beginning of an id.

    Raises:
        ResticError: there is none, or more than one.
    """
    if not snapshots:
        raise ResticError("the repository holds no copy: make one with the playbook backup")
    if wanted == "latest":
        return snapshots[-1]
    found = [one for one in snapshots if str(one.get("id", "")).startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(f"{str(one.get('id', ''))[:8]} of {str(one.get('time', ''))[:16]}" for one in snapshots[-5:])
        raise ResticError(f"no copy is named {wanted}; the last ones are {known}")
    return found[0]


def restore(run: Run, repository: Repository, wanted: str, paths: Sequence[str], writers: Writers) -> dict[str, Any]:
    """Put the folders of a snapshot in their places; what is there now is kept beside.

    Everything is read, written beside its place and compared before the first service is stopped.

    Returns:
        ``snapshot``, ``time``, ``paths``, and ``aside``, where the folders of before are.

    Raises:
        ResticError: it did not work; the folders are as they were.
    """
    snapshot = chosen(repository.snapshots(), wanted)
    repository.check(whole=True)
    copied = {str(path) for path in snapshot.get("paths") or []}
    wanted_paths = [path for path in paths if path in copied]
    if not wanted_paths:
        raise ResticError(f"the copy {str(snapshot.get('id', ''))[:8]} holds none of {', '.join(paths)}")
    staged = {path: os.path.join(os.path.dirname(path), STAGING) for path in wanted_paths}
    try:
        for path, staging in staged.items():
            os.makedirs(staging, mode=0o700, exist_ok=True)
            repository.bring(str(snapshot["id"]), path, staging)
            if not os.path.isdir(staging + path):
                raise ResticError(f"restic wrote no {path}")
        _halt(run, writers)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = _switch(staged, stamp)
    finally:
        for staging in staged.values():
            shutil.rmtree(staging, ignore_errors=True)
    return {
        "snapshot": str(snapshot["id"])[:8],
        "time": str(snapshot.get("time", "")),
        "paths": wanted_paths,
        "aside": aside,
    }


def _halt(run: Run, writers: Writers) -> None:
    """Stop what writes, as far as it is there."""
    for unit in writers.units:
        if not run(["systemctl", "is-active", "--quiet", unit])[0]:
            _must(run, ["systemctl", "stop", unit])
    for project in writers.projects:
        if os.path.isfile(os.path.join(project, "compose.yml")):
            _must(run, ["docker", "compose", "--project-directory", project, "stop"])


def _switch(staged: Mapping[str, str], stamp: str) -> list[str]:
    """Rename the folders of before, and the new ones into their places; undo it where one of these fails."""
    done: list[tuple[str, str]] = []
    aside: list[str] = []
    try:
        for path, staging in staged.items():
            if os.path.lexists(path):
                before = f"{path}{ASIDE}-{stamp}"
                os.rename(path, before)
                done.append((path, before))
                aside.append(before)
            os.rename(staging + path, path)
            done.append((staging + path, path))
    except OSError as error:
        for source, target in reversed(done):
            os.rename(target, source)
        raise ResticError(f"{error.filename} can't be put in place: {error.strerror}; all is as it was") from error
    return aside


def own(path: str, uid: int, gid: int) -> int:
    """Give everything below a folder that was its owner's to another number, as on a host made anew.

    What belonged to somebody else than the folder's owner is left as it is.

    Returns:
        how many files and folders have a new owner.
    """
    former = os.lstat(path)
    if (former.st_uid, former.st_gid) == (uid, gid):
        return 0
    count = 0
    for folder, folders, files in os.walk(path):
        for name in [".", *folders, *files]:
            one = os.path.join(folder, name)
            if name != "." or folder == path:
                found = os.lstat(one)
                if found.st_uid == former.st_uid:
                    os.lchown(one, uid, gid)
                    count += 1
    return count
