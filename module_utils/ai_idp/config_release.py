# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Puts a whole folder of configuration in place in one step, after a program has accepted it.

FOLDER/releases/NAME/...   each release whole, named by the hash of what is in it
FOLDER/current             link to the release that counts; changing it is the one step
FOLDER/previous            link to the release before it
"""

from __future__ import annotations

import contextlib
import difflib
import grp
import hashlib
import os
import re
import shutil
from dataclasses import dataclass, field

from ansible.module_utils.ai_idp.files import fsync_folder
from ansible.module_utils.ai_idp.programs import run

MARK = "@RELEASE@"
"""Stands in files for the release's name, so that the running program can be asked which release it runs."""

VALIDATE_TIMEOUT_SECONDS = 60.0


class ReleaseError(Exception):
    """The release can't be put in place; nothing was changed."""


@dataclass
class Result:
    """What was done, or would be done in check mode."""

    release: str
    path: str
    previous: str | None = None
    changed: bool = False
    validated: bool = False
    diff: list[dict[str, str]] = field(default_factory=list)


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


def check_paths(paths: list[str]) -> None:
    """Refuse names that lead out of the release."""
    for path in paths:
        if path.startswith("/") or ".." in path.split("/") or os.path.normpath(path) != path:
            raise ReleaseError(f"'{path}' is no plain path below the release: write it like conf.d/name.conf.")
    for path in {path for path in paths if paths.count(path) > 1}:
        raise ReleaseError(f"'{path}' is among the files and among the secret files: it can only be one of them.")


def read_release(folder: str) -> dict[str, str]:
    """Read the files of a release by their paths in it; none where there is no such release."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, encoding="utf-8", errors="replace") as stream:
                found[os.path.relpath(path, folder)] = stream.read()
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


def link_name(path: str) -> str | None:
    """Name of the release that a link points to."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return None


def set_link(path: str, name: str) -> None:
    """Point a link to a release in one step."""
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(f"releases/{name}", temporary)
    os.replace(temporary, path)
    fsync_folder(os.path.dirname(path))


class ConfigReleases:
    """The releases below one folder.

    Args:
        folder: the folder.
        validate: argument list of the program that must accept a release, ``%s`` in it stands for the release's path;
            empty for none.
        secret_group: group that may read the secret files; root alone when None.
    """

    def __init__(self, folder: str, validate: list[str], secret_group: str | None = None) -> None:
        self.folder = folder
        self.validate = validate
        self.secret_group = secret_group

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, "releases", name)

    @property
    def current(self) -> str | None:
        return link_name(os.path.join(self.folder, "current"))

    @property
    def previous(self) -> str | None:
        return link_name(os.path.join(self.folder, "previous"))

    def put(self, files: dict[str, str], secret_files: dict[str, str], check: bool) -> Result:
        """Make the files the current release, unless they are.

        Args:
            files: text by path.
            secret_files: the same for files that hold secrets; never shown.
            check: change nothing but a folder of its own for the validation, which is removed again.

        Raises:
            ReleaseError: the program refused it.
        """
        check_paths([*files, *secret_files])
        name = release_name(files, secret_files, self.secret_group)
        wanted = {path: text.replace(MARK, name) for path, text in {**files, **secret_files}.items()}
        before = self.current
        result = Result(release=name, path=self._path(name), previous=before)
        there = read_release(self._path(name))
        # A release that somebody has edited is made again.
        if before == name and there == wanted:
            result.previous = self.previous
            return result
        result.changed = True
        known = read_release(self._path(before)) if before else {}
        result.diff = diff_of(known, wanted, set(secret_files) | self._secret_paths(before))
        staged = self._path(f"{name}.staged")
        made = not os.path.isdir(self.folder)
        try:
            self._write(staged, wanted, set(secret_files))
            result.validated = self._accepted(staged, check, secret_files)
            if not check:
                self._install(staged, name, before)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            if made and check:
                shutil.rmtree(self.folder, ignore_errors=True)
        return result

    def back(self, check: bool) -> Result:
        """Make the previous release the current one.

        Raises:
            ReleaseError: there is none.
        """
        name, before = self.previous, self.current
        if name is None or not os.path.isdir(self._path(name)):
            raise ReleaseError(f"There is no release before {before} in {self.folder}.")
        result = Result(release=name, path=self._path(name), previous=before, changed=name != before)
        if result.changed and not check:
            set_link(os.path.join(self.folder, "current"), name)
        return result

    def _secret_paths(self, name: str | None) -> set[str]:
        """Paths in a release that not everybody may read."""
        if name is None:
            return set()
        root = self._path(name)
        return {path for path in read_release(root) if not os.stat(os.path.join(root, path)).st_mode & 0o004}

    def _write(self, folder: str, wanted: dict[str, str], secret: set[str]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for path in (self.folder, os.path.dirname(folder), folder):
            os.makedirs(path, mode=0o755, exist_ok=True)
        group = grp.getgrnam(self.secret_group).gr_gid if self.secret_group else -1
        for path, text in wanted.items():
            target = os.path.join(folder, path)
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
            mode = (0o640 if self.secret_group else 0o600) if path in secret else 0o644
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                if path in secret and self.secret_group:
                    os.fchown(stream.fileno(), -1, group)
                os.fchmod(stream.fileno(), mode)
                stream.flush()
                os.fsync(stream.fileno())

    def _accepted(self, staged: str, check: bool, secret_files: dict[str, str]) -> bool:
        """Whether the program accepted the release; False where it is not installed yet, in check mode."""
        if not self.validate:
            return False
        if check and shutil.which(self.validate[0]) is None:
            return False
        answer = run([argument.replace("%s", staged) for argument in self.validate], VALIDATE_TIMEOUT_SECONDS)
        if answer.rc != 0:
            said = without_secrets(answer.output.replace(f"{staged}/", ""), secret_files).strip()
            raise ReleaseError(f"{self.validate[0]} refused the new configuration; the running one stays. {said}")
        return True

    def _install(self, staged: str, name: str, before: str | None) -> None:
        target = self._path(name)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(staged, target)
        fsync_folder(os.path.dirname(target))
        if before is not None and before != name:
            set_link(os.path.join(self.folder, "previous"), before)
        set_link(os.path.join(self.folder, "current"), name)
        # Older releases may hold keys that were revoked since.
        for old in os.listdir(os.path.join(self.folder, "releases")):
            if old not in (name, self.previous):
                shutil.rmtree(self._path(old), ignore_errors=True)
