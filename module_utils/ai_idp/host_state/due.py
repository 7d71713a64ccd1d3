# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What running units have not taken over yet, kept on the host until they have.

A run may end between the change of a file and the restart of its unit. The next run finds the file as it should be, so
what is due is written down before the change and struck out after the restart.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ansible.module_utils.ai_idp.files import write_atomically
from ansible.module_utils.ai_idp.host_state.units import Unit

FOLDER = "/var/lib/ai-idp/due"


@dataclass(frozen=True)
class Triggers:
    """What a unit is restarted and reloaded by: paths, names of packages, and ``*`` for every path.

    Attributes:
        oneshot: it does its work and ends, so that it has to be run again whoever ran it meanwhile.
    """

    restarted_by: frozenset[str] = frozenset()
    reloaded_by: frozenset[str] = frozenset()
    oneshot: bool = False

    def verb(self, name: str) -> str:
        """What a change of a path or package asks for: ``restart``, ``reload`` or nothing."""
        for verb, names in (("restart", self.restarted_by), ("reload", self.reloaded_by)):
            if name in names or ("*" in names and name.startswith("/")):
                return verb
        return ""


class Due:
    """Restarts and reloads that are due, of this call and of those before it that did not come to them.

    What is due is so for one run of a unit, by systemd's number of it: whoever else starts the unit anew, be it its
    owner or a boot, has it take everything over.

    Args:
        check: write nothing down.
        triggers: by unit.
        show: asks systemd for units.
        folder: where it is written down, in a file by unit: the verb and the number of the unit's run.
    """

    def __init__(
        self,
        check: bool,
        triggers: Mapping[str, Triggers],
        show: Callable[[list[str]], Mapping[str, Unit]],
        folder: str = FOLDER,
    ) -> None:
        self._check = check
        self._triggers = triggers
        self._show = show
        self._folder = folder
        self._shown: Mapping[str, Unit] = {}
        self._due: dict[str, str] = {}
        for name in triggers:
            self._recall(name)

    def changes(self, name: str) -> None:
        """Write down what the change of a path or package makes due. To be called before the change."""
        for unit, triggers in self._triggers.items():
            self.note(unit, triggers.verb(name))

    def note(self, unit: str, verb: str) -> None:
        """Write down that a unit must be restarted or reloaded. One that does not run takes all over when it starts."""
        if not verb or unit not in self._triggers or self._due.get(unit) in (verb, "restart"):
            return
        run = self._unit(unit)
        if not run.stops and not self._triggers[unit].oneshot:
            return
        self._due[unit] = verb
        if not self._check:
            os.makedirs(self._folder, exist_ok=True)
            write_atomically(self._file(unit), f"{verb} {run.invocation}\n".encode())

    def verb(self, unit: str) -> str:
        """What is due for a unit: ``restart``, ``reload`` or nothing."""
        return self._due.get(unit, "")

    def done(self, unit: str) -> None:
        """Strike out what was due for a unit."""
        self._due.pop(unit, None)
        if self._check:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(unit))
            # Nothing of it is left on a host where nothing is due.
            with contextlib.suppress(OSError):
                os.removedirs(self._folder)

    def _recall(self, name: str) -> None:
        """Read what calls before this one have left due."""
        try:
            # One that was damaged names no run of a unit.
            with open(self._file(name), encoding="utf-8", errors="replace") as stream:
                verb, _, invocation = stream.read().strip().partition(" ")
        except FileNotFoundError:
            return
        unit = self._unit(name)
        # A unit that was started anew by an older form of its file has not taken the new one over.
        if self._triggers[name].oneshot or (unit.runs and (unit.invocation == invocation or unit.stale(name))):
            self._due[name] = verb
        else:
            self.done(name)

    def _unit(self, name: str) -> Unit:
        if not self._shown:
            self._shown = self._show(list(self._triggers))
        return self._shown[name]

    def _file(self, unit: str) -> str:
        return os.path.join(self._folder, unit)
