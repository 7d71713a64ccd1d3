"""What host_state compares and sets, and what a role's preflight says before."""

import grp
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp.host_state.base import Account, installed, lacking, package_names, package_versions
from ansible.module_utils.ai_idp.host_state.changes import Journal, StateError
from ansible.module_utils.ai_idp.host_state.paths import Paths, Wanted, WantedFile
from ansible.module_utils.ai_idp.host_state.units import OWN_UNITS, Unit, Units, WantedUnit, answer_of, parse_show
from ansible.module_utils.ai_idp.programs import Answer

ROOT = Path(__file__).resolve().parents[2]
USER, GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


def file(path: Path, content: str, mode: int = 0o644, **more: Any) -> WantedFile:
    return WantedFile(str(path), USER, GROUP, mode, content=content, **more)


def directory(path: Path, mode: int = 0o755) -> Wanted:
    return Wanted(str(path), USER, GROUP, mode)


def setter(check: bool = False) -> tuple[Paths, Journal]:
    journal = Journal()
    return Paths(journal, check), journal


def said(journal: Journal) -> list[tuple[str, str, str]]:
    return [(change.kind, Path(change.name).name, change.how) for change in journal.changes]


# --- accounts and packages -------------------------------------------------------------------------


def test_only_installed_packages_count_with_what_they_provide() -> None:
    text = (
        "installed\tpostfix\t3.7\tdefault-mta, mail-transport-agent (= 3)\n"
        "config-files\tnginx\t1.26\thttpd\n"
        "not-installed\tcurl\t\t\n"
        "dpkg-query: no packages found matching nosuch\n"
    )
    assert installed(text) == dict.fromkeys(("postfix", "default-mta", "mail-transport-agent"), "3.7")


def test_a_name_that_another_package_provides_is_not_missing() -> None:
    everything = "installed\tpostfix\t3.7\tmail-transport-agent\ninstalled\tcurl\t8.5\t\n"
    calls = []

    def dpkg(argv: list[str], _timeout: float) -> Answer:
        names = argv[3:]
        calls.append(names)
        if not names:
            return Answer(0, everything)
        lines = [line for line in everything.splitlines() if line.split("\t")[1] in names]
        return Answer(0 if len(lines) == len(names) else 1, "\n".join(lines))

    assert package_versions(["curl"], dpkg) == {"curl": "8.5"}
    assert calls == [["curl"]]
    found = package_versions(["curl", "mail-transport-agent", "nosuch"], dpkg)
    assert found == {"curl": "8.5", "mail-transport-agent": "3.7"}
    # Of packages that are to go, the name itself counts.
    assert package_names(["mail-transport-agent", "curl", "nosuch"], dpkg) == ["curl"]
    assert package_names([], dpkg) == []


def test_dpkg_that_fails_is_no_empty_host() -> None:
    with pytest.raises(StateError, match="database is locked"):
        package_versions(["curl"], lambda _argv, _timeout: Answer(2, "the database is locked"))


def test_accounts_are_lacking_by_name_shell_and_group() -> None:
    entry = pwd.getpwuid(os.getuid())
    assert not lacking(Account(entry.pw_name, (GROUP,), entry.pw_shell))
    assert lacking(Account("no-such-account"))
    assert lacking(Account(entry.pw_name, shell="/no/such/shell"))
    assert lacking(Account(entry.pw_name, ("no-such-group",)))


# --- paths -----------------------------------------------------------------------------------------


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    for expected in (True, False):
        paths, journal = setter()
        paths.directory(directory(tmp_path / "a" / "b", 0o750))
        paths.file(file(tmp_path / "a" / "b" / "one", "text\n", 0o640))
        paths.link(str(tmp_path / "a" / "current"), "b")
        assert bool(journal.changes) is expected
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o750
    # A parent that was missing becomes its like, as with ansible.builtin.file.
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o750
    assert (tmp_path / "a" / "current" / "one").read_text() == "text\n"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["one"]


