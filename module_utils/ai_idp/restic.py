# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One consistent copy of folders with restic, and its way back.

While the copy is made everything that writes to the folders is held, so that all of them are of one moment. On the way
back every byte of the repository is read first, and what is in the folders' places is put aside, never removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.ai_idp.files import nearest_existing
from ansible.module_utils.ai_idp.preflight_check import parse_mountinfo

TAG = "ai-idp"
MISSING = "Is there a repository at the following location?"
STAGING = ".ai-idp-restore"
ASIDE = ".before-restore"
# The file system's own, which can't be moved.
LOST_FOUND = "lost+found"
LAST_LINES = 4
# Ends of `restic backup` and others, as its documentation names them; the last since 0.17.
INCOMPLETE, LOCKED = 3, 11
LOCKED_WORDS = "already locked"
# Lets go on what is held when whoever holds it was killed.
GUARD = "ai-idp-backup-guard.service"
FSTAB, MOUNTINFO = "/etc/fstab", "/proc/self/mountinfo"
# What restic or its tags would read as something else than a name.
NO_NAME = re.compile(r"[,*?\[\]\\\x00-\x1f]")
LINKS_NAMED = 5
# Twice as long as between two looks of Docker's at a container.
SETTLE_SECONDS = 90
PAUSE_SECONDS = 1

# A program with its arguments; what came of it: status, output, errors.
Run = Callable[[Sequence[str]], tuple[int, str, str]]


class ResticError(Exception):
    """It did not work; the message is what a reader needs to know."""


class Refused(ResticError):
    """Restic ran, and said no."""


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
    """A repository of restic.

    What only reads takes no lock, so that a copy can be read also where a lock was left or nothing can be written.
    """

    def __init__(self, run: Run, place: str) -> None:
        self._run = run
        self.place = place

    def _asked(self, arguments: Sequence[str]) -> list[str]:
        return ["restic", "--repo", self.place, "--no-cache", *arguments]

    def _restic(self, *arguments: str) -> str:
        return self._told(arguments[0], self._run(self._asked(arguments)))

    def _reading(self, *arguments: str) -> str:
        return self._told(arguments[0], self._run(self._asked(["--no-lock", *arguments])))

    def _told(self, name: str, answer: tuple[int, str, str]) -> str:
        code, output, errors = answer
        if code == LOCKED or (code and LOCKED_WORDS in errors + output):
            raise ResticError(
                f"{self.place} is in use, and no copy is damaged: {_said(output, errors)}. Wait until the other one is"
                " done. A lock that nobody holds any more counts for nothing after half an hour."
            )
        if code:
            raise Refused(f"restic {name} failed on {self.place}: {_said(output, errors)}")
        return output

    def is_there(self) -> bool:
        """Tell whether there is a repository that the password opens.

        Raises:
            ResticError: it can't be reached, or has another password.
        """
        code, output, errors = self._run(self._asked(["--no-lock", "cat", "config"]))
        if code and MISSING in errors + output:
            return False
        if code:
            raise ResticError(f"{self.place} can't be opened: {_said(output, errors)}")
        return True

    def make(self) -> None:
        """Make an empty repository."""
        self._restic("init")

    def unlock(self) -> None:
        """Take away locks whose holders are gone. Restic leaves those that somebody holds."""
        self._restic("unlock")

    def copy(self, sources: Sequence[Source], host: str) -> dict[str, Any]:
        """Copy folders into it; returns restic's own summary.

        Raises:
            ResticError: not all of it could be read; what restic made of the rest is no copy, and is taken out again.
        """
        tags = [f"--tag={TAG}", *(f"--tag={one.path}={one.real}" for one in sources if one.path != one.real)]
        # What a restore has put aside within a disk of its own.
        own = [one.real for one in sources if one.is_mount]
        left_out = [f"--exclude={path}/{name}" for path in own for name in (f"{ASIDE}-*", STAGING)]
        folders = [one.real for one in sources]
        command = self._asked(["backup", "--json", *tags, *left_out, "--host", host, "--", *folders])
        # It must not go on when this process is killed, since what writes goes on then.
        code, output, errors = self._run(["setpriv", "--pdeathsig", "KILL", "--", *command])
        if code == INCOMPLETE:
            self._forget_incomplete(output, errors)
        self._told("backup", (code, output, errors))
        return self._summary(output)

    def _forget_incomplete(self, output: str, errors: str) -> None:
        snapshot = str(self._summary(output).get("snapshot_id", ""))
        unread = f"there is no whole copy: restic could not read {_unread(output, errors)}"
        try:
            self._restic("forget", snapshot)
        except ResticError as error:
            told = f"{unread}. What it could read is copy {snapshot[:8]}: never restore that"
            raise ResticError(f"{told} ({error})") from None
        raise ResticError(unread)

    @staticmethod
    def _summary(output: str) -> dict[str, Any]:
        for told in reversed(_objects(output)):
            if told.get("message_type") == "summary":
                return told
        raise ResticError("restic backup ended without a summary")

    def snapshots(self) -> list[dict[str, Any]]:
        """List what was copied, the oldest first."""
        try:
            told = json.loads(self._reading("snapshots", "--json", "--tag", TAG) or "[]")
        except ValueError as error:
            raise ResticError("restic snapshots does not answer JSON") from error
        return sorted((one for one in told or [] if isinstance(one, dict)), key=lambda one: str(one.get("time", "")))

    def check(self, *, whole: bool) -> None:
        """Check the repository's structure, and with ``whole`` every byte of what is in it.

        Raises:
            ResticError: something of it is damaged.
        """
        try:
            self._reading("check", *(["--read-data"] if whole else []))
        except Refused as error:
            raise ResticError(
                f"the copy is damaged, and nothing was touched: {error}" if whole else str(error)
            ) from error

    def bring(self, snapshot: str, path: str, target: str) -> None:
        """Write a folder of a snapshot below ``target``, and compare what was written with what was copied."""
        self._reading("restore", snapshot, "--include", path, "--target", target, "--verify")


