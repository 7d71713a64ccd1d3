"""One copy of one moment, and a way back that touches nothing before all of it was read."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible.module_utils.ai_idp import restic
from ansible.module_utils.ai_idp.restic import Permission, ResticError, Writers

MODULE_UTILS = Path(__file__).resolve().parents[2] / "module_utils"
SNAPSHOT = {"id": "5f3a91c2" * 8, "time": "2026-11-27T10:00:00Z"}
OLDER = {"id": "aaaa91c2" * 8, "time": "2026-11-26T10:00:00Z"}


# What says where, and is the same in all that is run.
EVERYWHERE = {"--repo", "/repo", "--no-cache", "--project-directory", "setpriv", "--pdeathsig", "KILL"}
SUMMARY = {"message_type": "summary", "snapshot_id": SNAPSHOT["id"], "total_files_processed": 3, "data_added": 9}


class Host:
    """Programs of a host: what was run, and answers by a part of what is run."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.ran: list[str] = []
        self.answers = {name.replace("_", " "): answer for name, answer in answers.items()}
        self.paths: list[str] = []
        self.tags = ["ai-idp"]

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        words = [word for word in arguments if word not in EVERYWHERE]
        if words[0] == "--":
            words = words[1:]
        said = " ".join(words)
        self.ran.append(said)
        for name, answer in self.answers.items():
            # The guard is told what others are asked later.
            if name in said and (name == "systemd-run" or not said.startswith("systemd-run")):
                return answer
        if "restic backup" in said:
            return 0, json.dumps({"message_type": "status"}) + "\n" + json.dumps(SUMMARY), ""
        if "snapshots" in words:
            more = {"paths": self.paths, "tags": self.tags}
            return 0, json.dumps([{**SNAPSHOT, **more}, {**OLDER, **more}]), ""
        if "restore" in words:
            path, target = words[words.index("--include") + 1], words[words.index("--target") + 1]
            folder = Path(target + path)
            folder.mkdir(parents=True)
            (folder / "note").write_text("copied")
        if said.startswith("systemctl is-active"):
            return 3, "", ""
        if said.startswith("systemctl show"):
            return 0, "LoadState=loaded\nActiveState=active\n", ""
        if "{{.State}}" in said:
            return 0, "running\n", ""
        return 0, "", ""

    def did(self, *beginnings: str) -> list[str]:
        """What was run with one of these beginnings."""
        return [said for said in self.ran if said.startswith(beginnings)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "vault"
    made.mkdir()
    (made / "note").write_text("now")
    return made


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's tables of what is to be mounted, and of what is."""
    made = tmp_path_factory.mktemp("tables")
    monkeypatch.setattr(restic, "FSTAB", str(made / "fstab"))
    monkeypatch.setattr(restic, "MOUNTINFO", str(made / "mountinfo"))
    return made


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a project of Docker's in /srv/n8n, and no other."""
    there = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: path == "/srv/n8n/compose.yml" or there(path))


WRITERS = Writers(["vault.service"], ["/srv/n8n", "/srv/none"])


def back_up(host: Host, folder: Path, *, asked: bool = False, first: bool = False) -> dict[str, object]:
    repository = restic.Repository(host, "/repo")
    return restic.back_up(host, repository, [str(folder), "/nowhere"], WRITERS, "door", Permission(asked, first))


def test_what_writes_is_held_while_it_is_copied(folder: Path) -> None:
    host = Host()
    result = back_up(host, folder)
    undo = f"tail --pid={os.getpid()} -f /dev/null; docker compose --project-directory /srv/n8n unpause; systemctl"
    assert host.ran == [
        "restic --no-lock cat config",
        "restic unlock",
        f"systemctl is-active --quiet {restic.GUARD}",
        "systemctl show --property=LoadState,ActiveState vault.service",
        "docker compose /srv/n8n ps --all --format {{.State}}",
        f"systemd-run --quiet --collect --unit={restic.GUARD} -- /bin/sh -c {undo} start vault.service",
        "systemctl stop vault.service",
        "docker compose /srv/n8n pause",
        f"restic backup --json --tag=ai-idp --host door -- {folder}",
        "docker compose /srv/n8n unpause",
        "systemctl start vault.service",
        f"systemctl stop {restic.GUARD}",
        "restic --no-lock check",
        "docker compose /srv/n8n ps --format {{.Name}} {{.Health}}",
    ]
    assert (result["snapshot"], result["files"], result["paths"]) == ("5f3a91c2", 3, [str(folder)])


