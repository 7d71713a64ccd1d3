"""What a run looks like: a live picture on a terminal, plain lines elsewhere, and the account at the end."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ai_idp.errors import Exit
from ai_idp.events import Failure, HostState, RunState, Status, Task, View
from ai_idp.forecast import Forecast

__all__ = ["Console", "make_console", "make_view", "show_outcome"]

STYLES: dict[str, str] = {
    "ok": "green",
    "changed": "yellow",
    "failed": "bold red",
    "ignored": "magenta",
    "unreachable": "bold red",
    "skipped": "cyan",
    "fail": "bold red",
    "missing": "bold red",
    "unknown": "yellow",
}
# A file or a pipe has no width of its own; log viewers scroll sideways.
PLAIN_WIDTH = 140
# A task that takes longer than this says that it runs, and again every so often (seconds).
TOLD_AFTER_S = 2.0
TOLD_EVERY_S = 30.0
# A run that will end sooner than this (seconds) needs no forecast.
LEFT_FROM_S = 60.0
_RECENT = 8
_HOSTS = 12


def make_console(*, stderr: bool = False) -> Console:
    """A console for stdout or stderr that keeps long lines whole where nobody looks at a screen."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False)


def make_view(console: Console, title: str) -> View:
    """The view that suits the console."""
    if console.is_terminal and not console.is_dumb_terminal and console.file.isatty():
        return LiveView(console, title)
    return PlainView(console)


def duration(seconds: float) -> str:
    """Seconds as a reader wants them: `0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock(seconds: float) -> str:
    """Seconds since the start as `mm:ss`, or `h:mm:ss`."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60:02d}:{rest % 60:02d}"


def expected(forecast: Forecast) -> str:
    """When the run will end, as far as former runs tell: `about 12 min left`; empty if none does, or soon."""
    left = forecast.left()
    if left is None or left.seconds < LEFT_FROM_S:
        return ""
    return f"about {round(left.seconds / 60)} min left"


def write_line(console: Console, text: str | Text, style: str = "") -> None:
    """One line as it is: never wrapped, never taken for markup."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _block(console: Console, text: str, indent: str, style: str = "") -> None:
    for line in text.split("\n"):
        write_line(console, f"{indent}{line}".rstrip(), style)


def _diff_style(line: str) -> str:
    if line.startswith(("+++", "---", "@@")):
        return "cyan"
    return {"+": "green", "-": "red"}.get(line[:1], "dim")


class _Printer:
    """The lines that both views print for good."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._run: RunState | None = None

    def begin(self, run: RunState) -> None:
        """See View."""
        self._run = run

    @property
    def run(self) -> RunState:
        """The run that is shown."""
        assert self._run is not None
        return self._run

    def message(self, host: str, task: Task, text: str, repeated: bool) -> None:
        """See View."""
        if repeated:
            write_line(self.console, f"      {host}: says the same", "dim")
            return
        write_line(self.console, Text.assemble(("      ", ""), (f"{host} says:", "bold cyan")))
        _block(self.console, text, "        ")

    def failure(self, failure: Failure) -> None:
        """See View."""
        item = f" (item {failure.item})" if failure.item else ""
        # All of it comes at the end, where it is found; here it only must not go unsaid.
        first, *more = failure.message.split("\n")
        write_line(self.console, f"      {failure.host}{item}: {first}{' …' if more else ''}", "red")

    def diff(self, host: str, task: Task, text: str) -> None:
        """See View."""
        write_line(self.console, f"      {host}: {task.name}:", "bold")
        for line in text.split("\n"):
            write_line(self.console, f"        {line}".rstrip(), _diff_style(line))

    def warning(self, text: str) -> None:
        """See View."""
        write_line(self.console, f"      warning: {text}", "yellow")


