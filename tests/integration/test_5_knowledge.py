"""Week 5: commits become notes whatever is in them and whoever is away, and runs are kept for who may see them.

Commits are made on the gateway, as its owner makes them. What the tests leave is an owner's workflow in n8n, which no
later run may change (test_6_twice).
"""

import contextlib
import io
import json
import os
import ssl
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import testinfra
import yaml

from tests import obsidian

from .conftest import INVENTORY, extra, read_secrets, run_playbook
from .suite import FULL, ROOT, write_proof

ADDRESS = "10.77.0.12"
GATEWAY = f"https://{ADDRESS}"
CA = INVENTORY / "state" / "ca.crt"
VAULT = "/home/ubuntu/ai-idp/vault"
NOTEBOOK = "/home/ubuntu/notebook"
SHARED = "/home/ubuntu/shared.git"
CLONE = "/home/ubuntu/clone"
# Gives each commit what the shell could not: any bytes in its message and its files' names.
COMMITS = Path(__file__).with_name("hostile_commits.py")
AT_ONCE = 500 if FULL else 50


@pytest.fixture(scope="module")
def trust() -> ssl.SSLContext:
    """The CA alone."""
    return ssl.create_default_context(cafile=str(CA))


@pytest.fixture(scope="module")
def http(trust: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=GATEWAY, verify=trust, timeout=60, trust_env=False) as client:
        yield client