def test_what_was_off_stays_off(folder: Path) -> None:
    failed = (0, "LoadState=loaded\nActiveState=failed\n", "")
    host = Host(**{"systemctl show": failed, "{{.State}}": (0, "exited\n", "")})
    back_up(host, folder)
    assert host.did("systemctl st", "systemd-run") == []
    assert not any("pause" in said for said in host.ran)


def test_what_crashes_again_and_again_is_held_too(folder: Path) -> None:
    """It writes whenever it is started."""
    answers = {
        "systemctl show": (0, "LoadState=loaded\nActiveState=activating\n", ""),
        "{{.State}}": (0, "restarting\nrunning\n", ""),
        "{{.Health}}": (0, "n8n starting\n", ""),
    }
    host = Host(**answers)
    back_up(host, folder)
    assert host.did("systemctl st") == [f"systemctl {what}" for what in (
        "stop vault.service", "start vault.service", f"stop {restic.GUARD}"
    )]  # fmt: skip
    assert host.did("docker")[1:] == ["docker compose /srv/n8n stop", "docker compose /srv/n8n start"]


def test_containers_that_a_killed_copy_left_paused_go_on(folder: Path) -> None:
    host = Host(**{"{{.State}}": (0, "paused\n", "")})
    back_up(host, folder)
    assert [said.split()[-1] for said in host.did("docker")][1:4] == ["unpause", "pause", "unpause"]


def test_nothing_is_copied_while_nobody_knows_who_writes(folder: Path) -> None:
    with pytest.raises(ResticError, match=r"docker compose .* ps .* failed: daemon is busy"):
        back_up(host := Host(**{"{{.State}}": (1, "", "daemon is busy")}), folder)
    assert host.did("restic backup", "systemctl st") == []
    with pytest.raises(ResticError, match=r"ps --format .* failed: daemon is busy"):
        back_up(Host(**{"{{.Health}}": (1, "", "daemon is busy")}), folder)


def test_two_copies_at_once_do_not_let_go_what_the_other_holds(folder: Path) -> None:
    with pytest.raises(ResticError, match=r"guard\.service can't be started; is another .* made\? already loaded"):
        back_up(host := Host(**{"systemd-run": (1, "", "already loaded")}), folder)
    assert host.did("restic backup", "systemctl st") == []


@pytest.mark.parametrize("broken", ["restic_backup", "srv/n8n_pause"])
def test_a_copy_that_fails_and_what_does_not_go_on_then_are_told(broken: str, folder: Path) -> None:
    answers = {broken: (1, "", "no space"), "systemctl start vault": (1, "", "gone")}
    with pytest.raises(ResticError, match=r"no space; and what was held does not go on: systemctl start .* gone"):
        back_up(Host(**answers), folder)


def test_a_restore_leaves_alone_what_a_copy_holds(folder: Path) -> None:
    """What is paused then is not what a killed copy has left."""
    for do in (back_up, bring_back):
        host = Host(**{"is-active": (0, "", ""), "{{.State}}": (0, "paused\n", "")})
        with pytest.raises(ResticError, match="another copy is being made on this host"):
            do(host, folder)
        assert host.did("docker", "systemctl st") == []
    assert (folder / "note").read_text() == "now"


