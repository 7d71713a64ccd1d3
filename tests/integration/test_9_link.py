"""The link measurement against delays that are known, and what RPC costs on such a link.

Two containers of its own, apart from the lab's hosts, joined by one link. The kernel's netem delays what one end sends
where the kernel has it; where not, a stand-in carries the packets later by the same rule (tests/delayed_link.py). Both
ends are the kernel's own TCP, and the test's output says which of the two it was. What RPC costs is measured at the two
extreme delays; in the full profile between them too.
"""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import benchmark_measure, rpc_latency

from .suite import FULL, ROOT

PROGRAM = ROOT / "module_utils" / "ai_idp" / "rpc_link.py"
IMAGE = "ai-idp-lab/host:current"
A, B, CARRIER, SERVER = "h-link-a", "h-link-b", "h-link-carrier", "h-link-rpc"
ADDRESS_A, ADDRESS_B = "10.99.99.1", "10.99.99.2"
INTERFACE = "link0"
DELAYS = (0.4, 2.0, 5.0)
RPC_PORT = 50052
THROUGH = f"{ADDRESS_B}:{RPC_PORT}"
# So many tokens per second are to be left for the peer's memory to be worth it. The last delay can't leave more than
# 33, and the first leaves several hundred: between them there is room for a machine that does other things beside.
SUFFICIENT = 110.0
COSTS = (0.4, 5.0, 30.0) if FULL else (0.4, 30.0)
# What is measured is the link, and not how long this machine's other work keeps a program waiting.
CAPABILITIES = ("--cap-add=NET_ADMIN", "--cap-add=SYS_NICE")
FIRST = ("nice", "--adjustment=-19")


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    if check and done.returncode:
        pytest.fail(f"docker {' '.join(arguments[:3])}: {done.stderr.strip()}")
    return done.stdout.strip()


def remove() -> None:
    docker("rm", "--force", CARRIER, SERVER, A, B, check=False)
    docker("network", "rm", "h-link", check=False)


