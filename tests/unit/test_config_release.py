"""A folder of configuration is put in place whole, after a program has accepted it, or not at all."""

import json
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import config_release
import pytest
from ansible.module_utils.ai_idp.config_release import ConfigReleases, ReleaseError, release_name
from ansible.module_utils.ai_idp.http_answers import Ask
from ansible.module_utils.testing import patch_module_args

FILES = {"a.conf": "release @RELEASE@\n", "more/b.conf": "b\n"}
SECRET = {"keys.map": '"Bearer 0123456789abcdef" "alice";\n'}
REFUSES = ["/bin/sh", "-c", 'cat "$1"/* 2>/dev/null; exit 1', "sh", "%s"]


def put(folder: Path, files: dict[str, str] = FILES, validate: list[str] | None = None, check: bool = False) -> Any:
    return ConfigReleases(str(folder), validate or []).put(files, SECRET, check)


def test_a_release_is_whole_and_knows_its_name(tmp_path: Path) -> None:
    result = put(tmp_path / "gateway")
    current = tmp_path / "gateway" / "current"
    assert result.changed
    assert (current / "a.conf").read_text() == f"release {result.release}\n"
    assert (current / "more/b.conf").read_text() == "b\n"
    assert stat.S_IMODE((current / "keys.map").stat().st_mode) == 0o600
    assert stat.S_IMODE((current / "a.conf").stat().st_mode) == 0o644
    assert current.resolve().name == result.release


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    first = put(tmp_path)
    again = put(tmp_path)
    assert (again.changed, again.release, again.diff) == (False, first.release, [])


def test_what_somebody_edited_is_made_again(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "current" / "a.conf").write_text("mine")
    assert put(tmp_path).changed
    assert "mine" not in (tmp_path / "current" / "a.conf").read_text()


