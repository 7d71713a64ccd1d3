# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sets of directories, files and links: compared with what is there, written whole or not at all."""

from __future__ import annotations

import contextlib
import fnmatch
import grp
import os
import pwd
import shlex
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ansible.module_utils.ai_idp.files import fsync_folder, nearest_existing
from ansible.module_utils.ai_idp.host_state.changes import Journal, StateError
from ansible.module_utils.ai_idp.programs import run

VALIDATE_TIMEOUT_SECONDS = 60.0
SHOWN_BYTES = 1 << 20
"""Longer files are not shown in a diff."""


@dataclass(frozen=True)
class Wanted:
    """A path and whom it belongs to."""

    path: str
    owner: str
    group: str
    mode: int


@dataclass(frozen=True)
class WantedFile(Wanted):
    """A file with its text.

    Attributes:
        validate: command line of a program that must accept the text; ``%s`` in it stands for the new file's path.
        secret: never shown in a diff or an error.
        backup: whether what was there before is kept beside it as PATH.before.
        once: the text counts only while there is no such file.
    """

    content: str = ""
    validate: str = ""
    secret: bool = False
    backup: bool = False
    once: bool = False


class Owners:
    """Numbers of accounts and groups. In check mode one that does not exist yet has none."""

    def __init__(self, check: bool) -> None:
        self._check = check

    def user(self, name: str, path: str) -> int | None:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
        return self._unknown("account", name, path)

    def group(self, name: str, path: str) -> int | None:
        with contextlib.suppress(KeyError):
            return grp.getgrnam(name).gr_gid
        return self._unknown("group", name, path)

    def _unknown(self, kind: str, name: str, path: str) -> None:
        if not self._check:
            raise StateError(f"{path} can't be given to the {kind} '{name}', which this host does not have.")


def _described(info: os.stat_result) -> str:
    """Owner, group and mode as a diff shows them."""
    try:
        owner = pwd.getpwuid(info.st_uid).pw_name
    except KeyError:
        owner = str(info.st_uid)
    try:
        group = grp.getgrgid(info.st_gid).gr_name
    except KeyError:
        group = str(info.st_gid)
    return f"{owner}:{group} {stat.S_IMODE(info.st_mode):04o}\n"


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