def test_check_mode_changes_nothing_on_a_bare_host(tmp_path: Path) -> None:
    paths, journal = setter(check=True)
    wanted = Wanted(str(tmp_path / "new"), "account-to-come", "group-to-come", 0o755)
    paths.directory(wanted)
    paths.file(WantedFile(str(tmp_path / "new" / "one"), "account-to-come", "group-to-come", 0o600, content="x"))
    paths.file(file(tmp_path / "new" / "two", "x", validate="program-to-come %s"))
    paths.link(str(tmp_path / "new" / "link"), "one")
    paths.absent(str(tmp_path / "nothing"))
    paths.purge(str(tmp_path / "new"), ["*"], [])
    assert [kind for kind, _name, _how in said(journal)] == ["directory", "file", "file", "link"]
    assert list(tmp_path.iterdir()) == []


def test_a_real_run_names_the_account_that_is_missing(tmp_path: Path) -> None:
    paths, _journal = setter()
    with pytest.raises(StateError, match=r"one can't be given to the account 'nobody-knows'"):
        paths.file(WantedFile(str(tmp_path / "one"), "nobody-knows", GROUP, 0o600, content="x"))
    assert list(tmp_path.iterdir()) == []


def test_drift_of_text_mode_and_kind_is_repaired(tmp_path: Path) -> None:
    target = tmp_path / "one"
    for damage, how in (
        (lambda: target.write_text("other"), "changed"),
        (lambda: target.chmod(0o666), "owner or mode"),
        (target.unlink, "created"),
        (lambda: (target.unlink(), target.symlink_to("/etc/hostname")), "put in place of a link"),
        (lambda: (target.unlink(), target.symlink_to("/no/such/file")), "put in place of a link"),
    ):
        paths, _ = setter()
        paths.file(file(target, "text"))
        damage()
        for check in (True, False):
            paths, journal = setter(check)
            paths.file(file(target, "text"))
            assert said(journal) == [("file", "one", how)]
        assert target.read_text() == "text"
        assert not target.is_symlink()
        assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert Path("/etc/hostname").read_text() != "text"


def test_what_validate_refuses_is_not_put_in_place(tmp_path: Path) -> None:
    target = tmp_path / "one"
    target.write_text("old\n")
    for check in (True, False):
        paths, journal = setter(check)
        with pytest.raises(StateError, match=r"grep refuses the new .*/one; the old one stays") as raised:
            paths.file(file(target, "bad\n", validate="grep --quiet good %s"))
        assert not journal.changes
        assert ".new" not in str(raised.value)
        assert target.read_text() == "old\n"
        assert [path.name for path in tmp_path.iterdir()] == ["one"]
    paths, _ = setter()
    paths.file(file(target, "good\n", validate="grep --quiet good %s"))
    assert target.read_text() == "good\n"


def test_validate_must_be_told_the_path(tmp_path: Path) -> None:
    paths, _ = setter()
    with pytest.raises(StateError, match="write %s"):
        paths.file(file(tmp_path / "one", "x", validate="true"))


def test_secrets_are_in_no_diff_and_in_no_message(tmp_path: Path) -> None:
    target = tmp_path / "password"
    target.write_text("old-secret")
    paths, journal = setter()
    with pytest.raises(StateError) as raised:
        paths.file(file(target, "new-secret", secret=True, validate="sh -c 'cat %s; exit 1'"))
    paths.file(file(target, "new-secret", 0o600, secret=True))
    target.chmod(0o644)
    paths.file(file(target, "new-secret", 0o600, secret=True))
    told = str(raised.value) + repr(journal)
    assert "password" in told
    assert "secret" in told.replace("old-secret", "").replace("new-secret", "")
    assert "old-secret" not in told
    assert "new-secret" not in told


def test_what_was_there_before_is_kept_for_whoever_could_read_it(tmp_path: Path) -> None:
    target = tmp_path / "one"
    target.write_text("before")
    target.chmod(0o600)
    paths, _ = setter()
    paths.file(file(target, "after", backup=True))
    kept = tmp_path / "one.before"
    assert kept.read_text() == "before"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "one.before"]


