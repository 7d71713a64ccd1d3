"""A Jetson as it is read and set, on a constructed board (``tests/golden/jetson``, see its README)."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import jetson, jetson_power
from ansible.module_utils.ai_idp.jetson_power import Plan, PowerError, Programs, Wish

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "jetson"
METRICS = ROOT / "roles" / "jetson_platform" / "files" / "jetson_metrics.py"
PACKAGE = "36.4.7-20250918154033"
MODES = ["15W", "25W", "MAXN_SUPER", "7W"]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(GOLDEN / "board", tmp_path / "board")
    monkeypatch.setenv("CONSTRUCTED_BOARD", str(tmp_path / "board"))
    return tmp_path / "board"


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(str(GOLDEN / "nvpmodel"), str(GOLDEN / "jetson_clocks"), str(tmp_path / "store" / "clocks.conf"))


def describe(board: Path, package: str | None = PACKAGE) -> dict[str, Any]:
    return jetson.describe(str(board), 10, package, str(GOLDEN / "nvpmodel"))


def wanted(mode: str = "", clocks: str = "keep") -> Wish:
    return Wish(mode, clocks, "jetson_platform_power_mode")


def carry_out(board: Path, programs: Programs, wish: Wish) -> tuple[Plan, bool]:
    todo = jetson_power.plan(wish, jetson.read_state(str(board), 10, programs.nvpmodel), programs)
    return todo, jetson_power.carry_out(todo, str(board), 10, programs)


def test_the_board_is_read(board: Path) -> None:
    found = describe(board)
    assert found["is_jetson"] is True
    assert found["compute_capability"] == "8.7"
    assert found["release"] == "36.4.7"
    assert (found["power_mode"], found["power_modes"], found["boot_power_mode"]) == ("15W", MODES, "25W")
    assert found["clocks_locked"] is False
    assert [(swap["name"], swap["kind"]) for swap in found["swaps"]] == [
        ("/dev/zram0", "zram"),
        ("/mnt/nvme/swapfile", "file"),
    ]


def test_another_host_has_the_same_keys_and_nothing_in_them(board: Path, tmp_path: Path) -> None:
    found = describe(tmp_path / "nowhere", None)
    assert found["is_jetson"] is False
    assert found.keys() == describe(board).keys()
    assert not any(found.values())


@pytest.mark.parametrize(
    ("release", "verdict"),
    [
        ("36.4.7", "known_bad"),
        ("36.5.0", "no_known_problem"),
        ("38.2.1", "no_known_problem"),
        ("36.4.4", "no_known_problem"),
        ("36.4.3", "no_known_problem"),
        ("36.4.0", "old"),
        ("36.3", "old"),
        ("35.6.1", "old"),
        (None, "unknown"),
    ],
)
def test_a_release_is_judged(release: str | None, verdict: str) -> None:
    judgement = jetson.judge_release(release)
    assert judgement.verdict == verdict
    assert judgement.reason
    assert bool(judgement.remedy) is (verdict != "no_known_problem")


def test_a_bad_release_is_told_with_why_and_what_to_do(board: Path) -> None:
    (message,) = describe(board)["messages"]
    assert "36.4.7" in message
    assert "NvMap" in message
    assert "36.5" in message


def test_a_half_done_upgrade_is_told(board: Path) -> None:
    found = describe(board, "36.5.0-20260115194252")
    assert found["release"] == "36.5.0"
    assert "was not finished" in found["messages"][0]


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic", "36.4.7"),
        ("# R35 (release), REVISION: 6.1, GCID: 36814985", "35.6.1"),
        ("# R32 (release), REVISION: 7.1", "32.7.1"),
        ("something else", None),
        (None, None),
    ],
)
def test_the_release_file_is_read(text: str | None, release: str | None) -> None:
    assert jetson.file_release(text) == release


@pytest.mark.parametrize("name", ["25W", "25w", "MODE_25W"])
def test_a_mode_is_found_by_its_name(name: str) -> None:
    modes, default = jetson.parse_modes((GOLDEN / "board/etc/nvpmodel.conf").read_text())
    assert jetson.find_mode(name, modes) == jetson.PowerMode(1, "25W")
    assert default == 1


def test_a_mode_is_set_once(board: Path, programs: Programs) -> None:
    todo, waits = carry_out(board, programs, wanted("25W"))
    assert (todo.steps, waits) == (["power mode 15W to 25W"], False)
    assert describe(board)["power_mode"] == "25W"
    assert carry_out(board, programs, wanted("25W"))[0] == Plan()


def test_a_mode_that_does_not_exist_is_refused_with_those_that_do(board: Path, programs: Programs) -> None:
    with pytest.raises(PowerError) as error:
        carry_out(board, programs, wanted("40W", "maximum"))
    assert str(error.value) == (
        "jetson_platform_power_mode is '40W', which this board does not have. Set one of 15W, 25W, MAXN_SUPER, 7W."
    )
    assert describe(board)["power_mode"] == "15W"
    assert describe(board)["clocks_locked"] is False


def test_a_mode_that_takes_a_restart_is_not_set(board: Path, programs: Programs) -> None:
    todo, waits = carry_out(board, programs, wanted("7W"))
    assert todo.target == jetson.PowerMode(3, "7W")
    assert waits
    assert describe(board)["power_mode"] == "15W"


def test_clocks_are_held_and_freed(board: Path, programs: Programs) -> None:
    before = describe(board)["clocks"]
    assert carry_out(board, programs, wanted(clocks="maximum"))[0].steps == ["clocks held at their highest"]
    assert describe(board)["clocks_locked"] is True
    assert carry_out(board, programs, wanted(clocks="maximum"))[0] == Plan()
    assert carry_out(board, programs, wanted(clocks="dynamic"))[0].steps == ["clocks follow the load"]
    assert describe(board)["clocks"] == before


def test_clocks_of_another_mode_are_not_restored(board: Path, programs: Programs) -> None:
    Path(programs.store).parent.mkdir()
    Path(programs.store).write_text(f"{board}/sys/class/devfreq/17000000.gpu/max_freq 1\n")
    carry_out(board, programs, wanted(clocks="maximum"))
    carry_out(board, programs, wanted(clocks="dynamic"))
    assert next(clock["most"] for clock in describe(board)["clocks"] if clock["name"].endswith(".gpu")) == 612_000_000


def test_clocks_that_stay_free_are_named(board: Path, programs: Programs) -> None:
    todo = Plan(lock=True)
    said = jetson_power.free_clocks(todo, jetson.read_state(str(board), 10, programs.nvpmodel))
    assert said == "jetson_clocks ran, and these clocks are not held: policy0, policy4, 17000000.gpu."
    carry_out(board, programs, wanted(clocks="maximum"))
    assert jetson_power.free_clocks(todo, jetson.read_state(str(board), 10, programs.nvpmodel)) == ""


def test_held_clocks_follow_a_new_mode(board: Path, programs: Programs) -> None:
    carry_out(board, programs, wanted(clocks="maximum"))
    carry_out(board, programs, wanted("MAXN_SUPER"))
    gpu = next(clock for clock in describe(board)["clocks"] if clock["name"].endswith(".gpu"))
    assert gpu["least"] == gpu["most"] == 1_020_000_000


def test_clocks_that_somebody_else_held_are_not_guessed(board: Path, programs: Programs) -> None:
    subprocess.run([programs.jetson_clocks or ""], check=True)
    with pytest.raises(PowerError, match="restart the board"):
        carry_out(board, programs, wanted("25W"))
    assert describe(board)["power_mode"] == "15W"


@pytest.mark.parametrize(
    ("wish", "missing"), [(wanted("25W"), "nvpmodel is not"), (wanted(clocks="maximum"), "jetson_clocks is not")]
)
def test_a_missing_program_is_named(board: Path, wish: Wish, missing: str) -> None:
    state = jetson.read_state(str(board), 10, str(GOLDEN / "nvpmodel"))
    with pytest.raises(PowerError, match=missing):
        jetson_power.plan(wish, state, Programs(None, None, "/nowhere"))


def test_a_board_without_modes_says_so() -> None:
    assert "has no power modes" in jetson.mode_problem("mode", "25W", [])


def test_sensors_are_told_by_the_names_that_the_dashboards_ask_for(board: Path, tmp_path: Path) -> None:
    record, target = tmp_path / "record.json", tmp_path / "figures.prom"
    record.write_text('{"model": "a \\"board\\"", "release": "36.5.0", "power_mode": "25W", "clocks_locked": true}')
    subprocess.run([sys.executable, METRICS, board, record, target, "0"], check=True, timeout=10)
    lines = target.read_text().splitlines()
    assert "ai_idp_jetson_gpu_utilization_ratio 0.437" in lines
    assert "ai_idp_jetson_gpu_clock_hertz 306000000" in lines
    assert 'ai_idp_jetson_power_watts{rail="VDD_IN"} 4.80766' in lines
    assert 'ai_idp_jetson_temperature_celsius{zone="gpu-thermal"} 46.5' in lines
    info = next(line for line in lines if line.startswith("ai_idp_jetson_info{"))
    assert 'model="a \\"board\\"",release="36.5.0"' in info
    assert 'power_mode="25W"' in info
    assert not any("sum of" in line or "-256" in line for line in lines)
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("record", ["", "[]", "null", "3", "[" * 100_000, "9" * 5000])
def test_a_record_that_is_none_hides_no_sensor(board: Path, tmp_path: Path, record: str) -> None:
    (tmp_path / "record.json").write_text(record)
    text = runpy.run_path(str(METRICS))["exposition"](board, tmp_path / "record.json")
    assert "ai_idp_jetson_info" not in text
    assert "ai_idp_jetson_gpu_utilization_ratio 0.437" in text


def test_half_a_character_in_the_record_hides_no_sensor(board: Path, tmp_path: Path) -> None:
    record, target = tmp_path / "record.json", tmp_path / "figures.prom"
    record.write_text('{"model": "\\ud800"}')
    subprocess.run([sys.executable, METRICS, board, record, target, "0"], check=True, timeout=10)
    assert "ai_idp_jetson_gpu_utilization_ratio 0.437" in target.read_text()


def test_a_board_without_sensors_tells_nothing(tmp_path: Path) -> None:
    program = runpy.run_path(str(METRICS))
    assert program["exposition"](tmp_path, tmp_path / "record.json").strip() == ""
