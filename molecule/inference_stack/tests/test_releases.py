"""Releases that come, are undone, are cut off, are gone back to, and follow what a former version left."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests.cut_off import begin, cut_off, task_of  # noqa: E402
from tests.integration.suite import rotation, write_proof  # noqa: E402

FOLDER = "/srv/inference"
ADDRESS = os.environ["ROLE_TEST_ADDRESS"]
URL = f"http://{ADDRESS}:18080"
# What each service answers when it is well.
WELL = {
    "/role-test-llama-cpp-1": f"{URL}/health",
    "/role-test-triton-1": f"http://{ADDRESS}:18010/v2/health/ready",
    "/role-test-dcgm-exporter-1": f"http://{ADDRESS}:19400/metrics",
}
KEY, NEW_KEY = "not-a-secret-of-the-role-test", "a$new'key\"of\\the`role-test`"
CHANGED = {"inference_stack_llama_cpp_cache_ram_mib": 64}
ROTATED = {**CHANGED, "inference_stack_llama_cpp_api_key": NEW_KEY}
# From the first change to the last: all that change something (asked of a run below), and what they are waited for.
STEPS = (
    "install | Put folders in place",
    "release | Have Docker Compose accept the release and make it current",
    "take | Rest the watch while the release changes",
    "take | Start the services",
    "take | Wait until the services are healthy",
    "take | Every endpoint answers real requests",
    "take | Keep the release as the last healthy one",
    "service | Install and start the watch",
)
# At this step the watch rests.
RESTING = "take | Start the services"
OTHERS = [step for step in STEPS if step != RESTING]
ENVIRONMENT = {**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"}


def command(playbook: str, variables: dict[str, Any]) -> list[str]:
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    path = ROOT / "molecule" / "inference_stack" / playbook
    # What the stack stands on is there.
    return ["ansible-playbook", "-i", str(inventory), "--skip-tags", "ground", str(path), "-e", json.dumps(variables)]


def play(playbook: str = "converge.yml", **variables: Any) -> tuple[int, str]:
    """Run a playbook once more with other variables; return its exit code and what it said."""
    done = subprocess.run(
        command(playbook, variables), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=400
    )
    return done.returncode, done.stdout


def settled(**variables: Any) -> int:
    """The role runs, and changes nothing when it runs again; return how many changes the first of them made."""
    code, first = play(**variables)
    assert code == 0, first
    code, said = play(**variables)
    assert code == 0, said
    assert " changed=0 " in said, said
    return int(first.rpartition("changed=")[2].split()[0])


def steps_that_changed(said: str) -> set[str]:
    """The role's steps that changed something in a run, by what it said."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    tasks = re.split(r"^TASK \[inference_stack : (.*)\] \*+$", plain, flags=re.MULTILINE)
    parts = zip(tasks[1::2], tasks[2::2], strict=True)
    return {name for name, answer in parts if re.search(r"^changed: ", answer, re.MULTILINE)}


def ask(host: Host, key: str) -> int:
    """Ask llama.cpp with a key, and return the status of its answer."""
    body = json.dumps({"prompt": "Hello", "max_tokens": 1})
    done = host.run(
        "curl -s -o /dev/null -m 60 -w '%%{http_code}' -H %s -d %s %s",
        f"Authorization: Bearer {key}",
        body,
        f"{URL}/v1/completions",
    )
    return int(done.stdout)


@dataclass(frozen=True)
class State:
    """All that a release is: every file below the folder, and what runs of it."""

    files: str
    models: str
    containers: dict[str, tuple[str, str, list[str]]]
    identities: dict[str, str]


def state(host: Host) -> State:
    """Look at the host."""
    with host.sudo():
        files = host.check_output(
            f"cd {FOLDER} && find . -type f -exec sha256sum {{}} + | sort -k 2; "
            "find . -printf '%p %y %m %u %g %l\n' | sort"
        )
        listing = "cd /models && find . -type f | sort | xargs sha256sum"
        models = host.check_output(f"docker exec role-test-triton-1 sh -c '{listing}'")
        found = json.loads(host.check_output("docker inspect $(docker ps --quiet)"))
    return State(
        files,
        models,
        {
            # Compose names the mounts in any order.
            one["Name"]: (one["Image"], json.dumps(one["Config"]["Cmd"]), sorted(map(str, one["HostConfig"]["Mounts"])))
            for one in found
        },
        {one["Name"]: one["Id"] for one in found},
    )