def test_a_text_that_counts_once_leaves_what_is_there(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "link").symlink_to(mine)
    paths, journal = setter()
    paths.file(file(mine, "theirs", once=True))
    paths.file(file(tmp_path / "link", "theirs", once=True))
    assert not journal.changes
    paths.file(file(tmp_path / "new", "theirs", once=True))
    assert mine.read_text() == "mine"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").read_text() == "theirs"


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("/no/such/folder")
    paths, _ = setter()
    for act, words in (
        (lambda: paths.directory(directory(tmp_path / "file")), "is to be a directory and is none"),
        (lambda: paths.directory(directory(tmp_path / "dangling")), "is a link to /no/such/folder"),
        (lambda: paths.file(file(tmp_path / "folder", "x")), "is to be a file and is a directory"),
        (lambda: paths.file(file(tmp_path / "none" / "one", "x")), "has no such folder in it"),
        (lambda: paths.link(str(tmp_path / "file"), "folder"), "is to be a link to folder and is none"),
        (lambda: paths.link(str(tmp_path / "none" / "link"), "folder"), "has no such folder in it"),
    ):
        with pytest.raises(StateError, match=words):
            act()
    assert (tmp_path / "file").read_text() == "x"


def test_a_link_to_a_directory_is_one_and_a_link_is_turned(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o755)
    (tmp_path / "link").symlink_to("real")
    # A file that happens to be called so is not ours.
    (tmp_path / "link.new").write_text("x")
    paths, journal = setter()
    paths.directory(directory(tmp_path / "link"))
    assert not journal.changes
    paths.link(str(tmp_path / "link"), "other")
    assert said(journal) == [("link", "link", "turned")]
    assert (tmp_path / "link").readlink() == Path("other")
    assert (tmp_path / "link.new").read_text() == "x"


def test_purge_removes_files_that_match_and_nothing_else(tmp_path: Path) -> None:
    for name in ("kept.yml", "old.yml", "notes.txt", "link.yml"):
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc" / name).write_text("x")
    (tmp_path / "etc" / "folder.yml").mkdir()
    (tmp_path / "alias").symlink_to("etc")
    for check in (True, False):
        paths, journal = setter(check)
        # What is to go anyway is told once.
        paths.absent(str(tmp_path / "etc" / "link.yml"))
        paths.purge(str(tmp_path / "etc"), ["*.yml"], [str(tmp_path / "alias" / "kept.yml")])
        assert said(journal) == [("path", "link.yml", "removed"), ("path", "old.yml", "removed")]
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == ["folder.yml", "kept.yml", "notes.txt"]
    paths, journal = setter()
    paths.purge(str(tmp_path / "nothing"), ["*"], [])
    assert not journal.changes


