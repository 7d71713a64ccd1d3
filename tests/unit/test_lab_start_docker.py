"""Starting Docker where no service manager does it, after a daemon that was killed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "lab" / "files" / "start_docker"

# Like Docker 20.10: a number of a process that lives, whichever it is, means that a daemon runs.
DOCKERD = """#!/bin/sh
for pidfile in RUN/docker.pid RUN/docker/containerd/containerd.pid; do
  if [ -e "$pidfile" ] && [ -e "/proc/$(cat "$pidfile")" ]; then
    echo "failed to start daemon: pid file found" >&2
    exit 1
  fi
done
touch RUN/answers
exec sleep 20
"""
DOCKER = "#!/bin/sh\ntest -e RUN/answers\n"


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run = tmp_path / "run"
    (run / "docker" / "containerd").mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("dockerd", DOCKERD), ("docker", DOCKER)):
        (programs / name).write_text(text.replace("RUN", str(run)))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return run


def start(run: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, run, run / "log", "5"], capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("left", ["docker.pid", "docker/containerd/containerd.pid"])
def test_a_number_that_is_another_process_by_now_holds_nothing_up(run_dir: Path, left: str) -> None:
    (run_dir / left).write_text(str(os.getpid()))
    done = start(run_dir)
    assert done.returncode == 0, done.stderr
    assert not (run_dir / left).exists()


def test_a_number_of_no_process_holds_nothing_up(run_dir: Path) -> None:
    (run_dir / "docker.pid").write_text("4194304999")
    assert start(run_dir).returncode == 0


def test_a_daemon_that_ends_is_told_with_its_last_words(run_dir: Path) -> None:
    named = run_dir / "dockerd"
    shutil.copy(shutil.which("sleep") or "", named)
    with subprocess.Popen([named, "20"]) as other:
        (run_dir / "docker.pid").write_text(str(other.pid))
        done = start(run_dir)
        other.terminate()
    assert done.returncode == 1
    assert "dockerd ended instead of starting" in done.stderr
    assert "pid file found" in done.stderr
