# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Units of systemd: enabled, started, restarted or reloaded, and asked whether they work."""

from __future__ import annotations

import fnmatch
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ansible.module_utils.ai_idp.host_state.changes import Journal, StateError
from ansible.module_utils.ai_idp.programs import Answer, run

SYSTEMCTL_TIMEOUT_SECONDS = 300.0
ASK_TIMEOUT_SECONDS = 5.0
JOURNAL_LINES = 15
# A unit that systemd had to start again that often while it was waited for is not waited for any longer.
RESTARTS_IN_VAIN = 3
PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "FragmentPath",
    "InvocationID",
)
OWN_UNITS = "/etc/systemd/system"
ENABLED = {"enabled", "enabled-runtime"}
# States of a unit's file that are as good as enabled: it has no [Install] section, or another unit pulls it in.
# enabled-runtime is none of them: it is forgotten at the next boot.
STARTS_AT_BOOT = {"enabled", "static", "alias", "indirect", "generated", "transient"}
WAITS = {"auto-restart", "auto-restart-queued"}


@dataclass(frozen=True)
class WantedUnit:
    """A unit as it is to be.

    Attributes:
        name: with its suffix, such as prometheus.service.
        running: started or stopped; None leaves it as it is.
        enabled: whether it starts at boot; None leaves it as it is.
        restart, reload: whether it must take something new over. One that does not run yet is only started.
        health_url: address on the host that answers with one of ``health_status`` when the program works.
        health_seconds: how long it may take until then.
        health_file: file that it writes now and again, and that may be ``health_file_seconds`` old.
        oneshot: it does its work and ends; ``restart`` alone says whether it is run.
    """

    name: str
    running: bool | None = True
    enabled: bool | None = True
    restart: bool = False
    reload: bool = False
    health_url: str = ""
    health_status: tuple[int, ...] = (200,)
    health_seconds: float = 30.0
    health_file: str | None = None
    health_file_seconds: float = 60.0
    oneshot: bool = False


@dataclass(frozen=True)
class Unit:
    """A unit as systemd shows it; a unit that it does not know has no file.

    Attributes:
        invocation: systemd's number of its present run, another after each start.
        load_failed: systemd could not load it. A running unit whose file was gone for a while is such a one, as soon as
            somebody asks for it once the file is back.
    """

    known: bool
    masked: bool
    active: str
    sub: str
    file_state: str
    file: str
    needs_reload: bool
    invocation: str = ""
    load_failed: bool = False

    @property
    def runs(self) -> bool:
        """A unit that waits to be started again after a failure does not run."""
        return self.active in ("active", "reloading", "activating") and self.sub not in WAITS

    @property
    def stops(self) -> bool:
        """Whether there is something to stop: a unit that waits to be started again would be."""
        return self.runs or self.sub in WAITS

    def stale(self, name: str) -> bool:
        """Whether systemd holds an older form of the unit. It does not notice a file that now hides the package's."""
        own = os.path.join(OWN_UNITS, name)
        hidden = self.file != own and os.path.isfile(own) and not os.path.islink(own)
        return self.needs_reload or self.load_failed or hidden


def parse_show(text: str) -> list[Unit]:
    """Read what ``systemctl show --property=...`` prints of several units: a block each, in the order asked for."""
    units = []
    for block in text.strip().split("\n\n"):
        found = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        units.append(
            Unit(
                known=found.get("LoadState", "") not in ("not-found", ""),
                masked=found.get("LoadState") == "masked",
                active=found.get("ActiveState", ""),
                sub=found.get("SubState", ""),
                file_state=found.get("UnitFileState", ""),
                file=found.get("FragmentPath", ""),
                needs_reload=found.get("NeedDaemonReload") == "yes",
                invocation=found.get("InvocationID", ""),
                load_failed=found.get("LoadState") == "error",
            )
        )
    return units


