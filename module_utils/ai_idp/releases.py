# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Releases of a program below one folder: which one is current, which proved healthy, and going back.

FOLDER/releases/NAME/...   each release whole
FOLDER/current             link to the release that counts; changing it is the one step
FOLDER/healthy.json        releases that proved healthy, the latest last; undoing goes back to that one
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field

from ansible.module_utils.ai_idp.documents import from_json
from ansible.module_utils.ai_idp.files import fsync_folder, write_atomically

LATEST = "previous"
"""Stands for the latest healthy release that is not the current one."""


class ReleaseError(Exception):
    """The release can't be put in place; nothing was changed."""


@dataclass
class Result:
    """What was done, or would be done in check mode.

    Attributes:
        release: the current release; None where there is none.
        path: its folder.
        previous: the release that was current before.
        healthy: the latest release that proved healthy.
        changed: whether anything was, or would be, changed.
        validated: whether the program was asked.
        diff: what changes.
    """

    release: str | None
    path: str
    previous: str | None = None
    healthy: str | None = None
    changed: bool = False
    validated: bool = False
    diff: list[dict[str, str]] = field(default_factory=list)


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


def remove_path(path: str) -> None:
    """Remove a file, a link or a folder with what is in it, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Releases:
    """The releases below one folder.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def path(self, name: str) -> str:
        """Folder of a release."""
        return os.path.join(self.folder, "releases", name)

    @property
    def current(self) -> str | None:
        """Name of the current release."""
        return link_name(os.path.join(self.folder, "current"))

    @property
    def _listed(self) -> list[str] | None:
        """Names in the list of healthy releases; None where there is no list that can be read."""
        try:
            with open(os.path.join(self.folder, "healthy.json"), encoding="utf-8") as stream:
                listed = from_json(stream.read())
        except (FileNotFoundError, ValueError):
            return None
        return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else None

    @property
    def healthy(self) -> list[str]:
        """Releases that proved healthy and are still there, the latest last.

        Before there was a list, what was current was healthy, and what a link named previous.
        """
        names = self._listed
        if names is None:
            links = (link_name(os.path.join(self.folder, link)) for link in ("previous", "current"))
            names = list(dict.fromkeys(name for name in links if name))
        return [name for name in names if os.path.isdir(self.path(name))]

    @property
    def latest(self) -> str | None:
        """The latest release that proved healthy."""
        return next(reversed(self.healthy), None)

    def _list(self, names: list[str]) -> None:
        write_atomically(os.path.join(self.folder, "healthy.json"), (json.dumps(names) + "\n").encode())

    def make_current(self, name: str) -> None:
        """Change the link. The release is on trial until it is said to be healthy."""
        before = self.current
        if self._listed is None:
            self._list(self.healthy)
        set_link(os.path.join(self.folder, "current"), name)
        # One that was on trial and never proved healthy is forgotten.
        if before is not None and before != name and before not in self.healthy:
            shutil.rmtree(self.path(before), ignore_errors=True)

    def prove(self, keep: int, check: bool) -> Result:
        """Say that the current release is healthy: it is what undoing goes back to from now on.

        Args:
            keep: how many healthy releases stay, the current one included.
            check: change nothing.

        Raises:
            ReleaseError: there is no release.
        """
        name = self.current
        if name is None or not os.path.isdir(self.path(name)):
            raise ReleaseError(f"There is no release in {self.folder}.")
        before, latest = self._listed, self.latest
        names = [*(other for other in self.healthy if other != name and self.may_stay(other)), name][-keep:]
        if not check:
            if names != before:
                self._list(names)
            self.forget_others(names)
        return Result(release=name, path=self.path(name), previous=latest, healthy=name, changed=names != before)

    def undo(self, check: bool) -> Result:
        """Go back to the latest healthy release; to none where there is none. A current one that is healthy stays."""
        before, name = self.current, self.latest
        result = Result(release=name, path=self.path(name or ""), previous=before, healthy=name)
        if before == name:
            return result
        result.changed = True
        if not check:
            link = os.path.join(self.folder, "current")
            if name is None:
                os.unlink(link)
                fsync_folder(self.folder)
            else:
                set_link(link, name)
            self.forget_others(self.healthy)
        return result

    def may_stay(self, name: str) -> bool:
        """Whether a release may be kept once it is not current any more."""
        return os.path.isdir(self.path(name))

    def forget_others(self, names: list[str]) -> None:
        """Remove all other releases, and what told of one before there was a list."""
        with contextlib.suppress(FileNotFoundError):
            for old in os.listdir(os.path.join(self.folder, "releases")):
                if old not in names:
                    shutil.rmtree(self.path(old), ignore_errors=True)
        remove_path(os.path.join(self.folder, "previous"))