def watched(host: Host) -> bool:
    return bool(host.service("role-test-watch.timer").is_running)


@dataclass
class Answers:
    """What a service answered, asked five times a second: milliseconds since 1970 and the status, 0 for none."""

    told: list[tuple[int, int]]

    @property
    def missed(self) -> list[int]:
        """Every status but 200."""
        return [status for _, status in self.told if status != 200]

    @property
    def away_seconds(self) -> float:
        """The longest time between two answers of a service that is well."""
        well = [moment for moment, status in self.told if status == 200]
        return max((later - earlier for earlier, later in pairwise(well)), default=0) / 1000


@contextmanager
def asked_all_the_time(host: Host) -> Iterator[dict[str, Answers]]:
    """Ask all services five times a second whether they are well; what they answered is there afterwards."""
    found: dict[str, Answers] = {}
    with host.sudo():
        for number, url in enumerate(WELL.values()):
            ask = f"curl -s -o /dev/null -m 5 -w '%{{http_code}}\n' {url}"
            loop = f'while :; do now=$(date +%s%3N); echo "$now $({ask})"; sleep 0.2; done'
            output = f"StandardOutput=truncate:/run/asked-{number}"
            host.check_output("systemd-run --quiet --collect --unit=%s -p %s sh -c %s", f"asker-{number}", output, loop)
        try:
            yield found
        finally:
            for number, name in enumerate(WELL):
                host.run("systemctl stop %s", f"asker-{number}")
                lines = host.file(f"/run/asked-{number}").content_string.splitlines()
                # The last one may be cut off in its middle.
                found[name] = Answers([(int(line.split()[0]), int(line.split()[1])) for line in lines[:-1]])
    assert all(answers.told for answers in found.values())


def test_a_release_is_a_folder_with_everything_in_it(host: Host) -> None:
    with host.sudo():
        release = host.check_output(f"readlink {FOLDER}/current").removeprefix("releases/")
        assert json.loads(host.file(f"{FOLDER}/healthy.json").content_string) == [release]
        found = host.check_output(f"cd {FOLDER}/current && find . -printf '%P %y %m %l\n' | sort").splitlines()
        names = {line.split()[0] for line in found if line.strip()}
        assert {"compose.yml", "endpoints.json", "triton_models", "dcgm_counters.csv", "llama_cpp.key"} <= names
        links = {line.split()[0]: line.split()[-1] for line in found if " l " in line}
        assert {*links} == {"triton_models", "dcgm_counters.csv", "llama_cpp.key"}
        assert links["llama_cpp.key"].startswith("../../secrets/llama_cpp.key-")
        assert KEY not in host.check_output(f"cat {FOLDER}/current/compose.yml {FOLDER}/current/endpoints.json")
        assert host.file(f"{FOLDER}/releases").mode == 0o700
        assert host.file(f"{FOLDER}/secrets").mode == 0o700
        key = host.file(host.check_output(f"readlink -f {FOLDER}/current/llama_cpp.key"))
        assert (key.user, key.mode) == ("ubuntu", 0o600)


