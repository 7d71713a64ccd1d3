"""hardware_profile against constructed machines: trees of /proc and /sys as Linux lays them out, and SMBIOS records."""

import json
import random
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import hardware_profile
from ansible.module_utils.ai_idp.hardware_profile import decide

ROOT = Path(__file__).parent.parent.parent
GIB = 1 << 30
KEY = b"0123456789abcdef0123456789abcdef"


def gpu(name: str, memory: int, number: int) -> dict[str, Any]:
    return {"name": name, "memory_total_bytes": memory, "memory_is_shared": False, "compute_capability": "12.0",
            "fingerprint": f"{number:016x}"}  # fmt: skip


RTX_5070 = gpu("NVIDIA GeForce RTX 5070 Ti", 16_303 << 20, 1)
RTX_4090 = gpu("NVIDIA GeForce RTX 4090", 24_564 << 20, 2)


def answer(*gpus: dict[str, Any], status: str | None = None) -> dict[str, Any]:
    return {"status": status or ("ok" if gpus else "none"), "gpus": list(gpus)}


def dimm(size_mib: int, serial: str = "1A2B3C4D", speed: int = 5600, part: str = "CMK64GX5M2B5600C40") -> bytes:
    """An SMBIOS type 17 record of 40 bytes and its strings."""
    raw = bytearray(0x28)
    struct.pack_into("<BBH", raw, 0, 17, 0x28, 0x1100)
    struct.pack_into("<H", raw, 0x0C, size_mib if size_mib < 0x7FFF else 0x7FFF)
    raw[0x12] = 0x22
    struct.pack_into("<H", raw, 0x15, 5600)
    raw[0x17], raw[0x18], raw[0x1A] = 1, 2, 3
    struct.pack_into("<I", raw, 0x1C, size_mib if size_mib >= 0x7FFF else 0)
    struct.pack_into("<H", raw, 0x20, speed)
    return bytes(raw) + b"\x00".join([b"Corsair", serial.encode(), part.encode()]) + b"\x00\x00"


def write(root: Path, path: str, content: str | bytes) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())