def test_the_program_sees_the_new_release_before_it_is_current(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    validate = ["/bin/sh", "-c", f'cat "$1/a.conf" > {seen}; readlink {tmp_path}/current >> {seen}; true', "sh", "%s"]
    first = put(tmp_path, validate=validate)
    second = put(tmp_path, {"a.conf": "other\n"}, validate)
    assert seen.read_text() == f"other\nreleases/{first.release}\n"
    assert second.validated


def test_what_is_refused_leaves_everything_as_it_was(tmp_path: Path) -> None:
    first = put(tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(ReleaseError, match="refused the new configuration") as raised:
        put(tmp_path, {"a.conf": "bad\n"}, REFUSES)
    assert "bad" in str(raised.value), "what the program said is told"
    assert "0123456789abcdef" not in str(raised.value), "but no secret in it"
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "current").resolve().name == first.release


KEY_1, KEY_2 = {"k.key": "the-key-of-before\n"}, {"k.key": "the-key-of-today\n"}
# As the inference stack has it: a description that names the places of what containers have mounted.
STACK = {"compose.yml": "@PLACE:models@ @PLACE:k.key@\n", "models/a/1/model.py": "a\n", "models/a/config": "a\n"}


def stack(folder: Path) -> ConfigReleases:
    return ConfigReleases(str(folder), [], parts=["models"])


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with what is in it, and every link with where it leads."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def healthy(folder: Path, files: dict[str, str], secrets: dict[str, str], keep: int = 3) -> str:
    name = stack(folder).put(files, secrets, check=False).release
    assert stack(folder).prove(keep, check=False).changed
    return str(name)


def test_a_release_is_on_trial_until_it_is_healthy(tmp_path: Path) -> None:
    first = stack(tmp_path).put(STACK, KEY_1, check=False)
    assert (first.healthy, first.previous) == (None, None)
    assert stack(tmp_path).put(STACK, KEY_1, check=False).healthy is None, "cut off, it still is"
    assert stack(tmp_path).prove(3, check=True).changed
    assert stack(tmp_path).prove(3, check=False).changed
    assert not stack(tmp_path).prove(3, check=False).changed
    again = stack(tmp_path).put(STACK, KEY_1, check=False)
    assert (again.changed, again.healthy) == (False, first.release)
    with pytest.raises(ReleaseError, match="no release"):
        stack(tmp_path / "none").prove(3, check=False)


def test_what_is_undone_is_undone_to_the_byte(tmp_path: Path) -> None:
    first = healthy(tmp_path, STACK, KEY_1)
    before = tree(tmp_path)
    tried = stack(tmp_path).put({**STACK, "models/a/config": "broken"}, KEY_2, check=False)
    assert (tried.previous, tried.healthy, tried.changed) == (first, first, True)
    text = (tmp_path / "current" / "compose.yml").read_text()
    assert all(Path(place).exists() for place in text.split())
    assert stack(tmp_path).undo(check=True).changed
    assert tree(tmp_path) != before
    undone = stack(tmp_path).undo(check=False)
    assert (undone.release, undone.previous, undone.changed) == (first, tried.release, True)
    assert tree(tmp_path) == before
    # What is healthy stays, also where a program that ran with it does so no more.
    assert not stack(tmp_path).undo(check=False).changed
    assert tree(tmp_path) == before


def test_one_that_was_cut_off_is_not_what_the_next_goes_back_to(tmp_path: Path) -> None:
    first = healthy(tmp_path, STACK, KEY_1)
    before = tree(tmp_path)
    stack(tmp_path).put({**STACK, "compose.yml": "cut off"}, KEY_1, check=False)
    stack(tmp_path).put({**STACK, "compose.yml": "refused"}, KEY_1, check=False)
    assert stack(tmp_path).undo(check=False).release == first
    assert tree(tmp_path) == before


def test_the_first_is_undone_to_nothing(tmp_path: Path) -> None:
    stack(tmp_path).put(STACK, KEY_1, check=False)
    assert stack(tmp_path).undo(check=False).release is None
    assert tree(tmp_path) == {"healthy.json": "[]\n"}
    assert not stack(tmp_path).undo(check=False).changed


def test_keys_of_before_go_when_the_new_ones_work(tmp_path: Path) -> None:
    first = healthy(tmp_path, STACK, KEY_1)
    second = healthy(tmp_path, STACK, KEY_2)
    assert first != second
    assert "of-before" not in str(tree(tmp_path))
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == [
        Path((tmp_path / "current" / "compose.yml").read_text().split()[1]).name
    ]


def test_a_run_that_was_cut_off_leaves_no_key_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy(tmp_path, STACK, KEY_1)
    stack(tmp_path).put(STACK, KEY_2, check=False)
    with monkeypatch.context() as patched:
        patched.setattr(ConfigReleases, "forget_others", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stack(tmp_path).prove(1, check=False)
    assert "of-before" in str(tree(tmp_path))
    assert not stack(tmp_path).put(STACK, KEY_2, check=False).changed
    assert "of-before" not in str(tree(tmp_path))
    assert len(list((tmp_path / "releases").iterdir())) == 1


def test_a_place_changes_with_its_content_alone(tmp_path: Path) -> None:
    stack(tmp_path).put(STACK, KEY_1, check=False)
    models, key = (tmp_path / "current" / "compose.yml").read_text().split()
    stack(tmp_path).put({**STACK, "more": "x"}, KEY_1, check=False)
    assert (tmp_path / "current" / "compose.yml").read_text().split() == [models, key]
    assert (Path(models) / "a" / "config").read_text() == "a\n"
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(key).stat().st_mode) == 0o600
    stack(tmp_path).put({**STACK, "models/a/config": "b"}, KEY_2, check=False)
    assert not set((tmp_path / "current" / "compose.yml").read_text().split()) & {models, key}


def test_a_part_is_mended_where_a_container_has_it(tmp_path: Path) -> None:
    healthy(tmp_path, STACK, KEY_1)
    before = tree(tmp_path)
    folder = (tmp_path / "current" / "models").resolve()
    (folder / "a" / "config").write_text("mine")
    (folder / "b").mkdir()
    (folder / "b" / "config").write_text("mine")
    inode = folder.stat().st_ino
    assert stack(tmp_path).put(STACK, KEY_1, check=True).changed
    assert (folder / "a" / "config").read_text() == "mine"
    assert stack(tmp_path).put(STACK, KEY_1, check=False).changed
    assert tree(tmp_path) == before
    assert folder.stat().st_ino == inode
    (tmp_path / "secrets").chmod(0o755)
    assert stack(tmp_path).put(STACK, KEY_1, check=False).changed
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert not stack(tmp_path).put(STACK, KEY_1, check=False).changed


def test_the_last_healthy_ones_are_kept(tmp_path: Path) -> None:
    names = [healthy(tmp_path, {**STACK, "models/a/config": str(number)}, KEY_1) for number in range(5)]
    assert {path.name for path in (tmp_path / "releases").iterdir()} == set(names[2:])
    assert len(list((tmp_path / "parts").iterdir())) == 3
    assert stack(tmp_path).healthy == names[2:]


def test_going_back_takes_the_keys_of_today(tmp_path: Path) -> None:
    older = healthy(tmp_path, {**STACK, "models/a/config": "older"}, KEY_1)
    newer = healthy(tmp_path, STACK, KEY_2)
    back = stack(tmp_path).go_back("previous", KEY_2, check=False)
    assert (back.previous, back.healthy, back.changed) == (newer, newer, True)
    current = tmp_path / "current"
    assert (current / "models" / "a" / "config").read_text() == "older"
    assert (current / "k.key").read_text() == KEY_2["k.key"]
    models, key = (current / "compose.yml").read_text().split()
    assert (Path(models) / "a" / "config").read_text() == "older"
    assert Path(key).read_text() == KEY_2["k.key"]
    assert "of-before" not in str(tree(tmp_path))
    before = tree(tmp_path)
    assert stack(tmp_path).undo(check=False).release == newer
    assert older in stack(tmp_path).healthy, "one that was healthy once can be gone back to again"
    stack(tmp_path).go_back(older, KEY_2, check=False)
    assert tree(tmp_path) == before


def test_what_can_not_be_gone_back_to_is_refused(tmp_path: Path) -> None:
    one, two = healthy(tmp_path, {**STACK, "more": "1"}, KEY_1), healthy(tmp_path, STACK, KEY_1)
    before = tree(tmp_path)
    with pytest.raises(ReleaseError, match=f"no healthy release 0815 in .* There are, the latest last: {one}"):
        stack(tmp_path).go_back("0815", KEY_1, check=False)
    with pytest.raises(ReleaseError, match=r"needs k\.key"):
        stack(tmp_path).go_back(one, {}, check=False)
    with pytest.raises(ReleaseError, match="There is no other one"):
        stack(tmp_path / "none").go_back("previous", KEY_1, check=False)
    assert tree(tmp_path) == before
    assert not stack(tmp_path).go_back(two, KEY_1, check=False).changed


def test_a_release_of_a_former_version_is_healthy(tmp_path: Path) -> None:
    """It has its keys in it, a link to the one before, and no list."""
    old = tmp_path / "releases" / "0123456789abcdef"
    old.mkdir(parents=True)
    (old / "k.key").write_text("the-key-of-before")
    (tmp_path / "current").symlink_to("releases/0123456789abcdef")
    (tmp_path / "previous").symlink_to("releases/fedcba9876543210")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "vllm.env").write_text("somebody else removes it")
    new = stack(tmp_path).put(STACK, KEY_2, check=False)
    assert new.healthy == "0123456789abcdef"
    assert stack(tmp_path).undo(check=False).release == "0123456789abcdef"
    healthy(tmp_path, STACK, KEY_2, keep=1)
    assert "of-before" not in str(tree(tmp_path))
    assert not (tmp_path / "previous").is_symlink()
    assert (tmp_path / "secrets" / "vllm.env").exists()


