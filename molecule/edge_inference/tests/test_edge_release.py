"""A release of the edge that does not work is undone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests.cut_off import cut_off, task_of  # noqa: E402

KEY, NEW_KEY = "not-a-secret-of-the-role-test", "a$new'key\"of\\the`role-test`"
FILES = (
    "sha256sum /etc/systemd/system/edge-*.service /etc/edge-inference/api-key; "
    "find /etc/edge-inference -printf '%p %y %m %u %g %l\n' | sort"
)


ENVIRONMENT = {**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"}


def command(variables: dict[str, Any]) -> list[str]:
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    playbook = ROOT / "molecule" / "edge_inference" / "converge.yml"
    return ["ansible-playbook", "-i", str(inventory), str(playbook), "-e", json.dumps(variables)]


def converge(**variables: Any) -> tuple[int, str]:
    """Run the role once more with other variables; return its exit code and what it said."""
    done = subprocess.run(command(variables), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    return done.returncode, " ".join(done.stdout.split())


def ask(host: Host, key: str) -> int:
    address = host.check_output("ip -4 -oneline address show eth0").split()[3].partition("/")[0]
    done = host.run(
        "curl -s -o /dev/null -m 60 --retry 20 --retry-connrefused --retry-delay 1 -w '%%{http_code}' -H %s -d %s %s",
        f"Authorization: Bearer {key}",
        json.dumps({"prompt": "Hello", "max_tokens": 1}),
        f"http://{address}:18090/v1/completions",
    )
    return int(done.stdout)


def test_a_broken_release_is_undone_to_the_byte(host: Host) -> None:
    with host.sudo():
        before = host.check_output(FILES)
    code, said = converge(
        edge_inference_api_key=NEW_KEY,
        edge_inference_extra_args=["--no-such-argument"],
        edge_inference_start_timeout=10,
    )
    assert code != 0, said
    assert "It was undone: the last healthy release runs again." in said
    with host.sudo():
        assert host.check_output(FILES) == before
    assert (ask(host, KEY), ask(host, NEW_KEY)) == (200, 401)
    assert host.service("edge-inference").is_enabled
    assert host.service("edge-rpc").is_running


def test_a_key_of_the_owner_s_works_as_it_is(host: Host) -> None:
    code, said = converge(edge_inference_api_key=NEW_KEY)
    assert code == 0, said
    assert (ask(host, NEW_KEY), ask(host, KEY)) == (200, 401)
    code, said = converge()
    assert code == 0, said
    with host.sudo():
        assert host.run("grep -rq new.key.of /etc/edge-inference").rc == 1, "the key of before is still there"
    assert ask(host, KEY) == 200


# Files, key and units are on the host, and no release has them yet.
UNRECORDED = "serve | API answers real requests to who has the key"
NEWS = {"edge_inference_api_key": NEW_KEY, "edge_inference_cache_ram_mib": 65}


def test_a_run_that_was_cut_off_before_its_release_was_written_down_is_completed_or_undone(host: Host) -> None:
    with host.sudo():
        before = host.check_output(FILES)
    cut_off(command(NEWS), task_of(UNRECORDED))
    with host.sudo():
        assert host.check_output(FILES) != before
    # Another one that fails goes back to what was written down.
    code, said = converge(**NEWS, edge_inference_extra_args=["--no-such-argument"], edge_inference_start_timeout=10)
    assert code != 0, said
    with host.sudo():
        assert host.check_output(FILES) == before
    assert (ask(host, KEY), ask(host, NEW_KEY)) == (200, 401)
    cut_off(command(NEWS), task_of(UNRECORDED))
    code, said = converge(**NEWS)
    assert code == 0, said
    code, said = converge(**NEWS)
    assert code == 0, said
    assert " changed=0 " in said, said
    assert (ask(host, NEW_KEY), ask(host, KEY)) == (200, 401)
    with host.sudo():
        assert host.run("grep -rq not-a-secret-of-the-role-test /etc/edge-inference").rc == 1
    code, said = converge()
    assert code == 0, said
    assert ask(host, KEY) == 200