def _objects(output: str) -> list[dict[str, Any]]:
    """The JSON objects among lines."""
    found = []
    for line in output.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            told = json.loads(line)
            if isinstance(told, dict):
                found.append(told)
    return found


def _unread(output: str, errors: str) -> str:
    """Name the files that restic could not read, as far as it says."""
    told = [one for one in _objects(errors + "\n" + output) if one.get("message_type") == "error"]
    names = list(dict.fromkeys(str(one["item"]) for one in told if one.get("item")))
    more = f" and {len(names) - LINKS_NAMED} more" if len(names) > LINKS_NAMED else ""
    return ", ".join(names[:LINKS_NAMED]) + more if names else _said(output, errors)


@dataclass(frozen=True)
class Source:
    """A folder that is copied or brought back.

    Attributes:
        path: as it is named in the settings.
        real: the folder itself, where the path is a link.
        is_mount: whether it is a disk of its own.
    """

    path: str
    real: str
    is_mount: bool


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def is_mount(path: str) -> bool:
    """Whether something is mounted at a path, be it a folder of the same disk."""
    return os.path.ismount(path) or any(one["path"] == path for one in parse_mountinfo(_read(MOUNTINFO)))


def missing_mount(path: str) -> str:
    """Name the folder at or above a path where /etc/fstab wants a disk and none is; empty where all is well."""
    # One that is mounted when somebody asks for it is mounted now.
    with contextlib.suppress(OSError):
        os.listdir(path)
    here = {os.path.normpath(path), os.path.realpath(path)}
    mounted = {one["path"] for one in parse_mountinfo(_read(MOUNTINFO))}
    for line in _read(FSTAB).splitlines():
        fields = line.split("#", 1)[0].split()
        if len(fields) < 2 or not fields[1].startswith("/"):
            continue
        wanted = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), fields[1])
        wanted = os.path.normpath(wanted)
        if wanted != "/" and wanted not in mounted and any(f"{one}/".startswith(f"{wanted}/") for one in here):
            return wanted
    return ""


def must_be_mounted(path: str, what: str = "the repository") -> None:
    """Refuse a path whose disk is not mounted.

    Raises:
        ResticError: it is not.
    """
    missing = missing_mount(path)
    if missing:
        raise ResticError(
            f"{what} {path} lies below {missing}, where /etc/fstab wants a disk that is not mounted. Nothing was"
            f" touched: mount it (mount {missing}), then run this again."
        )


def source_of(path: str) -> Source:
    """Find the folder that a path names, which need not be there.

    Raises:
        ResticError: it is a link that leads nowhere, or its disk is not mounted.
    """
    must_be_mounted(path, "the folder")
    real = os.path.realpath(path) if os.path.islink(path) else path
    if real != path:
        if not os.path.isdir(real):
            raise ResticError(f"{path} is a link to {real}, and no folder is there: mount its disk or correct it")
        if NO_NAME.search(real):
            raise ResticError(f"{path} is a link to {real!r}: restic would read a character of that name otherwise")
    return Source(path, real, is_mount(real))


