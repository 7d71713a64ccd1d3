"""What services may have of a host's memory, on constructed ``/proc`` files."""

from pathlib import Path

import pytest
from ansible.module_utils.ai_idp import unit_memory

KIB, MIB = 1 << 10, 1 << 20
UNITS = ["edge-inference.service", "edge-rpc.service"]
NVMAP = """\
CLIENT                        PROCESS      PID        SIZE
user                     llama-server      100     819200K
user                             gdm x      900       2048K
total                                              821248K
"""


def process(root: Path, pid: int, cgroup: str, anonymous_kb: int) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(cgroup)
    (folder / "status").write_text(f"Name:\tx\nVmRSS:\t 9999999 kB\nRssAnon:\t {anonymous_kb} kB\nRssShmem:\t 4 kB\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    process(tmp_path, 100, "0::/system.slice/edge-inference.service\n", 102_400)
    process(tmp_path, 101, "9:name=systemd:/docker/x/system.slice/edge-rpc.service\n4:memory:/\n0::/\n", 51_200)
    process(tmp_path, 900, "0::/user.slice/session-1.scope\n", 4_000_000)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 7802188 kB\nMemAvailable: 5000000 kB\n")
    return tmp_path


def test_what_services_hold_is_theirs_again(root: Path) -> None:
    found = unit_memory.describe(str(root), UNITS, [])
    assert found["held_bytes"] == {UNITS[0]: 102_404 * KIB, UNITS[1]: 51_204 * KIB}
    assert found["usable_bytes"] == (5_000_000 + 102_404 + 51_204) * KIB


def test_memory_of_a_jetsons_gpu_is_counted_too(root: Path) -> None:
    clients = root / unit_memory.NVMAP_CLIENTS
    clients.parent.mkdir(parents=True)
    clients.write_text(NVMAP)
    found = unit_memory.describe(str(root), UNITS, [{"index": 0, "memory_is_shared": True, "memory_used_bytes": 1}])
    assert found["held_bytes"][UNITS[0]] == (102_404 + 819_200) * KIB
    (gpu,) = found["gpus"]
    assert gpu["memory_total_bytes"] == 7_802_188 * KIB
    assert gpu["memory_total_bytes"] - gpu["other_processes_bytes"] == found["usable_bytes"]


def test_no_more_than_there_is_can_be_used(root: Path) -> None:
    (root / "proc/meminfo").write_text("MemTotal: 100000 kB\nMemAvailable: 90000 kB\n")
    assert unit_memory.describe(str(root), UNITS, [])["usable_bytes"] == 100_000 * KIB


def test_unknown_memory_is_unknown(root: Path) -> None:
    (root / "proc/meminfo").write_text("")
    assert unit_memory.describe(str(root), UNITS, [])["usable_bytes"] is None


def test_a_card_of_its_own_counts_what_others_hold(root: Path) -> None:
    gpu = {
        "memory_used_bytes": 3000 * MIB,
        "processes": [{"pid": 100, "used_memory_bytes": 1000 * MIB}, {"pid": 900, "used_memory_bytes": 500 * MIB}],
    }
    (row,) = unit_memory.describe(str(root), UNITS, [gpu, {"memory_used_bytes": None}])["gpus"][:1]
    assert row["other_processes_bytes"] == 2000 * MIB


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/edge-rpc.service\n", "edge-rpc.service"),
        ("0::/system.slice/docker.service/edge-rpc.service\n", "edge-rpc.service"),
        ("4:memory:/system.slice/edge-rpc.service\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_the_service_of_a_process_is_known(cgroup: str, unit: str | None) -> None:
    assert unit_memory.unit_of(cgroup) == unit