def test_absent_removes_trees_and_links_but_no_top_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    paths, journal = setter()
    paths.absent(str(tmp_path / "tree"))
    paths.absent(str(tmp_path / "link"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert len(journal.changes) == 2
    for top in ("/", "/etc"):
        with pytest.raises(StateError, match="is not removed"):
            setter(check=True)[0].absent(top)


# --- units -----------------------------------------------------------------------------------------

SHOWN = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "FragmentPath": f"{OWN_UNITS}/toy.service",
}
UNKNOWN = {
    "LoadState": "not-found",
    "ActiveState": "inactive",
    "SubState": "dead",
    "UnitFileState": "",
    "FragmentPath": "",
}


class Systemd:
    """Answers as systemctl does; the commands that change something are noted."""

    def __init__(self, *shown: dict[str, str], after: dict[str, dict[str, str]] | None = None) -> None:
        self.shown = [{**SHOWN, **each} for each in shown]
        self.after = after or {}
        self.calls: list[str] = []
        self.fails = ""

    def __call__(self, argv: list[str], _timeout: float) -> Answer:
        if argv[0] == "journalctl":
            return Answer(0, "its last words are these")
        if argv[1] == "show":
            return Answer(
                0, "\n\n".join("\n".join(f"{key}={value}" for key, value in each.items()) for each in self.shown)
            )
        self.calls.append(" ".join(argv[1:]))
        if argv[1] == self.fails:
            return Answer(1, "Job failed")
        for each in self.shown:
            each.update(self.after.get(argv[1], {}))
        return Answer(0, "")


def apply(
    systemd: Systemd, check: bool = False, ask: Callable[[str], Any] = lambda _url: 200, **wanted: Any
) -> Journal:
    journal = Journal()
    Units(journal, check, systemd, ask, lambda _seconds: None).apply([WantedUnit("toy.service", **wanted)])
    return journal


def hows(journal: Journal) -> list[str]:
    return [change.how for change in journal.changes]


def test_show_of_several_units_is_read_in_order() -> None:
    text = Systemd(SHOWN, UNKNOWN, {"LoadState": "masked", "NeedDaemonReload": "yes"})(["systemctl", "show"], 1).output
    first, second, third = parse_show(text)
    assert first == Unit(True, False, "active", "running", "enabled", f"{OWN_UNITS}/toy.service", False)
    assert (second.known, second.runs) == (False, False)
    assert (third.masked, third.needs_reload) == (True, True)


def test_a_running_unit_whose_file_came_back_is_loaded_anew() -> None:
    # As systemd 257 shows it: it may not set the slice of a unit that runs.
    shown = "LoadState=error\nActiveState=active\nFragmentPath=/etc/systemd/system/toy.service\nNeedDaemonReload=no\n"
    (unit,) = parse_show(shown)
    assert unit.known
    assert unit.stale("toy.service")


def test_what_is_as_it_should_be_is_left_alone() -> None:
    systemd = Systemd({})
    assert not apply(systemd, health_url="http://127.0.0.1:1").changes
    assert systemd.calls == []


@pytest.mark.parametrize(
    ("shown", "wanted", "calls"),
    [
        ({"ActiveState": "inactive", "SubState": "dead"}, {}, ["start toy.service"]),
        ({"ActiveState": "failed"}, {}, ["reset-failed toy.service", "start toy.service"]),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, {}, ["start toy.service"]),
        ({"ActiveState": "activating", "SubState": "auto-restart-queued"}, {}, ["start toy.service"]),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, {"running": False}, ["stop toy.service"]),
        ({}, {"running": False}, ["stop toy.service"]),
        ({}, {"running": None, "restart": True}, []),
        ({}, {"restart": True, "reload": True}, ["restart toy.service"]),
        ({}, {"reload": True}, ["reload toy.service"]),
        ({"ActiveState": "inactive"}, {"reload": True, "restart": True}, ["start toy.service"]),
        ({"UnitFileState": "disabled"}, {}, ["enable toy.service"]),
        ({"UnitFileState": "disabled"}, {"enabled": None}, []),
        # Forgotten at the next boot.
        ({"UnitFileState": "enabled-runtime"}, {}, ["enable toy.service"]),
        ({"UnitFileState": "enabled-runtime"}, {"enabled": False}, ["disable --runtime toy.service"]),
        ({}, {"enabled": False}, ["disable toy.service"]),
        # Has no [Install] section: it can be neither enabled nor disabled.
        ({"UnitFileState": "static"}, {}, []),
        ({"UnitFileState": "static"}, {"enabled": False}, []),
        ({"UnitFileState": "alias"}, {"enabled": False}, []),
    ],
)
def test_a_unit_gets_what_it_lacks(shown: dict[str, str], wanted: dict[str, Any], calls: list[str]) -> None:
    systemd = Systemd(shown)
    journal = apply(systemd, **wanted)
    assert systemd.calls == calls
    checked = Systemd(shown)
    assert hows(apply(checked, check=True, **wanted)) == hows(journal)
    assert checked.calls == []
    assert bool(journal.changes) is bool(calls)


def test_a_masked_unit_is_unmasked_and_looked_at_again() -> None:
    masked = {"LoadState": "masked", "UnitFileState": "masked", "ActiveState": "inactive", "SubState": "dead"}
    systemd = Systemd(masked, after={"unmask": {"LoadState": "loaded", "UnitFileState": "enabled"}})
    assert hows(apply(systemd)) == ["unmasked", "started"]
    assert systemd.calls == ["unmask toy.service", "start toy.service"]
    for_now = Systemd({**masked, "UnitFileState": "masked-runtime"}, after={"unmask": {"UnitFileState": "enabled"}})
    apply(for_now)
    assert for_now.calls[0] == "unmask --runtime toy.service"
    stays = Systemd(masked)
    assert not apply(stays, running=False, enabled=False).changes
    assert hows(apply(Systemd(masked), check=True)) == ["unmasked", "enabled", "started"]


