# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Builds llama.cpp in a systemd unit of its own and puts it in place whole or not at all.

FOLDER/releases/NAME/bin/...         each release whole, with release.json beside
FOLDER/current                       link to the release that counts
FOLDER/healthy.json                  releases whose programs proved to be what they should, the latest last
FOLDER/build/NAME, FOLDER/sources    what a build needs while it lasts
FOLDER/logs/NAME.log                 what CMake and the compilers said

The unit goes on when the connection is cut; whoever comes next finds it and waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.ai_idp.documents import from_json, mapping_of
from ansible.module_utils.ai_idp.files import free_bytes, fsync_folder, write_atomically
from ansible.module_utils.ai_idp.llama_cpp import (
    Settings,
    build_arguments,
    cause_of,
    configure_arguments,
    progress_of,
    source_folder,
    tail_of,
    transports_of,
    version_of,
)
from ansible.module_utils.ai_idp.messages import human_bytes
from ansible.module_utils.ai_idp.programs import run
from ansible.module_utils.ai_idp.releases import Releases, remove_path

UNIT = "ai-idp-llama-cpp-build.service"
_ASK_TIMEOUT_S = 60.0
_UNPACK_TIMEOUT_S = 600.0
_POLL_S = 0.5
KEPT = 2
"""Releases that stay, the current one included: each takes minutes to build."""
_LOG_BYTES = 256 << 10
_OWN_NAMES = ("current", "previous", "healthy.json", "releases", "build", "sources", "logs")


class BuildError(Exception):
    """Nothing new is in place. ``log`` is the end of what the build said."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class Plan:
    """What is to be done: ``none``, ``switch`` to a release that was kept, or ``build``, and why."""

    action: str
    reason: str
    building: bool = False


@dataclass(frozen=True)
class Unit:
    """The systemd unit of a build: of which release, and whether it runs, is ``done``, ``failed`` or ``gone``."""

    release: str = ""
    state: str = "gone"
    result: str = ""


def unit_now() -> Unit:
    """Ask systemd for the build's unit."""
    wanted = "LoadState,ActiveState,SubState,Result,Description"
    answer = run(["systemctl", "show", UNIT, f"--property={wanted}"], _ASK_TIMEOUT_S)
    told = dict(line.split("=", 1) for line in answer.output.splitlines() if "=" in line)
    if told.get("LoadState") != "loaded":
        return Unit()
    release = told.get("Description", "").rpartition(" ")[2]
    if told.get("ActiveState") == "failed":
        return Unit(release, "failed", told.get("Result", ""))
    if told.get("SubState") == "exited":
        return Unit(release, "done", "success")
    return Unit(release, "running")


def stop_unit() -> None:
    """End the build's unit, whatever it does, and let systemd forget it."""
    if unit_now().state == "gone":
        return
    run(["systemctl", "stop", UNIT], _ASK_TIMEOUT_S)
    run(["systemctl", "reset-failed", UNIT], _ASK_TIMEOUT_S)


def remove(folder: str, check: bool) -> bool:
    """End a build and remove releases, links and logs; the folder too, unless it holds something else.

    Returns:
        Whether there was something to remove.
    """
    found = [path for path in (os.path.join(folder, name) for name in _OWN_NAMES) if os.path.lexists(path)]
    changed = bool(found) or unit_now().state != "gone"
    if check:
        return changed
    stop_unit()
    for path in found:
        remove_path(path)
    with contextlib.suppress(OSError):
        os.rmdir(folder)
    return changed


