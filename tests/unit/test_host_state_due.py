"""What host_state leaves due when a run ends between the change of a file and the restart of its unit."""

from pathlib import Path

import host_state
import pytest
from ansible.module_utils.ai_idp.host_state.changes import Journal, StateError
from ansible.module_utils.ai_idp.host_state.due import Due, Triggers
from ansible.module_utils.ai_idp.host_state.paths import Paths, WantedFile
from ansible.module_utils.ai_idp.host_state.units import OWN_UNITS, Units
from ansible.module_utils.ai_idp.programs import Answer

UNIT = "toy.service"
RUNS = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "FragmentPath": f"{OWN_UNITS}/{UNIT}",
    "InvocationID": "first",
}
ENTRY = {
    "name": UNIT,
    "state": "started",
    "enabled": True,
    "health_url": "",
    "health_status": [200],
    "health_seconds": 1.0,
    "health_file": None,
    "health_file_seconds": 60.0,
}


class Killed(BaseException):
    """The run was ended."""


class Systemd:
    """One unit of systemd, whose number changes with each start."""

    def __init__(self, **shown: str) -> None:
        self.shown = {**RUNS, **shown}
        self.calls: list[str] = []
        self.killed_at = ""

    def __call__(self, argv: list[str], _timeout: float) -> Answer:
        if argv[1] == "show":
            return Answer(0, "".join(f"{key}={value}\n" for key, value in self.shown.items()))
        if argv[1] == self.killed_at:
            raise Killed
        self.calls.append(argv[1])
        if argv[1] in ("restart", "start"):
            self.shown |= {"InvocationID": f"after {len(self.calls)}", "ActiveState": "active", "SubState": "running"}
        if argv[1] == "daemon-reload":
            self.shown["NeedDaemonReload"] = "no"
        return Answer(0, "")


class Host:
    """Runs of host_state with one file and one unit, the file as whoever runs the tests may write it."""

    def __init__(self, tmp_path: Path, triggers: Triggers, **shown: str) -> None:
        self.path = tmp_path / "settings"
        self.folder = tmp_path / "var" / "due"
        (tmp_path / "var").mkdir()
        (tmp_path / "var" / "other").touch()
        self.triggers = triggers
        self.systemd = Systemd(**shown)
        self.entry = ENTRY

    def run(self, text: str, check: bool = False, restart: bool = False, validate: str = "") -> list[str]:
        """What a run says that it changes of the unit."""
        journal = Journal()
        units = Units(journal, check, self.systemd)
        due = Due(check, {UNIT: self.triggers}, units.show, str(self.folder))
        units.done = due.done
        due.note(UNIT, "restart" if restart else "")
        info = self.path.parent.stat()
        paths = Paths(journal, check, due.changes)
        paths.owners.user = lambda *_: info.st_uid  # type: ignore[method-assign]
        paths.owners.group = lambda *_: info.st_gid  # type: ignore[method-assign]
        paths.file(WantedFile(str(self.path), "me", "mine", 0o600, text, validate))
        units.apply([host_state.wanted_unit(self.entry, due.verb(UNIT))])
        return [change.how for change in journal.changes if change.kind == "unit"]

    def killed_run(self, text: str, at: str) -> None:
        """A run that ends just before it has systemd do something."""
        self.systemd.killed_at = at
        with pytest.raises(Killed):
            self.run(text)
        assert self.path.read_text() == text
        self.systemd.killed_at = ""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, Triggers(restarted_by=frozenset({str(tmp_path / "settings")})))


def test_a_restart_that_a_run_did_not_come_to_is_made_by_the_next(host: Host) -> None:
    host.killed_run("new", at="restart")
    assert host.run("new", check=True) == ["restarted"]
    assert host.systemd.calls == []
    assert host.run("new") == ["restarted"]
    assert host.run("new") == []
    assert host.systemd.calls == ["restart"]
    assert not host.folder.exists()


