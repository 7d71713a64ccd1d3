"""When host_state has a program look at a new file before it is put in place."""

from pathlib import Path

import pytest
from ansible.module_utils.ai_idp.host_state.changes import Journal, StateError
from ansible.module_utils.ai_idp.host_state.paths import Paths, Wanted, WantedFile


def wanted(path: Path, content: str) -> WantedFile:
    owner = {"owner": path.parent.owner(), "group": path.parent.group()}
    return WantedFile(path=str(path), mode=0o644, content=content, validate="grep good %s", **owner)


@pytest.mark.parametrize("check", [False, True])
def test_a_file_that_its_program_refuses_is_not_put_in_place(tmp_path: Path, check: bool) -> None:
    (tmp_path / "a").write_text("good")
    with pytest.raises(StateError, match="grep refuses the new"):
        Paths(Journal(), check).file(wanted(tmp_path / "a", "bad"))
    assert (tmp_path / "a").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_check_mode_asks_no_program_that_may_read_what_is_still_to_be_made(tmp_path: Path) -> None:
    journal = Journal()
    paths = Paths(journal, check=True)
    paths.directory(Wanted(str(tmp_path / "new"), tmp_path.owner(), tmp_path.group(), 0o755))
    paths.file(wanted(tmp_path / "a", "bad"))
    assert [change.kind for change in journal.changes] == ["directory", "file"]
    assert not (tmp_path / "a").exists()