class PlainView(_Printer):
    """One line for each thing that happens, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._stopping = False

    def _stamp(self) -> str:
        return clock(self.run.elapsed)

    def play(self, name: str) -> None:
        """See View."""
        write_line(self.console, Text.assemble(f"{self._stamp()} == {name}", (self._expected(), "dim")))

    def _expected(self) -> str:
        left = expected(self.run.forecast)
        return f"  ({left})" if left else ""

    def finished(self, host: str, task: Task, status: Status, seconds: float) -> None:
        """See View."""
        width = max((len(name) for name in self.run.hosts), default=0)
        line = Text(f"{self._stamp()} {status:<11} {host:<{width}}  {task.name}  ({duration(seconds)})")
        line.stylize(STYLES[status], 6, 6 + len(status))
        write_line(self.console, line)

    def tick(self) -> None:
        """See View."""
        if self.run.stopping and not self._stopping:
            self._stopping = True
            write_line(self.console, f"{self._stamp()} stopping Ansible; interrupt again to kill it")
        now = self.run.clock()
        for task in self.run.running:
            took = now - task.started
            last = task.told
            if took >= TOLD_AFTER_S and (last is None or now - last >= TOLD_EVERY_S):
                task.told = now
                note = f"  [{task.note}]" if task.note else ""
                since = self._expected() if last is None else f"  (for {duration(took)}){self._expected()}"
                hosts = ", ".join(task.running)
                write_line(self.console, f"{self._stamp()} {'running':<11} {hosts}  {task.name}{note}{since}")

    def end(self) -> None:
        """See View."""


class LiveView(_Printer):
    """A picture at the foot of the terminal that is drawn anew as time passes.

    What should stay readable (messages, failures, diffs, plays that are over) scrolls away above it.
    """

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console)
        self._title = title
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stderr=False)
        self._spinner = Spinner("dots", style="cyan")
        self._play_began = 0.0
        self._ended: Counter[Status] = Counter()

    def begin(self, run: RunState) -> None:
        """See View."""
        super().begin(run)
        self._live.start()

    def play(self, name: str) -> None:
        """See View."""
        self._close_play()
        write_line(self.console, Text.assemble((clock(self.run.elapsed), "dim"), " ", (name, "bold")))

    def _close_play(self) -> None:
        """Leaves one line of what the play before did."""
        if self._ended:
            counts = [(f"{count} {status}", STYLES[status]) for status, count in sorted(self._ended.items())]
            line = Text("      ")
            line.append_text(Text(", ").join(Text(*count) for count in counts))
            line.append(f"  in {duration(self.run.elapsed - self._play_began)}", "dim")
            write_line(self.console, line)
        self._ended.clear()
        self._play_began = self.run.elapsed

    def finished(self, host: str, task: Task, status: Status, seconds: float) -> None:
        """See View."""
        self._ended[status] += 1
        self.tick()

    def failure(self, failure: Failure) -> None:
        """See View."""
        line = Text.assemble("      ", (failure.status, STYLES[failure.status]), f"  {failure.task}")
        write_line(self.console, line)
        super().failure(failure)

    def tick(self) -> None:
        """See View."""
        self._live.update(self._picture(), refresh=True)

    def end(self) -> None:
        """See View."""
        if self._run is not None:
            self._live.stop()
            self._close_play()

    def _picture(self) -> Group:
        run = self.run
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(justify="right", no_wrap=True)
        title = Text(self._title, "bold reverse" if run.stopping else "bold")
        if run.stopping:
            title = Text("stopping Ansible… press Ctrl-C again to kill it", "bold yellow")
        left = expected(run.forecast)
        head.add_row(title, Text.assemble((f"{left}  " if left else "", "dim"), (clock(run.elapsed), "bold")))
        # As much as the terminal has room for: hosts first, then what has just happened.
        room = max(self.console.height - 12, 4)
        hosts = list(run.hosts.values())
        shown = hosts[: min(_HOSTS, room)]
        rule, play = Text("─" * self.console.width, "dim"), Text(f"play  {run.play_name}", "dim")
        parts: list[ConsoleRenderable] = [rule, head, play, self._now()]
        if shown:
            parts.append(self._hosts(shown, len(hosts) - len(shown)))
        recent = self._recent(min(_RECENT, room - len(shown)))
        if recent is not None:
            parts += [Text(), recent]
        # The terminal echoes ^C where the cursor is: on a full line it would push the picture up.
        parts.append(Text())
        return Group(*parts)

    def _now(self) -> Table:
        """What runs at this moment."""
        grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
        grid.add_column(width=2)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        now = self.run.clock()
        tasks = self.run.running[-3:]
        for task in tasks:
            text = Text(task.name)
            if task.note:
                text.append(f"  {task.note}", "dim")
            grid.add_row(self._spinner, text, Text(duration(now - task.started), "cyan"))
        if not tasks:
            grid.add_row(self._spinner, Text("…", "dim"), "")
        return grid

    def _hosts(self, hosts: Sequence[HostState], more: int) -> Table:
        """State and counts of each host."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, expand=True, pad_edge=False, padding=(0, 1))
        table.add_column("host", no_wrap=True)
        table.add_column("now", no_wrap=True, overflow="ellipsis", ratio=1)
        for status in ("ok", "changed", "failed", "unreachable"):
            table.add_column(status, justify="right", no_wrap=True)
        for host in hosts:
            now: tuple[str, str] = ("waits", "dim")
            if host.unreachable:
                now = ("unreachable", STYLES["unreachable"])
            elif host.task is not None:
                now = ("works", "cyan")
            elif host.failed:
                now = ("failed", STYLES["failed"])
            table.add_row(host.name, Text(*now), *_counts(host.ok, host.changed, host.failed, host.unreachable))
        if more > 0:
            table.add_row(Text(f"and {more} more", "dim"))
        return table

    def _recent(self, count: int) -> Table | None:
        """The last tasks that ended, newest below."""
        done = self.run.recent[-count:] if count > 0 else []
        if not done:
            return None
        grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
        grid.add_column(no_wrap=True, min_width=11)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        grid.add_column(no_wrap=True, justify="right", min_width=6)
        for task in done:
            worst = task.worst or "ok"
            hosts = next(iter(task.done)) if len(task.done) == 1 else f"{len(task.done)} hosts"
            grid.add_row(
                Text(worst, STYLES[worst]),
                Text(task.name, "dim" if worst == "ok" else ""),
                Text(hosts, "dim"),
                Text(duration(task.seconds), "dim"),
            )
        return grid