def sources_of(paths: Sequence[str]) -> list[Source]:
    """Find the folders that are there to be copied.

    Raises:
        ResticError: one can't be copied as a whole, or there is none.
    """
    found = [one for one in map(source_of, paths) if os.path.isdir(one.real)]
    if not found:
        raise ResticError(f"there is nothing to copy: none of {', '.join(paths)} is there")
    return found


def links_out(sources: Sequence[Source]) -> list[str]:
    """List links in the folders to folders that no copy holds, since restic copies a link as one."""
    inside = tuple(f"{os.path.realpath(one.real)}/" for one in sources)
    found = []
    for one in sources:
        for folder, folders, _files in os.walk(one.real):
            for name in folders:
                link = os.path.join(folder, name)
                if os.path.islink(link) and not f"{os.path.realpath(link)}/".startswith(inside):
                    found.append(link)
    return sorted(found)


@dataclass(frozen=True)
class Permission:
    """Whether a repository may be made where there is none.

    Attributes:
        asked: somebody asked for a new one.
        first: nobody can have made one, since its password is of this run.
    """

    asked: bool = False
    first: bool = False


def is_ready(repository: Repository, sources: Sequence[Source], may: Permission) -> bool:
    """Tell whether the repository is there; it may be made where this says no.

    Raises:
        ResticError: there is none, and none may be made; its disk is not mounted; or it can't be opened.
    """
    local = repository.place.startswith("/")
    if local:
        must_be_mounted(repository.place)
    if repository.is_there():
        return True
    disks = {os.stat(one.real).st_dev for one in sources}
    beside = local and os.stat(nearest_existing(repository.place)).st_dev in disks
    if may.asked or (may.first and not beside):
        return False
    where = ", on the disk of what is to be copied: a NAS may not be mounted" if beside else ""
    raise ResticError(
        f"there is no repository at {repository.place}{where}. If there was one, bring back its disk or server, or"
        " correct backup_repository. Only if a new one is wanted there: -e backup_new_repository=true, once."
    )


def _must(run: Run, command: list[str]) -> str:
    code, output, errors = run(command)
    if code:
        raise ResticError(f"{' '.join(command)} failed: {_said(output, errors)}")
    return output


def _compose(project: str, *arguments: str) -> list[str]:
    return ["docker", "compose", "--project-directory", project, *arguments]


def _unit(run: Run, unit: str) -> tuple[bool, bool]:
    """Tell whether a unit is known, and whether it runs or is about to: one that crashes again and again is."""
    told = _must(run, ["systemctl", "show", "--property=LoadState,ActiveState", unit])
    found = dict(line.partition("=")[::2] for line in told.splitlines())
    return found.get("LoadState") != "not-found", found.get("ActiveState") not in ("inactive", "failed")


def _containers(run: Run, project: str) -> set[str]:
    """The states in which containers of a project are; none where there is no project.

    Raises:
        ResticError: Docker does not say.
    """
    if not os.path.isfile(os.path.join(project, "compose.yml")):
        return set()
    told = _must(run, _compose(project, "ps", "--all", "--format", "{{.State}}"))
    states = {line.strip() for line in told.splitlines()}
    if "paused" in states:
        # Only a copy pauses them. That one was killed.
        _must(run, _compose(project, "unpause"))
        states = states - {"paused"} | {"running"}
    return states


@dataclass(frozen=True)
class _Hold:
    """One thing that is held: by which command, and by which it goes on."""

    command: list[str]
    undo: list[str]


def _go_on(run: Run, commands: Iterable[list[str]]) -> list[str]:
    """Run commands, the last first; returns what went wrong."""
    problems = []
    for command in reversed(list(commands)):
        try:
            _must(run, command)
        except ResticError as error:
            problems.append(str(error))
    return problems


@contextlib.contextmanager
def held(run: Run, writers: Writers) -> Iterator[list[str]]:
    """Hold what writes; whatever happens then, it goes on afterwards.

    Where this process is killed, a service of systemd lets it go on.

    Yields:
        projects whose containers are paused.

    Raises:
        ResticError: something could not be held, or did not go on.
    """
    _alone(run)
    units = [unit for unit in writers.units if _unit(run, unit)[1]]
    holds = [_Hold(["systemctl", "stop", unit], ["systemctl", "start", unit]) for unit in units]
    paused = []
    for project in writers.projects:
        states = _containers(run, project)
        # What is being restarted can't be paused.
        if "restarting" in states:
            holds.append(_Hold(_compose(project, "stop"), _compose(project, "start")))
        elif "running" in states:
            holds.append(_Hold(_compose(project, "pause"), _compose(project, "unpause")))
            paused.append(project)
    # Stopped last, when all goes on.
    undo: list[list[str]] = [["systemctl", "stop", GUARD]] if holds else []
    if holds:
        _guard(run, [one.undo for one in holds])
    try:
        for one in holds:
            undo.append(one.undo)
            _must(run, one.command)
        yield paused
    except BaseException as error:
        problems = _go_on(run, undo)
        if problems:
            raise ResticError(f"{error}; and what was held does not go on: {'; '.join(problems)}") from error
        raise
    problems = _go_on(run, undo)
    if problems:
        raise ResticError(f"what was held does not go on: {'; '.join(problems)}")


