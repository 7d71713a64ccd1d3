# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Puts a whole folder of configuration in place in one step, after a program has accepted it, and takes it back.

FOLDER/releases/NAME/...      each release whole, named by the hash of what is in it
FOLDER/current                link to the release that counts; changing it is the one step
FOLDER/healthy.json           releases that proved healthy, the latest last; undoing goes back to that one
FOLDER/parts/NAME-HASH        what programs go on using when another release comes; releases link to it
FOLDER/secrets/NAME-HASH      the same for keys: a release names the generation of a key and holds none
"""

from __future__ import annotations

import contextlib
import difflib
import grp
import hashlib
import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ansible.module_utils.ai_idp.files import fsync_folder, nearest_existing
from ansible.module_utils.ai_idp.programs import run
from ansible.module_utils.ai_idp.releases import LATEST, ReleaseError, Releases, Result, remove_path

MARK = "@RELEASE@"
"""Stands in files for the release's name, so that the running program can be asked which release it runs."""

NO_INPUT = "none yet"
"""Stands for the hash of a file that is not there."""

VALIDATE_TIMEOUT_SECONDS = 60.0

PLACE = "@PLACE:%s@"
"""Stands in files for the place of a part or a secret file."""

NAMED_BY_CONTENT = re.compile(r".+-[0-9a-f]{12}")
"""Names of parts and secrets; what else lies beside them is somebody else's."""


@dataclass(frozen=True)
class Shared:
    """A file or a folder beside the releases, which several of them may link to.

    Attributes:
        name: its path in a release.
        secret: whether it is a secret file.
        files: text by path below it; a single file is ``""``.
    """

    name: str
    secret: bool
    files: dict[str, str]

    def path(self, below: str) -> str:
        """Path in a release of a file below it."""
        return f"{self.name}/{below}" if below else self.name

    @property
    def place(self) -> str:
        """Its path below the folder of the releases. Another content has another place."""
        digest = hashlib.sha256()
        for part in (item for entry in sorted(self.files.items()) for item in entry):
            digest.update(b"%d:" % len(part.encode()) + part.encode())
        return f"{'secrets' if self.secret else 'parts'}/{self.name.replace('/', '_')}-{digest.hexdigest()[:12]}"


def release_name(files: dict[str, str], secret_files: dict[str, str], secret_group: str | None = None) -> str:
    """Name a release by what is in it."""
    digest = hashlib.sha256()
    for kind, group, entries in (("plain", "", files), ("secret", secret_group or "", secret_files)):
        for path, content in sorted(entries.items()):
            for part in (kind, group, path, content):
                data = part.encode()
                digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()[:16]


def without_secrets(text: str, secret_files: dict[str, str]) -> str:
    """Take the words of secret files out of what a program says about them."""
    for word in {word for content in secret_files.values() for word in re.findall(r"[^\s\"';]{12,}", content)}:
        text = text.replace(word, "********")
    return text


def input_hashes(inputs: dict[str, str]) -> dict[str, str]:
    """Hash the files outside that a release depends on.

    Args:
        inputs: path by name.

    Returns:
        SHA-256 by name, ``NO_INPUT`` where there is no such file.
    """
    found = {}
    for name, path in inputs.items():
        try:
            with open(path, "rb") as stream:
                found[name] = hashlib.sha256(stream.read()).hexdigest()
        except FileNotFoundError:
            found[name] = NO_INPUT
    return found


def check_paths(paths: list[str]) -> None:
    """Refuse names that lead out of the release."""
    for path in paths:
        if path.startswith("/") or ".." in path.split("/") or os.path.normpath(path) != path:
            raise ReleaseError(f"'{path}' is no plain path below the release: write it like conf.d/name.conf.")
    for path in {path for path in paths if paths.count(path) > 1}:
        raise ReleaseError(f"'{path}' is among the files and among the secret files: it can only be one of them.")


def read_release(folder: str) -> dict[str, str]:
    """Read the files of a release by their paths in it, parts and secrets too; none where there is no such release."""
    found = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = os.path.join(parent, name)
            # A link whose key was deleted since leads nowhere.
            with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as stream:
                found[os.path.relpath(path, folder)] = stream.read()
    return found


