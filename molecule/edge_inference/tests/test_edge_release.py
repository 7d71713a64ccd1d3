"""A release of the edge that does not work is undone."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
KEY, NEW_KEY = "not-a-secret-of-the-role-test", "a$new'key\"of\\the`role-test`"
FILES = (
    "sha256sum /etc/systemd/system/edge-*.service /etc/edge-inference/api-key; "
    "find /etc/edge-inference -printf '%p %y %m %u %g %l\n' | sort"
)


def converge(**variables: Any) -> tuple[int, str]:
    """Run the role once more with other variables; return its exit code and what it said."""
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    playbook = ROOT / "molecule" / "edge_inference" / "converge.yml"
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(playbook), "-e", json.dumps(variables)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
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