class Paths:
    """Brings directories, files and links of a host into the wanted state.

    Args:
        journal: where changes are noted.
        check: change nothing, only note.
        before: is told of each file, link and path that is removed before it is changed.
    """

    def __init__(self, journal: Journal, check: bool, before: Callable[[str], None] = lambda _path: None) -> None:
        self.journal = journal
        self.check = check
        self._before = before
        self.owners = Owners(check)
        self._gone: set[str] = set()

    def directory(self, wanted: Wanted, once: bool = False) -> None:
        """Make a directory, or give it its owner and mode. A link to a directory is one.

        Parents that are missing become its like, as with ansible.builtin.file.

        Args:
            wanted: the directory.
            once: whether one that is there keeps its owner and mode.

        Raises:
            StateError: something else has that path, or the owner is unknown.
        """
        path = wanted.path
        try:
            info: os.stat_result | None = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            info = None
        if info is not None and not stat.S_ISDIR(info.st_mode):
            raise StateError(f"{path} is to be a directory and is none: move away what is there.")
        if info is None:
            if os.path.islink(path):
                raise StateError(f"{path} is a link to {os.readlink(path)}, which does not exist: mount or remove it.")
            self.journal.add("directory", path, "created")
            if not self.check:
                missing = [path]
                while not os.path.lexists(os.path.dirname(missing[0])):
                    missing.insert(0, os.path.dirname(missing[0]))
                for folder in missing:
                    os.mkdir(folder, 0o700)
                    self._own(folder, wanted, os.O_DIRECTORY)
            return
        if not once:
            self._attributes("directory", wanted, info)

    def file(self, wanted: WantedFile) -> None:
        """Write a file in one step where its text, owner or mode is another. A link in its place gives way to it.

        Raises:
            StateError: a directory has that path, its folder is missing, or the validating program refuses the text.
        """
        path = wanted.path
        info = _lstat(path)
        if info is not None and stat.S_ISDIR(info.st_mode):
            raise StateError(f"{path} is to be a file and is a directory: move it away.")
        text = None
        if info is not None and stat.S_ISREG(info.st_mode):
            if wanted.once:
                # Not read: it may be a long log.
                self._attributes("file", wanted, info)
                return
            with open(path, "rb") as stream:
                text = stream.read()
            if text == wanted.content.encode():
                self._attributes("file", wanted, info)
                return
        if wanted.once and os.path.exists(path):
            # Somebody has put a link to a file of his own there.
            return
        self._write(wanted, text)
        how = "created" if info is None else "changed" if text is not None else "put in place of a link"
        self._note(wanted, text, how)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link in one step, or turn it.

        Raises:
            StateError: something that is no link has that path.
        """
        info = _lstat(path)
        if info is not None and not stat.S_ISLNK(info.st_mode):
            raise StateError(f"{path} is to be a link to {target} and is none: move away what is there.")
        before = os.readlink(path) if info is not None else None
        if before == target:
            return
        self.journal.add("link", path, "turned" if before else "created", f"{before or ''}\n", f"{target}\n")
        folder, name = os.path.split(path)
        if not self.check and not os.path.isdir(folder):
            raise StateError(f"{path} can't be made: {nearest_existing(folder)} has no such folder in it.")
        self._before(path)
        if not self.check:
            temporary = os.path.join(folder, f".{name}.new")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            os.symlink(target, temporary)
            os.replace(temporary, path)
            fsync_folder(folder)

    def absent(self, path: str) -> None:
        """Remove a file, a link or a directory with what is in it.

        Raises:
            StateError: it is a folder at the top of the host.
        """
        info = _lstat(path)
        if info is None or path in self._gone:
            return
        if os.path.dirname(path) == "/" and stat.S_ISDIR(info.st_mode):
            raise StateError(f"{path} is a folder at the top of the host and is not removed: name what is in it.")
        # In check mode it is still there when a purge comes to it.
        self._gone.add(path)
        self.journal.add("path", path, "removed")
        self._before(path)
        if self.check:
            return
        if stat.S_ISDIR(info.st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def aside(self, path: str) -> None:
        """Keep what somebody has put there as PATH.aside, or PATH.aside.2 and so on."""
        kept = f"{path}.aside"
        more = 2
        while os.path.lexists(kept):
            kept, more = f"{path}.aside.{more}", more + 1
        self.journal.add("path", path, f"moved to {kept}")
        if not self.check:
            os.rename(path, kept)
            fsync_folder(os.path.dirname(path))

    def purge(self, directory: str, patterns: list[str], keep: Iterable[str]) -> None:
        """Remove files of a directory that match a pattern and are not to be kept. Directories in it stay."""
        # By its real path, since a folder may have another name through a link.
        folder = os.path.realpath(directory)
        kept = {os.path.basename(path) for path in keep if os.path.realpath(os.path.dirname(path)) == folder}
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            path = os.path.join(directory, name)
            if name in kept or not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                continue
            if os.path.islink(path) or not os.path.isdir(path):
                self.absent(path)

    def _own(self, path: str, wanted: Wanted, flags: int) -> None:
        owner, group = self.owners.user(wanted.owner, wanted.path), self.owners.group(wanted.group, wanted.path)
        assert owner is not None
        assert group is not None
        # By a handle: whoever owns the folder could put a link to a file of somebody else's in its place meanwhile.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
        try:
            # The owner first: giving a file away clears bits of its mode.
            os.fchown(handle, owner, group)
            os.fchmod(handle, wanted.mode)
        finally:
            os.close(handle)

    def _attributes(self, kind: str, wanted: Wanted, info: os.stat_result) -> None:
        owner = self.owners.user(wanted.owner, wanted.path)
        group = self.owners.group(wanted.group, wanted.path)
        if (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (owner, group, wanted.mode):
            return
        after = f"{wanted.owner}:{wanted.group} {wanted.mode:04o}\n"
        self.journal.add(kind, wanted.path, "owner or mode", _described(info), after)
        if kind == "file":
            self._before(wanted.path)
        if not self.check:
            self._own(wanted.path, wanted, os.O_DIRECTORY if kind == "directory" else os.O_NOFOLLOW)

    def _note(self, wanted: WantedFile, text: bytes | None, how: str) -> None:
        if wanted.secret:
            self.journal.add("file", wanted.path, f"{how} (its text is a secret)")
        elif len(wanted.content) > SHOWN_BYTES or len(text or b"") > SHOWN_BYTES:
            self.journal.add("file", wanted.path, f"{how} (too long to show)")
        else:
            before = (text or b"").decode("utf-8", "replace")
            self.journal.add("file", wanted.path, how, before, wanted.content)

    def _write(self, wanted: WantedFile, before: bytes | None) -> None:
        folder, name = os.path.split(wanted.path)
        if self.check:
            # The folder may be one that is still to come.
            with tempfile.TemporaryDirectory() as elsewhere:
                self._prepare(os.path.join(elsewhere, name), wanted)
            self._before(wanted.path)
            return
        if not os.path.isdir(folder):
            raise StateError(f"{wanted.path} can't be written: {nearest_existing(folder)} has no such folder in it.")
        new = os.path.join(folder, f".{name}.new")
        try:
            self._prepare(new, wanted)
            self._own(new, wanted, os.O_NOFOLLOW)
            if wanted.backup and before is not None:
                self._back_up(wanted.path, before)
            # Not sooner: what its program refuses changes nothing.
            self._before(wanted.path)
            os.replace(new, wanted.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
        fsync_folder(folder)

    def _back_up(self, path: str, text: bytes) -> None:
        """Keep what is there as PATH.before, readable by nobody who could not read it before."""
        info, copy = os.lstat(path), f"{path}.before.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)
        with open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(text)
            os.fchown(stream.fileno(), info.st_uid, info.st_gid)
            os.fchmod(stream.fileno(), stat.S_IMODE(info.st_mode))
        os.replace(copy, f"{path}.before")

    def _prepare(self, path: str, wanted: WantedFile) -> None:
        """Write the new text beside the old file and have it validated."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(wanted.content)
            stream.flush()
            os.fsync(stream.fileno())
        if not wanted.validate:
            return
        if "%s" not in wanted.validate:
            raise StateError(
                f"The program that is to validate {wanted.path} is '{wanted.validate}': write %s where it is to read "
                "the new file's path."
            )
        argv = [word.replace("%s", path) for word in shlex.split(wanted.validate)]
        # In check mode the program may be one that is still to be installed, and it may read what an earlier change of
        # this call would have made.
        if self.check and (self.journal.changes or shutil.which(argv[0]) is None):
            return
        answer = run(argv, VALIDATE_TIMEOUT_SECONDS)
        if answer.rc != 0:
            said = "" if wanted.secret else answer.output.replace(path, wanted.path).strip()
            raise StateError(f"{argv[0]} refuses the new {wanted.path}; the old one stays. {said}".strip())