class Carrier:
    """The stand-in: one process that carries the packets of both ends."""

    kind = "a stand-in for netem"

    def __init__(self) -> None:
        pids = [docker("inspect", "--format", "{{.State.Pid}}", name) for name in (A, B)]
        self.process = subprocess.Popen(
            [
                *("docker", "run", "--interactive", "--rm", "--name", CARRIER, "--network=none", "--pid=host"),
                *("--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=SYS_PTRACE", "--cap-add=SYS_NICE"),
                *("--security-opt=apparmor=unconfined", "--device=/dev/net/tun"),
                *(f"--volume={ROOT / 'tests' / 'delayed_link.py'}:/delayed_link.py:ro", "--entrypoint=nice", IMAGE),
                # It has to be awake when a packet is due, whatever else this machine does.
                *("--adjustment=-20", "python3", "/delayed_link.py", pids[0], ADDRESS_A, pids[1], ADDRESS_B),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def set_delay(self, milliseconds: float) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{milliseconds}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"delay {milliseconds:g} ms\n"

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)


class Netem:
    """The kernel's own delay, on what B sends."""

    kind = "netem"

    def __init__(self) -> None:
        docker("network", "create", "--subnet", "10.99.99.0/24", "--gateway", "10.99.99.254", "h-link")
        for name, address in ((A, ADDRESS_A), (B, ADDRESS_B)):
            docker("network", "connect", "--ip", address, "h-link", name)
            docker("exec", name, "ip", "link", "set", "eth1", "down")
            docker("exec", name, "ip", "link", "set", "eth1", "name", INTERFACE)
            docker("exec", name, "ip", "link", "set", INTERFACE, "up")

    def set_delay(self, milliseconds: float) -> None:
        delay = f"{milliseconds}ms"
        docker("exec", B, "tc", "qdisc", "replace", "dev", INTERFACE, "root", "netem", "delay", delay, "limit", "10000")

    def close(self) -> None:
        return


def kernel_has_netem() -> bool:
    probe = ["docker", "exec", B, "tc", "qdisc", "replace", "dev", "lo", "root", "netem", "delay", "0ms"]
    if subprocess.run(probe, capture_output=True, timeout=30).returncode:
        return False
    docker("exec", B, "tc", "qdisc", "del", "dev", "lo", "root")
    return True


@dataclass
class Link:
    """The joined containers, and what is measured between them."""

    carrier: Carrier | Netem
    folder: Path

    def measure(self, delay: float) -> dict[str, Any]:
        """The survey of the module, whose client runs in container A."""
        self.carrier.set_delay(delay)
        ends = [
            {"address": address, "prefix": 30, "interface": INTERFACE, "kind": rpc_latency.VIRTUAL}
            for address in (ADDRESS_A, ADDRESS_B)
        ]
        folder, program = self.folder / f"{delay:g}", PROGRAM.read_text()
        wanted = rpc_latency.Wanted(
            ends[:1], ends[1:], str(folder), program, runs=5, warmup_runs=1, seconds=0.05, timeout=60
        )
        result: dict[str, Any] = rpc_latency.Survey(wanted, lambda peer: (INTERFACE, ADDRESS_A)).measure()
        assert (result["status"], result["reason"]) == ("ok", None)
        return result


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    remove()
    code = f"--volume={PROGRAM}:/rpc_link.py:ro"
    for name in (A, B):
        more = [*CAPABILITIES, "--network=none" if name == A else "--network=bridge", code]
        docker("run", "--detach", "--rm", f"--name={name}", *more, "--entrypoint=sleep", IMAGE, "600")
    carrier: Carrier | Netem | None = None
    argv = rpc_latency.client_argv

    def inside(program: str, path: rpc_latency.Path, port: int, seconds: float) -> list[str]:
        return ["docker", "exec", A, *FIRST, "python3", "-I", "/rpc_link.py", *argv(program, path, port, seconds)[3:]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rpc_latency, "client_argv", inside)
        try:
            netem = kernel_has_netem()
            if netem:
                # Docker connects no second network to a container without one.
                docker("rm", "--force", A)
                more = [*CAPABILITIES, "--network=bridge", code]
                docker("run", "--detach", "--rm", f"--name={A}", *more, "--entrypoint=sleep", IMAGE, "600")
            elif not Path("/dev/net/tun").exists():
                pytest.skip("neither netem (sch_netem) nor /dev/net/tun is in this machine's kernel")
            carrier = Netem() if netem else Carrier()
            server = ["--bind", ADDRESS_B, "--port", str(rpc_latency.PORT), "--allow", ADDRESS_A, "--lifetime", "500"]
            docker("exec", "--detach", B, *FIRST, "python3", "-I", "/rpc_link.py", "server", *server)
            time.sleep(0.5)
            yield Link(carrier, tmp_path_factory.mktemp("link"))
        finally:
            if carrier:
                carrier.close()
            remove()


@pytest.fixture(scope="module")
def measured(link: Link) -> dict[float, dict[str, Any]]:
    return {delay: link.measure(delay) for delay in DELAYS}


def figure_of(result: dict[str, Any], metric: str) -> dict[str, Any]:
    (path,) = result["subject"]["paths"]
    figures: dict[str, Any] = path["metrics"][metric]
    return figures


@pytest.mark.parametrize("delay", DELAYS)
def test_the_latency_of_the_link_is_right_within_10_percent(
    measured: dict[float, dict[str, Any]], link: Link, delay: float
) -> None:
    found = figure_of(measured[delay], rpc_latency.LINK_METRIC)
    print(
        f"{link.carrier.kind}, {delay:g} ms: {found['mean']:.3f} ({found['ci95_low']:.3f} to {found['ci95_high']:.3f})"
    )
    assert found["n"] == 5
    assert found["mean"] == pytest.approx(delay, rel=0.10)


@pytest.mark.parametrize("delay", DELAYS)
def test_what_a_program_waits_for_holds_the_delay_once(measured: dict[float, dict[str, Any]], delay: float) -> None:
    """Never less than the link, and little more: a millisecond for the programs, since this machine does other work."""
    for name in ("rtt_ms", "rpc_latency_ms"):
        least = min(sample for entry in measured[delay]["runs"] for sample in entry["samples"][name])
        assert delay <= least < 1.1 * delay + 1.0, name


def llama_image() -> str:
    tags = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "ai-idp-lab/llama-cpp").splitlines()
    assert tags, "the lab's image of llama.cpp is not there: ai-idp lab up"
    return tags[0]