@pytest.mark.parametrize("text", ["", "[", '{"a": 1}', "[" * 100000])
def test_a_list_that_was_damaged_takes_nothing_away(tmp_path: Path, text: str) -> None:
    name = healthy(tmp_path, STACK, KEY_1)
    (tmp_path / "healthy.json").write_text(text)
    assert not stack(tmp_path).undo(check=False).changed
    assert stack(tmp_path).put(STACK, KEY_1, check=False).healthy == name
    assert stack(tmp_path).prove(3, check=False).changed
    assert stack(tmp_path).healthy == [name]


def test_a_key_belongs_to_who_reads_it(tmp_path: Path) -> None:
    account = pwd.getpwnam("nobody")
    releases = ConfigReleases(str(tmp_path), [], secret_owners={"k.key": "nobody"})
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    releases.put({}, KEY_1, check=False)
    assert (tmp_path / "current" / "k.key").stat().st_uid == account.pw_uid
    os.chown(tmp_path / "current" / "k.key", 0, 0)
    assert releases.put({}, KEY_1, check=False).changed
    assert not releases.put({}, KEY_1, check=False).changed
    strange = ConfigReleases(str(tmp_path / "more"), [], secret_owners={"k.key": "no-such-account"})
    assert strange.put({}, KEY_1, check=True).changed