def test_a_reload_that_a_run_did_not_come_to_is_made_by_the_next(tmp_path: Path) -> None:
    host = Host(tmp_path, Triggers(reloaded_by=frozenset({"*"})))
    host.killed_run("new", at="reload")
    assert (host.run("new"), host.run("new")) == (["reloaded"], [])


def test_a_change_is_taken_over_once_and_leaves_nothing_behind(host: Host) -> None:
    assert (host.run("new"), host.run("new")) == (["restarted"], [])
    assert not host.folder.exists()


def test_check_mode_writes_nothing_down(host: Host) -> None:
    assert host.run("new", check=True) == ["restarted"]
    assert not host.folder.exists()


def test_who_was_started_anew_meanwhile_is_not_restarted(host: Host) -> None:
    host.killed_run("new", at="restart")
    host.systemd.shown["InvocationID"] = "its owner's"
    assert host.run("new") == []
    assert not host.folder.exists()


def test_who_was_started_anew_by_the_older_form_of_its_unit_is(host: Host) -> None:
    host.killed_run("new", at="restart")
    host.systemd.shown |= {"InvocationID": "its owner's", "NeedDaemonReload": "yes"}
    assert host.run("new") == ["restarted"]
    assert host.systemd.calls == ["daemon-reload", "restart"]


def test_who_stopped_meanwhile_is_only_started(host: Host) -> None:
    host.killed_run("new", at="restart")
    host.systemd.shown |= {"ActiveState": "inactive", "SubState": "dead"}
    assert (host.run("new"), host.run("new")) == (["started"], [])


def test_who_does_not_run_owes_nothing(host: Host) -> None:
    host.systemd.shown |= {"ActiveState": "inactive", "SubState": "dead"}
    host.killed_run("new", at="start")
    assert not host.folder.exists()


def test_what_its_program_refuses_leaves_nothing_due(host: Host) -> None:
    with pytest.raises(StateError):
        host.run("bad", validate="false %s")
    assert not host.folder.exists()


def test_a_restart_for_the_caller_s_reason_is_kept_too(host: Host) -> None:
    host.run("new")
    host.systemd.killed_at = "restart"
    with pytest.raises(Killed):
        host.run("new", restart=True)
    host.systemd.killed_at = ""
    assert host.run("new") == ["restarted"]


def test_a_oneshot_is_run_again_whoever_ran_it_meanwhile(tmp_path: Path) -> None:
    host = Host(tmp_path, Triggers(frozenset({"*"}), oneshot=True), ActiveState="inactive", UnitFileState="static")
    host.entry = {**ENTRY, "state": "oneshot", "enabled": None}
    host.killed_run("new", at="restart")
    host.systemd.shown["InvocationID"] = "its timer's"
    assert (host.run("new"), host.run("new")) == (["run"], [])


def test_a_unit_that_is_to_be_absent_owes_nothing_more(host: Host) -> None:
    host.killed_run("new", at="restart")
    units = Units(Journal(), False, host.systemd)
    units.done = Due(False, {}, units.show, str(host.folder)).done
    units.absent([UNIT])
    assert not host.folder.exists()


@pytest.mark.parametrize(
    ("changed", "verb"),
    [
        ("/etc/a", "restart"),
        ("/etc/b", "reload"),
        ("grafana", "restart"),
        ("other", ""),
    ],
)
def test_a_unit_is_restarted_by_its_files_and_packages(changed: str, verb: str) -> None:
    entry = {"restarted_by": ["grafana", "/etc//a"], "reloaded_by": ["*"], "state": "started"}
    assert host_state.triggers_of(entry).verb(changed) == verb


def test_a_restart_makes_a_reload_unnecessary(tmp_path: Path) -> None:
    units = Units(Journal(), False, Systemd())
    due = Due(False, {UNIT: Triggers(frozenset({"/etc/a"}), frozenset({"*"}))}, units.show, str(tmp_path / "due"))
    due.changes("/etc/b")
    assert due.verb(UNIT) == "reload"
    due.changes("/etc/a")
    due.changes("/etc/b")
    assert due.verb(UNIT) == "restart"