BROKEN: dict[str, tuple[dict[str, Any], list[str], set[str]]] = {
    "a description that does not load": (
        {"__inference_stack_references": {"llama_cpp": "a: b: c", "triton": "t", "dcgm_exporter": "d"}},
        ["refused the new configuration; the running one stays"],
        set(),
    ),
    # Whatever is asked of Docker Compose about it is refused, also while it is undone.
    "a description that is current and does not load": (
        {
            "__inference_stack_references": {"llama_cpp": "a: b: c", "triton": "t", "dcgm_exporter": "d"},
            "__inference_stack_validate": ["true"],
        },
        ["was undone: the last healthy release runs again"],
        set(),
    ),
    "a model of Triton that does not load": (
        {"__inference_stack_release_files": {
            "endpoints.json": "[]",
            "dcgm_counters.csv": "DCGM_FI_DEV_GPU_TEMP, gauge, Another.\n",
            "triton_models/text_embedder/config.pbtxt": 'name: "text_embedder" backend: "no-such-backend"\n',
            "triton_models/text_embedder/1/model.py": "broken\n",
        }},
        ["was undone: the last healthy release runs again", "the last lines of triton"],
        {"/role-test-triton-1", "/role-test-dcgm-exporter-1"},
    ),
    "a list of counters that the exporter refuses": (
        {"__inference_stack_counters": {"dcgm_counters.csv": "DCGM_FI_DEV_GPU_TEMP\n"}},
        ["was undone: the last healthy release runs again", "expected field"],
        {"/role-test-dcgm-exporter-1"},
    ),
    "other keys with a setting that llama.cpp refuses": (
        {"inference_stack_llama_cpp_api_key": NEW_KEY, "inference_stack_llama_cpp_extra_args": ["--no-such-argument"]},
        ["was undone: the last healthy release runs again", "--no-such-argument"],
        {"/role-test-llama-cpp-1"},
    ),
    "a size that is none": (
        {"inference_stack_llama_cpp_memory_limit": "lots"},
        ['inference_stack_llama_cpp_memory_limit is "lots"; it takes a number'],
        set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_release_is_undone_to_the_byte(host: Host, case: str) -> None:
    variables, words, touched = BROKEN[case]
    before = state(host)
    with asked_all_the_time(host) as asked:
        code, said = play(**variables)
    assert code != 0, said
    for word in words:
        assert word in " ".join(said.split()), said
    after = state(host)
    assert (after.files, after.models, after.containers) == (before.files, before.models, before.containers)
    assert {name for name, identity in after.identities.items() if identity != before.identities[name]} <= touched
    # What is not touched answers all the time, and what is replaced is away while it starts.
    assert {name: answers.missed for name, answers in asked.items() if name not in touched and answers.missed} == {}
    print({name: f"{asked[name].away_seconds:.1f} s away" for name in sorted(touched)})
    assert watched(host)
    assert (ask(host, KEY), ask(host, NEW_KEY)) == (200, 401)


ROUND = "/etc/systemd/system/role-test-watch.service.d/long.conf"


def test_a_round_of_the_watch_that_is_under_way_ends_before_the_release_changes(host: Host) -> None:
    """It would bring up what is being changed; only the timer was stopped, once."""
    with host.sudo():
        host.check_output(
            f"mkdir -p $(dirname {ROUND}); printf '[Service]\\nExecStartPre=/bin/sleep 300\\n' > {ROUND};"
            " systemctl daemon-reload; systemctl start --no-block role-test-watch.service"
        )

    def round_is() -> str:
        return str(host.run("systemctl is-active role-test-watch.service").stdout.strip())

    try:
        until = time.monotonic() + 10
        while round_is() != "activating":
            assert time.monotonic() < until
            time.sleep(0.2)
        run, seen = begin(command("converge.yml", CHANGED)), ""
        assert run.stdout
        said = ""
        for line in run.stdout:
            said += line
            if line.startswith("TASK [") and RESTING in line:
                seen = round_is()
        assert run.wait(timeout=60) == 0, said
        # systemd calls a round that was ended before its program began a failed one.
        assert seen in ("inactive", "failed"), said
    finally:
        with host.sudo():
            host.check_output(f"rm -r $(dirname {ROUND}); systemctl daemon-reload")
    assert watched(host)
    assert settled(**CHANGED) == 0
    settled()


def test_a_release_changes_where_somebody_has_deleted_the_watch(host: Host) -> None:
    with host.sudo():
        host.check_output(
            "systemctl disable --now role-test-watch.timer; rm /etc/systemd/system/role-test-watch.*;"
            " systemctl daemon-reload"
        )
    settled(**CHANGED)
    assert watched(host)
    settled()


@pytest.fixture(scope="module")
def proof() -> Iterator[list[dict[str, Any]]]:
    """What the next run made of each cut; written down when all steps were cut off."""
    found: list[dict[str, Any]] = []
    yield found
    if len(found) == len(STEPS):
        write_proof("release_cut_off", found)


@pytest.mark.parametrize("step", [RESTING, *rotation("steps of a release at which it is cut off", OTHERS, 1)])
def test_the_next_run_completes_one_that_was_cut_off(host: Host, step: str, proof: list[dict[str, Any]]) -> None:
    """One with another setting and another key."""
    longer = {"__inference_stack_rest_seconds": 20} if step == RESTING else {}
    cut_off(command("converge.yml", {**ROTATED, **longer}), task_of(step))
    if step == RESTING:
        # Nobody is left to start the watch, and it comes back by itself.
        assert not watched(host)
        until = time.monotonic() + 40
        while not watched(host):
            assert time.monotonic() < until
            time.sleep(1)
    changes = settled(**ROTATED)
    assert watched(host)
    with host.sudo():
        assert host.check_output("docker inspect --format '{{json .Config.Cmd}}' role-test-llama-cpp-1").count('"64"')
        listed = json.loads(host.file(f"{FOLDER}/healthy.json").content_string)
        assert host.check_output(f"readlink {FOLDER}/current") == f"releases/{listed[-1]}"
        assert {*host.check_output(f"ls {FOLDER}/releases").split()} == {*listed}
        assert len(host.check_output(f"ls {FOLDER}/secrets").split()) == 1, "the key of before is still there"
    assert (ask(host, NEW_KEY), ask(host, KEY)) == (200, 401)
    proof.append({"cut_off_at": step, "changes_by_the_next_run": changes, "changes_by_the_one_after": 0})
    settled()


def cache_ram(host: Host) -> str:
    with host.sudo():
        arguments = json.loads(
            host.check_output("docker inspect --format '{{json .Config.Cmd}}' role-test-llama-cpp-1")
        )
    return str(arguments[arguments.index("--cache-ram") + 1])


def test_an_older_release_is_gone_back_to_with_the_keys_of_today(host: Host) -> None:
    code, said = play(**ROTATED)
    assert code == 0, said
    # What such a run changes is what the test before this one cuts off.
    assert steps_that_changed(said)
    assert steps_that_changed(said) <= {*STEPS}
    assert (cache_ram(host), ask(host, NEW_KEY), ask(host, KEY)) == ("64", 200, 401)
    with host.sudo():
        assert len(host.check_output(f"ls {FOLDER}/secrets").split()) == 1, "keys of before are gone"
    code, said = play("rollback.yml", inference_stack_llama_cpp_api_key=NEW_KEY)
    assert code == 0, said
    assert (cache_ram(host), ask(host, NEW_KEY), ask(host, KEY)) == ("128", 200, 401)
    code, said = play("rollback.yml", inference_stack_back_to="none-such", inference_stack_llama_cpp_api_key=NEW_KEY)
    assert code != 0
    assert "There is no healthy release none-such in /srv/inference" in " ".join(said.split())
    assert watched(host)
    settled()
    assert (cache_ram(host), ask(host, KEY)) == ("128", 200)
    with host.sudo():
        assert len(host.check_output(f"ls {FOLDER}/releases").split()) <= 3


FORMER = f"""
set -eu
cd {FOLDER}
systemctl stop role-test-watch.timer role-test-watch.service
docker compose --project-name role-test down
mkdir -p former/secrets
cp -rL current/triton_models current/dcgm_counters.csv former/
cp -pL current/llama_cpp.key former/secrets/llama_cpp.key
sed -E 's#{FOLDER}/(parts|secrets)/([a-z_.]+)-[0-9a-f]{{12}}#{FOLDER}/\\1/\\2#; s#{FOLDER}/parts/#{FOLDER}/#' \
  current/compose.yml > former/compose.yml
rm -r releases current parts secrets healthy.json
mv former/* .
rmdir former
chmod 0700 secrets
cp -p compose.yml last_healthy.yml
sed -i 's#{FOLDER}/current#{FOLDER}#' watch.sh /etc/systemd/system/role-test-watch.service
systemctl daemon-reload
docker compose up --detach --wait --quiet-pull
systemctl start role-test-watch.timer
"""


def test_what_a_former_version_left_is_taken_over_or_gone_back_to(host: Host) -> None:
    with host.sudo():
        host.check_output("bash -c %s", FORMER)
        files = "cd /srv/inference && find . -type f -exec sha256sum {} + | sort -k 2"
        before = host.check_output(files)
        assert "last_healthy.yml" in before
    code, said = play(inference_stack_llama_cpp_extra_args=["--no-such-argument"])
    assert code != 0
    assert "was undone: the last healthy release runs again" in " ".join(said.split()), said
    with host.sudo():
        left = host.check_output(f"{files} | grep -v healthy.json")
    assert left == before
    assert ask(host, KEY) == 200
    assert watched(host)
    settled()
    assert ask(host, KEY) == 200
    with host.sudo():
        assert {*host.check_output(f"ls {FOLDER}").split()} == {
            *("current", "healthy.json", "parts", "releases", "secrets", "watch.sh"),
        }
        assert host.check_output(f"ls {FOLDER}/secrets").startswith("llama_cpp.key-")
    assert watched(host)
