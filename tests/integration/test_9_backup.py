"""The gateway is lost and made anew: what can't be made again comes back from its copy, and a damaged copy is refused.

Full profile alone. It leaves a gateway with another CA, which every host knows by its last run.
"""

import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import testinfra

from .conftest import INVENTORY, Run, lab_host, read_secrets, run_playbook
from .suite import FULL, ROOT, write_proof
from .test_5_knowledge import ADDRESS, CA, GATEWAY, VAULT, commit, make_repositories, n8n_owner

pytestmark = pytest.mark.skipif(not FULL, reason="makes the gateway anew: the full profile runs it")

HOST = "ai-idp-lab-xps15"
COPIES = "/srv/copies"
# MLflow's files, which its API tells nothing of.
ARTIFACTS = "/home/ubuntu/ai-idp/mlflow/data/artifacts"
# Another repository than the copy's, whose key is the same.
DAMAGED = "/srv/damaged"


def held(secrets: dict[str, str]) -> dict[str, Any]:
    """Every note, artifact, run, workflow and credential: by path, path, id, id and id."""
    gateway = lab_host(ADDRESS)
    sums = "-type f -print0 | xargs -0 sha256sum"
    notes = gateway.check_output(f"cd {VAULT} && find . -name .git -prune -o {sums}")
    artifacts = gateway.check_output(f"cd {ARTIFACTS} && find . {sums}")
    with httpx.Client(
        base_url=GATEWAY, verify=ssl.create_default_context(cafile=str(CA)), timeout=60, trust_env=False
    ) as http:
        mlflow, owner = "/mlflow/api/2.0/mlflow", ("owner", secrets["mlflow_admin_password"])
        found = http.post(f"{mlflow}/experiments/search", json={"max_results": 100}, auth=owner).raise_for_status()
        experiments = [one["experiment_id"] for one in found.json()["experiments"]]
        query = {"experiment_ids": experiments, "max_results": 1000}
        runs = http.post(f"{mlflow}/runs/search", json=query, auth=owner).raise_for_status().json()["runs"]
        n8n_owner(http, secrets)
        workflows, credentials = (
            [
                http.get(f"/n8n/rest/{kind}/{one['id']}", params=more).raise_for_status().json()["data"]
                for one in http.get(f"/n8n/rest/{kind}").raise_for_status().json()["data"]
            ]
            # Without n8n's key nobody could read a credential's data.
            for kind, more in (("workflows", {}), ("credentials", {"includeData": "true"}))
        )
    return {
        "notes": dict(reversed(line.split(maxsplit=1)) for line in notes.splitlines()),
        "artifacts": dict(reversed(line.split(maxsplit=1)) for line in artifacts.splitlines()),
        "runs": {run["info"]["run_id"]: run["data"] for run in runs},
        "workflows": {one["id"]: (one["name"], one["active"], one["nodes"]) for one in workflows},
        "credentials": {one["id"]: (one["name"], one["type"], one["data"]) for one in credentials},
    }


def ai_idp(*arguments: str, timeout: int = 900) -> Run:
    """Run the command as a user does."""
    done = subprocess.run(["ai-idp", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    return Run(done.returncode, done.stdout + done.stderr)


def test_every_note_artifact_run_workflow_and_credential_survives_the_gateway(
    gateway: testinfra.host.Host, tmp_path: Path
) -> None:
    # What was measured since is logged now, not by the week 5 that restores.
    assert run_playbook("playbooks/week5.yml").code == 0
    secrets = read_secrets()
    before = held(secrets)
    assert all(before.values())
    copied = ai_idp("run", "backup", "-e", f"backup_repository={COPIES} backup_new_repository=true")
    assert copied.code == 0, copied.output
    subprocess.run(["docker", "cp", f"{HOST}:{COPIES}", tmp_path / "copies"], check=True, capture_output=True)
    subprocess.run(["docker", "rm", "--force", HOST], check=True, capture_output=True)
    subprocess.run(["docker", "volume", "rm", f"{HOST}-docker"], check=True, capture_output=True)
    lost = time.monotonic()
    made = ai_idp("lab", "up", "--hosts-only")
    assert made.code == 0, made.output
    week3 = ai_idp("run", "week3")
    assert week3.code == 0, week3.output
    subprocess.run(["docker", "cp", tmp_path / "copies", f"{HOST}:{COPIES}"], check=True, capture_output=True)
    gateway = lab_host(ADDRESS)

    # One bit of the data is another.
    gateway.check_output(
        f"set -e; cp -a {COPIES} {DAMAGED}; pack=$(find {DAMAGED}/data -type f -size +1k | sort | head -1);"
        " chmod u+w $pack;"
        " python3 -c \"import sys; p = open(sys.argv[1], 'r+b'); p.seek(700); b = p.read(1)[0]; p.seek(700);"
        ' p.write(bytes([b ^ 1]))" $pack'
    )
    # Of what is copied, MLflow's runs and n8n's workflows among it.
    places = "/home/ubuntu/ai-idp /var/lib/ai-idp-vault"
    data = f"for place in {places}; do test ! -e $place || find $place -printf '%p %s %i %T@\n'; done | sort"
    untouched = gateway.check_output(data)
    refused = ai_idp("run", "restore", "-e", f"backup_repository={DAMAGED}")
    assert refused.code != 0, refused.output
    assert "damaged" in refused.output, refused.output
    assert gateway.check_output(data) == untouched

    restored = ai_idp("run", "restore", "-e", f"backup_repository={COPIES}")
    assert restored.code == 0, restored.output
    back = time.monotonic() - lost
    after = held(secrets)
    differ = {
        kind: sorted(
            {key for key in before[kind].keys() | after[kind].keys() if before[kind].get(key) != after[kind].get(key)}
        )
        for kind in before
    }
    assert differ == {kind: [] for kind in before}
    write_proof("gateway_lost", [{"back_s": round(back, 1), **{kind: len(found) for kind, found in after.items()}}])

    # The gates' certificates come from the new CA, and then everything goes on.
    site = run_playbook("playbooks/site.yml")
    assert site.code == 0, site.output
    vault = make_repositories(gateway)
    total = vault.total()
    commit(gateway, "After the gateway was lost")
    vault.until(total + 1, 120)
    again = run_playbook("playbooks/site.yml")
    assert set(again.changed.values()) == {0}, again.output
    assert (INVENTORY / "state" / "ca.crt").read_text(encoding="utf-8").count("BEGIN CERTIFICATE") == 1