class Builder(Releases):
    """The releases below one folder, and the build of the one that is wanted."""

    def __init__(self, folder: str, settings: Settings, compiler_cache: str = "") -> None:
        super().__init__(folder)
        self.settings = settings
        # What is built is the same with it and without, so it is no part of the release.
        self.compiler_cache = compiler_cache
        self.name = settings.name
        self.build_folder = os.path.join(folder, "build", self.name)
        self.log_path = os.path.join(folder, "logs", f"{self.name}.log")

    # -- What there is ------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Compare what there is with what is wanted."""
        path = self.path(self.name)
        unit = unit_now()
        # One that failed while nobody waited for it is begun again.
        building = unit.release == self.name and unit.state in ("running", "done")
        current = self.current
        if not os.path.isdir(path):
            reason = "nothing is installed yet" if current is None else f"{current} is installed"
            return Plan("build", reason, building)
        problem = self.problem(path)
        if problem:
            return Plan("build", f"{self.name} is there, but {problem}", building)
        if current != self.name:
            return Plan("switch", f"{current or 'nothing'} is current")
        return Plan("none", f"{self.name} is current")

    def problem(self, path: str) -> str:
        """What is wrong with a release, asking its programs; empty when all is well."""
        folder = os.path.join(path, "bin")
        missing = [name for name in self.settings.programs if not os.access(os.path.join(folder, name), os.X_OK)]
        if missing:
            return f"{', '.join(missing)} is missing in it"
        for name in sorted(self.settings.programs):
            answer = run([os.path.join(folder, name), "--help"], _ASK_TIMEOUT_S)
            if "error while loading shared libraries" in answer.output or answer.rc in (None, 126, 127):
                return f"{name} does not start: {answer.output.strip()[-300:] or 'it hangs'}"
            if name == "llama-bench" and "--rpc" not in answer.output:
                return "its llama-bench knows no --rpc"
            if name in ("llama-server", "llama-bench"):
                said = version_of(run([os.path.join(folder, name), "--version"], _ASK_TIMEOUT_S).output)
                if said != (self.settings.build, self.settings.built_commit):
                    told = f"build {said[0]}, commit {said[1]}" if said else "nothing that can be read"
                    return (
                        f"its {name} says {told} where build {self.settings.build}, commit "
                        f"{self.settings.built_commit} was wanted"
                    )
        rpc, rdma = transports_of(self._contents(folder))
        if not rpc:
            return "RPC is not in it"
        return "RDMA is in it, which must not be" if rdma else ""

    @staticmethod
    def _contents(folder: str) -> Iterator[tuple[str, bytes]]:
        for entry in os.scandir(folder):
            if entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as stream:
                    yield entry.name, stream.read()

    # -- The build ----------------------------------------------------------------------------------------------------

    def start(self, source: str, parallel: int, timeout_s: int) -> None:
        """Begin the build from an archive or a folder, unless it is under way.

        Raises:
            BuildError: it could not begin.
        """
        if self.plan().building:
            return
        stop_unit()
        try:
            self._forget_other_builds()
            # What an interrupted build has done already is used.
            temporary, logs = os.path.join(self.build_folder, "tmp"), os.path.dirname(self.log_path)
            for path in filter(None, (self.build_folder, temporary, logs, self.compiler_cache)):
                os.makedirs(path, mode=0o755, exist_ok=True)
            script = self._script(self._unpacked(source), parallel)
            write_atomically(os.path.join(self.build_folder, "build.sh"), script.encode())
        except OSError as error:
            self._give_up(error)
        answer = run(self._unit_arguments(timeout_s), _ASK_TIMEOUT_S)
        if answer.rc != 0:
            self.clean()
            raise BuildError(f"systemd-run can't start the build of llama.cpp {self.name}: {answer.output.strip()}")

    def _give_up(self, error: OSError) -> None:
        free = free_bytes(self.folder)
        self.clean()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildError(self._failure("disk", free)) from error
        raise BuildError(f"llama.cpp {self.name} can't be built in {self.folder}: {error}") from error

    def _unpacked(self, source: str) -> str:
        """The folder of llama.cpp in the source."""
        if os.path.isdir(source):
            found = source_folder(source)
        else:
            unpacked = os.path.join(self.build_folder, "source")
            if not os.path.isdir(unpacked):
                partial = f"{unpacked}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                os.makedirs(partial)
                # Tar finds out by itself how the archive is packed.
                command = ["tar", "--extract", "--no-same-owner", f"--file={source}", f"--directory={partial}"]
                answer = run(command, _UNPACK_TIMEOUT_S)
                if answer.rc != 0:
                    if cause_of(answer.output, free_bytes(self.folder)) == "disk":
                        raise OSError(errno.ENOSPC, "no space left")
                    self.clean()
                    raise BuildError(f"{source} can't be unpacked: {tail_of(answer.output, 5)}")
                os.rename(partial, unpacked)
            found = source_folder(unpacked)
        if found is None:
            self.clean()
            raise BuildError(
                "The source has no CMakeLists.txt in it or in a folder below: it is no source of llama.cpp. Look at "
                "llama_cpp_source_url or llama_cpp_source_git."
            )
        return found

    def _script(self, source: str, parallel: int) -> str:
        folder = os.path.join(self.build_folder, "build")
        commands = [
            configure_arguments(self.settings, source, folder, bool(self.compiler_cache)),
            build_arguments(self.settings, folder, parallel),
        ]
        return "\n".join(["#!/bin/sh", "set -e", *(shlex.join(command) for command in commands), ""])

    def _unit_arguments(self, timeout_s: int) -> list[str]:
        """The build sees no network, has no rights and writes into its own folder alone."""
        properties = {
            "RuntimeMaxSec": str(timeout_s),
            "StandardOutput": f"truncate:{self.log_path}",
            "StandardError": f"append:{self.log_path}",
            "WorkingDirectory": self.build_folder,
            "ReadWritePaths": " ".join(filter(None, (self.build_folder, self.compiler_cache))),
            "ProtectSystem": "strict",
            "ProtectHome": "read-only",
            "PrivateNetwork": "yes",
            "NoNewPrivileges": "yes",
            "CapabilityBoundingSet": "",
            # Services go first; of what runs when memory ends, it is the build that goes.
            "Nice": "10",
            "OOMScoreAdjust": "800",
        }
        environment = {
            "LC_ALL": "C",
            "NINJA_STATUS": "[%f/%t] ",
            # A disk in memory, as /tmp often is, has no room for what compilers write.
            "TMPDIR": os.path.join(self.build_folder, "tmp"),
        }
        if self.compiler_cache:
            # Each release has a folder of its own; without the base, what one compiled would be strange to the next.
            environment.update(CCACHE_DIR=self.compiler_cache, CCACHE_BASEDIR=self.folder, CCACHE_NOHASHDIR="1")
        return [
            "systemd-run",
            "--quiet",
            "--remain-after-exit",
            f"--unit={UNIT}",
            f"--description=Build of llama.cpp {self.name}",
            *(f"--property={name}={value}" for name, value in properties.items()),
            *(f"--setenv={name}={value}" for name, value in environment.items()),
            "/bin/sh",
            os.path.join(self.build_folder, "build.sh"),
        ]

    def wait(self, seconds: float) -> tuple[bool, str]:
        """Wait for the build to end, and put it in place when it has.

        Returns:
            Whether it has ended, and how far it is.

        Raises:
            BuildError: it failed; what was current still is.
        """
        end = time.monotonic() + seconds
        while (unit := unit_now()).state == "running" and unit.release == self.name and time.monotonic() < end:
            time.sleep(_POLL_S)
        log = self.log()
        if unit.release != self.name or unit.state == "gone":
            raise BuildError(
                f"The build of llama.cpp {self.name} is no longer there; the host was restarted or somebody stopped "
                f"{UNIT}. Run this again: it goes on where it was."
            )
        if unit.state == "running":
            return False, progress_of(log)
        if unit.state == "failed":
            free = free_bytes(self.folder)
            cause = {"timeout": "timeout", "oom-kill": "memory"}.get(unit.result) or cause_of(log, free)
            self.clean()
            raise BuildError(self._failure(cause, free), "" if cause == "disk" and not log else tail_of(log))
        self._install()
        return True, "is built and in place"

    def _failure(self, cause: str, free: int) -> str:
        stays = f"{self.folder}/current is as it was, and what the build had written is removed."
        what = f"llama.cpp {self.name} could not be built: "
        told = {
            "disk": f"the disk of {self.folder} became full ({human_bytes(free)} were left at the end). {stays} Free "
            "space there, or choose another disk (llama_cpp_dir).",
            "memory": f"memory ran out while it was compiled. {stays} Set llama_cpp_jobs to a smaller number or "
            "llama_cpp_memory_per_job to a larger size, or stop what else uses memory.",
            "timeout": f"it took longer than llama_cpp_timeout_minutes allows. {stays} Allow more, or build fewer "
            "programs (llama_cpp_programs).",
            "configure": f"CMake could not prepare it. {stays} The end of its log tells why; the whole log is "
            f"{self.log_path}.",
            "build": f"a step failed. {stays} The end of its log tells why; the whole log is {self.log_path}.",
        }
        return what + told[cause]

    def log(self) -> str:
        """The last part of the build's log."""
        try:
            with open(self.log_path, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _LOG_BYTES))
                return stream.read().decode("utf-8", "replace")
        except OSError:
            return ""

    # -- Putting in place ---------------------------------------------------------------------------------------------

    def _install(self) -> None:
        """Move what was built into a release, after its programs were asked, and make it current."""
        built = os.path.join(self.build_folder, "build", "bin")
        partial = self.path(f"{self.name}.partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            os.makedirs(os.path.join(partial, "bin"), mode=0o755)
            for entry in sorted(os.scandir(built), key=lambda entry: entry.name):
                if entry.name in self.settings.programs or re.match(r"^lib.+\.so(\.|$)", entry.name):
                    shutil.copy2(entry.path, os.path.join(partial, "bin", entry.name), follow_symlinks=False)
            record = json.dumps(self.settings.record(), indent=2, sort_keys=True) + "\n"
            write_atomically(os.path.join(partial, "release.json"), record.encode())
            problem = self.problem(partial)
            if problem:
                log = tail_of(self.log())
                self.clean()
                raise BuildError(
                    f"llama.cpp {self.name} was built, but {problem}. {self.folder}/current is as it was.", log
                )
            # A kernel that stops now must not leave a release whose files are empty.
            os.sync()
            shutil.rmtree(self.path(self.name), ignore_errors=True)
            os.rename(partial, self.path(self.name))
            fsync_folder(os.path.dirname(partial))
            self.make_current(self.name)
        except OSError as error:
            self._give_up(error)
        self.clean()

    def verify(self) -> bool:
        """Ask the current release's programs, and keep it as a healthy one, or go back to the one before.

        Returns:
            Whether that is news.

        Raises:
            BuildError: it is not the wanted one, or no healthy one.
        """
        if self.current != self.name:
            raise BuildError(f"{self.folder}/current is {self.current}, not the wanted {self.name}: run this again.")
        problem = self.problem(self.path(self.name))
        if not problem:
            return self.prove(KEPT, check=False).changed
        if self.undo(check=False).changed:
            raise BuildError(
                f"llama.cpp {self.name} was in place, but {problem}. It was undone: {self.latest} is current."
            )
        raise BuildError(f"llama.cpp {self.name} is in place, but {problem}. Run this again to build it anew.")

    def forget_others(self, names: list[str]) -> None:
        """Remove other releases with their logs."""
        super().forget_others(names)
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir(os.path.join(self.folder, "logs")):
                if entry.removesuffix(".log") not in names:
                    os.unlink(os.path.join(self.folder, "logs", entry))

    def _forget_other_builds(self) -> None:
        """Remove what builds of other releases left."""
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir(os.path.join(self.folder, "build")):
                if entry != self.name:
                    shutil.rmtree(os.path.join(self.folder, "build", entry), ignore_errors=True)

    def clean(self) -> None:
        """Remove all that only a build needs; log and releases stay."""
        stop_unit()
        for path in (os.path.join(self.folder, "build"), os.path.join(self.folder, "sources")):
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.path(f"{self.name}.partial"), ignore_errors=True)

    def known(self) -> dict[str, Any]:
        """What the current release says about itself; empty when there is none."""
        try:
            with open(os.path.join(self.folder, "current", "release.json"), encoding="utf-8") as stream:
                return mapping_of(from_json(stream.read()))
        except (OSError, ValueError):
            return {}
