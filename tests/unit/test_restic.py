"""One copy of one moment, and a way back that touches nothing before all of it was read."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible.module_utils.ai_idp import restic
from ansible.module_utils.ai_idp.restic import ResticError, Writers

SNAPSHOT = {"id": "5f3a91c2" * 8, "time": "2026-11-27T10:00:00Z"}
OLDER = {"id": "aaaa91c2" * 8, "time": "2026-11-26T10:00:00Z"}


class Host:
    """Programs of a host: what was run, and answers by the beginning of what is run."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.ran: list[str] = []
        self.answers = answers
        self.paths: list[str] = []

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        words = [word for word in arguments if word not in ("--repo", "/repo", "--no-cache", "--project-directory")]
        said = " ".join(words)
        self.ran.append(said)
        for name, answer in self.answers.items():
            if name.replace("_", " ") in said:
                return answer
        if said.startswith("restic backup"):
            return 0, json.dumps({"message_type": "status"}) + "\n" + json.dumps(
                {"message_type": "summary", "snapshot_id": SNAPSHOT["id"], "total_files_processed": 3, "data_added": 9}
            ), ""  # fmt: skip
        if said.startswith("restic snapshots"):
            return 0, json.dumps([{**SNAPSHOT, "paths": self.paths}, {**OLDER, "paths": self.paths}]), ""
        if said.startswith("restic restore"):
            path, target = words[words.index("--include") + 1], words[words.index("--target") + 1]
            folder = Path(target + path)
            folder.mkdir(parents=True)
            (folder / "note").write_text("copied")
        if "ps --quiet" in said:
            return 0, "0123\n", ""
        return 0, "", ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "vault"
    made.mkdir()
    (made / "note").write_text("now")
    return made


WRITERS = Writers(["vault.service"], ["/srv/n8n"])


def back_up(host: Host, folder: Path) -> dict[str, object]:
    return restic.back_up(host, restic.Repository(host, "/repo"), [str(folder), "/nowhere"], WRITERS, "door")


def test_what_writes_is_held_while_it_is_copied(folder: Path) -> None:
    host = Host()
    result = back_up(host, folder)
    assert host.ran == [
        "restic cat config",
        "systemctl is-active --quiet vault.service",
        "systemctl stop vault.service",
        "docker compose /srv/n8n ps --quiet --status running",
        "docker compose /srv/n8n pause",
        f"restic backup --json --tag ai-idp --host door -- {folder}",
        "docker compose /srv/n8n unpause",
        "systemctl start vault.service",
        "restic check",
        "docker compose /srv/n8n ps --format {{.Name}} {{.Health}}",
    ]
    assert (result["snapshot"], result["files"], result["paths"]) == ("5f3a91c2", 3, [str(folder)])


def test_what_was_off_stays_off(folder: Path) -> None:
    host = Host(**{"is-active": (3, "", ""), "ps --quiet": (0, "", "")})
    back_up(host, folder)
    assert not any("start" in said or "pause" in said for said in host.ran)


@pytest.mark.parametrize("broken", ["restic_backup", "srv/n8n_pause", "systemctl_stop"])
def test_what_was_held_goes_on_whatever_happens(broken: str, folder: Path) -> None:
    host = Host(**{broken: (1, "", "no space left")})
    with pytest.raises(ResticError, match="no space left"):
        back_up(host, folder)
    assert "systemctl start vault.service" in host.ran
    assert "restic check" not in host.ran


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
    with pytest.raises(ResticError, match=r"does not go on: systemctl start vault\.service: gone"):
        back_up(Host(systemctl_start=(1, "", "gone")), folder)


def test_a_repository_is_made_where_there_is_none_and_nowhere_else(folder: Path) -> None:
    host = Host(cat_config=(1, "", f"Fatal: unable to open config file\n{restic.MISSING}\n/repo"))
    back_up(host, folder)
    assert host.ran[1] == "restic init"
    host = Host(cat_config=(1, "", "Fatal: wrong password or no key found"))
    with pytest.raises(ResticError, match="can't be opened: Fatal: wrong password"):
        back_up(host, folder)
    assert len(host.ran) == 1


def test_an_empty_copy_is_none(tmp_path: Path) -> None:
    host = Host()
    with pytest.raises(ResticError, match="there is nothing to copy"):
        back_up(host, tmp_path / "away")
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
    assert host.ran[1] == "restic check --read-data"
    assert host.ran.index("systemctl stop vault.service") > max(
        number for number, said in enumerate(host.ran) if said.startswith("restic")
    )


def test_a_bare_host_has_nothing_to_put_aside(folder: Path) -> None:
    (folder / "note").unlink()
    folder.rmdir()
    assert bring_back(Host(), folder)["aside"] == []
    assert (folder / "note").read_text() == "copied"


@pytest.mark.parametrize("broken", ["restic_check", "restic_restore"])
def test_what_is_damaged_is_refused_before_anything_is_touched(broken: str, folder: Path) -> None:
    host = Host(**{broken: (1, "", "pack 12ab: hash does not match")})
    with pytest.raises(ResticError, match="hash does not match"):
        bring_back(host, folder)
    assert (folder / "note").read_text() == "now"
    assert not any(said.startswith(("systemctl", "docker")) for said in host.ran)
    assert [path.name for path in folder.parent.iterdir()] == ["vault"]


def test_folders_are_switched_all_or_none(folder: Path, tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    (staged / str(folder).lstrip("/")).mkdir(parents=True)
    with pytest.raises(ResticError, match="all is as it was"):
        restic._switch({str(folder): str(staged), str(tmp_path / "other"): str(tmp_path / "empty")}, "T")
    assert (folder / "note").read_text() == "now"
    assert (staged / str(folder).lstrip("/")).is_dir()


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
        bring_back(Host(restic_snapshots=(0, "[", "")), folder)


def test_a_program_that_is_missing_or_hangs_is_told() -> None:
    run = restic.program("secret", 0.2)
    with pytest.raises(ResticError, match="no-such-program can't be run"):
        run(["no-such-program"])
    with pytest.raises(ResticError, match=r"sleep was not done within 0\.2 s"):
        run(["sleep", "5"])
    assert restic.program("secret", 5)(["sh", "-c", 'echo "$RESTIC_PASSWORD"'])[1] == "secret\n"
