"""Golden tests of gpu_info: whole inputs, whole answers. ``tests/golden/gpu/README.md`` says which were captured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import gpu_info, gpu_jetson
from ansible.module_utils.ai_idp.gpu_info import Answer, Probe

GOLDEN = Path(__file__).parent.parent / "golden" / "gpu"
H100 = "GPU-00000000-0000-0000-0000-000000000000, 9.0\n"
ONE = ["0000:00:06.0"]


def smi(name: str, rc: int = 0, capabilities: str | None = None, pci: list[str] | None = None) -> Probe:
    found = Answer(0, capabilities) if capabilities else None
    return Probe(smi=Answer(rc, (GOLDEN / name).read_text()), compute_capabilities=found, pci_devices=pci)


def jetson() -> Probe:
    folder = GOLDEN / "constructed-jetson-orin-nano"
    read = gpu_jetson.probe_jetson(str(folder), 5)
    programs = {"tegrastats": "tegrastats.txt", "power_mode": "nvpmodel.txt"}
    texts: dict[str, Any] = {key: (folder / name).read_text() for key, name in programs.items()}
    return Probe(jetson=replace(read, **texts))


CASES = {
    "captured-h100": lambda: smi("../h100/nvidia-smi-q-x.xml", 0, H100, ONE),
    "captured-h100-nvml": lambda: Probe(nvml=json.loads((GOLDEN / "../h100/nvml.json").read_text())),
    "captured-h200": lambda: smi("../h200/nvidia-smi-q-x.xml"),
    "captured-h200-nvml": lambda: Probe(nvml=json.loads((GOLDEN / "../h200/nvml.json").read_text())),
    "constructed-rtx5070ti": lambda: smi(
        "constructed-rtx5070ti.xml", 0, "GPU-00000000-0000-0000-0000-000000005070, 12.0\n", ["0000:01:00.0"]
    ),
    "constructed-two-h100": lambda: smi("constructed-two-h100.xml", 0, None, [*ONE, "0000:00:07.0"]),
    "constructed-mig": lambda: smi("constructed-mig.xml", 0, H100, ONE),
    "constructed-no-driver": lambda: smi("constructed-no-driver.txt", 9, None, ONE),
    "constructed-mismatch": lambda: smi("constructed-mismatch.txt", 18, None, ONE),
    "constructed-jetson-orin-nano": jetson,
    "constructed-no-gpu": lambda: Probe(pci_devices=[]),
}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    answer = gpu_info.describe(CASES[case]())
    assert answer == json.loads((GOLDEN / f"{case}.json").read_text())


def test_both_backends_see_the_same_card() -> None:
    """Two captures of cards of one kind, by each backend: only what time and the host change is apart."""
    one, other = (gpu_info.describe(CASES[name]()) for name in ("captured-h100", "captured-h100-nvml"))
    apart = {key for key, value in one["gpus"][0].items() if value != other["gpus"][0][key]}
    assert apart == {"power_draw_watts", "temperature_celsius"}
    assert one["fingerprint"] == other["fingerprint"]


def test_every_answer_has_the_same_keys() -> None:
    for case in CASES:
        for gpu in gpu_info.describe(CASES[case]())["gpus"]:
            assert tuple(gpu) == gpu_info.GPU_KEYS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GR3D_FREQ 99%@[1019] gpu@61.2C VDD_IN 15004mW/9000mW", (1019, 61, 15.004)),
        ("GR3D_FREQ 0%@305 GPU@40C POM_5V_IN 2532/2532", (305, 40, 2.532)),
        ("GR3D_FREQ 12% gpu@-256C", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_lines_of_tegrastats(line: str, expected: tuple[Any, ...]) -> None:
    """Constructed after NVIDIA's description of the line, JetPack 6 and older."""
    found = gpu_jetson.parse_tegrastats(line)
    assert (found["clock_sm_mhz"], found["temperature_celsius"], found["power_draw_watts"]) == expected


def test_power_modes() -> None:
    assert gpu_jetson.power_limit("NV Power Mode: 15W\n0\n") == 15.0
    assert gpu_jetson.power_limit("NV Power Mode: MODE_30W\n") == 30.0
    assert gpu_jetson.power_limit("NV Power Mode: MAXN_SUPER\n2\n") is None