def _alone(run: Run) -> None:
    """Refuse to go on while another process holds what writes.

    Raises:
        ResticError: one does.
    """
    if run(["systemctl", "is-active", "--quiet", GUARD])[0] == 0:
        raise ResticError(f"another copy is being made on this host ({GUARD}): wait until it is done")


def _guard(run: Run, undo: Sequence[list[str]]) -> None:
    """Have systemd wait for this process to end, and let everything go on then."""
    script = "; ".join([f"tail --pid={os.getpid()} -f /dev/null", *(shlex.join(one) for one in reversed(undo))])
    command = ["systemd-run", "--quiet", "--collect", f"--unit={GUARD}", "--", "/bin/sh", "-c", script]
    code, output, errors = run(command)
    if code:
        raise ResticError(f"{GUARD} can't be started; is another copy being made? {_said(output, errors)}")


def settled(run: Run, projects: Sequence[str], patience: float = SETTLE_SECONDS) -> None:
    """Wait until Docker calls containers healthy again, which it asks them for now and then.

    Raises:
        ResticError: they are not, after that many seconds, or Docker does not say.
    """
    until = time.monotonic() + patience
    for project in projects:
        while True:
            told = _must(run, _compose(project, "ps", "--format", "{{.Name}} {{.Health}}")).splitlines()
            sick = [line.split(" ")[0] for line in told if line.endswith(("unhealthy", "starting"))]
            if not sick:
                break
            if time.monotonic() > until:
                raise ResticError(f"the copy is made, but {', '.join(sick)} did not become healthy again")
            time.sleep(PAUSE_SECONDS)


