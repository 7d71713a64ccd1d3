"""A lab that the former tree deployed is taken over by this one: nothing is lost, nothing old is left behind.

Full profile alone. It makes the former tree's lab, with a tree and a network of its own, where `make bench` has not
made it (25 minutes), and the bench makes it anew afterwards.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import testinfra
import yaml

from .conftest import Run, lab_host
from .suite import FULL, ROOT, write_proof

sys.path.insert(0, str(ROOT / "tools"))
from bench.session import WORK, with_lab
from bench.sides import LAB_THERE, Side, before_side, take_over

pytestmark = pytest.mark.skipif(not FULL, reason="deploys the former tree: the full profile runs it")

HOSTS = {"schlimers-server": "10.78.0.11", "xps15": "10.78.0.12", "jetson": "10.78.0.13"}
REGISTRY, FORMER_REGISTRY = "127.0.0.1:15000", "127.0.0.1:15010"
STACK = "/home/ubuntu/ai-idp/inference"
# What releases, gates and the keys' new places have made needless.
OLD_FILES = {
    "schlimers-server": ["compose.yml", "last_healthy.yml", "dcgm_counters.csv", "triton_models", "secrets/vllm.env",
                         "secrets/llama_cpp.key"],
}  # fmt: skip
# Everybody in the network came in here; now the gate admits gateways and controllers alone.
CLOSED = [("schlimers-server", port) for port in (8000, 8010, 8080, 9400)] + [("jetson", 8090)]


@dataclass
class Kept:
    """What nobody can make again, or only in hours."""

    keys: dict[str, str]
    models: dict[str, str]
    results: dict[str, str]


@pytest.fixture(scope="module")
def former() -> Side:
    """The former tree, whose lab runs."""
    return with_lab(before_side(ROOT, WORK / "before"))


def host(folder: Path, name: str) -> testinfra.host.Host:
    """A host of the former lab, over SSH as root."""
    return lab_host(HOSTS[name], folder / "inventory" / "lab" / "state")


def kept(folder: Path) -> Kept:
    """All of it as it is now."""
    secrets = yaml.safe_load((folder / "inventory" / "lab" / "secrets.yml").read_text(encoding="utf-8"))
    models: dict[str, str] = {}
    results: dict[str, str] = {}
    for name in ("schlimers-server", "jetson"):
        # A file that is fetched again has another inode.
        found = host(folder, name).check_output(
            "find /home/ubuntu/ai-idp/models -type f -size +100k -printf '%%p %%i\\n'"
        )
        models |= {f"{name} {path}": inode for path, inode in map(str.split, found.splitlines())}
        found = host(folder, name).check_output(
            "find /home/ubuntu/ai-idp/benchmark -name '*.json' -printf '%%p %%s\\n'"
        )
        results |= {f"{name} {path}": size for path, size in map(str.split, found.splitlines())}
    return Kept({name: str(key) for name, key in secrets.items()}, models, results)


def site(folder: Path) -> Run:
    """All weeks of the tree that is checked out there."""
    done = subprocess.run(
        ["ansible-playbook", "-i", "inventory/lab", "playbooks/site.yml"],
        cwd=folder,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(folder / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    return Run(done.returncode, done.stdout + done.stderr)


def bring_images() -> None:
    """What the former lab's registry does not have, from this one's."""
    text = (ROOT / "playbooks/group_vars/all/versions.yml").read_text(encoding="utf-8")
    for name in ("mlflow", "n8n"):
        image = yaml.safe_load(text)["ai_idp_images"][name]
        for command in (["pull", "--quiet", f"{REGISTRY}/{image}"],
                        ["tag", f"{REGISTRY}/{image}", f"{FORMER_REGISTRY}/{image}"],
                        ["push", "--quiet", f"{FORMER_REGISTRY}/{image}"]):  # fmt: skip
            subprocess.run(["docker", *command], check=True, capture_output=True, timeout=900)


def test_a_lab_of_the_former_tree_is_taken_over(former: Side) -> None:
    folder = former.tree
    before, at = kept(folder), int(time.time())
    assert all((before.keys, before.models, before.results))
    bring_images()
    take_over(ROOT, former)
    began = time.monotonic()
    run = site(folder)
    took = time.monotonic() - began
    assert run.code == 0, run.output

    after = kept(folder)
    assert {name: after.keys.get(name) for name in before.keys} == before.keys
    assert {path: after.models.get(path) for path in before.models} == before.models
    assert before.results.keys() <= after.results.keys()
    gateway = host(folder, "xps15")
    asked = f"curl --silent --fail 'http://127.0.0.1:9090/prometheus/api/v1/query?query=count(up)&time={at - 30}'"
    [sample] = json.loads(gateway.check_output(asked))["data"]["result"]
    assert float(sample["value"][1]) > 5

    for name, paths in OLD_FILES.items():
        there = [path for path in paths if host(folder, name).run(f"test -e {STACK}/{path}").rc == 0]
        assert there == [], name
    for name, port in CLOSED:
        other = "jetson" if name != "jetson" else "schlimers-server"
        tried = host(folder, other).run(f"timeout 3 bash -c 'exec 3<>/dev/tcp/{HOSTS[name]}/{port}'")
        assert tried.rc != 0, f"{other} reaches {name}:{port}"

    again = site(folder)
    assert again.code == 0, again.output
    assert set(again.changed.values()) == {0}, again.output
    write_proof(
        "former_tree",
        [
            {
                "site_s": round(took, 1),
                "changed": run.changed,
                "changed_by_the_one_after": again.changed,
                "keys": len(before.keys),
                "models": len(before.models),
                "results": len(before.results),
            }
        ],
    )
    # It is the former tree's lab no more.
    (folder / LAB_THERE).unlink()
