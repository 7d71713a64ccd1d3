"""Run the scenarios of the named roles, or of all, some at a time and each on a test host of its own.

Logs and times.json are in artifacts/molecule/. Which scenarios failed is said at the end; the exit code is then 1.
"""

import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from ipaddress import IPv4Address
from pathlib import Path

from scenarios import times, warm

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "artifacts" / "molecule"
# One more than there are processors: each waits now and then, for a timer or a download.
AT_A_TIME = min((os.cpu_count() or 1) + 1, 6)
# The lab's host with today's package lists: roles fetch them anew when they are a day old, each on its own host.
IMAGE = "ai-idp-lab/role-test:current"
DOCKERFILE = """
FROM ai-idp-lab/host:current
ARG DAY
RUN echo "package lists of $DAY" && apt-get update && touch /var/lib/apt/lists
"""
# How a failed test and a failed task begin, and how much of them is said at the end.
COMPLAINTS = ("FAILED ", "ERROR ", "fatal: ", "[ERROR]")
COMPLAINT_CHARS = 400
MOST_COMPLAINTS = 6
# Hosts and the people who test them have this key.
KEY = ROOT / "inventory/lab/state/id_ed25519.pub"
# The first test host's address; the others follow it.
FIRST_ADDRESS = "10.77.0.100"
# The long ones come first, so that none of them runs alone at the end. Any other order works too, it takes longer.
LONG = (
    # Where its image is not there yet.
    "n8n",
    "nginx_gateway",
    "tls_certificates",
    "inference_stack",
    "mlflow",
    "edge_inference",
    "nvidia_driver",
    "jetson_platform",
    "llama_cpp",
    "grafana",
    "prometheus",
    "knowledge_vault",
    "benchmark",
)


def ordered(names: list[str]) -> list[str]:
    """Return scenarios in the order in which they are started.

    Args:
        names: The scenarios, in any order.

    Returns:
        The long ones first, in LONG's order, then the others by name.
    """
    return sorted(names, key=lambda name: (LONG.index(name) if name in LONG else len(LONG), name))


@contextmanager
def warm_path() -> Iterator[str]:
    """Run the warm process, and give a PATH whose programs ask it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warm"
        warm.write_clients(Path(folder) / "bin", path)
        # Ctrl-C reaches the clients; when they leave, it ends what it does for them.
        with (
            socket.socket(socket.AF_UNIX) as listener,
            (LOGS / "warm.log").open("w", encoding="utf-8") as log,
        ):
            listener.bind(str(path))
            listener.listen()
            server = subprocess.Popen(
                [sys.executable, "-m", "scenarios.warm", str(listener.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        with server:
            try:
                yield f"{folder}/bin:{os.environ['PATH']}"
            finally:
                server.terminate()


def make_image() -> str:
    """Make the test hosts' image; Docker's cache has it when it was made today.

    Returns:
        What Docker said where it could not, else nothing.
    """
    done = subprocess.run(
        ["docker", "build", "--tag", IMAGE, "--label", "ai-idp.lab=image", "--build-arg", f"DAY={date.today()}", "-"],
        input=DOCKERFILE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    return f"{done.stdout}\nThe test hosts' image was not made. `ai-idp lab up --hosts-only` makes what it stands on."


def run_scenario(name: str, address: str, path: str) -> tuple[times.Timing, float, bool]:
    """Run one scenario to its end, and say so.

    Args:
        name: The scenario.
        address: Its test host's address.
        path: The PATH to run it with.

    Returns:
        Its phases, its seconds, and whether it passed.
    """
    print(f"molecule {name}: check, converge, idempotence, verify", flush=True)
    started = time.monotonic()
    timing = times.Timing(name, time.monotonic)
    log = LOGS / f"{name}.log"
    # What a scenario keeps, connections among it, is never found by the next one: its test host is another.
    with (
        tempfile.TemporaryDirectory() as folder,
        log.open("w", encoding="utf-8", errors="replace") as file,
        subprocess.Popen(
            ["molecule", "test", "--scenario-name", name],
            cwd=ROOT,
            env={
                **os.environ,
                "PATH": path,
                # Frames and colours cost time, and a log is searched.
                "NO_COLOR": "1",
                "ROLE_TEST_ADDRESS": address,
                "ROLE_TEST_IMAGE": IMAGE,
                "MOLECULE_EPHEMERAL_DIRECTORY": folder,
                "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{folder}/cp",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as molecule,
    ):
        assert molecule.stdout
        for line in molecule.stdout:
            file.write(line)
            file.flush()
            timing.read(line)
    timing.end()
    took = time.monotonic() - started
    passed = molecule.returncode == 0
    if passed:
        print(f"molecule {name}: passed in {took:.0f} s, {timing.tests}", flush=True)
    else:
        # In one piece, whatever the other scenarios say meanwhile.
        end = log.read_text(encoding="utf-8").splitlines()[-60:]
        end.append(f"molecule {name}: FAILED after {took:.0f} s; the whole log is {log.relative_to(ROOT)}")
        print("\n".join(end), flush=True)
    return timing, took, passed


def complaints(name: str, log: str) -> list[str]:
    """Find in a scenario's log what failed, for the end, where somebody looks first.

    Args:
        name: The scenario.
        log: All that it said.

    Returns:
        A line for each failed test or task, the first ones.
    """
    found = [line.strip() for line in log.splitlines() if line.strip().startswith(COMPLAINTS)]
    return [f"  {name}: {line[:COMPLAINT_CHARS]}" for line in found[:MOST_COMPLAINTS]]


def main(names: list[str]) -> int:
    """Run scenarios.

    Args:
        names: The scenarios; all, where none is named.

    Returns:
        The exit code: 0 when all passed, else 1.
    """
    known = {file.parent.name for file in ROOT.glob("molecule/*/molecule.yml")}
    if unknown := sorted(set(names) - known):
        print(f"run-molecule: no scenario {', '.join(unknown)}; there are {', '.join(sorted(known))}", file=sys.stderr)
        return 1
    if not KEY.is_file():
        print("run-molecule: the lab's hosts are not there: `make lab-hosts` makes them", file=sys.stderr)
        return 1
    LOGS.mkdir(parents=True, exist_ok=True)
    if failure := make_image():
        print(f"run-molecule: {failure}", file=sys.stderr)
        return 1
    first = IPv4Address(os.environ.get("ROLE_TEST_ADDRESS", FIRST_ADDRESS))
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in range(AT_A_TIME):
        addresses.put(str(first + number))
    started = time.monotonic()

    with warm_path() as path, ThreadPoolExecutor(AT_A_TIME) as pool:

        def run(name: str) -> tuple[times.Timing, float, bool]:
            address = addresses.get()
            try:
                return run_scenario(name, address, path)
            finally:
                addresses.put(address)

        done = list(pool.map(run, ordered(names or sorted(known))))

    result = times.report(done, time.monotonic() - started, AT_A_TIME)
    (LOGS / "times.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"molecule: {len(done)} scenarios in {result['seconds']:.0f} s; the slowest phases (all: times.json):")
    print("\n".join(times.slowest(result)))
    failed = sorted(timing.scenario for timing, _, passed in done if not passed)
    for name in failed:
        print("\n".join(complaints(name, (LOGS / f"{name}.log").read_text(encoding="utf-8"))))
    if failed:
        print(f"failed: {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    # It was for this program alone.
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main(sys.argv[1:]))
