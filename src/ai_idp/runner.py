"""Runs a playbook through ansible-runner: environment, artifacts, Ctrl-C, and what the result means."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from ai_idp.errors import Exit, FrontError, from_json, home_path
from ai_idp.events import RunState
from ai_idp.forecast import Forecast, forecast_of
from ai_idp.progress import Console, expected, make_view, show_outcome
from ai_idp.project import Project, ansible_program

KEPT_RUNS = 10
# Ansible ends its workers and their connections itself; this is how long it may take to do so.
GRACE_S = 15.0
_POLL_S = 0.3
_TICK_S = 0.25
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
# Events worth a file of their own after the run; the rest is in the run's stdout file.
_KEPT_EVENTS = {"runner_on_failed", "runner_item_on_failed", "runner_on_unreachable", "playbook_on_stats"}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    state: RunState
    artifacts: Path
    interrupted: bool = False


def extra_vars(pairs: Sequence[str]) -> list[str]:
    """Arguments for ansible-playbook from `KEY=VALUE` and `@FILE` words.

    Values reach Ansible as the strings they are, whatever blanks and quotes they hold.
    FrontError for a word that is neither.
    """
    arguments: list[str] = []
    for word in pairs:
        key, equals, value = word.partition("=")
        if word.startswith("@"):
            path = home_path(word[1:])
            if not path.is_file():
                raise FrontError(f"-e {word}: there is no file {word[1:]!r}")
            arguments += ["-e", f"@{path.resolve()}"]
        elif equals and _VARIABLE.match(key):
            arguments += ["-e", json.dumps({key: value})]
        else:
            # The value is left out: it may be a secret with the `=` forgotten.
            raise FrontError("-e takes KEY=VALUE (KEY of letters, digits and _) or @FILE")
    return arguments


def run_playbook(
    project: Project,
    playbook: str,
    *,
    inventory: str,
    console: Console,
    check: bool = False,
    variables: Sequence[str] = (),
    limit: str | None = None,
    forecast: Forecast | None = None,
) -> Outcome:
    """Runs a playbook of the project to its end, showing it on the console.

    `forecast` is that of a whole that this run is a part of, and that whoever has the whole keeps.
    FrontError for what can be told before Ansible starts. Ctrl-C ends Ansible and is an outcome, not an error.
    """
    path = project.playbook(playbook)
    source = project.inventory(inventory)
    program = ansible_program("ansible-playbook")
    arguments = extra_vars(variables)
    if check:
        arguments += ["--check", "--diff"]
    title = f"{path.stem} on {inventory}{' (check mode: nothing is changed)' if check else ''}"
    view = make_view(console, title)
    own = forecast_of(project.root, f"{path.stem}-{inventory}{'-check' if check else ''}")
    state = RunState(view=view, shown_path=project.shown, forecast=forecast or own)
    stop, ticker = _Stop(state), _Ticker(state)
    runner = _prepare(project, program, path, source, arguments, limit, state, stop, ticker)
    console.print(f"{title}: starting Ansible{_outlook(state.forecast)}", style="dim", highlight=False, markup=False)
    with stop.signals():
        try:
            runner.run()
            stop.wait()
        except BaseException:
            # Whatever broke here, Ansible must not go on unseen.
            stop.end()
            raise
        finally:
            ticker.stop()
            view.end()
    outcome = Outcome(
        code=_code(runner.rc, state, stop),
        state=state,
        artifacts=Path(runner.config.artifact_dir),
        interrupted=stop.signal is not None,
    )
    if outcome.code == Exit.HEALTHY and forecast is None and not limit:
        own.keep()
    show_outcome(
        console,
        state,
        title=title,
        code=outcome.code,
        interrupted=outcome.interrupted,
        log=project.shown(outcome.artifacts / "stdout"),
    )
    return outcome


def _outlook(forecast: Forecast) -> str:
    """What is expected, and by what it is judged."""
    said, left = expected(forecast), forecast.left()
    return f", {said} by {left.what}" if said and left else ""


def _prepare(
    project: Project,
    program: str,
    playbook: Path,
    inventory: Path,
    arguments: list[str],
    limit: str | None,
    state: RunState,
    stop: _Stop,
    ticker: _Ticker,
) -> Any:
    """An ansible-runner that is ready to go."""
    from ansible_runner.interface import init_runner

    data = project.root / ".ansible" / "runner"
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FrontError(f"{data} can't be made: {error.strerror}") from error
    ident = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{playbook.stem}-{os.getpid()}"

    def on_event(event: Mapping[str, Any]) -> bool:
        ticker.start()
        state.handle(event)
        return event.get("event") in _KEPT_EVENTS

    def on_status(status: Mapping[str, Any], runner_config: Any) -> None:
        if status.get("status") == "running":
            _forget_environment(Path(runner_config.artifact_dir) / "command")

    runner = init_runner(
        private_data_dir=str(data),
        # The folder that Ansible runs in: there it finds roles, and what paths in variables are relative to.
        project_dir=str(project.root),
        ident=ident,
        playbook=str(playbook),
        inventory=[str(inventory)],
        limit=limit,
        # Ansible's own text goes into a file; colours in there would only be in the way.
        envvars={**project.environment(), "ANSIBLE_NOCOLOR": "1"},
        event_handler=on_event,
        status_handler=on_status,
        cancel_callback=stop.overdue,
        quiet=True,
        # Otherwise variables and environment would be written to files beside the artifacts.
        suppress_env_files=True,
        rotate_artifacts=KEPT_RUNS,
        # ansible.cfg decides where facts are kept, not ansible-runner.
        fact_cache_type="",
    )
    runner.config.command = [program, *runner.config.command[1:-1], *arguments, runner.config.command[-1]]
    runner.config.pexpect_timeout = _POLL_S
    if "ANSIBLE_HOST_KEY_CHECKING" not in os.environ:
        # ansible-runner switches it off unless told; ansible.cfg decides.
        runner.config.env.pop("ANSIBLE_HOST_KEY_CHECKING", None)
    return runner


def _forget_environment(path: Path) -> None:
    """Takes out of ansible-runner's record of the command what may be secret: environment and variables."""
    try:
        record = from_json(path.read_text(encoding="utf-8"))
        command = list(record["command"])
        for index, word in enumerate(command[:-1]):
            if word == "-e" and not command[index + 1].startswith("@"):
                command[index + 1] = "(variables left out)"
        path.write_text(json.dumps({"command": command, "cwd": record["cwd"]}), encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        path.unlink(missing_ok=True)


class _Stop:
    """Ends a run when the user asks for it: cleanly the first time, at once the second."""

    def __init__(self, state: RunState) -> None:
        self.signal: int | None = None
        self._state = state
        self._deadline: float | None = None
        self._at_once = False
        self._started: list[_Process] = []

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Takes over SIGINT, SIGTERM and SIGHUP while the run lasts."""
        taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in taken}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Nothing is printed here: the view may be in the middle of doing so.
        if self.signal is None:
            self.signal = number
            self._deadline = time.monotonic() + GRACE_S
            self._state.stopping = True
            self._started = _descendants(os.getpid())
            for process in self._started:
                if process.parent == os.getpid():
                    # Ansible runs in a session of its own, where the terminal's Ctrl-C doesn't reach it. It
                    # passes this one on to its workers, each of which ends its own programs.
                    with suppress(OSError):
                        os.kill(process.pid, signal.SIGINT)
        else:
            self._at_once = True
            self._kill()

    def end(self) -> None:
        """Ends Ansible without being asked by the user."""
        self._on_signal(signal.SIGTERM, None)
        self.wait()

    def overdue(self) -> bool:
        """ansible-runner's question whether to kill Ansible's process group; asked every third of a second."""
        late = self._at_once or (self._deadline is not None and time.monotonic() > self._deadline)
        if late:
            self._kill()
        return late

    def wait(self) -> None:
        """After Ctrl-C, waits for the programs of tasks too: they may end later than Ansible, or not at all."""
        while self._left() and not self.overdue():
            time.sleep(_POLL_S)

    def _left(self) -> set[_Process]:
        now = {process.pid: process for process in _processes()}
        left = {
            there
            for process in self._started
            if (there := now.get(process.pid)) and there.born == process.born and there.state != "Z"
        }
        return {process for process in left if process.pid != os.getpid()}

    def _kill(self) -> None:
        """Kills whatever has been started and has not become a service of its own."""
        for process in self._left() | set(_descendants(os.getpid())):
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class _Process:
    """A process of this machine; `born` (clock ticks since boot) tells it from a later one with its number."""

    pid: int
    parent: int
    born: int
    state: str


def _processes() -> list[_Process]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name in parentheses may hold anything; see proc(5) for the fields after it.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            found.append(_Process(int(stat.parent.name), int(fields[1]), int(fields[19]), fields[0]))
    return found


def _descendants(pid: int) -> list[_Process]:
    """Children of a process, their children and so on, parents first."""
    everything = _processes()
    found: list[_Process] = []
    ancestors = [pid]
    for ancestor in ancestors:
        children = [process for process in everything if process.parent == ancestor]
        found += children
        ancestors += [process.pid for process in children]
    return found


class _Ticker:
    """Ticks the view from the first event on. Not earlier: starting Ansible forks, and threads don't like that."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to tick; more calls do nothing."""
        if self._thread is None:
            self._state.view.begin(self._state)
            self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_TICK_S):
            self._state.tick()

    def stop(self) -> None:
        """Ticks no more; returns when the last tick is over."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()


def _code(rc: int | None, state: RunState, stop: _Stop) -> int:
    """The front's exit code for Ansible's."""
    if stop.signal is not None:
        return 128 + stop.signal
    if state.stats is None:
        return Exit.COULD_NOT_RUN
    if state.stats["failures"]:
        return Exit.FAILED
    if state.stats["dark"] or not state.stats["processed"]:
        return Exit.COULD_NOT_RUN
    return Exit.HEALTHY if rc == 0 else Exit.FAILED