def back_up(
    run: Run,
    repository: Repository,
    paths: Sequence[str],
    writers: Writers,
    host: str,
    may: Permission = Permission(),
) -> dict[str, Any]:
    """Make one copy of the folders that are there.

    Returns:
        ``snapshot``, ``paths``, ``files``, ``bytes_added`` and ``held_seconds``, how long what writes was held.

    Raises:
        ResticError: there is no whole copy.
    """
    sources = sources_of(paths)
    if is_ready(repository, sources, may):
        # A copy that was killed has left one.
        repository.unlock()
    else:
        repository.make()
    began = time.monotonic()
    with held(run, writers) as paused:
        told = repository.copy(sources, host)
    seconds = round(time.monotonic() - began, 1)
    repository.check(whole=False)
    settled(run, paused)
    return {
        "snapshot": str(told.get("snapshot_id", ""))[:8],
        "paths": [one.path for one in sources],
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


@dataclass(frozen=True)
class Place:
    """Where a folder of a snapshot goes.

    Attributes:
        source: the folder on this host as it is now.
        stored: its path in the snapshot.
    """

    source: Source
    stored: str

    @property
    def staging(self) -> str:
        """Folder of the same file system in which it is written first."""
        at = self.source.real if self.source.is_mount else os.path.dirname(self.source.real)
        return os.path.join(at, STAGING)

    @property
    def staged(self) -> str:
        """Where it lies then."""
        return self.staging + self.stored


def places_of(snapshot: Mapping[str, Any], paths: Sequence[str]) -> list[Place]:
    """Say where each folder of a snapshot goes. A path that is a link keeps leading to where it leads.

    Raises:
        ResticError: the snapshot holds none of them, or one has no place to go to.
    """
    copied = {str(path) for path in snapshot.get("paths") or []}
    real = dict(str(tag).partition("=")[::2] for tag in snapshot.get("tags") or [])
    stored = {path: real.get(path, path) for path in paths}
    found = [Place(source_of(path), stored[path]) for path in paths if stored[path] in copied]
    if not found:
        raise ResticError(f"the copy {str(snapshot.get('id', ''))[:8]} holds none of {', '.join(paths)}")
    return found


def restore(
    run: Run,
    repository: Repository,
    wanted: str,
    paths: Sequence[str],
    writers: Writers,
    owner: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Put the folders of a snapshot in their places; what is there now is kept beside.

    Everything is read, written beside its place and compared before the first service is stopped.

    Args:
        run: runs programs.
        repository: has the snapshot.
        wanted: ``latest``, or the beginning of the snapshot's id.
        paths: the folders.
        writers: what is stopped, and stays so.
        owner: numbers of user and group who own the folders that are not root's.

    Returns:
        ``snapshot``, ``time``, ``paths``, and ``aside``, where the folders of before are.

    Raises:
        ResticError: it did not work; the folders are as they were, and what was stopped runs.
    """
    snapshot = chosen(repository.snapshots(), wanted)
    places = places_of(snapshot, paths)
    repository.check(whole=True)
    stagings = sorted({place.staging for place in places})
    try:
        for staging in stagings:
            # What a restore that was killed has left must not be among what is restored.
            if os.path.lexists(staging):
                shutil.rmtree(staging)
            os.makedirs(staging, mode=0o700)
        for place in places:
            repository.bring(str(snapshot["id"]), place.stored, place.staging)
            if os.path.islink(place.staged):
                copy = f"the copy {str(snapshot['id'])[:8]}"
                raise ResticError(f"{copy} has a link for {place.stored}, and not what it led to")
            if not os.path.isdir(place.staged):
                raise ResticError(f"restic wrote no {place.stored}")
            if owner and os.lstat(place.staged).st_uid:
                own(place.staged, *owner)
        aside = _exchanged(run, writers, places)
    finally:
        for staging in stagings:
            shutil.rmtree(staging, ignore_errors=True)
    return {
        "snapshot": str(snapshot["id"])[:8],
        "time": str(snapshot.get("time", "")),
        "paths": [place.source.path for place in places],
        "aside": aside,
    }


def _exchanged(run: Run, writers: Writers, places: Sequence[Place]) -> list[str]:
    """Stop what writes and put the folders in place; start it again where that fails."""
    undo: list[list[str]] = []
    try:
        _halt(run, writers, undo)
        return _switch(places, time.strftime("%Y%m%dT%H%M%S", time.gmtime()))
    except BaseException as error:
        problems = _go_on(run, undo)
        if problems:
            raise ResticError(f"{error}; and what was stopped does not go on: {'; '.join(problems)}") from error
        raise


def _halt(run: Run, writers: Writers, undo: list[list[str]]) -> None:
    """Stop what writes, as far as it is there, and note how that which ran is started again."""
    _alone(run)
    for unit in writers.units:
        known, runs = _unit(run, unit)
        if runs:
            undo.append(["systemctl", "start", unit])
        if known:
            _must(run, ["systemctl", "stop", unit])
    for project in writers.projects:
        states = _containers(run, project)
        if states & {"running", "restarting"}:
            undo.append(_compose(project, "start"))
        if states:
            _must(run, _compose(project, "stop"))


def _switch(places: Sequence[Place], stamp: str) -> list[str]:
    """Rename the folders of before, and the new ones into their places; undo it where one of these fails."""
    done: list[tuple[str, str]] = []
    aside: list[str] = []

    def move(source: str, target: str) -> None:
        os.rename(source, target)
        done.append((source, target))

    try:
        for place in places:
            if place.source.is_mount:
                _switch_content(place, f"{ASIDE}-{stamp}", move, aside)
                continue
            if os.path.lexists(place.source.real):
                before = f"{place.source.real}{ASIDE}-{stamp}"
                move(place.source.real, before)
                aside.append(before)
            move(place.staged, place.source.real)
        for place in places:
            if place.source.is_mount:
                former = os.lstat(place.staged)
                os.chown(place.source.real, former.st_uid, former.st_gid)
                os.chmod(place.source.real, former.st_mode & 0o7777)
    except OSError as error:
        for source, target in reversed(done):
            os.rename(target, source)
        for folder in aside:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        raise ResticError(f"{error.filename} can't be put in place: {error.strerror}; all is as it was") from error
    return aside


def _switch_content(place: Place, name: str, move: Callable[[str, str], None], aside: list[str]) -> None:
    """The same for a disk of its own, which can't be renamed: what is in it is moved within it."""
    target = place.source.real
    before = os.path.join(target, name)
    there = [one for one in os.listdir(target) if one not in (STAGING, LOST_FOUND) and not one.startswith(ASIDE)]
    if there:
        os.mkdir(before, mode=0o700)
        aside.append(before)
    for one in sorted(there):
        move(os.path.join(target, one), os.path.join(before, one))
    for one in sorted(os.listdir(place.staged)):
        if one != LOST_FOUND:
            move(os.path.join(place.staged, one), os.path.join(target, one))


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
