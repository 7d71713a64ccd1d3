"""Load what every task needs before the first task is forked."""

from __future__ import annotations

DOCUMENTATION = r"""
name: warm_start
type: aggregate
short_description: Load filters, tests and action plugins once for the whole run
description:
  - Ansible forks a process for each task and host. What the controller has not imported by then, each of these
    processes imports anew; for the filters and tests alone that is 0.07 s of processor time for each task.
  - This callback imports them when a playbook starts, and prints nothing.
  - It also keeps the packed modules of one run for the next, in C(.ansible/modules) of the project; to pack one takes
    0.1 s, and a week has a dozen. They are packed anew when a source or a version changes.
author: AI-IDP (@ai-idp)
"""

import contextlib
import gc
import hashlib
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader, connection_loader, filter_loader, test_loader
from ansible.release import __version__

ACTIONS = ("assert", "command", "copy", "debug", "normal", "set_fact", "template", "uri")


KEPT = Path(__file__).resolve().parents[1] / ".ansible" / "modules"
WEEK_S = 7 * 24 * 3600


def sources_key() -> str:
    """A hash of all that packed modules are made of: versions, and the times of our sources and of collections."""
    folders = (*constants.DEFAULT_MODULE_PATH, *constants.DEFAULT_MODULE_UTILS_PATH)
    paths = [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
    for folder in constants.COLLECTIONS_PATHS:
        paths += sorted(Path(folder).glob("ansible_collections/*/*/MANIFEST.json"))
    stats: list[tuple[str, object, int]] = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
    with contextlib.suppress(PackageNotFoundError):
        # The package that brings collections; without it there is only ansible-core.
        stats.append(("ansible", version("ansible"), 0))
    return hashlib.sha256(repr((sys.version, __version__, stats)).encode()).hexdigest()[:16]


def keep_modules(kept: Path, run: Path) -> None:
    """Let Ansible find what earlier runs packed.

    Args:
        kept: the folder for all of them; what nobody used for a week goes.
        run: the folder of this run, where Ansible keeps what it packed.
    """
    folder = kept / sources_key()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.touch()
    for other in kept.iterdir():
        if time.time() - other.stat().st_mtime > WEEK_S:
            shutil.rmtree(other, ignore_errors=True)
    cache = run / "ansiballz_cache"
    # With several playbooks in one command it is there already.
    if not cache.exists():
        cache.symlink_to(folder)


class CallbackModule(CallbackBase):
    """Has no output; its work is done once, at the start of a playbook."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "warm_start"

    def v2_playbook_on_start(self, playbook: object) -> None:
        """Import the plugins that the tasks' processes will need."""
        for loader in (filter_loader, test_loader):
            for _plugin in loader.all():
                pass
        for name in ACTIONS:
            action_loader.get(f"ansible.legacy.{name}", class_only=True)
        connection_loader.get("ansible.builtin.ssh", class_only=True)
        keep_modules(KEPT, Path(constants.DEFAULT_LOCAL_TMP))
        # The collector leaves alone what is there by now, so that forked processes go on sharing its memory.
        gc.freeze()