def tokens_per_second(folder: Path, name: str, model: Path, **more: Any) -> dict[str, Any]:
    """What the role benchmark would measure: llama-bench, in container A's network."""
    command = [
        *("docker", "run", "--rm", f"--network=container:{A}", f"--volume={model.parent}:{model.parent}:ro"),
        *("--user=0", "--cap-add=SYS_NICE", "--entrypoint=nice", llama_image(), *FIRST[1:], "/app/llama-bench"),
    ]
    parameters = {
        "command": command,
        "model_path": str(model),
        "prompt_tokens": 8,
        "output_tokens": 24,
        "threads": 1,
        **more,
    }
    wanted = benchmark_measure.Wanted(
        name,
        "llama_bench",
        parameters,
        str(folder),
        runs=5,
        warmup_runs=1,
        timeout=120,
        build="llama.cpp",
        model="tiny",
    )
    measurement = benchmark_measure.Measurement(wanted)
    assert measurement.prepare(), measurement.result["reason"]
    result: dict[str, Any] = measurement.measure()
    # The machine of the tests is never at rest; what is shown here is that the verdict follows the link.
    result["flags"] = []
    return result


def test_the_verdict_on_offloading_follows_the_link(
    link: Link, measured: dict[float, dict[str, Any]], tmp_path: Path, tiny_gguf: Path
) -> None:
    docker(
        *("run", "--detach", "--rm", f"--name={SERVER}", f"--network=container:{B}", "--user=0", "--cap-add=SYS_NICE"),
        *("--entrypoint=nice", llama_image(), *FIRST[1:], "/app/ggml-rpc-server"),
        *("-H", ADDRESS_B, "-p", str(RPC_PORT), "-t", "1"),
    )
    local = tokens_per_second(tmp_path, "local", tiny_gguf, gpu_layers=0)
    assert local["status"] == "ok", local["reason"]
    ours = [entry["metrics"]["decode_tokens_per_second"] for entry in local["runs"]]
    minimum = SUFFICIENT / (sum(ours) / len(ours))
    found = {}
    for delay in COSTS:
        link.carrier.set_delay(delay)
        remote = tokens_per_second(tmp_path, f"remote-{delay:g}", tiny_gguf, extra_args=["--rpc", THROUGH])
        assert remote["status"] == "ok", remote["reason"]
        found[delay] = rpc_latency.offload_of(local, remote, measured.get(delay), THROUGH, minimum)
        print(f"{link.carrier.kind}, {delay:g} ms: {found[delay]['verdict']}: {found[delay]['reason']}")
    assert found[COSTS[0]]["verdict"] == "worth_it"
    assert found[COSTS[-1]]["verdict"] == "not_worth_it"
    rates = [found[delay]["decode"]["remote"]["mean"] for delay in COSTS]
    assert rates == sorted(rates, reverse=True)
    # Each token waits for the link once at least, so no peer is quicker than its link.
    assert all(rate < 1000 / delay for rate, delay in zip(rates, COSTS, strict=True))


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    subprocess.run(
        ["python", "lab/tiny_models.py", "--out", str(folder / "hub")],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (model,) = (folder / "hub").rglob("*.gguf")
    # The container's user is nobody.
    for path in (model, *model.parents):
        if path == folder.parent.parent:
            break
        path.chmod(0o755)
    return model
