"""The program that runs Molecule's scenarios: their order, their times, and the warm process behind them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenarios import times, warm
from scenarios.__main__ import LONG, complaints, ordered

ROOT = Path(__file__).resolve().parents[2]
# Captured, colours of one line included.
LINES = """\
INFO     [prometheus > discovery] scenario test matrix: create, converge, verify, destroy
INFO     [prometheus > create] Executing
ok: [localhost] => Executing
\x1b[36mINFO    \x1b[0m [prometheus > create] Executed: Successful
INFO     [prometheus > verify] Executing
INFO     [prometheus > verify] Executing Testinfra tests found in /project/molecule/prometheus/tests/...
============================== 8 passed in 8.35s ===============================
INFO     [prometheus > verify] Executed: Successful
INFO     [prometheus > destroy] Executing
INFO     [prometheus > destroy] Executed: Successful
prometheus > destroy: Executed: Successful
"""


def timing(lines: str) -> times.Timing:
    """Read lines that come one second after the other."""
    seconds = iter(range(1000))
    now = [0]
    found = times.Timing("prometheus", lambda: float(now[0]))
    for line in lines.splitlines(keepends=True):
        now[0] = next(seconds)
        found.read(line)
    return found


def test_phases_are_timed_and_tests_counted() -> None:
    found = timing(LINES)
    assert found.phases == {"create": 2.0, "verify": 3.0, "destroy": 1.0}
    assert found.tests == "8 passed"


def test_a_phase_that_comes_twice_is_added_up() -> None:
    assert timing(LINES + LINES).phases["create"] == 4.0


def test_a_phase_that_fails_ends_with_the_next_or_the_run() -> None:
    failed = "INFO     [x > converge] Executing\nfatal\nINFO     [x > destroy] Executing\nkilled\n"
    found = timing(failed)
    found.end()
    assert found.phases == {"converge": 2.0, "destroy": 1.0}


def test_the_slowest_come_first() -> None:
    quick = times.Timing("quick", time.monotonic, {"check": 1.26})
    slow = times.Timing("slow", time.monotonic, {"create": 2.0, "verify": 30.0})
    report = times.report([(quick, 2.0, True), (slow, 33.0, False)], 34.04, 2)
    assert report["seconds"] == 34.0
    assert report["at_a_time"] == 2
    assert [scenario["scenario"] for scenario in report["scenarios"]] == ["slow", "quick"]
    assert list(report["scenarios"][0]["phases"]) == ["verify", "create"]
    assert [scenario["passed"] for scenario in report["scenarios"]] == [False, True]
    assert times.slowest(report, 2) == ["   30.0 s  slow  verify", "    2.0 s  slow  create"]


def test_long_scenarios_are_started_first_and_exist() -> None:
    assert ordered(["alertmanager", "prometheus", "zebra", "nginx_gateway"]) == [
        *("nginx_gateway", "prometheus", "alertmanager", "zebra")
    ]
    assert [name for name in LONG if not (ROOT / "molecule" / name / "molecule.yml").is_file()] == []


def test_what_failed_is_said_again_at_the_end() -> None:
    lines = ["INFO verify", "fatal: [role-test]: FAILED! => {}", "  E   assert 1", "FAILED tests/test_toy.py::test_it"]
    assert complaints("toy", "\n".join(lines)) == [
        "  toy: fatal: [role-test]: FAILED! => {}",
        "  toy: FAILED tests/test_toy.py::test_it",
    ]
    assert complaints("toy", "ERROR x\n" * 9 + "4 passed\n") == ["  toy: ERROR x"] * 6


def test_settings_that_are_read_late_are_left_out() -> None:
    environment = {"ANSIBLE_CONFIG": "a", "ANSIBLE_CACHE_PLUGIN_CONNECTION": "b", "PATH": "c"}
    assert warm.settings(environment) == {"ANSIBLE_CONFIG": "a"}


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[Path]:
    """Clients of a process that has imported nothing before."""
    warm.write_clients(tmp_path / "bin", tmp_path / "warm")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "warm"))
        listener.listen()
        code = (
            f"import socket; from scenarios import warm; warm.Server(socket.socket(fileno={listener.fileno()})).serve()"
        )
        server = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        )
    yield tmp_path / "bin"
    server.kill()
    server.wait()


def test_a_command_runs_where_and_as_it_was_started(clients: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os\ndef test_it():\n    print(os.environ['COLOUR'])\n    assert os.getcwd() == os.environ['COLOUR']\n"
    )
    argv = [clients / "pytest", "-s", "-p", "no:cacheprovider", "test_it.py"]
    for colour, code in ((str(tmp_path), 0), ("blue", 1)):
        done = subprocess.run(
            argv, cwd=tmp_path, env={**os.environ, "COLOUR": colour}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert colour in done.stdout


def test_a_command_does_not_outlive_who_started_it(clients: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, pathlib, time\n"
        "def test_it():\n    pathlib.Path('pid').write_text(f'{os.getpid()}\\n')\n    time.sleep(90)\n"
    )
    client = subprocess.Popen([clients / "pytest", "test_it.py"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.is_file() and pid.read_text().endswith("\n"))
    child = Path("/proc") / pid.read_text().strip()
    assert child.exists()
    client.send_signal(signal.SIGKILL)
    client.wait()
    wait_until(lambda: not child.exists())


def wait_until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
