"""What host_state does for services that need something first, or that never come up."""

from pathlib import Path
from typing import Any

import host_state
import pytest
from ansible.module_utils.ai_idp.host_state import base
from ansible.module_utils.ai_idp.host_state import units as units_module
from ansible.module_utils.ai_idp.host_state.changes import Journal, StateError
from ansible.module_utils.ai_idp.host_state.due import Due, Triggers
from ansible.module_utils.ai_idp.host_state.paths import Paths, Wanted, WantedFile
from ansible.module_utils.ai_idp.host_state.units import Units, WantedUnit, foreign_drop_ins
from ansible.module_utils.ai_idp.programs import Answer
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

RUNS = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=no\n"


def test_versions_are_told_of_packages_and_of_what_they_provide() -> None:
    text = "installed\tnginx\t1.24.0-2ubuntu7.5\thttpd\nconfig-files\tgone\t1.0\t\ninstalled\tcurl\t8.5.0\t\n"
    assert base.installed(text) == {"nginx": "1.24.0-2ubuntu7.5", "httpd": "1.24.0-2ubuntu7.5", "curl": "8.5.0"}


def test_a_unit_waits_for_the_file_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[list[str]] = []

    def apply(_: Units, wanted: list[WantedUnit]) -> None:
        applied.append([unit.name for unit in wanted])

    monkeypatch.setattr(host_state.Units, "apply", apply)
    settings = tmp_path / "settings"
    unit = {"name": "toy.service", "state": "started", "enabled": True, "needs": str(settings), "health_url": ""}
    given: dict[str, Any] = {key: [] for key in ("directories", "files", "links", "purge", "absent")}
    health = {"health_status": [200], "health_seconds": 1, "health_file": None, "health_file_seconds": 60}
    given["units"] = [{**unit, **health, "drop_ins": []}]
    units = Units(Journal(), False)
    due = Due(False, {"toy.service": Triggers()}, units.show, str(tmp_path / "due"))
    host_state.set_state(given, units.journal, units, due)
    settings.write_text("")
    host_state.set_state(given, units.journal, units, due)
    assert applied == [[], ["toy.service"]]


def test_the_texts_of_files_are_not_written_to_the_host_s_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: list[object] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, *said, **_more: logged.append(said))
    text = {"path": str(tmp_path / "password"), "content": "no-word-of-this", "secret": True}
    # As the controller calls a module whose task says nothing of no_log.
    given = {"files": [text], "_ansible_no_log": False, "_ansible_check_mode": True}
    with patch_module_args(given), pytest.raises(SystemExit):
        host_state.main()
    assert logged == []
    assert "no-word-of-this" not in capsys.readouterr().out


def test_drop_ins_of_others_are_found_where_the_unit_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "OWN_UNITS", str(tmp_path))
    folder = tmp_path / "toy.service.d"
    folder.mkdir()
    for name in ("by-hand.conf", "ours.conf", "owner-proxy.conf", "old.conf.aside", "README"):
        (folder / name).touch()
    # A link to /dev/null hides a drop-in of the package: that is a change, too.
    (folder / "hidden.conf").symlink_to("/dev/null")
    foreign = [f"{folder}/by-hand.conf", f"{folder}/hidden.conf"]
    ours = f"{folder}/ours.conf"
    assert foreign_drop_ins("toy.service", [ours], ["owner-*.conf"]) == foreign
    assert foreign_drop_ins("toy.service", [f"{tmp_path}/toy.service", ours], ["owner-*.conf"]) == foreign
    assert ours in foreign_drop_ins("toy.service", [f"{tmp_path}/toy.service"], ["owner-*.conf"])
    assert foreign_drop_ins("toy.service", ["/etc/toy.conf"], []) == []
    assert foreign_drop_ins("other.service", [f"{tmp_path}/other.service"], []) == []


def test_what_is_moved_aside_is_never_lost(tmp_path: Path) -> None:
    drop_in, journal = tmp_path / "by-hand.conf", Journal()
    drop_in.write_text("new")
    (tmp_path / "by-hand.conf.aside").write_text("older")
    Paths(journal, True).aside(str(drop_in))
    assert drop_in.exists()
    Paths(journal, False).aside(str(drop_in))
    assert [change.how for change in journal.changes] == [f"moved to {drop_in}.aside.2"] * 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "by-hand.conf.aside": "older",
        "by-hand.conf.aside.2": "new",
    }


def test_a_unit_that_ends_again_and_again_is_not_waited_for() -> None:
    restarts = iter(range(100))

    def program(arguments: list[str], _: float) -> Answer:
        if "--property=NRestarts" in arguments:
            return Answer(0, f"{next(restarts)}\n")
        return Answer(0, "bad model" if arguments[0] == "journalctl" else RUNS)

    units = Units(Journal(), False, program, lambda _: "refused", lambda _: None)
    with pytest.raises(StateError, match=r"toy.service ends again and again(.|\n)*bad model"):
        units.apply([WantedUnit("toy.service", health_url="http://x", health_seconds=600)])


def test_a_file_that_is_written_once_keeps_its_text_and_gets_its_mode(tmp_path: Path, monkeypatch: Any) -> None:
    log = tmp_path / "access.log"
    log.write_text("long")
    paths = Paths(Journal(), False)
    monkeypatch.setattr(paths, "_own", lambda path, wanted, flags: Path(path).chmod(wanted.mode))
    paths.file(WantedFile(str(log), "root", "root", 0o640, content="", once=True))
    assert (log.read_text(), log.stat().st_mode & 0o777) == ("long", 0o640)


def test_a_directory_that_is_another_s_too_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir(mode=0o700)
    journal = Journal()
    Paths(journal, True).directory(Wanted(str(tmp_path / "figures"), "root", "root", 0o755), once=True)
    Paths(journal, True).directory(Wanted(str(tmp_path / "new"), "root", "root", 0o755), once=True)
    assert [(change.name, change.how) for change in journal.changes] == [(str(tmp_path / "new"), "created")]