def test_systemd_reads_its_files_again_only_where_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.module_utils.ai_idp.host_state.units.OWN_UNITS", str(tmp_path))
    own = {"FragmentPath": str(tmp_path / "toy.service")}
    package = {"FragmentPath": "/usr/lib/systemd/system/toy.service"}
    fresh = {"daemon-reload": {"NeedDaemonReload": "no", **own}}
    assert Systemd(own).calls == []
    for shown in ({**own, "NeedDaemonReload": "yes"}, {**package, "NeedDaemonReload": "yes"}):
        systemd = Systemd(shown, after=fresh)
        apply(systemd)
        assert systemd.calls == ["daemon-reload"]
        checked = Systemd(shown)
        apply(checked, check=True)
        assert checked.calls == []
    untouched = Systemd(package)
    apply(untouched)
    assert untouched.calls == []
    # A mask is no unit of our own.
    (tmp_path / "toy.service").symlink_to("/dev/null")
    apply(untouched)
    assert untouched.calls == []
    (tmp_path / "toy.service").unlink()
    (tmp_path / "toy.service").write_text("[Service]\n")
    for shown in (package, UNKNOWN):
        hidden = Systemd(shown, after={"daemon-reload": {**SHOWN, **own}})
        apply(hidden)
        assert hidden.calls == ["daemon-reload"]


def test_a_unit_that_nobody_wrote_is_an_error_but_not_in_check_mode() -> None:
    with pytest.raises(StateError, match=r"systemd knows no toy\.service"):
        apply(Systemd(UNKNOWN))
    assert hows(apply(Systemd(UNKNOWN), check=True)) == ["enabled", "started"]


def test_what_fails_or_does_not_answer_says_its_last_words() -> None:
    systemd = Systemd({"ActiveState": "inactive"})
    systemd.fails = "start"
    with pytest.raises(StateError, match=r"systemctl start toy\.service failed: Job failed"):
        apply(systemd)
    asked = iter([503, "refused", 200])
    apply(Systemd({}), ask=lambda _url: next(asked), health_url="http://x")
    with pytest.raises(StateError, match=r"does not answer http://x \(refused\) within 0 s\.(.|\n)*its last words"):
        apply(Systemd({}), ask=lambda _url: "refused", health_url="http://x", health_seconds=0.0)


