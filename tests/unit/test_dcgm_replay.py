"""The DCGM exporter's stand-in: labelled, plausible, changing, and honest about what it is."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

IMAGE = Path(__file__).parents[2] / "lab" / "images" / "dcgm_exporter"
SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
START = 1_000_000.0


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dcgm_replay", IMAGE / "dcgm_replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dcgm_replay"] = module
    spec.loader.exec_module(module)
    return module


dcgm_replay = load()


@pytest.fixture(scope="module")
def recording() -> object:
    return dcgm_replay.parse_recording((IMAGE / "recording.prom").read_text(encoding="utf-8"))


def values(recording: object, now: float) -> dict[str, float]:
    text = dcgm_replay.render(recording, "lab", START, now)
    return {m[1]: float(m[3]) for m in map(SAMPLE.match, text.splitlines()) if m}


def test_every_sample_says_that_it_is_a_replay(recording: object) -> None:
    text = dcgm_replay.render(recording, "schlimers-server", START, START)
    samples = [match for match in map(SAMPLE.match, text.splitlines()) if match]
    assert samples
    for match in samples:
        assert 'replay="true"' in match[2]
        assert 'hostname="schlimers-server"' in match[2]
        assert all(f'{label}="' in match[2] for label in ("gpu", "UUID", "pci_bus_id", "device", "modelName"))
    assert "5070" not in text


def test_each_metric_has_one_help_and_one_type_before_its_sample(recording: object) -> None:
    lines = dcgm_replay.render(recording, "lab", START, START).splitlines()
    assert len(lines) % 3 == 0
    for help_line, type_line, sample in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        name = sample.partition("{")[0]
        assert help_line.startswith(f"# HELP {name} ")
        assert type_line in {f"# TYPE {name} gauge", f"# TYPE {name} counter"}


def test_the_fields_of_the_dashboards_are_there(recording: object) -> None:
    wanted = (
        "SM_CLOCK MEM_CLOCK GPU_TEMP POWER_USAGE TOTAL_ENERGY_CONSUMPTION PCIE_REPLAY_COUNTER GPU_UTIL MEM_COPY_UTIL"
    )
    wanted += " ENC_UTIL DEC_UTIL XID_ERRORS FB_FREE FB_USED MEMORY_TEMP"
    assert {f"DCGM_FI_DEV_{field}" for field in wanted.split()} <= set(values(recording, START))


def test_the_exporter_is_told_to_read_what_the_recording_has(recording: object) -> None:
    counters = Path(__file__).parents[2] / "roles" / "inference_stack" / "files" / "dcgm_counters.csv"
    rows = [line.split(", ", 2) for line in counters.read_text().splitlines() if not line.startswith("#")]
    assert {name for name, _, _ in rows} == set(values(recording, START))
    text = dcgm_replay.render(recording, "lab", START, START)
    for name, kind, _ in rows:
        assert f"# TYPE {name} {kind}\n" in text


def test_a_list_that_the_exporter_refuses_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    role = Path(__file__).parents[2] / "roles" / "inference_stack"
    dcgm_replay.check_collectors((role / "files" / "dcgm_counters.csv").read_text())
    wrong = tmp_path / "counters.csv"
    wrong.write_text("# Field, type, help.\nDCGM_FI_DEV_GPU_TEMP\n")
    assert dcgm_replay.main(["-f", str(wrong), "--recording", str(IMAGE / "recording.prom")]) == 1
    assert "counters.csv: line 2: 1 columns, expected field, type and help" in capsys.readouterr().err


def test_what_alerts_and_dashboards_ask_is_read(recording: object) -> None:
    root = Path(__file__).parents[2]
    places = ("roles/prometheus/templates", "roles/status_page/files", "roles/grafana/files", "tools/dashboards")
    files = [file for place in places for file in (root / place).rglob("*") if file.suffix in (".j2", ".py", ".json")]
    asked = set(re.findall(r"DCGM_FI_\w+", "".join(file.read_text(encoding="utf-8") for file in files)))
    # The name that a field had before DCGM 3.3.
    assert asked - {"DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"} <= set(values(recording, START))


def test_the_sentinel_keeps_every_digit(recording: object) -> None:
    text = dcgm_replay.render(recording, "lab", START, START + 77)
    line = next(line for line in text.splitlines() if line.startswith("DCGM_FI_DEV_MEMORY_TEMP{"))
    assert line.endswith(" 9223372036854775794")


def test_gauges_change_within_their_range(recording: object) -> None:
    period = dcgm_replay.PERIOD_S
    base = round(START / period) * period
    series = [values(recording, base + second) for second in range(0, int(period) + 1, 10)]
    for name, low, high in [
        ("SM_CLOCK", 345, 1980),
        ("GPU_TEMP", 38, 66),
        ("POWER_USAGE", 72.51, 420),
        ("GPU_UTIL", 0, 97),
        ("FB_USED", 5633, 5645),
    ]:
        seen = [point[f"DCGM_FI_DEV_{name}"] for point in series]
        assert (min(seen), max(seen)) == (low, high), name


def test_memory_adds_up_at_any_time(recording: object) -> None:
    for now in (START, START + 123, START + 300.5):
        point = values(recording, now)
        total = sum(point[f"DCGM_FI_DEV_FB_{part}"] for part in ("FREE", "USED", "RESERVED"))
        assert total == 81559


def test_energy_is_the_integral_of_power(recording: object) -> None:
    series = [values(recording, START + second) for second in range(601)]
    energy = [point["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"] for point in series]
    power = [point["DCGM_FI_DEV_POWER_USAGE"] for point in series]
    assert energy[0] == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(energy))
    joules = sum((first + second) / 2 for first, second in itertools.pairwise(power))
    assert energy[-1] == pytest.approx(joules * 1000, rel=1e-4)


def test_the_same_moment_gives_the_same_text(recording: object) -> None:
    assert dcgm_replay.render(recording, "lab", START, START + 5) == dcgm_replay.render(
        recording, "lab", START, START + 5
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "line 1"),
        ('# REPLAY A faster=2\nA{gpu="0"} 1', "line 1"),
        ('# REPLAY B busy=2\nA{gpu="0"} 1', "B"),
        ('# REPLAY A total_minus=C\nA{gpu="0"} 1', "C"),
    ],
)
def test_a_broken_recording_is_refused(text: str, message: str) -> None:
    with pytest.raises(dcgm_replay.RecordingError, match=message):
        dcgm_replay.parse_recording(text)


def test_a_missing_recording_ends_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dcgm_replay.main(["--recording", str(tmp_path / "none.prom"), "-a", "127.0.0.1:0"]) == 1
    assert "none.prom" in capsys.readouterr().err


def test_it_answers_over_http(recording: object) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), dcgm_replay.make_handler(recording, "lab", START))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        with urllib.request.urlopen(f"{base}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert b"DCGM_FI_DEV_GPU_UTIL{" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/other", timeout=5)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