def _counts(ok: int, changed: int, failed: int, unreachable: int) -> list[Text]:
    values = {"ok": ok, "changed": changed, "failed": failed, "unreachable": unreachable}
    return [Text(str(value), STYLES[name] if value else "dim") for name, value in values.items()]


def show_outcome(console: Console, state: RunState, *, title: str, code: int, interrupted: bool, log: str) -> None:
    """The account at the end: why it failed, the recap by host, the total time."""
    console.print()
    if interrupted:
        _show_interrupted(console, state)
    elif code != Exit.HEALTHY:
        _show_failures(console, state)
    if state.hosts or state.stats:
        console.print(_recap(state))
        console.print()
    result, style = _verdict(state, code, interrupted)
    write_line(console, Text.assemble(f"{title}: ", (result, style), f" after {duration(state.elapsed)}"))
    if code != Exit.HEALTHY:
        write_line(console, f"Ansible's own output: {log}", "dim")


def _verdict(state: RunState, code: int, interrupted: bool) -> tuple[str, str]:
    if interrupted:
        return "interrupted", "bold yellow"
    if code == Exit.HEALTHY:
        return "ok", "bold green"
    if code == Exit.FAILED:
        return "failed", "bold red"
    if state.stats is not None and state.stats["dark"]:
        return "could not reach every host", "bold red"
    return "could not run", "bold red"


def _recap(state: RunState) -> Table:
    """The table by host. Ansible's own figures where it got as far as giving them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("host", no_wrap=True)
    for name in ("ok", "changed", "failed", "unreachable"):
        table.add_column(name, justify="right")
    stats = state.stats
    names = list(state.hosts) if stats is None else [*stats["processed"]]
    for name in sorted(names):
        if stats is not None:
            counts = [stats[key].get(name, 0) for key in ("ok", "changed", "failures", "dark")]
        else:
            host = state.hosts[name]
            counts = [host.ok, host.changed, host.failed, host.unreachable]
        table.add_row(name, *_counts(*counts))
    return table


def _show_interrupted(console: Console, state: RunState) -> None:
    now = state.clock()
    running = state.running
    if not running:
        write_line(console, "Interrupted; no task was running.", "yellow")
    for task in running:
        write_line(
            console,
            f"Interrupted: {', '.join(task.running)}: {task.name} ({duration(now - task.started)} in)",
            "yellow",
        )
    write_line(console, "What was done stays done; the same command goes on from here.")
    console.print()


def _show_failures(console: Console, state: RunState) -> None:
    lost = set() if state.stats is None else {*state.stats["failures"], *state.stats["dark"]}
    failures = [failure for failure in state.failures if failure.host in lost or state.stats is None]
    last = {failure.host: index for index, failure in enumerate(failures)}
    for index, failure in enumerate(failures):
        # A rescue may have gone on after a failure; the reason is often the first one.
        handled = last[failure.host] != index and failure.task != failures[last[failure.host]].task
        _show_failure(console, failure, handled)
    if not failures:
        for text in state.complaints:
            _block(console, text, "", "red")
        if state.stats is not None and not state.stats["processed"]:
            write_line(console, "No host of the inventory belongs to any play of this playbook.", "red")
        elif not state.complaints:
            write_line(console, "Ansible ended without saying why.", "red")


def _show_failure(console: Console, failure: Failure, handled: bool) -> None:
    word = failure.status.upper()
    line = Text.assemble((word, STYLES[failure.status]), "  ", (failure.host, "bold"), f"  {failure.task}")
    if handled:
        line.append("  (the play went on from this one)", "dim")
    write_line(console, line)
    if failure.path:
        write_line(console, f"  at {failure.path}", "dim")
    if failure.item:
        write_line(console, f"  item {failure.item}", "dim")
    _block(console, failure.message, "  ", "red")
    for name, text in failure.logs:
        write_line(console, f"  {name}:", "bold")
        _block(console, text, "    ")
    console.print()