def test_what_is_held_goes_on_when_the_holder_is_killed(tmp_path: Path) -> None:
    """As systemd would run it: the script waits for the end of the process that holds."""
    holds = "import sys, time; import ansible.module_utils as u; u.__path__.append(sys.argv[2])\n"
    holds += "from ansible.module_utils.ai_idp import restic; given = []\n"
    holds += "restic._guard(lambda command: given.extend(command) or (0, '', ''), [['touch', sys.argv[1]]])\n"
    holds += "print(given[-1], flush=True); time.sleep(60)"
    went_on = tmp_path / "went on"
    with subprocess.Popen(
        [sys.executable, "-c", holds, went_on, MODULE_UTILS], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        script = holder.stdout.readline()
        with subprocess.Popen(["/bin/sh", "-c", script]) as guard:
            time.sleep(0.5)
            assert not went_on.exists()
            holder.kill()
            holder.wait()
            assert guard.wait(20) == 0
    assert went_on.exists()


@pytest.mark.parametrize("broken", ["restic_backup", "srv/n8n_pause", "systemctl_stop_vault"])
def test_what_was_held_goes_on_whatever_happens(broken: str, folder: Path) -> None:
    host = Host(**{broken: (1, "", "no space left")})
    with pytest.raises(ResticError, match="no space left"):
        back_up(host, folder)
    assert "systemctl start vault.service" in host.ran
    assert host.did("restic --no-lock check") == []


def test_containers_are_healthy_again_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    health = ["n8n unhealthy", "n8n healthy"]
    looks: list[str] = []

    def run(_arguments: Sequence[str]) -> tuple[int, str, str]:
        looks.append(health[min(len(looks), 1)])
        return 0, looks[-1] + "\n", ""

    monkeypatch.setattr(restic.time, "sleep", lambda _seconds: None)
    restic.settled(run, ["/srv/n8n"])
    assert looks == health
    health[1] = "n8n unhealthy"
    with pytest.raises(ResticError, match="the copy is made, but n8n did not become healthy again"):
        restic.settled(run, ["/srv/n8n"], patience=0)


def test_what_does_not_go_on_is_told(folder: Path) -> None:
    with pytest.raises(ResticError, match=r"does not go on: systemctl start vault\.service failed: gone"):
        back_up(Host(**{"systemctl start vault": (1, "", "gone")}), folder)


NO_REPOSITORY = (1, "", f"Fatal: unable to open config file\n{restic.MISSING}\n/repo")


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository would be on another disk than what is copied."""
    monkeypatch.setattr(restic, "nearest_existing", lambda _path: "/proc")


def test_a_repository_is_made_where_it_is_asked_for(folder: Path) -> None:
    host = Host(cat_config=NO_REPOSITORY)
    back_up(host, folder, asked=True)
    assert host.ran[1] == "restic init"
    host = Host(cat_config=(1, "", "Fatal: wrong password or no key found"))
    with pytest.raises(ResticError, match="can't be opened: Fatal: wrong password"):
        back_up(host, folder, asked=True)
    assert len(host.ran) == 1


def test_a_repository_is_made_where_there_can_have_been_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(cat_config=NO_REPOSITORY)
    monkeypatch.setattr(restic, "nearest_existing", lambda _path: str(folder))
    with pytest.raises(ResticError, match="on the disk of what is to be copied: a NAS may not be mounted"):
        back_up(host, folder, first=True)
    elsewhere(monkeypatch)
    back_up(host, folder, first=True)
    assert len(host.did("restic init")) == 1


def test_no_repository_is_made_in_place_of_one_that_is_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch)
    host = Host(cat_config=NO_REPOSITORY)
    with pytest.raises(ResticError, match=r"no repository at /repo\. If there was one, .* -e backup_new_repo"):
        back_up(host, folder)
    assert host.ran == ["restic --no-lock cat config"]


MOUNTED = "36 35 98:0 / {} rw,noatime shared:1 - ext4 /dev/sdb1 rw\n"


def test_nothing_is_copied_to_or_from_a_disk_that_is_not_mounted(folder: Path, tables: Path) -> None:
    """Below the mount point may lie a repository of an earlier day, and the folder there is empty."""
    for point, what in ((Path("/repo"), "the repository /repo"), (folder.parent, f"the folder {folder}")):
        (tables / "fstab").write_text(f"# /dev/sda1 / ext4\nUUID=1 / ext4\n\n/dev/sdb1\t{point}\text4 nofail 0 2\n")
        (tables / "mountinfo").write_text("")
        host = Host()
        with pytest.raises(ResticError, match=f"{what} lies below {point}, where /etc/fstab wants a disk"):
            back_up(host, folder, asked=True)
        assert host.ran == []
        (tables / "mountinfo").write_text(MOUNTED.format(point))
        back_up(host, folder)


def test_locks_whose_holders_are_gone_are_taken_away_and_no_others(folder: Path) -> None:
    host = Host()
    back_up(host, folder)
    assert host.ran.index("restic unlock") < host.ran.index(host.did("restic backup")[0])
    assert not any("--remove-all" in said for said in host.ran)


@pytest.mark.parametrize("answer", [(1, "", "unable to create lock: already locked by PID 7"), (11, "", "")])
def test_a_copy_that_is_locked_is_not_called_damaged(answer: tuple[int, str, str], folder: Path) -> None:
    for broken, do in (("restic_backup", back_up), ("check", bring_back)):
        with pytest.raises(ResticError, match="/repo is in use, and no copy is damaged") as told:
            do(Host(**{broken: answer}), folder)
        assert "the copy is damaged" not in str(told.value)


def test_a_restore_needs_no_lock(folder: Path) -> None:
    """Right after the disaster one may be left, and a repository may be mounted to be read alone."""
    host = Host()
    bring_back(host, folder)
    asked = host.did("restic")
    assert len(asked) == 3
    assert all(said.startswith("restic --no-lock ") for said in asked)


def test_a_copy_of_what_could_be_read_is_taken_out_again(folder: Path) -> None:
    unread = "".join(json.dumps({"message_type": "error", "item": f"/vault/{name}"}) + "\n" for name in "abcdefg")
    host = Host(restic_backup=(3, json.dumps(SUMMARY), unread))
    with pytest.raises(ResticError, match=r"no whole copy: restic could not read /vault/a, .*/vault/e and 2 more$"):
        back_up(host, folder)
    assert host.did("restic forget") == [f"restic forget {SNAPSHOT['id']}"]
    assert "systemctl start vault.service" in host.ran
    host = Host(restic_backup=(3, json.dumps(SUMMARY), "a file"), restic_forget=(1, "", "append only"))
    with pytest.raises(ResticError, match=r"could not read a file\. What .* 5f3a91c2: never restore that .*on"):
        back_up(host, folder)


def test_an_empty_copy_is_none(tmp_path: Path) -> None:
    host = Host()
    with pytest.raises(ResticError, match="there is nothing to copy"):
        back_up(host, tmp_path / "away", asked=True)
    assert host.ran == []


def bring_back(host: Host, folder: Path, wanted: str = "latest") -> dict[str, object]:
    host.paths = [str(folder)]
    return restic.restore(host, restic.Repository(host, "/repo"), wanted, [str(folder), "/nowhere"], WRITERS)


def test_a_folder_is_brought_back_and_the_one_before_is_kept(folder: Path) -> None:
    host = Host()
    result = bring_back(host, folder)
    assert (folder / "note").read_text() == "copied"
    [aside] = result["aside"]
    assert (Path(aside) / "note").read_text() == "now"
    assert not (folder.parent / restic.STAGING).exists()
    assert host.ran[1] == "restic --no-lock check --read-data"
    assert host.ran.index("systemctl stop vault.service") > max(
        number for number, said in enumerate(host.ran) if said.startswith("restic")
    )


def test_a_bare_host_has_nothing_to_put_aside(folder: Path) -> None:
    (folder / "note").unlink()
    folder.rmdir()
    assert bring_back(Host(), folder)["aside"] == []
    assert (folder / "note").read_text() == "copied"


@pytest.mark.parametrize("broken", ["--no-lock_check", "--no-lock_restore"])
def test_what_is_damaged_is_refused_before_anything_is_touched(broken: str, folder: Path) -> None:
    host = Host(**{broken: (1, "", "pack 12ab: hash does not match")})
    with pytest.raises(ResticError, match="hash does not match"):
        bring_back(host, folder)
    assert (folder / "note").read_text() == "now"
    assert not any(said.startswith(("systemctl", "docker")) for said in host.ran)
    assert [path.name for path in folder.parent.iterdir()] == ["vault"]


def place(path: Path, staging: Path, *, is_mount: bool = False) -> restic.Place:
    """A folder that is staged below another than its neighbour."""
    made = restic.Place(restic.Source(str(path), str(path), is_mount), str(path))
    staged = Path(made.staged)
    staged.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(staging, staged)
    return made


def test_folders_are_switched_all_or_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    there = place(folder, tmp_path / "new")
    away = restic.Source(str(tmp_path / "other"), str(tmp_path / "other"), is_mount=False)
    with pytest.raises(ResticError, match="all is as it was"):
        restic._switch([there, restic.Place(away, str(tmp_path / "empty"))], "T")
    assert (folder / "note").read_text() == "now"
    assert Path(there.staged).is_dir()


def test_a_disk_of_its_own_stays_and_its_content_is_exchanged(folder: Path, tables: Path) -> None:
    (tables / "mountinfo").write_text(MOUNTED.format(folder))
    (folder / restic.LOST_FOUND).mkdir()
    (folder / "later").write_text("now")
    folder.chmod(0o750)
    number = folder.stat().st_ino
    host = Host()
    [aside] = bring_back(host, folder)["aside"]
    assert folder.stat().st_ino == number
    assert (folder / "note").read_text() == "copied"
    assert Path(aside).parent == folder
    assert sorted(path.name for path in Path(aside).iterdir()) == ["later", "note"]
    assert sorted(path.name for path in folder.iterdir()) == [Path(aside).name, restic.LOST_FOUND, "note"]
    back_up(host, folder)
    left_out = f"--exclude={folder}/.before-restore-* --exclude={folder}/.ai-idp-restore"
    assert left_out in host.did("restic backup")[0]


def test_a_disk_of_its_own_is_as_it_was_where_that_fails(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "note").write_text("copied")
    there = place(folder, tmp_path / "new", is_mount=True)
    away = restic.Source(str(tmp_path / "other"), str(tmp_path / "other"), is_mount=False)
    with pytest.raises(ResticError, match="all is as it was"):
        restic._switch([there, restic.Place(away, str(tmp_path / "empty"))], "T")
    shutil.rmtree(there.staging)
    assert [path.name for path in folder.iterdir()] == ["note"]
    assert (folder / "note").read_text() == "now"


def test_what_was_stopped_for_a_restore_that_fails_is_started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise ResticError("busy")

    monkeypatch.setattr(restic, "_switch", busy)
    host = Host()
    with pytest.raises(ResticError, match=r"^busy$"):
        bring_back(host, folder)
    assert host.ran[-2:] == ["docker compose /srv/n8n start", "systemctl start vault.service"]
    with pytest.raises(ResticError, match=r"^busy; and what was stopped does not go on: systemctl start"):
        bring_back(Host(systemctl_start=(1, "", "gone")), folder)


def test_a_service_that_is_off_or_crashes_is_stopped_for_a_restore(folder: Path) -> None:
    """Whatever starts it meanwhile would make the folder between two renames."""
    for state in ("inactive", "activating", "failed"):
        host = Host(**{"systemctl show": (0, f"LoadState=loaded\nActiveState={state}\n", "")})
        [aside] = bring_back(host, folder)["aside"]
        # The next one would bear its name, within one second.
        shutil.rmtree(aside)
        assert host.did("systemctl st") == ["systemctl stop vault.service"]
    host = Host(**{"systemctl show": (0, "LoadState=not-found\nActiveState=inactive\n", "")})
    bring_back(host, folder)
    assert host.did("systemctl st") == []


def test_what_a_killed_restore_left_is_not_among_what_is_restored(folder: Path) -> None:
    left = folder.parent / restic.STAGING / str(folder).lstrip("/")
    left.mkdir(parents=True)
    (left / "mlflow.db-wal").write_text("of another copy")
    bring_back(Host(), folder)
    assert [path.name for path in folder.iterdir()] == ["note"]


@pytest.fixture
def link(folder: Path) -> Path:
    """The vault is a link to a folder of another disk."""
    there = folder.parent / "disk" / "My vault"
    there.parent.mkdir()
    folder.rename(there)
    folder.symlink_to(there)
    return folder


def test_what_a_link_leads_to_is_copied_and_restored_to_where_it_is(link: Path) -> None:
    host, real = Host(), link.resolve()
    assert back_up(host, link)["paths"] == [str(link)]
    assert host.did("restic backup") == [f"restic backup --json --tag=ai-idp --tag={link}={real} --host door -- {real}"]
    host.paths, host.tags = [str(real)], ["ai-idp", f"{link}={real}"]
    repository = restic.Repository(host, "/repo")
    result = restic.restore(host, repository, "latest", [str(link)], WRITERS)
    assert link.is_symlink()
    assert link.resolve() == real
    assert (real / "note").read_text() == "copied"
    [aside] = result["aside"]
    assert aside.startswith(f"{real}.before-restore-")
    # On a host made anew nobody made the link.
    link.unlink()
    restic.restore(host, repository, "latest", [str(link)], WRITERS)
    assert (link.is_symlink(), (link / "note").read_text()) == (False, "copied")


def test_a_link_that_leads_nowhere_is_told(link: Path) -> None:
    shutil.rmtree(link.resolve())
    host = Host()
    with pytest.raises(ResticError, match=r"vault is a link to .*/My vault, and no folder is there: mount"):
        back_up(host, link)
    assert host.ran == []


def test_a_link_to_a_name_that_restic_reads_otherwise_is_told(link: Path) -> None:
    odd = link.resolve().rename(link.parent / "a,b*")
    link.unlink()
    link.symlink_to(odd)
    with pytest.raises(ResticError, match="restic would read a character of that name"):
        back_up(Host(), link)


def test_a_copy_of_a_link_alone_is_not_put_in_place(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As copies were made before."""
    host = Host()

    def bring(_self: object, _snapshot: str, path: str, target: str) -> None:
        Path(target + path).parent.mkdir(parents=True)
        Path(target + path).symlink_to(link.resolve())

    monkeypatch.setattr(restic.Repository, "bring", bring)
    with pytest.raises(ResticError, match=r"has a link for .*vault, and not what it led to"):
        bring_back(host, link)
    assert host.did("systemctl") == []


def test_links_that_lead_out_of_what_is_copied_are_listed(folder: Path, tmp_path: Path) -> None:
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
    (folder / "Attachments").symlink_to(tmp_path / "outside")
    (folder / "same").symlink_to(tmp_path / "inside")
    (folder / "loop").symlink_to(folder)
    sources = restic.sources_of([str(folder), str(tmp_path / "inside")])
    assert restic.links_out(sources) == [str(folder / "Attachments")]


def test_a_snapshot_is_chosen_by_its_beginning() -> None:
    assert restic.chosen([OLDER, SNAPSHOT], "latest") is SNAPSHOT
    assert restic.chosen([OLDER, SNAPSHOT], "aaaa") is OLDER
    with pytest.raises(ResticError, match="no copy is named ffff; the last ones are aaaa91c2 of 2026-11-26T10:00"):
        restic.chosen([OLDER, SNAPSHOT], "ffff")
    with pytest.raises(ResticError, match="holds no copy"):
        restic.chosen([], "latest")


def test_a_copy_of_something_else_is_refused(folder: Path) -> None:
    host = Host()
    host.paths = ["/other"]
    with pytest.raises(ResticError, match="holds none of"):
        restic.restore(host, restic.Repository(host, "/repo"), "latest", [str(folder)], WRITERS)


def test_files_are_given_to_the_owners_number_on_this_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sub").mkdir()
    given: list[str] = []
    monkeypatch.setattr(os, "lchown", lambda path, _uid, _gid: given.append(os.path.relpath(path, folder)))
    mine = os.lstat(folder)
    assert restic.own(str(folder), mine.st_uid, mine.st_gid) == 0
    assert restic.own(str(folder), mine.st_uid + 1, mine.st_gid) == 3
    assert sorted(given) == [".", "note", "sub"]


def test_an_answer_that_is_none_is_told(folder: Path) -> None:
    with pytest.raises(ResticError, match="without a summary"):
        back_up(Host(restic_backup=(0, "half a li", "")), folder)
    with pytest.raises(ResticError, match="does not answer JSON"):
        bring_back(Host(snapshots=(0, "[", "")), folder)


def test_a_program_that_is_missing_or_hangs_is_told() -> None:
    run = restic.program("secret", 0.2)
    with pytest.raises(ResticError, match="no-such-program can't be run"):
        run(["no-such-program"])
    with pytest.raises(ResticError, match=r"sleep was not done within 0\.2 s"):
        run(["sleep", "5"])
    assert restic.program("secret", 5)(["sh", "-c", 'echo "$RESTIC_PASSWORD"'])[1] == "secret\n"