class Vault:
    """What the vault's service says, and the vault itself."""

    def __init__(self, host: testinfra.host.Host) -> None:
        self.host = host

    def told(self) -> dict[str, Any]:
        """Notes by state, and events that wait. On loopback, so that it answers while the gateway does not."""
        told: dict[str, Any] = json.loads(self.host.check_output("curl --silent --fail http://127.0.0.1:5690/health"))
        return told

    def total(self) -> int:
        """How many commits have a note."""
        return sum(self.told()["notes"].values())

    def until(self, notes: int, limit: float, *, completed: bool = True) -> float:
        """Wait for so many notes, and for the model to have completed them.

        Returns:
            How long it took.
        """
        began = time.monotonic()
        while True:
            told = self.told()
            there = sum(told["notes"].values()) >= notes and not told["spool"]
            if there and not (completed and told["notes"]["pending"] + told["notes"]["writing"]):
                return time.monotonic() - began
            if time.monotonic() - began > limit:
                journal = self.host.check_output("journalctl --no-pager --lines=40 --unit='ai-idp-vault*'")
                raise AssertionError(f"not within {limit} s: {told}\n{journal}")
            time.sleep(0.3)

    def until_notes(self, notes: int, limit: float) -> None:
        """Wait for so many notes, whatever else is still to come."""
        began = time.monotonic()
        while self.total() < notes:
            assert time.monotonic() - began < limit, self.told()
            time.sleep(0.3)

    def until_it_answers(self, limit: float) -> float:
        """Wait for a host that has just been started, which takes a while until it lets anybody in.

        Returns:
            How long it took.
        """
        began = time.monotonic()
        while True:
            # Without the host, testinfra raises: ssh ends with the same status as its own errors.
            with contextlib.suppress(RuntimeError, AssertionError):
                self.told()
                return time.monotonic() - began
            assert time.monotonic() - began < limit, f"the vault's service did not answer within {limit} s"
            time.sleep(1)

    def read(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Every note of a commit by its path, after Obsidian's rules were held against the whole vault."""
        with tarfile.open(fileobj=io.BytesIO(archive(self.host, VAULT))) as packed:
            packed.extractall(folder, filter="data")
        notes = obsidian.check_vault(folder)
        return {path: note for path, note in notes.items() if path.startswith("Commits/")}


def archive(host: testinfra.host.Host, folder: str) -> bytes:
    """A folder of the host."""
    host.check_output("tar --exclude .git --create --file /root/folder.tar --directory %s .", folder)
    return bytes(host.file("/root/folder.tar").content)


def commits_of(host: testinfra.host.Host, folder: str) -> set[str]:
    """Every commit of a repository."""
    return set(as_owner(host, f"git -C {folder} rev-list --all").split())


def others(host: testinfra.host.Host) -> str:
    """Every file of the owner's and of nobody's that is in neither the vault nor a repository."""
    beside = " ".join(f"-path {folder} -prune -o" for folder in (VAULT, NOTEBOOK, "/home/ubuntu/.ansible"))
    return str(host.check_output(f"find /home/ubuntu /tmp /var/tmp -xdev {beside} -type f -print | sort"))


def as_owner(host: testinfra.host.Host, script: str) -> str:
    """Run a script as the owner of the repositories."""
    return str(host.check_output("sudo -u ubuntu sh -euc %s", script))


def commit(host: testinfra.host.Host, message: str, folder: str = NOTEBOOK) -> str:
    """Commit something; returns the commit's id."""
    script = f"cd {folder}; date +%s%N >> file; git add file; git commit --quiet --message '{message}'"
    return as_owner(host, f"{script}; git rev-parse HEAD")


def make_repositories(host: testinfra.host.Host) -> Vault:
    """Make the two repositories, or those that are missing, and wait until the sender has looked at them."""
    identity = "git config --global user.name Ada; git config --global user.email ada@example.org"
    made = (
        f"test -d {NOTEBOOK} || git init --quiet --initial-branch=main {NOTEBOOK};"
        f" test -d {SHARED} || git init --quiet --bare --initial-branch=main {SHARED};"
        f" test -d {CLONE} || git clone --quiet {SHARED} {CLONE}"
    )
    as_owner(host, f"{identity}; {made}")
    seen = " && ".join(f"test -f /var/lib/ai-idp-vault/seen/{name}.json" for name in ("notebook", "shared"))
    for _ in range(60):
        if host.run(seen).rc == 0:
            return Vault(host)
        time.sleep(0.5)
    pytest.fail(host.check_output("journalctl --no-pager --lines=20 --unit=ai-idp-vault-events"))


@pytest.fixture(scope="module")
def vault(gateway: testinfra.host.Host) -> Vault:
    """The vault, with two repositories that its sender has looked at."""
    vault = make_repositories(gateway)
    vault.until(0, 180)
    return vault


def test_the_example_of_the_docs_makes_a_note(gateway: testinfra.host.Host) -> None:
    """As it stands there, from making the repository on; where this comes first there is none before."""
    docs = (ROOT / "docs" / "week5.md").read_text(encoding="utf-8")
    login, *lines = docs.partition("writes nonsense:\n\n```console\n")[2].partition("```")[0].splitlines()
    assert login.startswith("ssh ")
    assert lines[-1].endswith("ls ~/ai-idp/vault/Commits/notebook/*/")
    before = Vault(gateway).total()
    as_owner(gateway, "\n".join(["cd", *lines[:-1]]))
    Vault(gateway).until(before + 1, 60, completed=False)
    assert ".md" in as_owner(gateway, lines[-1].removeprefix("sleep 5; "))
    assert as_owner(gateway, f"grep -rl 'A first note' {VAULT}/Commits/notebook")


def test_a_commit_is_a_note_that_the_platforms_own_model_has_completed(
    vault: Vault, gateway: testinfra.host.Host, tmp_path: Path
) -> None:
    before = vault.total()
    made = commit(gateway, "Explain how the gateway balances")
    plain = vault.until(before + 1, 30, completed=False)
    done = plain + vault.until(before + 1, 120)
    print(f"plain note after {plain:.1f} s, completed after {done:.1f} s")
    [note] = [note for note in vault.read(tmp_path).values() if note["commit"] == made]
    assert (note["ai"], note["repository"]) == ("done", "[[Repositories/notebook|notebook]]")
    known = {tag["name"] for tag in json.loads(gateway.file("/etc/ai-idp/knowledge_vault.json").content)["tags"]}
    assert note["tags"]
    assert {*note["tags"]} <= known
    assert note["url"] == f"https://git.example/notebook/commit/{made}"
    assert plain < 15
    if FULL:
        write_proof("commit_to_note", [{"plain_s": round(plain, 1), "completed_s": round(done, 1)}])


def test_commits_of_every_kind_are_notes_inside_the_vault(
    vault: Vault, gateway: testinfra.host.Host, tmp_path: Path
) -> None:
    """A merge, binary files, no message, 500 renames, other scripts, and what would break a note or a shell."""
    before, elsewhere = vault.total(), others(gateway)
    known = commits_of(gateway, NOTEBOOK)
    subprocess.run(
        [
            *("ssh", "-i", INVENTORY / "state" / "id_ed25519", "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={INVENTORY / 'state' / 'known_hosts'}", f"ubuntu@{ADDRESS}"),
            f"python3 - {NOTEBOOK}",
        ],
        input=COMMITS.read_bytes(),
        check=True,
        timeout=120,
    )
    made = commits_of(gateway, NOTEBOOK) - known
    took = vault.until(before + len(made), 180)
    print(f"{vault.total() - before} notes, the last completed after {took:.1f} s")
    notes = vault.read(tmp_path)
    assert sorted(note["commit"] for note in notes.values() if note["commit"] in made) == sorted(made)
    text = "\n".join((tmp_path / path).read_text(encoding="utf-8") for path in notes)
    assert "AKIAIOSFODNN7EXAMPLE" not in text
    assert "ゲートウェイ" in text
    assert "البوابة" in text
    assert others(gateway) == elsewhere


def test_many_commits_in_one_push_are_each_one_note(vault: Vault, gateway: testinfra.host.Host, tmp_path: Path) -> None:
    before, known = vault.total(), commits_of(gateway, SHARED)
    loop = f'for i in $(seq {AT_ONCE}); do echo $i >> file; git add file; git commit --quiet -m "Number $i"; done'
    as_owner(gateway, f"cd {CLONE}; {loop}; git push --quiet origin HEAD:main")
    took = vault.until(before + AT_ONCE, 60 + AT_ONCE)
    pid = gateway.check_output("systemctl show --property=MainPID --value ai-idp-vault.service")
    memory = 1024 * int(gateway.check_output(f"grep VmHWM /proc/{pid}/status").split()[1])
    print(f"{AT_ONCE} notes after {took:.1f} s, the vault's service took {memory / 2**20:.0f} MiB at most")
    pushed = commits_of(gateway, SHARED) - known
    commits = [note["commit"] for note in vault.read(tmp_path).values()]
    assert len(commits) == len({*commits})
    assert (len(pushed), pushed - {*commits}) == (AT_ONCE, set())
    if FULL:
        write_proof("many_commits", [{"commits": AT_ONCE, "completed_s": round(took, 1), "memory_bytes": memory}])


def test_whoever_is_away_nothing_is_lost(
    vault: Vault, gateway: testinfra.host.Host, gpu_server: testinfra.host.Host, tmp_path: Path
) -> None:
    """llama.cpp, the gateway and n8n go one after the other, and come back together."""
    before = vault.total()
    made = []
    # The watch would bring the container back.
    watch = "ai-idp-inference-watch.timer"
    gpu_server.check_output(f"systemctl stop {watch}; docker stop ai-idp-inference-llama-cpp-1")
    try:
        made.append(commit(gateway, "While the model is away"))
        vault.until(before + 1, 30, completed=False)
        assert vault.told()["notes"]["pending"] == 1
        gateway.check_output("systemctl stop nginx")
        made.append(commit(gateway, "While the gateway is away"))
        vault.until(before + 2, 30, completed=False)
        gateway.check_output("docker stop ai-idp-n8n-n8n-1")
        made.append(commit(gateway, "While n8n is away"))
        for _ in range(60):
            if vault.told()["spool"]:
                break
            time.sleep(0.5)
        told = vault.told()
        assert (told["spool"], sum(told["notes"].values())) == (1, before + 2)
    finally:
        gateway.check_output("systemctl start nginx; docker start ai-idp-n8n-n8n-1")
        gpu_server.check_output(f"docker start ai-idp-inference-llama-cpp-1; systemctl start {watch}")
    # n8n takes a while to start, and looks for what is left once a minute.
    took = vault.until(before + 3, 150)
    print(f"all completed {took:.1f} s after everybody was back")
    notes = {note["commit"]: note for note in vault.read(tmp_path).values()}
    assert [notes[one]["ai"] for one in made] == ["done"] * 3


def test_days_are_summed_up_when_they_are_over(
    vault: Vault, gateway: testinfra.host.Host, http: httpx.Client, secrets: dict[str, str], tmp_path: Path
) -> None:
    """A run that says which commit it is of is in the day's note and in the commit's."""
    before = vault.total()
    measured = commit(gateway, "Measured by a run")
    vault.until(before + 1, 60)
    run = {"experiment_id": "0", "run_name": "of a commit", "start_time": int(time.time() * 1000)}
    http.post(
        "/mlflow/api/2.0/mlflow/runs/create",
        auth=("owner", secrets["mlflow_admin_password"]),
        json={**run, "tags": [{"key": "mlflow.source.git.commit", "value": measured}]},
    ).raise_for_status()
    environment = gateway.check_output("cat /etc/ai-idp/knowledge_vault.env")
    token = environment.partition('SERVICE_TOKEN="')[2].partition('"')[0]
    day = gateway.check_output("date --utc +%F")
    header = f"printf 'header = \"Authorization: Bearer {token}\"' > /root/tests.curl"
    gateway.run_expect([0], header)
    told = gateway.check_output(
        f'curl --silent --fail --config /root/tests.curl --data \'{{"day": "{day}"}}\' http://127.0.0.1:5690/daily;'
        " rm /root/tests.curl"
    )
    assert json.loads(told)["days"] == [day]
    daily = gateway.file(f"{VAULT}/Daily/{day}.md").content_string
    assert "MLflow was not asked with success" not in daily
    [path] = [path for path, note in vault.read(tmp_path).items() if note["commit"] == measured]
    assert f"(RUNNING, Default), of [[{path.removesuffix('.md')}|" in daily
    assert f"## Runs\n\n- [of a commit](<{GATEWAY}/mlflow/#/experiments/0/runs/" in (tmp_path / path).read_text()


def test_runs_are_logged_by_the_official_client_and_seen_by_nobody_else(
    http: httpx.Client, secrets: dict[str, str]
) -> None:
    images = yaml.safe_load((ROOT / "playbooks/group_vars/all/versions.yml").read_text(encoding="utf-8"))
    program = """
import mlflow, tempfile, pathlib
mlflow.set_experiment("of the tests")
with mlflow.start_run(run_name="official client") as run:
    mlflow.log_param("model", "tiny")
    mlflow.log_metric("tokens_per_second", 12.5)
    path = pathlib.Path(tempfile.mkdtemp()) / "report.txt"
    path.write_text("measured")
    mlflow.log_artifact(str(path))
    print(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/report.txt"))
"""
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "--interactive", "--network", "ai-idp-lab", "--entrypoint", "python3"),
            *("--env", f"MLFLOW_TRACKING_URI={GATEWAY}/mlflow", "--env", "MLFLOW_TRACKING_USERNAME=owner"),
            *("--env", "MLFLOW_TRACKING_PASSWORD", "--env", "MLFLOW_TRACKING_SERVER_CERT_PATH=/ca.crt"),
            *("--volume", f"{CA}:/ca.crt:ro", "127.0.0.1:15000/" + images["ai_idp_images"]["mlflow"], "-"),
        ],
        input=program,
        env={**os.environ, "MLFLOW_TRACKING_PASSWORD": secrets["mlflow_admin_password"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "measured" in done.stdout
    search = "/mlflow/api/2.0/mlflow/experiments/search"
    for headers in ({}, {"Authorization": "Basic b3duZXI6d3Jvbmc="}):
        assert http.post(search, json={"max_results": 1}, headers=headers).status_code == 401
    owner = ("owner", secrets["mlflow_admin_password"])
    assert http.post(search, json={"max_results": 1}, auth=owner).status_code == 200
    other = http.post(search, json={"max_results": 1}, auth=owner, headers={"Host": "evil.example"})
    assert other.status_code == 403


def test_what_the_weeks_have_measured_are_runs_with_intervals_and_their_table(
    http: httpx.Client, secrets: dict[str, str]
) -> None:
    owner, api = ("owner", secrets["mlflow_admin_password"]), "/mlflow/api/2.0"

    def ask(method: str, path: str, **more: Any) -> Any:
        return http.request(method, f"{api}/{path}", auth=owner, **more).raise_for_status().json()

    found = ask("GET", "mlflow/experiments/get-by-name", params={"experiment_name": "ai-idp week 1"})
    experiment = found["experiment"]["experiment_id"]
    of_the_server = "tags.host = 'schlimers-server' and tags.environment = 'lab'"
    newest = {"experiment_ids": [experiment], "filter": of_the_server, "max_results": 1}
    [run] = ask("POST", "mlflow/runs/search", json=newest)["runs"]
    assert run["info"]["run_name"] == "week1-lab-schlimers-server"
    assert run["info"]["status"] == "FINISHED"
    parameters = {row["key"]: row["value"] for row in run["data"]["params"]}
    figures = {row["key"]: row["value"] for row in run["data"]["metrics"]}
    assert any(name.endswith("/tool") for name in parameters)
    means = [name.removesuffix("_ci95_low") for name in figures if name.endswith("_ci95_low")]
    assert means
    for name in means:
        assert figures[f"{name}_ci95_low"] <= figures[name] <= figures[f"{name}_ci95_high"], name
        assert figures[f"{name}_n"] >= 2
    # Each host that is measured has one, and nobody else's figures are among them.
    every = ask("POST", "mlflow/runs/search", json={"experiment_ids": [experiment], "max_results": 1000})["runs"]
    tags = [{row["key"]: row["value"] for row in one["data"]["tags"]} for one in every]
    assert {one["environment"] for one in tags} == {"lab"}
    # On the gateway nothing is measured.
    assert {one["host"] for one in tags} == {"schlimers-server", "jetson"}
    kept = ask("GET", "mlflow/artifacts/list", params={"run_id": run["info"]["run_id"]})
    assert [file["path"] for file in kept["files"]] == ["week1_findings.csv"]
    place = kept["root_uri"].removeprefix("mlflow-artifacts:/").lstrip("/")
    table = http.get(f"{api}/mlflow-artifacts/artifacts/{place}/week1_findings.csv", auth=owner).raise_for_status().text
    assert table.startswith("claim_id,")
    assert ",schlimers-server," in table


def test_the_vaults_health_wants_a_key_and_its_service_no_stranger(
    http: httpx.Client, secrets: dict[str, str], gateway: testinfra.host.Host
) -> None:
    assert http.get("/vault/metrics").status_code == 401
    headers = {"Authorization": f"Bearer {secrets['gateway_client_key']}"}
    told = http.get("/vault/metrics", headers=headers).text
    assert "ai_idp_vault_notes" in told
    for name in ("notebook", "shared"):
        assert f'ai_idp_vault_repository_readable{{repository="{name}"}} 1' in told
    for path in ("events", "work", "answers", "daily"):
        assert http.post(f"/vault/{path}", headers=headers, json={}).status_code == 404
    listening = gateway.check_output("ss --listening --tcp --numeric --no-header")
    for port in (5500, 5678, 5679, 5690):
        assert [row for row in listening.splitlines() if f":{port} " in row and f"127.0.0.1:{port} " not in row] == []


def answers(http: httpx.Client, path: str) -> bool:
    """Whether a webhook answers, which n8n registers a moment after it said so."""
    for _ in range(30):
        if http.get(path).status_code == 200:
            return True
        time.sleep(0.5)
    return False


def n8n_owner(http: httpx.Client, secrets: dict[str, str]) -> None:
    """Log in at n8n, as the owner does."""
    http.post(
        "/n8n/rest/login",
        json={"emailOrLdapLoginId": "owner@ai-idp.lan", "password": secrets["n8n_owner_password"]},
    ).raise_for_status()


def test_the_owners_workflows_are_left_alone_and_what_is_ours_is_told_and_put_back(
    trust: ssl.SSLContext, secrets: dict[str, str]
) -> None:
    # Another one each time, since the test may run twice in one lab.
    path = f"of-the-owner-{time.time_ns()}"
    node = {
        "id": "5f0c4a52-0000-4000-8000-0000000000c1",
        "name": "Webhook",
        "type": "n8n-nodes-base.webhook",
        "typeVersion": 2.1,
        "position": [0, 0],
        "webhookId": str(uuid.uuid4()),
        "parameters": {"httpMethod": "GET", "path": path, "responseMode": "onReceived", "options": {}},
    }
    with httpx.Client(base_url=GATEWAY, verify=trust, timeout=60, trust_env=False) as http:
        n8n_owner(http, secrets)
        mine = {"name": "Mine", "nodes": [node], "connections": {}, "settings": {}, "active": False}
        made = http.post("/n8n/rest/workflows", json=mine).raise_for_status().json()["data"]
        http.post(
            f"/n8n/rest/workflows/{made['id']}/activate", json={"versionId": made["versionId"]}
        ).raise_for_status()
        assert answers(http, f"/n8n/webhook/{path}")
        ours = http.get("/n8n/rest/workflows/aiIdpCommitToNote").raise_for_status().json()["data"]
        # Neither a name nor a setting makes a version of n8n's; what an edit of nodes does, Molecule has.
        edited = {
            "name": "Renamed by the owner",
            "nodes": ours["nodes"],
            "connections": ours["connections"],
            "settings": {**ours["settings"], "timezone": "Asia/Tokyo"},
        }
        http.patch("/n8n/rest/workflows/aiIdpCommitToNote?forceSave=true", json=edited).raise_for_status()
        run = run_playbook("playbooks/week5.yml")
        assert run.code == 0, run.output
        assert run.changed_roles("xps15") == {"n8n"}, run.output
        # As the terminal shows it, in lines of its own length.
        assert f"{ours['name']} was changed in n8n (name, setting timezone)" in " ".join(run.output.split())
        assert answers(http, f"/n8n/webhook/{path}")
        now = http.get("/n8n/rest/workflows/aiIdpCommitToNote").raise_for_status().json()["data"]
        assert now["active"]
        assert (now["name"], now["settings"]["timezone"]) == (ours["name"], ours["settings"]["timezone"])


@pytest.mark.skipif(not FULL, reason="takes minutes: the full profile runs it")
def test_a_host_that_loses_power_in_the_middle_of_a_push_loses_no_commit(
    vault: Vault, gateway: testinfra.host.Host, tmp_path: Path
) -> None:
    before, known = vault.total(), commits_of(gateway, SHARED)
    loop = f'for i in $(seq {AT_ONCE}); do echo $i >> file; git add file; git commit --quiet -m "Number $i"; done'
    as_owner(gateway, f"cd {CLONE}; {loop}; git push --quiet origin HEAD:main")
    vault.until_notes(before + AT_ONCE // 5, 120)
    subprocess.run(["docker", "kill", "ai-idp-lab-xps15"], check=True, capture_output=True)
    subprocess.run(["docker", "start", "ai-idp-lab-xps15"], check=True, capture_output=True)
    back = vault.until_it_answers(90)
    at_start = vault.total() - before
    took = vault.until(before + AT_ONCE, 120 + 2 * AT_ONCE)
    print(f"{at_start} notes were there {back:.0f} s after the power went, all {AT_ONCE} {took:.0f} s later")
    commits = [note["commit"] for note in vault.read(tmp_path).values()]
    assert len(commits) == len({*commits})
    assert commits_of(gateway, SHARED) - known <= {*commits}
    assert gateway.check_output(f"find {VAULT} -name '.ai-idp-*.tmp'") == ""
    write_proof("power_lost", [{"commits": AT_ONCE, "notes_at_start": at_start, "completed_s": round(took, 1)}])


@pytest.mark.skipif(not FULL, reason="takes minutes: the full profile runs it")
def test_a_full_disk_loses_no_commit_and_leaves_no_half_note(
    vault: Vault, gateway: testinfra.host.Host, tmp_path: Path
) -> None:
    """The vault is on a small disk of its own for a while, which somebody else fills up."""
    units = "ai-idp-vault-events.service ai-idp-vault.service"
    count = f"find {VAULT}/Commits -name '*.md' | wc -l"
    before, files = vault.total(), gateway.check_output(count)
    gateway.check_output(
        f"set -e; systemctl stop {units}; mv {VAULT} {VAULT}.kept; mkdir {VAULT};"
        f" size=$(du -sk {VAULT}.kept | cut -f1);"
        f" mount -t tmpfs -o size=$((size + 2048))k,mode=0755,uid=$(id -u ubuntu),gid=$(id -g ubuntu) tmpfs {VAULT};"
        f" cp -a {VAULT}.kept/. {VAULT}/; systemctl start {units}"
    )
    try:
        vault.until(before, 60)
        gateway.run(f"dd if=/dev/zero of={VAULT}/.filler bs=4k 2>/dev/null")
        made = commit(gateway, "While the disk is full")
        for _ in range(60):
            if vault.told()["spool"] or "No space left" in gateway.check_output(
                "journalctl --no-pager --since=-60s --unit='ai-idp-vault*'"
            ):
                break
            time.sleep(0.5)
        assert vault.told()["spool"] == 1
        assert gateway.check_output(count) == files
        assert gateway.check_output(f"find {VAULT} -name '.ai-idp-*.tmp'") == ""
        gateway.check_output(f"rm {VAULT}/.filler")
        took = vault.until(before + 1, 180)
        assert int(gateway.check_output(count)) == int(files) + 1
        print(f"the note was completed {took:.1f} s after there was room again")
        assert made in {note["commit"] for note in vault.read(tmp_path).values()}
        write_proof("disk_full", [{"completed_s": round(took, 1)}])
    finally:
        gateway.check_output(
            f"set -e; systemctl stop {units}; rm -f {VAULT}/.filler; cp -a {VAULT}/. {VAULT}.kept/; umount {VAULT};"
            f" rmdir {VAULT}; mv {VAULT}.kept {VAULT}; systemctl start {units}"
        )


@pytest.mark.skipif(not FULL, reason="takes minutes: the full profile runs it")
def test_new_keys_are_taken_over_and_the_credentials_are_still_read(vault: Vault, gateway: testinfra.host.Host) -> None:
    former = read_secrets()
    began = time.monotonic()
    run = run_playbook("playbooks/week5.yml", *extra(rotate_keys=True))
    rotated = time.monotonic() - began
    assert run.code == 0, run.output
    after = read_secrets()
    assert after["n8n_encryption_key"] == former["n8n_encryption_key"]
    new = sum(after[name] != key for name, key in former.items() if name in after)
    before = vault.total()
    commit(gateway, "With new keys")
    took = vault.until(before + 1, 120)
    again = run_playbook("playbooks/week5.yml")
    assert set(again.changed.values()) == {0}, again.output
    figures = {"new_keys": new, "run_s": round(rotated, 1), "next_note_completed_s": round(took, 1)}
    write_proof("new_keys", [{**figures, "changed_by_the_run_after": 0}])


@pytest.mark.skipif(not FULL, reason="takes minutes: the full profile runs it")
def test_the_daily_note_is_written_by_n8ns_own_schedule(vault: Vault, gateway: testinfra.host.Host) -> None:
    # The day before is over. Its note is laid out by the first commit, and nothing is between its marks yet.
    day = gateway.check_output("date --utc --date yesterday +%F")
    before = vault.total()
    script = f"cd {NOTEBOOK}; GIT_COMMITTER_DATE='{day} 12:00:00 +0000' git commit --quiet --allow-empty -m Yesterday"
    as_owner(gateway, script)
    vault.until(before + 1, 120)
    summed_up = f"grep --quiet --ignore-case yesterday {VAULT}/Daily/{day}.md"
    assert gateway.run(summed_up).rc != 0
    soon = gateway.check_output("date --utc --date '2 minutes' '+%M %H'")
    run = run_playbook("playbooks/week5.yml", *extra(knowledge_vault_daily_cron=f"{soon} * * *"))
    try:
        assert run.code == 0, run.output
        for _ in range(180):
            if gateway.run(summed_up).rc == 0:
                break
            time.sleep(1)
        else:
            pytest.fail(gateway.file(f"{VAULT}/Daily/{day}.md").content_string)
        written = gateway.check_output(f"date --utc --date @$(stat --format %Y {VAULT}/Daily/{day}.md) +%H:%M:%S")
        minute, hour = soon.split()
        figures = {"scheduled_at": f"{hour}:{minute}:00", "written_at": written}
        assert figures["scheduled_at"] <= written
        write_proof("daily_note", [figures])
    finally:
        assert run_playbook("playbooks/week5.yml").code == 0


@pytest.mark.skipif(not FULL, reason="takes minutes: the full profile runs it")
def test_what_is_taken_away_is_gone_but_for_the_data_and_comes_back(
    vault: Vault, gateway: testinfra.host.Host, http: httpx.Client
) -> None:
    before = vault.total()
    gone = run_playbook(
        "playbooks/week5.yml", *extra(mlflow_state="absent", n8n_state="absent", knowledge_vault_state="absent")
    )
    assert gone.code == 0, gone.output
    assert http.get("/mlflow/").status_code == 404
    assert http.get("/n8n/").status_code == 404
    assert gateway.check_output("docker ps --quiet") == ""
    back = run_playbook("playbooks/week5.yml")
    assert back.code == 0, back.output
    assert vault.total() == before
