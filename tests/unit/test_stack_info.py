"""What there is of a compose project on a host."""

import os
import pwd
from pathlib import Path

from ansible.module_utils.ai_idp.stack_info import describe

USER = pwd.getpwuid(os.getuid())


def test_a_bare_host_has_nothing(tmp_path: Path) -> None:
    nothing = {"release": None, "user_ids": None, "project_dir": None}
    assert describe(str(tmp_path / "no"), "no-such-account") == nothing


def test_release_and_account_are_told(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text("x-plan: {}\n")
    found = describe(str(tmp_path), USER.pw_name)
    assert found == {
        "release": "x-plan: {}\n",
        "user_ids": f"{USER.pw_uid}:{USER.pw_gid}",
        "project_dir": str(tmp_path),
    }


def test_the_current_release_counts_more_than_what_a_former_version_left(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text("old")
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "releases" / "1" / "compose.yml").write_text("new")
    (tmp_path / "current").symlink_to("releases/1")
    found = describe(str(tmp_path), USER.pw_name)
    assert (found["release"], found["project_dir"]) == ("new", str(tmp_path / "current"))
