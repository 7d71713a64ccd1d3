"""A folder of configuration is put in place whole, after a program has accepted it, or not at all."""

import json
import stat
from pathlib import Path
from typing import Any

import config_release
import pytest
from ansible.module_utils.ai_idp.config_release import ConfigReleases, ReleaseError, release_name
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


def test_the_release_before_is_kept_and_can_be_gone_back_to(tmp_path: Path) -> None:
    names = [put(tmp_path, {"a.conf": text}).release for text in ("1", "2", "3")]
    assert sorted(path.name for path in (tmp_path / "releases").iterdir()) == sorted(names[1:])
    back = ConfigReleases(str(tmp_path), []).back(check=False)
    assert (back.release, back.changed) == (names[1], True)
    assert (tmp_path / "current" / "a.conf").read_text() == "2"
    assert put(tmp_path, {"a.conf": "3"}).changed


def test_there_may_be_nothing_to_go_back_to(tmp_path: Path) -> None:
    put(tmp_path)
    with pytest.raises(ReleaseError, match="no release before"):
        ConfigReleases(str(tmp_path), []).back(check=False)


def test_check_mode_validates_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    result = put(folder, validate=["/bin/true"], check=True)
    assert (result.changed, result.validated) == (True, True)
    assert not folder.exists()
    assert not put(folder, validate=["/not/installed/yet"], check=True).validated
    with pytest.raises(ReleaseError):
        put(folder, validate=REFUSES, check=True)
    assert not folder.exists()


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
    with patch_module_args({**arguments, "files": {"a.conf": "x"}, "validate": REFUSES}), pytest.raises(SystemExit):
        config_release.main()
    assert "refused" in json.loads(capsys.readouterr().out)["msg"]