def disk(root: Path, name: str, size: int, **files: str) -> None:
    write(root, f"sys/block/{name}/size", f"{size // 512}\n")
    write(root, f"sys/block/{name}/removable", "0\n")
    write(root, f"sys/block/{name}/queue/rotational", "0\n")
    for path, content in files.items():
        write(root, f"sys/block/{name}/{path.replace('__', '/')}", content)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A workstation: one Ryzen, two modules of 64 GiB, an NVMe and a SATA disk, a USB stick and a loop device."""
    cpu = "".join(f"processor\t: {n}\nmodel name\t: AMD Ryzen 9 9900X 12-Core Processor\nphysical id\t: 0\n\n"
                  for n in range(24))  # fmt: skip
    write(tmp_path, "proc/cpuinfo", cpu)
    write(tmp_path, "sys/devices/system/cpu/present", "0-23\n")
    write(tmp_path, "proc/meminfo", "MemTotal:       131589804 kB\nMemFree: 1 kB\n")
    write(tmp_path, "etc/machine-id", KEY.decode())
    for slot in (0, 2):
        write(tmp_path, f"sys/firmware/dmi/entries/17-{slot}/raw", dimm(65_536, f"SERIAL{slot}"))
    write(tmp_path, "sys/firmware/dmi/entries/17-1/raw", dimm(0))
    disk(tmp_path, "nvme0n1", 2000 * 10**9, device__model="Samsung SSD 990 PRO 2TB   ", device__serial="S7DNNJ0W1\n")
    disk(tmp_path, "sda", 4000 * 10**9, device__model="CT4000MX500SSD1", device__vpd_pg80="\x00\x80\x00\x08ABC12345")
    disk(tmp_path, "sdb", 16 * 10**9, device__model="Ultra Fit", removable="1\n")
    disk(tmp_path, "loop0", 10**9)
    disk(tmp_path, "zram0", 10**9)
    return tmp_path


def profile(root: Path, gpus: dict[str, Any] | None = None) -> dict[str, Any]:
    return hardware_profile.read_profile(str(root), gpus or answer(RTX_5070))


def test_a_workstation_is_read(machine: Path) -> None:
    now = profile(machine)
    assert now["cpu"] == {"model": "AMD Ryzen 9 9900X 12-Core Processor", "sockets": 1, "threads": 24}
    assert now["memory"]["total_bytes"] == 128 * GIB
    assert [(row["type"], row["speed_mts"]) for row in now["memory"]["modules"]] == [("DDR5", 5600)] * 2
    assert [(row["model"], row["kind"]) for row in now["disks"]] == [
        ("CT4000MX500SSD1", "ssd"),
        ("Samsung SSD 990 PRO 2TB", "nvme"),
    ]
    assert now["gpus"][0]["memory_bytes"] == 16_303 << 20


def test_serial_numbers_are_not_kept_in_clear_text(machine: Path) -> None:
    text = hardware_profile.dump(decide(None, profile(machine))["profile"])
    for serial in ("S7DNNJ0W1", "ABC12345", "SERIAL0", KEY.decode()):
        assert serial not in text
    other = hardware_profile.identity(b"other machine", "S7DNNJ0W1")
    assert other not in text


def test_nothing_changes_by_restarts_kernels_and_drivers(machine: Path) -> None:
    first = decide(None, profile(machine))
    assert (first["status"], first["changes"]) == ("new", [])
    # Another kernel keeps more, names disks in another order, switches threads off; another driver tells less.
    write(machine, "proc/meminfo", "MemTotal:       130001111 kB\n")
    write(machine, "proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD Ryzen 9 9900X  12-Core Processor\n")
    (machine / "sys/block/nvme0n1").rename(machine / "sys/block/nvme1n1")
    (machine / "sys/block/sda").rename(machine / "sys/block/sdc")
    for one, two in ((0, 3), (2, 0)):
        (machine / f"sys/firmware/dmi/entries/17-{one}").rename(machine / f"sys/firmware/dmi/entries/17-{two}")
    card = {**RTX_5070, "compute_capability": None, "driver_version": "590.1", "pci_id": "00000000:05:00.0"}
    again = decide(first["profile"], profile(machine, answer(card)))
    assert (again["status"], again["changes"]) == ("unchanged", [])
    assert again["profile"] == first["profile"]
    assert again["fingerprint"] == first["fingerprint"]


def test_memory_without_modules_is_compared_with_a_tolerance(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n")
    write(tmp_path, "proc/meminfo", "MemTotal:        7802188 kB\n")
    stored = decide(None, profile(tmp_path, answer()))["profile"]
    assert stored["cpu"]["model"] == "ARM 0x41 part 0xd42"
    for kilobytes, changed in ((7_750_000, False), (7_500_000, False), (15_900_000, True)):
        write(tmp_path, "proc/meminfo", f"MemTotal: {kilobytes} kB\n")
        found = decide(stored, profile(tmp_path, answer()))
        assert bool(found["changes"]) is changed
        # Small steps do not add up: the first value stays.
        if not changed:
            assert found["profile"] == stored
    assert found["changes"] == ["Memory: 15.2 GiB in place of 7.4 GiB."]
    assert found["changed_parts"] == ["memory"]


def test_memory_blocks_count_what_the_kernel_keeps(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemTotal: 16000000 kB\n")
    write(tmp_path, "sys/devices/system/memory/block_size_bytes", "8000000\n")
    for number in range(128):
        write(tmp_path, f"sys/devices/system/memory/memory{number}/online", "1\n")
    assert profile(tmp_path)["memory"] == {"total_bytes": 16 * GIB, "modules": None}
    limited = hardware_profile.read_profile(str(tmp_path), answer(), container=True)["memory"]
    assert limited == {"total_bytes": 16_000_000 * 1024, "modules": None}


def test_the_lab_s_cards_are_told_one_after_the_other(machine: Path) -> None:
    """16 GB -> 24 GB -> none -> two cards; the run after each changes nothing."""
    stored = decide(None, profile(machine))["profile"]
    fingerprints = {stored["fingerprint"]}
    for gpus, sentences in (
        (answer(RTX_4090), [
            "GPU replaced: NVIDIA GeForce RTX 5070 Ti (15.9 GiB) by NVIDIA GeForce RTX 4090 (24.0 GiB).",
        ]),
        (answer(), ["GPU removed: NVIDIA GeForce RTX 4090 (24.0 GiB)."]),
        (answer(RTX_5070, RTX_4090), [
            "GPU added: NVIDIA GeForce RTX 4090 (24.0 GiB).", "GPU added: NVIDIA GeForce RTX 5070 Ti (15.9 GiB).",
        ]),
        (answer(RTX_4090, gpu("NVIDIA GeForce RTX 5070 Ti", 16_303 << 20, 9)), [
            "GPU replaced: NVIDIA GeForce RTX 5070 Ti (15.9 GiB) by another NVIDIA GeForce RTX 5070 Ti (15.9 GiB).",
        ]),
    ):  # fmt: skip
        found = decide(stored, profile(machine, gpus))
        assert (found["status"], found["changes"], found["changed_parts"]) == ("changed", sentences, ["gpus"])
        stored = found["profile"]
        assert decide(stored, profile(machine, gpus))["status"] == "unchanged"
        assert stored["fingerprint"] not in fingerprints
        fingerprints.add(stored["fingerprint"])


def test_a_gpu_that_can_t_be_asked_is_not_removed(machine: Path) -> None:
    stored = decide(None, profile(machine))["profile"]
    found = decide(stored, profile(machine, answer(status="unknown")))
    assert (found["status"], found["unknown_parts"]) == ("unchanged", ["gpus"])
    assert found["profile"] == stored
    # First seen while it did not answer, then told: that is news, not a change.
    blind = decide(None, profile(machine, answer(status="unknown")))["profile"]
    seen = decide(blind, profile(machine))
    assert seen["status"] == "unchanged"
    assert seen["profile"]["gpus"]


def test_disks_modules_and_cpu(machine: Path) -> None:
    stored = decide(None, profile(machine))["profile"]
    write(machine, "sys/block/nvme0n1/device/serial", "OTHER\n")
    disk(machine, "nvme1n1", 1000 * 10**9, device__model="WD Black", device__serial="W1")
    write(machine, "sys/firmware/dmi/entries/17-1/raw", dimm(32_768, "SERIAL9"))
    write(machine, "proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD Ryzen 9 9950X\n")
    write(machine, "sys/devices/system/cpu/present", "0-31\n")
    found = decide(stored, profile(machine))
    assert found["changes"] == [
        "CPU replaced: AMD Ryzen 9 9900X 12-Core Processor (24 threads) by AMD Ryzen 9 9950X (32 threads).",
        "Memory module added: 32.0 GiB DDR5 CMK64GX5M2B5600C40.",
        "Memory: 160.0 GiB in place of 128.0 GiB.",
        "Disk replaced: Samsung SSD 990 PRO 2TB (1862.6 GiB) by another Samsung SSD 990 PRO 2TB (1862.6 GiB).",
        "Disk added: WD Black (931.3 GiB).",
    ]
    assert found["changed_parts"] == ["cpu", "memory", "disks"]


def test_memory_that_runs_slower_is_told(machine: Path) -> None:
    stored = decide(None, profile(machine))["profile"]
    for slot in (0, 2):
        write(machine, f"sys/firmware/dmi/entries/17-{slot}/raw", dimm(65_536, f"SERIAL{slot}", speed=3600))
    assert decide(stored, profile(machine))["changes"] == ["Memory now runs at 3600 MT/s in place of 5600 MT/s."]


def test_equal_disks_without_serial_numbers_are_counted(tmp_path: Path) -> None:
    for name in ("sda", "sdb"):
        disk(tmp_path, name, 10**12, device__model="QEMU HARDDISK")
    stored = decide(None, profile(tmp_path))["profile"]
    disk(tmp_path, "sdc", 10**12, device__model="QEMU HARDDISK")
    assert decide(stored, profile(tmp_path))["changes"] == ["Disk added: QEMU HARDDISK (931.3 GiB)."]


def test_usb_and_network_disks_do_not_count(tmp_path: Path) -> None:
    for name, where in (("sda", "pci0000:00/usb1/1-2"), ("sdb", "platform/host3/session1"), ("sdc", "pci0000:00/ata1")):
        disk(tmp_path / where, name, 10**12, device__model=where)
        link = tmp_path / "sys/block" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tmp_path / where / "sys/block" / name)
    assert [row["model"] for row in profile(tmp_path)["disks"]] == ["pci0000:00/ata1"]


def test_broken_smbios_records_are_left_out() -> None:
    assert hardware_profile.parse_dimm(b"", KEY) is None
    chance = random.Random(3)
    whole = dimm(16_384)
    for _ in range(500):
        damaged = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(min(3, len(damaged))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        hardware_profile.parse_dimm(bytes(damaged), KEY)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"format": 99}', '{"format": 1}'])
def test_what_is_no_profile_is_begun_anew(text: str | None) -> None:
    assert hardware_profile.parse_stored(text) is None


def module_run(tmp_path: Path, arguments: dict[str, Any], *flags: str) -> dict[str, Any]:
    ansible = Path(sys.executable).parent / "ansible"
    done = subprocess.run(
        [ansible, "localhost", "-i", "localhost,", "-c", "local", *flags, "-m", "hardware_profile", "-a",
         json.dumps(arguments), "-e", f"ansible_python_interpreter={sys.executable}"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
             "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.json", "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    document, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
    return document["plays"][0]["tasks"][0]["hosts"]["localhost"]


def test_the_module_keeps_predicts_and_removes(machine: Path) -> None:
    path = machine / "etc/ansible/facts.d/ai_idp_hardware.fact"
    wanted = {"root": str(machine), "path": str(path), "gpu_info": answer(RTX_5070), "container": False}
    predicted = module_run(machine, wanted, "--check", "--diff")
    assert (predicted["changed"], predicted["status"]) == (True, "new")
    assert not path.exists()
    assert "RTX 5070 Ti" in predicted["diff"]["after"]
    assert module_run(machine, wanted)["changed"] is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert json.loads(path.read_text())["fingerprint"] == predicted["fingerprint"]
    assert module_run(machine, wanted)["changed"] is False
    other = module_run(machine, {**wanted, "gpu_info": answer(RTX_4090)}, "--check")
    assert (other["status"], len(other["changes"])) == ("changed", 1)
    assert other["previous"]["gpus"][0]["name"] == "NVIDIA GeForce RTX 5070 Ti"
    path.chmod(0o600)
    assert module_run(machine, wanted)["changed"] is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    gone = module_run(machine, {**wanted, "state": "absent"})
    assert (gone["changed"], path.exists()) == (True, False)
    assert module_run(machine, {**wanted, "state": "absent"})["changed"] is False
    assert "registered result" in module_run(machine, {**wanted, "gpu_info": {"x": 1}})["msg"]