def test_check_mode_validates_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ai-idp" / "gateway"
    result = put(folder, validate=["/bin/true"], check=True)
    assert (result.changed, result.validated) == (True, True)
    assert not folder.parent.exists()
    assert not put(folder, validate=["/not/installed/yet"], check=True).validated
    with pytest.raises(ReleaseError):
        put(folder, validate=REFUSES, check=True)
    assert not folder.exists()
    put(folder)
    before = tree(folder)
    put(folder, {"a.conf": "other"}, check=True)
    ConfigReleases(str(folder), [], parts=["new"]).put({"new/a": "a"}, {"x": "x"}, check=True)
    assert tree(folder) == before
    assert not (folder / "parts").exists()


def test_a_program_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError):
        put(tmp_path, validate=["/not/installed/yet"])


def test_the_diff_shows_text_and_no_secret(tmp_path: Path) -> None:
    put(tmp_path)
    releases = ConfigReleases(str(tmp_path), [])
    shown = releases.put({"a.conf": "new\n"}, {"keys.map": "another secret"}, check=True).diff[0]["prepared"]
    assert "-release" in shown
    assert "+new" in shown
    assert "secret file keys.map changes" in shown
    assert "0123456789abcdef" not in shown
    assert "another secret" not in shown
    # What is secret no more was secret before.
    shown = releases.put({**FILES, "keys.map": "public\n"}, {}, check=True).diff[0]["prepared"]
    assert "0123456789abcdef" not in shown


def test_a_changed_secret_makes_another_release() -> None:
    assert release_name({}, {"k": "1"}) != release_name({}, {"k": "2"})
    assert release_name({"k": "1"}, {}) != release_name({}, {"k": "1"})
    assert release_name({"ab": "c"}, {}) != release_name({"a": "bc"}, {})
    assert release_name({}, {"k": "1"}, "www-data") != release_name({}, {"k": "1"})


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "./a", "a//b"])
def test_paths_stay_in_the_release(tmp_path: Path, path: str) -> None:
    with pytest.raises(ReleaseError, match="no plain path"):
        put(tmp_path, {path: "x"})
    with pytest.raises(ReleaseError, match="only be one of them"):
        put(tmp_path, {"keys.map": "x"})


