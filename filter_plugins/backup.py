# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role backup checks of its settings before anything is copied or put in place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_REPOSITORY = re.compile(r"(/[\w.@+-]+){2,}/?|(sftp|rest|s3|b2|azure|gs|swift|rclone):\S+")
_WITH_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@")
_PATH = re.compile(r"(/[\w.@+-]+){2,}")
_SNAPSHOT = re.compile(r"latest|[0-9a-f]{4,64}")
_SECRET = re.compile(r"[A-Za-z0-9._~-]{20,}")


def backup_problems(settings: Mapping[str, Any]) -> list[str]:
    """Say what no copy could be made with. The password is never shown.

    Args:
        settings: the role's variables by their names without ``backup_``.

    Returns:
        a sentence for each problem.
    """
    repository = str(settings["repository"])
    problems = list(settings["elsewhere"])
    if not repository:
        problems.append(
            "backup_repository is empty: name where the copies are to lie, such as /mnt/nas/ai-idp or "
            "sftp:user@nas:/ai-idp"
        )
    elif _WITH_PASSWORD.search(repository):
        problems.append("backup_repository holds a password, which would be shown: use an address without one")
    elif not _REPOSITORY.fullmatch(repository):
        problems.append(
            f"backup_repository: '{repository}' is neither a folder below another, such as /mnt/nas/ai-idp, nor an "
            "address such as sftp:user@nas:/ai-idp"
        )
    if not _SECRET.fullmatch(settings["password"]):
        what = "too short or has other characters" if settings["password"] else "empty"
        problems.append(f"backup_password is {what}; it needs 20 or more letters, digits or ._~-")
    if not settings["paths"]:
        problems.append("backup_paths is empty: name the folders that are to be copied")
    problems += [
        f"backup_paths: '{path}' is no absolute path of letters, digits and . _ @ + - below another folder"
        for path in settings["paths"]
        if not _PATH.fullmatch(path)
    ]
    problems += [
        f"backup_repository: '{repository}' lies in {path}, which is to be copied into it"
        for path in settings["paths"]
        if f"{repository}/".startswith(f"{path}/")
    ]
    if not _SNAPSHOT.fullmatch(settings["snapshot"]):
        problems.append(
            f"backup_snapshot: '{settings['snapshot']}' is neither latest nor the beginning of a copy's id, such as "
            "5f3a91c2"
        )
    if int(settings["timeout"]) < 1:
        problems.append(f"backup_timeout: '{settings['timeout']}' is no number from 1 on")
    return problems


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Any]:
        """Name it."""
        return {"backup_problems": backup_problems}
