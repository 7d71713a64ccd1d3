"""Two hosts of the edge, each with a model of its own; both lend their memory and are judged."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from .conftest import INVENTORY, Run, extra, run_playbook
from .suite import ROOT

HERE = Path(__file__).parent
SECOND = "second-edge"
ADDRESSES = {"jetson": "10.77.0.13", SECOND: "10.77.0.14"}
MODELS = {"jetson": "tiny-llama-gguf", SECOND: "tiny-llama-too"}
MADE = extra(second_host=SECOND)


@pytest.fixture(scope="module")
def two_edges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Path, list[str]]]:
    """The lab's inventory with a second host at the edge, and the run that sets it up."""
    folder = tmp_path_factory.mktemp("two-edges")
    hosts = yaml.safe_load((INVENTORY / "hosts.yml").read_text(encoding="utf-8"))
    hosts["all"]["children"]["edge"]["hosts"][SECOND] = {
        "ansible_host": ADDRESSES[SECOND],
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={INVENTORY}/state/known_hosts_second -o IdentitiesOnly=yes",
        "edge_inference_model_name": MODELS[SECOND],
    }
    models = yaml.safe_load((INVENTORY / "group_vars/all/models.yml").read_text(encoding="utf-8"))
    (gguf,) = (model for model in models["ai_idp_extra_models"] if model["name"] == MODELS["jetson"])
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    for name in ("group_vars", "state"):
        (folder / name).symlink_to(INVENTORY / name)
    shutil.copy(INVENTORY / "secrets.yml", folder)
    catalogue = extra(ai_idp_extra_models=[*models["ai_idp_extra_models"], {**gguf, "name": MODELS[SECOND]}])
    try:
        made = run_playbook(str(HERE / "second_host.yml"), *MADE)
        assert made.code == 0, made.output
        yield run_playbook("playbooks/week4.yml", *catalogue, inventory=folder), folder, catalogue
    finally:
        run_playbook(str(HERE / "second_host.yml"), *MADE, "-e", "wanted=absent")
        back = run_playbook("playbooks/site.yml")
        assert back.code == 0, back.output


def test_each_serves_its_own_model(two_edges: tuple[Run, Path, list[str]], gates: httpx.Client) -> None:
    assert two_edges[0].code == 0, two_edges[0].output
    for host, address in ADDRESSES.items():
        served = gates.get(f"https://{address}:8090/v1/models").raise_for_status().json()["data"]
        assert [row["id"] for row in served] == [MODELS[host]], host


def test_each_lends_its_memory_and_is_judged(two_edges: tuple[Run, Path, list[str]]) -> None:
    for host, address in ADDRESSES.items():
        assert f"schlimers-server through {host} ({address}:50052): " in two_edges[0].output
    with (ROOT / "benchmarks" / "week1_findings.csv").open(encoding="utf-8") as stream:
        rows = {(row["claim_id"], row["host"]): row for row in csv.DictReader(stream)}
    for host in ADDRESSES:
        assert float(rows["usb4-rpc-latency", host]["measured_mean"]) > 0
        assert float(rows["jetson-llama-3.2-1b", host]["measured_mean"]) > 0


def test_a_second_run_changes_neither(two_edges: tuple[Run, Path, list[str]]) -> None:
    _, folder, catalogue = two_edges
    again = run_playbook("playbooks/week4.yml", *catalogue, inventory=folder)
    assert again.code == 0, again.output
    assert set(again.changed.values()) == {0}, again.output