def test_the_module_wires_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"dest": str(tmp_path), "files": FILES, "secret_files": SECRET, "validate": ["/bin/true", "%s"]}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        config_release.main()
    printed = capsys.readouterr().out
    told = json.loads(printed)
    assert (told["changed"], told["validated"], told["previous"]) == (True, True, None)
    assert "0123456789abcdef" not in printed
    for more in ({"state": "healthy", "keep": 2}, {"state": "undone"}):
        with patch_module_args({"dest": str(tmp_path), **more}), pytest.raises(SystemExit):
            config_release.main()
        found = json.loads(capsys.readouterr().out)
        assert (found["release"], found["healthy"]) == (told["release"], told["release"])
    with patch_module_args({**arguments, "back_to": "none"}), pytest.raises(SystemExit):
        config_release.main()
    assert "no healthy release none" in json.loads(capsys.readouterr().out)["msg"]
    with patch_module_args({**arguments, "files": {"a.conf": "x"}, "validate": REFUSES}), pytest.raises(SystemExit):
        config_release.main()
    assert "refused" in json.loads(capsys.readouterr().out)["msg"]


def test_the_module_asks_which_release_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Ask] = []

    def answer(asks: list[Ask], _seconds: float) -> list[str]:
        asked.extend(asks)
        return ["no key: answers 200, not 401"]

    monkeypatch.setattr(config_release, "ask_until_right", lambda asks, seconds: answer(asks, seconds) if asks else [])
    asks = [{"name": "running release", "url": "http://x", "text": "@RELEASE@"}, {"name": "no key", "url": "http://y"}]

    def run(**more: Any) -> dict[str, Any]:
        with patch_module_args({"dest": str(tmp_path), "asks": asks, **more}), pytest.raises(SystemExit):
            config_release.main()
        return dict(json.loads(capsys.readouterr().out))

    made = run(files=FILES)
    # The program has not been told of it yet.
    assert (made["changed"], made["problems"], asked) == (True, [], [])
    refused = run(state="healthy")
    assert refused["failed"]
    assert refused["msg"] == "no key: answers 200, not 401."
    again = run(files=FILES)
    assert (again["changed"], again["healthy"]) == (False, None)
    assert again["problems"] == ["no key: answers 200, not 401"]
    assert [ask.text for ask in asked[:2]] == [made["release"], None]
    asks.clear()
    assert run(state="healthy")["healthy"] == made["release"]


def test_another_input_makes_another_release(tmp_path: Path) -> None:
    certificate = tmp_path / "server.crt"
    files = {"a.conf": "# @CERTIFICATE@\n"}

    def release() -> Any:
        return ConfigReleases(str(tmp_path / "r"), [], inputs={"CERTIFICATE": str(certificate)}).put(files, {}, False)

    none = release()
    assert (Path(none.path) / "a.conf").read_text() == "# none yet\n"
    certificate.write_text("one")
    one = release()
    assert one.changed
    assert not release().changed
    certificate.write_text("two")
    assert release().release not in (none.release, one.release)


def test_a_check_validates_nothing_while_an_input_is_missing(tmp_path: Path) -> None:
    releases = ConfigReleases(str(tmp_path / "r"), REFUSES, inputs={"KEY": str(tmp_path / "none")})
    assert not releases.put(FILES, {}, True).validated
    with pytest.raises(ReleaseError):
        releases.put(FILES, {}, False)


@pytest.mark.parametrize(("path", "mode"), [("keys.map", 0o644), ("a.conf", 0o666)])
def test_another_mode_is_found_and_corrected(tmp_path: Path, path: str, mode: int) -> None:
    put(tmp_path)
    before = stat.S_IMODE((tmp_path / "current" / path).stat().st_mode)
    (tmp_path / "current" / path).chmod(mode)
    assert put(tmp_path, check=True).changed
    assert put(tmp_path).changed
    assert stat.S_IMODE((tmp_path / "current" / path).stat().st_mode) == before
    assert not put(tmp_path).changed