def test_a_file_that_a_timer_renews_must_be_fresh(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    health: dict[str, Any] = {"health_file": str(page), "health_file_seconds": 60.0, "health_seconds": 0.0}
    with pytest.raises(StateError, match=r"index.html is missing or older than 60 s, though toy.service runs"):
        apply(Systemd({}), **health)
    apply(Systemd({}), check=True, **health)
    page.touch()
    apply(Systemd({}), **health)
    os.utime(page, (1, 1))
    with pytest.raises(StateError, match="its last words"):
        apply(Systemd({}), **health)


def test_systemd_that_does_not_answer_is_told() -> None:
    with pytest.raises(StateError, match=r"systemd does not tell about toy\.service: no bus"):
        Units(Journal(), False, lambda _argv, _timeout: Answer(1, "no bus")).apply([WantedUnit("toy.service")])


@pytest.mark.parametrize(
    ("shown", "calls"),
    [
        (UNKNOWN, []),
        ({"ActiveState": "inactive", "SubState": "dead", "UnitFileState": "disabled"}, []),
        ({}, ["stop toy.service", "disable toy.service", "reset-failed toy.service"]),
        (
            {"UnitFileState": "static", "ActiveState": "activating", "SubState": "auto-restart"},
            ["stop toy.service", "reset-failed toy.service"],
        ),
        ({"UnitFileState": "masked", "ActiveState": "failed", "SubState": "failed"}, ["reset-failed toy.service"]),
    ],
)
def test_absent_stops_and_disables_what_there_is(shown: dict[str, str], calls: list[str]) -> None:
    systemd, journal = Systemd(shown), Journal()
    Units(journal, False, systemd).absent(["toy.service"])
    assert systemd.calls == calls
    assert bool(journal.changes) is bool(calls)


def test_nobody_who_listens_is_an_answer_too() -> None:
    assert "refused" in str(answer_of("http://127.0.0.1:9/"))


# --- the action plugins, run by Ansible itself -----------------------------------------------------

SPEC = {
    "argument_specs": {
        "main": {
            "options": {
                "toy_state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                "toy_port": {"type": "int", "required": True},
                "toy_key": {"type": "str", "no_log": True, "choices": ["a-key", "other-key"]},
            }
        }
    }
}


class Toy:
    """A project with one role, whose tasks a test gives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.role = folder / "roles" / "toy"
        for name in ("tasks", "meta", "templates", "files"):
            (self.role / name).mkdir(parents=True)
        ours = "".join(f"{name} = {ROOT / name}\n" for name in ("library", "action_plugins", "module_utils"))
        (folder / "ansible.cfg").write_text(f"[defaults]\n{ours}")
        (self.role / "meta" / "argument_specs.yml").write_text(json.dumps(SPEC))

    def run(self, *tasks: dict[str, Any], options: tuple[str, ...] = ()) -> tuple[list[dict[str, Any]], str]:
        """Run the tasks on this machine, each of them whatever became of the one before.

        Returns:
            what each of them returned, and all that was printed.
        """
        (self.role / "tasks" / "main.yml").write_text(json.dumps([{**task, "ignore_errors": True} for task in tasks]))
        play = {"hosts": "localhost", "gather_facts": False, "roles": ["toy"], "vars": {"toy_port": 1}}
        (self.folder / "play.yml").write_text(json.dumps([play]))
        program = Path(sys.executable).parent / "ansible-playbook"
        done = subprocess.run(
            [program, "-i", "localhost,", "-c", "local", "-vvv", *options, self.folder / "play.yml"],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
                "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert '"plays"' in said, said
        printed = json.loads(done.stdout[done.stdout.index("{\n") : done.stdout.rindex("}") + 1])
        # The first is Ansible's own check of the role's arguments.
        return [task["hosts"]["localhost"] for task in printed["plays"][0]["tasks"][1:]], said


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "project")


def place(path: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "owner": USER, "group": GROUP, **more}


def test_files_are_rendered_and_no_secret_is_returned(toy: Toy, tmp_path: Path) -> None:
    (toy.role / "templates" / "part.j2").write_text("part of {{ name }}\n")
    (toy.role / "templates" / "one.j2").write_text(
        "# {{ ansible_managed }}\n{% if name %}\n{{ name }}\\n\n{% endif %}\n{% include 'part.j2' %}\n"
    )
    (toy.role / "files" / "two").write_bytes("zwei: {{ raw }} äöü\r\n".encode())
    etc = tmp_path / "etc"
    state = {
        "directories": [place(etc)],
        "files": [
            place(etc / "one", template="one.j2", template_vars={"name": "toy"}),
            # Another way to write the same folder.
            place(Path(f"{etc}//two"), source="two"),
            place(etc / "key", content="s3cret-{{ toy_port }}", mode="0600", secret=True),
        ],
        "links": [{"path": str(etc / "link"), "target": "one"}],
        "purge": [{"path": f"{etc}/"}],
    }
    broken = {"files": [place(etc / "one" / "below", content="s3cret-2", secret=True)]}
    (planned,), said_first = toy.run({"host_state": state}, options=("--check", "--diff"))
    assert planned["changed"]
    assert not etc.exists()
    (result, again, failed), said = toy.run(
        {"host_state": state}, {"host_state": state}, {"host_state": broken}, options=("--diff",)
    )
    assert [planned["changed_paths"], planned["changes"]] == [result["changed_paths"], result["changes"]]
    assert (etc / "one").read_text() == "# Ansible managed\ntoy\\n\npart of toy\n"
    assert (etc / "two").read_bytes() == "zwei: {{ raw }} äöü\r\n".encode()
    assert (etc / "key").read_text() == "s3cret-1"
    assert sorted(path.name for path in etc.iterdir()) == ["key", "link", "one", "two"]
    assert "invocation" not in result
    assert "part of toy" in said
    assert not again["changed"]
    assert "can't be written" in failed["msg"]
    assert "s3cret" not in said_first + said


REFUSED: list[tuple[Any, str]] = [
    ({"path": "/tmp/x"}, "has none of content, template and source"),
    ({"path": "/tmp/x", "content": "a", "source": "b"}, "has content and source of content, template and source"),
    ({"path": "/tmp/x", "content": {"a": 1}}, "is no text"),
    ({"path": "/tmp/x", "content": "a", "mode": 420}, 'put it into quotes, such as "0644"'),
    ({"path": "/tmp/x", "content": "a", "mode": "rw"}, "write octal digits"),
    ({"path": "tmp/x", "content": "a"}, "is not absolute"),
    ({"path": "/tmp/x", "template": "nothing.j2"}, "nothing.j2"),
    ("/tmp/x", "is no mapping but a"),
]


def test_what_makes_no_sense_is_refused(toy: Toy) -> None:
    results, said = toy.run(*({"host_state": {"files": [entry]}} for entry, _words in REFUSED), options=("--check",))
    for result, (_entry, words) in zip(results, REFUSED, strict=True):
        assert result["failed"]
        assert words in result["msg"]
    assert "MODULE FAILURE" not in said


def preflight(**variables: Any) -> dict[str, Any]:
    problems = "{{ ['the port is ' ~ (toy_port - 1)] if toy_port > 1 else [] }}"
    return {"role_preflight": {"problems": problems, "advice": "Read on."}, "vars": variables}


def test_preflight_tells_what_is_wrong(toy: Toy) -> None:
    (well, port, spec, secret, text), said = toy.run(
        preflight(),
        preflight(toy_port=3),
        preflight(toy_port="many", toy_state="gone"),
        preflight(toy_key="s3cret-of-mine"),
        {"role_preflight": {"problems": "a sentence"}},
    )
    assert not well.get("failed")
    assert port["msg"] == "toy can't work with these settings: the port is 2. Read on."
    # All at once; the problems' expression can't be computed with what the spec refuses, and is not.
    assert "toy_port" in spec["msg"]
    assert "present, absent, got: gone" in spec["msg"]
    assert secret["failed"]
    assert "toy_key" in secret["msg"]
    assert "s3cret-of-mine" not in json.dumps(secret)
    assert "no list of sentences" in text["msg"]
    assert "Traceback" not in said


def other_role(toy: Toy, name: str, tasks: list[dict[str, Any]]) -> None:
    """A role with an option of its own, whose default and vars nobody outside knows."""
    folder = toy.folder / "roles" / name
    options = {f"{name}_port": {"type": "int", "default": 80}}
    files = {
        "meta/argument_specs.yml": {"argument_specs": {"main": {"options": options}}},
        "defaults/main.yml": {f"{name}_port": 80},
        "vars/main.yml": {f"__{name}_errors": f"{{{{ ['{name} is low'] if {name}_port | int < 9 else [] }}}}"},
        "tasks/preflight.yml": tasks,
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content))


def test_roles_are_checked_in_one_task(toy: Toy) -> None:
    def first(name: str, **more: Any) -> dict[str, Any]:
        return {"role_preflight": {"problems": f"{{{{ __{name}_errors }}}}", **more}}

    needs = {"accounts": [{"name": "nobody-of-that-name", "variable": "{{ 'red' ~ '_user' }}"}]}
    other_role(toy, "red", [first("red", **needs)])
    other_role(toy, "blue", [first("blue"), {"debug": {}}])
    # What it may be set to depends on what the host says.
    other_role(toy, "late", [{"debug": {}}, first("late")])
    (toy.role / "tasks" / "preflight.yml").write_text(json.dumps([{"role_preflight": {}}]))

    def check(*roles: str, **variables: Any) -> dict[str, Any]:
        task = {"roles": list(roles), "roles_dir": str(toy.folder / "roles")}
        return {"role_preflight": task, "vars": variables}

    low, host, well, again, own = toy.run(
        check("red", "blue", "toy", red_port=3, blue_port=2, toy_port="many"),
        check("red"),
        {**check("blue", "late", "toy"), "register": "__role_preflight"},
        check("late", "toy"),
        # It was checked in this run, so this one says nothing.
        {"role_preflight": {"problems": ["that is wrong"]}},
    )[0]
    assert "red is low" in low["msg"]
    assert "blue is low" in low["msg"]
    assert "toy_port" in low["msg"]
    assert "red_user" in host["msg"]
    assert "nobody-of-that-name" in host["msg"]
    assert (well["roles"], well["asking"]) == (["blue", "toy"], ["blue", "late"])
    assert not well.get("skipped")
    assert (again["roles"], again["asking"], again["skipped"]) == (["blue", "toy"], ["late"], True)
    assert own["skipped"]
    assert not own.get("failed")
