# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What there is of a compose project on a host: of the inference stack, MLflow or n8n."""

from __future__ import annotations

import os
import pwd
from typing import Any


def describe(folder: str, user: str) -> dict[str, Any]:
    """What the module stack_info returns.

    Raises:
        OSError: the release can't be read.
    """
    release: str | None = None
    place: str | None = None
    for place in (os.path.join(folder, "current"), folder):
        try:
            # One that was damaged differs from what is wanted, and is written anew.
            with open(os.path.join(place, "compose.yml"), encoding="utf-8", errors="replace") as stream:
                release = stream.read()
            break
        except (FileNotFoundError, NotADirectoryError):
            continue
    try:
        entry = pwd.getpwnam(user)
        ids: str | None = f"{entry.pw_uid}:{entry.pw_gid}"
    except KeyError:
        ids = None
    return {"release": release, "project_dir": None if release is None else place, "user_ids": ids}