def links_of(folder: str) -> dict[str, str]:
    """Read which parts and secrets a release links to: their places by their paths in it."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for path in (os.path.join(parent, name) for name in folders + names):
            if os.path.islink(path):
                place = os.path.normpath(os.path.join(parent, os.readlink(path)))
                found[os.path.relpath(path, folder)] = "/".join(place.split("/")[-2:])
    return found


def diff_of(before: dict[str, str], after: dict[str, str], secret: set[str]) -> list[dict[str, str]]:
    """Compare file by file; of secret files only the names are told."""
    lines: list[str] = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if path in secret:
            word = "appears" if old is None else "disappears" if new is None else "changes"
            lines.append(f"secret file {path} {word}\n")
            continue
        lines += difflib.unified_diff(
            (old or "").splitlines(keepends=True),
            (new or "").splitlines(keepends=True),
            f"before: {path}" if old is not None else "/dev/null",
            f"after: {path}" if new is not None else "/dev/null",
        )
    return [{"prepared": "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)}] if lines else []


class ConfigReleases(Releases):
    """The releases below one folder.

    Args:
        folder: the folder.
        validate: argument list of the program that must accept a release, ``%s`` in it stands for the release's path;
            empty for none.
        secret_group: group that may read the secret files; root alone when None.
        inputs: files outside whose hashes are written in place of ``@NAME@``, by name.
        parts: paths in a release, of files or folders, that programs go on using when another release comes.
        secret_owners: account that a secret file belongs to, by its path in the release; root's otherwise.
    """

    def __init__(
        self,
        folder: str,
        validate: list[str],
        secret_group: str | None = None,
        inputs: dict[str, str] | None = None,
        parts: Iterable[str] = (),
        secret_owners: dict[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.validate = validate
        self.secret_group = secret_group
        self.hashes = input_hashes(inputs or {})
        self.parts = tuple(parts)
        self.secret_owners = secret_owners or {}

    # -- Putting in place ---------------------------------------------------------------------------------------------

    def put(self, files: dict[str, str], secret_files: dict[str, str], check: bool) -> Result:
        """Make the files the current release, unless they are. It is on trial until it is said to be healthy.

        Args:
            files: text by path.
            secret_files: the same for files that hold secrets; never shown.
            check: change nothing but a folder of its own for the validation, which is removed again.

        Raises:
            ReleaseError: the program refused it.
        """
        check_paths([*files, *secret_files])
        for mark, value in self.hashes.items():
            files = {path: text.replace(f"@{mark}@", value) for path, text in files.items()}
        name = release_name(files, secret_files, self.secret_group)
        shared = list(self._shared(files, secret_files))
        own = {path: text.replace(MARK, name) for path, text in files.items() if not self._part_of(path)}
        for each in shared:
            place = os.path.join(self.folder, each.place)
            own = {path: text.replace(PLACE % each.name, place) for path, text in own.items()}
        wanted = {**own, **{each.path(below): text for each in shared for below, text in each.files.items()}}
        before = self.current
        result = Result(release=name, path=self.path(name), previous=before, healthy=self.latest)
        # A release that somebody has edited is made again.
        if before == name and read_release(self.path(name)) == wanted and self._holds(name, own, shared):
            if not check and result.healthy == name:
                # One that was cut off when this proved healthy may have left keys of before.
                self.forget_others(self.healthy)
            return result
        result.changed = True
        known = read_release(self.path(before)) if before else {}
        result.diff = diff_of(known, wanted, set(secret_files) | self._secret_paths(before))
        staged = self.path(f"{name}.staged")
        made = _first_missing(self.folder)
        try:
            self._write(staged, own, shared, check)
            result.validated = self._accepted(staged, check, secret_files)
            if not check:
                self._install(staged, name)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            self._forget_unused()
            if made and check:
                remove_path(made)
        return result

    def go_back(self, wanted: str, secret_files: dict[str, str], check: bool) -> Result:
        """Make a release that once was healthy the current one, with the keys of today.

        Args:
            wanted: its name, or ``previous`` for the latest that is not the current one.
            secret_files: today's secret files, as in `put`.
            check: as in `put`.

        Raises:
            ReleaseError: there is no such release, or the program refused it.
        """
        known = [name for name in self.healthy if name != self.current]
        name = next(reversed(known), None) if wanted == LATEST else wanted
        if name is None or name not in self.healthy:
            there = f"There are, the latest last: {', '.join(known)}." if known else "There is no other one."
            raise ReleaseError(f"There is no healthy release {wanted} in {self.folder}. {there}")
        texts, links = read_release(self.path(name)), links_of(self.path(name))
        secrets = [path for path, place in links.items() if place.startswith("secrets/")]
        if lacking := sorted(set(secrets) - set(secret_files)):
            raise ReleaseError(f"The release {name} needs {', '.join(lacking)}, which is not set up any more.")
        self.parts = tuple(path for path, place in links.items() if place.startswith("parts/"))
        files = {path: text for path, text in texts.items() if path not in secrets}
        for path, text in files.items():
            if self._part_of(path):
                continue
            for link, place in links.items():
                text = text.replace(os.path.join(self.folder, place), PLACE % link)
            files[path] = text.replace(name, MARK)
        return self.put(files, {path: secret_files[path] for path in secrets}, check)

    # -- Parts and secrets --------------------------------------------------------------------------------------------

    def _part_of(self, path: str) -> str:
        """The part that a file belongs to; empty where it is none's."""
        return next((name for name in self.parts if path == name or path.startswith(f"{name}/")), "")

    def _shared(self, files: dict[str, str], secret_files: dict[str, str]) -> Iterator[Shared]:
        for name in self.parts:
            below = {
                "" if path == name else os.path.relpath(path, name): text
                for path, text in files.items()
                if self._part_of(path) == name
            }
            if below:
                yield Shared(name, False, below)
        for path, text in secret_files.items():
            yield Shared(path, True, {"": text})

    @property
    def _group(self) -> int:
        """Number of the group that may read the secret files; -1 for none."""
        return grp.getgrnam(self.secret_group).gr_gid if self.secret_group else -1

    def _file_rights(self, shared: Shared) -> tuple[int, int, int]:
        """Mode, owner and group of a part's files or of a secret file."""
        if not shared.secret:
            return 0o644, os.geteuid(), -1
        owner = self.secret_owners.get(shared.name)
        return (
            (0o640 if self.secret_group else 0o600),
            pwd.getpwnam(owner).pw_uid if owner else os.geteuid(),
            self._group,
        )

    @property
    def _secrets_mode(self) -> int:
        """Of the folder of the secrets, whose names tell something of short passwords."""
        return 0o710 if self.secret_group else 0o700

    def _holds(self, name: str, own: dict[str, str], shared: list[Shared]) -> bool:
        """Whether links, modes and owners of a release are those that it was written with."""
        root = self.path(name)
        if links_of(root) != {each.name: each.place for each in shared}:
            return False
        rights = {os.path.join(root, path): (0o644, os.geteuid(), -1) for path in own}
        for each in shared:
            place = os.path.join(self.folder, each.place)
            rights.update({os.path.join(place, path).rstrip("/"): self._file_rights(each) for path in each.files})
        if any(each.secret for each in shared):
            rights[os.path.join(self.folder, "secrets")] = (self._secrets_mode, os.geteuid(), self._group)
        return all(_has(path, *wanted) for path, wanted in rights.items())

    def _put_shared(self, each: Shared, check: bool) -> None:
        """Write a part or a secret file, or mend it where it is: a container may have it mounted.

        A check writes what is not there yet, for the validation, and mends nothing.
        """
        place = os.path.join(self.folder, each.place)
        if check and os.path.lexists(place):
            return
        store = os.path.dirname(place)
        os.makedirs(store, mode=0o755, exist_ok=True)
        if each.secret:
            os.chown(store, os.geteuid(), self._group)
            os.chmod(store, self._secrets_mode)
        wanted = {os.path.join(place, path).rstrip("/"): text for path, text in each.files.items()}
        for parent, _, names in os.walk(place, topdown=False):
            for path in (os.path.join(parent, name) for name in names):
                if path not in wanted:
                    os.unlink(path)
            with contextlib.suppress(OSError):
                os.rmdir(parent)
        try:
            rights = self._file_rights(each)
        except KeyError:
            # A check on a bare host knows no such account yet.
            if not check:
                raise
            rights = (0o600, os.geteuid(), -1)
        for path, text in wanted.items():
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            _write_file(path, text, *rights)

    def _forget_unused(self) -> None:
        """Remove parts and secrets that no release links to."""
        used: set[str] = set()
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(os.path.join(self.folder, "releases")):
                used |= set(links_of(self.path(name)).values())
        for store in ("parts", "secrets"):
            folder = os.path.join(self.folder, store)
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(folder):
                    if NAMED_BY_CONTENT.fullmatch(name) and f"{store}/{name}" not in used:
                        remove_path(os.path.join(folder, name))
            # A check leaves nothing.
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def may_stay(self, name: str) -> bool:
        """A release of a former version may have keys in it."""
        found = (
            os.lstat(os.path.join(parent, file)) for parent, _, files in os.walk(self.path(name)) for file in files
        )
        return super().may_stay(name) and all(info.st_mode & 0o004 for info in found)

    def forget_others(self, names: list[str]) -> None:
        """Remove other releases, what only they used, and every key that the current one does not name."""
        super().forget_others(names)
        self._forget_unused()
        used = set(links_of(self.path(self.current)).values()) if self.current else set()
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(os.path.join(self.folder, "secrets")):
                if NAMED_BY_CONTENT.fullmatch(name) and f"secrets/{name}" not in used:
                    remove_path(os.path.join(self.folder, "secrets", name))

    # -- Files --------------------------------------------------------------------------------------------------------

    def _secret_paths(self, name: str | None) -> set[str]:
        """Paths in a release that not everybody may read."""
        if name is None:
            return set()
        root = self.path(name)
        return {path for path in read_release(root) if not os.stat(os.path.join(root, path)).st_mode & 0o004}

    def _write(self, folder: str, own: dict[str, str], shared: list[Shared], check: bool) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for path in (self.folder, os.path.dirname(folder), folder):
            os.makedirs(path, mode=0o755, exist_ok=True)
        for path, text in own.items():
            target = os.path.join(folder, path)
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
            _write_file(target, text, 0o644, os.geteuid(), -1)
        for each in shared:
            self._put_shared(each, check)
            link = os.path.join(folder, each.name)
            os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
            os.symlink(os.path.relpath(os.path.join(self.folder, each.place), os.path.dirname(link)), link)

    def _accepted(self, staged: str, check: bool, secret_files: dict[str, str]) -> bool:
        """Whether the program accepted the release; False in check mode where it, or an input, is still to come."""
        if not self.validate:
            return False
        if check and (shutil.which(self.validate[0]) is None or NO_INPUT in self.hashes.values()):
            return False
        answer = run([argument.replace("%s", staged) for argument in self.validate], VALIDATE_TIMEOUT_SECONDS)
        if answer.rc != 0:
            said = without_secrets(answer.output.replace(f"{staged}/", ""), secret_files).strip()
            raise ReleaseError(f"{self.validate[0]} refused the new configuration; the running one stays. {said}")
        return True

    def _install(self, staged: str, name: str) -> None:
        target = self.path(name)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(staged, target)
        fsync_folder(os.path.dirname(target))
        self.make_current(name)


def _first_missing(folder: str) -> str:
    """The folder or its farthest parent that is not there; empty where all are."""
    there = nearest_existing(folder)
    below = os.path.relpath(os.path.abspath(folder), there)
    return "" if below == "." else os.path.join(there, below.split("/")[0])


def _has(path: str, mode: int, owner: int, group: int) -> bool:
    """Whether a file has the mode, the owner and the group; -1 is any group."""
    info = os.stat(path)
    return stat.S_IMODE(info.st_mode) == mode and info.st_uid == owner and group in (-1, info.st_gid)


def _write_file(path: str, text: str, mode: int, owner: int, group: int) -> None:
    """Write a file whole, readable by nobody else before it has its mode."""
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        os.fchown(stream.fileno(), owner, group)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