def foreign_drop_ins(name: str, written: Collection[str], stay: list[str]) -> list[str]:
    """Drop-ins that somebody else has added to a unit under /etc, by path.

    Args:
        name: the unit.
        written: paths of files that are written here. Where neither the unit's own file nor a drop-in of it is among
            them, the unit is somebody else's, and so are its drop-ins.
        stay: names of drop-ins that are let be, with ``*`` and ``?``.
    """
    folder = os.path.join(OWN_UNITS, f"{name}.d")
    if os.path.join(OWN_UNITS, name) not in written and folder not in map(os.path.dirname, written):
        return []
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    stay = [*stay, *(os.path.basename(path) for path in written if os.path.dirname(path) == folder)]
    return [
        os.path.join(folder, each)
        for each in names
        if each.endswith(".conf") and not any(fnmatch.fnmatch(each, pattern) for pattern in stay)
    ]


def answer_of(url: str) -> int | str:
    """Status of an answer, or why there is none. No proxy is asked, and no certificate: it is the host itself."""
    nobody = ssl.create_default_context()
    nobody.check_hostname = False
    nobody.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=nobody))
    try:
        with opener.open(url, timeout=ASK_TIMEOUT_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except Exception as error:  # whatever the other end says instead of HTTP
        return str(error) or type(error).__name__


def is_younger(path: str, seconds: float) -> bool:
    """Whether a file was written within the last seconds; one that is not there was not."""
    try:
        return time.time() - os.stat(path).st_mtime < seconds
    except FileNotFoundError:
        return False


class Units:
    """Brings units of a host into the wanted state.

    Args:
        journal: where changes are noted.
        check: change nothing, only note.
        program: runs a program with a time limit.
        ask: asks an address.
        sleep: waits some seconds.
        done: is told of each unit that has taken over what is new.
    """

    def __init__(
        self,
        journal: Journal,
        check: bool,
        program: Callable[[list[str], float], Answer] = run,
        ask: Callable[[str], int | str] = answer_of,
        sleep: Callable[[float], None] = time.sleep,
        done: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self.journal = journal
        self.check = check
        self._program = program
        self._ask = ask
        self._sleep = sleep
        self.done = done

    def show(self, names: list[str]) -> dict[str, Unit]:
        """Ask systemd for several units at once.

        Raises:
            StateError: systemd does not answer.
        """
        answer = self._program(
            ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *names], SYSTEMCTL_TIMEOUT_SECONDS
        )
        units = parse_show(answer.output)
        if answer.rc != 0 or len(units) != len(names):
            raise StateError(f"systemd does not tell about {', '.join(names)}: {answer.output.strip()}")
        return dict(zip(names, units, strict=True))

    def apply(self, wanted: list[WantedUnit]) -> None:
        """Reload systemd where a unit's file is newer than what it holds, then set unit by unit, in their order.

        Raises:
            StateError: a unit is unknown, does not start, or does not answer; with its last words.
        """
        if not wanted:
            return
        names = [unit.name for unit in wanted]
        shown = self.show(names)
        # Only where systemd holds an older form: a reload can cut running containers off their GPU.
        if not self.check and any(unit.stale(name) for name, unit in shown.items()):
            self._systemctl(["daemon-reload"], names[0])
            shown = self.show(names)
        for unit in wanted:
            self._one(unit, shown[unit.name])

    def absent(self, names: list[str]) -> None:
        """Stop and disable units that systemd knows; what it does not know is absent already."""
        if not names:
            return
        for name, unit in self.show(names).items():
            self.done(name)
            if not unit.known:
                continue
            if unit.stops or unit.active == "failed" or unit.file_state in ENABLED:
                self.journal.add("unit", name, "stopped and disabled")
                if unit.stops:
                    self._systemctl(["stop", name], name)
                if unit.file_state in ENABLED:
                    self._disable(name, unit)
                self._systemctl(["reset-failed", name], name, must=False)

    def _one(self, wanted: WantedUnit, unit: Unit) -> None:
        name = wanted.name
        if not unit.known and not self.check:
            raise StateError(f"systemd knows no {name}: neither a package nor this role has written its file.")
        if unit.masked and (wanted.running or wanted.enabled):
            self.journal.add("unit", name, "unmasked")
            self._systemctl(["unmask", *(["--runtime"] if unit.file_state == "masked-runtime" else []), name], name)
            if not self.check:
                # The mask hid whether it is enabled.
                unit = self.show([name])[name]
        if wanted.enabled and unit.file_state not in STARTS_AT_BOOT:
            self.journal.add("unit", name, "enabled")
            self._systemctl(["enable", name], name)
        elif wanted.enabled is False and unit.file_state in ENABLED:
            self.journal.add("unit", name, "disabled")
            self._disable(name, unit)
        if wanted.oneshot and wanted.restart:
            self.journal.add("unit", name, "run")
            self._systemctl(["restart", name], name)
            self.done(name)
        if wanted.running is False:
            if unit.stops:
                self.journal.add("unit", name, "stopped")
                self._systemctl(["stop", name], name)
            self.done(name)
            return
        if wanted.running:
            self._start(wanted, unit)

    def _disable(self, name: str, unit: Unit) -> None:
        for_now = ["--runtime"] if unit.file_state == "enabled-runtime" else []
        self._systemctl(["disable", *for_now, name], name)

    def _start(self, wanted: WantedUnit, unit: Unit) -> None:
        verb, how = ("start", "started") if not unit.runs else ("", "")
        if unit.runs and wanted.restart:
            verb, how = "restart", "restarted"
        elif unit.runs and wanted.reload:
            verb, how = "reload", "reloaded"
        if verb:
            self.journal.add("unit", wanted.name, how)
            if unit.active == "failed":
                # systemd gives up on a unit that failed too often until it is told to forget that.
                self._systemctl(["reset-failed", wanted.name], wanted.name, must=False)
            self._systemctl([verb, wanted.name], wanted.name)
            self.done(wanted.name)
        if wanted.health_url and not self.check:
            self._healthy(wanted)
        if wanted.health_file and not self.check:
            self._fresh(wanted.health_file, wanted)

    def _healthy(self, wanted: WantedUnit) -> None:
        until = time.monotonic() + wanted.health_seconds
        first: int | None = None
        while True:
            said = self._ask(wanted.health_url)
            if said in wanted.health_status:
                return
            restarts = self._restarts(wanted.name)
            first = restarts if first is None else first
            if restarts - first >= RESTARTS_IN_VAIN:
                raise StateError(
                    f"{wanted.name} ends again and again, and does not answer {wanted.health_url} ({said}). "
                    f"{self._last_words(wanted.name)}"
                )
            if time.monotonic() >= until:
                raise StateError(
                    f"{wanted.name} does not answer {wanted.health_url} ({said}) within {wanted.health_seconds:g} s. "
                    f"{self._last_words(wanted.name)}"
                )
            self._sleep(0.3)

    def _fresh(self, path: str, wanted: WantedUnit) -> None:
        until = time.monotonic() + wanted.health_seconds
        while not is_younger(path, wanted.health_file_seconds):
            if time.monotonic() >= until:
                # What a timer starts has something to say, not the timer.
                program = re.sub(r"\.timer$", ".service", wanted.name)
                raise StateError(
                    f"{path} is missing or older than {wanted.health_file_seconds:g} s, though {wanted.name} runs. "
                    f"{self._last_words(program)}"
                )
            self._sleep(0.3)

    def _restarts(self, name: str) -> int:
        """How often systemd has started the unit again by itself."""
        text = self._program(["systemctl", "show", "--property=NRestarts", "--value", "--", name], ASK_TIMEOUT_SECONDS)
        return int(text.output) if text.output.strip().isdigit() else 0

    def _systemctl(self, arguments: list[str], name: str, must: bool = True) -> None:
        if self.check:
            return
        answer = self._program(["systemctl", *arguments], SYSTEMCTL_TIMEOUT_SECONDS)
        if must and answer.rc != 0:
            why = answer.output.strip() if answer.rc is not None else f"no end after {SYSTEMCTL_TIMEOUT_SECONDS:g} s"
            raise StateError(f"systemctl {' '.join(arguments)} failed: {why}. {self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        words = ["journalctl", f"--unit={name}", f"--lines={JOURNAL_LINES}", "--output=cat", "--no-pager"]
        return f"Its last words:\n{self._program(words, ASK_TIMEOUT_SECONDS).output.strip()}"
