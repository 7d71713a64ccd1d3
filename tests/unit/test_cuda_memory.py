"""Real CUDA allocations against a constructed library (``fake_cuda.c``): the interface, refusals and failures.

What a real GPU says is shown where there is one; here nothing of that is claimed.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import cuda_memory
from ansible.module_utils.ai_idp.forked import CRASHED, TIMED_OUT, ForkError, in_child

MIB = 1 << 20
COMPILER = shutil.which("cc") or shutil.which("gcc")
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    if COMPILER is None:
        pytest.skip("no C compiler to build the constructed libcuda with")
    built = str(tmp_path_factory.mktemp("cuda") / "libcuda.so.1")
    source = str(Path(__file__).parent / "fake_cuda.c")
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([COMPILER, *flags, "-o", built, source], check=True, timeout=60)
    return built


@pytest.fixture
def ask(library: str, monkeypatch: pytest.MonkeyPatch) -> Ask:
    def asking(mode: str, blocks: list[int], timeout: float = 10) -> dict[str, Any]:
        monkeypatch.setenv("FAKE_CUDA", mode)
        return cuda_memory.ask((library,), 0, blocks, timeout)

    return asking


def test_blocks_are_held_together_and_given_back(ask: Ask) -> None:
    answer = ask("", [800 * MIB, 300 * MIB])
    assert cuda_memory.judge(answer)[0] == "ok"
    assert answer["allocated_bytes"] == 1100 * MIB
    assert answer["verified"] is True
    assert answer["cuda_version"] == "12.6"
    assert ask("", [800 * MIB])["free_bytes"] == 6_000_000_000


def test_a_capped_block_is_told_with_the_largest_that_can_be_had(ask: Ask) -> None:
    answer = ask("cap", [400 * MIB, 800 * MIB])
    status, text = cuda_memory.judge(answer)
    assert status == "fail"
    assert answer["refused_bytes"] == 800 * MIB
    assert 500_000_000 - cuda_memory.STEP_BYTES <= answer["largest_block_bytes"] <= 500_000_000
    assert "CUDA_ERROR_OUT_OF_MEMORY" in text
    assert "6.00 GB are said to be free" in text


def test_more_than_there_is_is_refused(ask: Ask) -> None:
    answer = ask("", [4000 * MIB, 4000 * MIB])
    assert cuda_memory.judge(answer)[0] == "fail"
    assert answer["allocated_bytes"] == 4000 * MIB


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("none", "cuInit (100): CUDA_ERROR_NO_DEVICE"),
        ("broken", "does not hold what is written"),
        ("crash", "ended by signal 9"),
    ],
)
def test_what_does_not_work_is_said(ask: Ask, mode: str, said: str) -> None:
    status, text = cuda_memory.judge(ask(mode, [MIB]))
    assert status == "fail"
    assert said in text


def test_a_driver_that_hangs_is_left_behind(ask: Ask) -> None:
    status, text = cuda_memory.judge(ask("hang", [MIB], timeout=0.2))
    assert status == "fail"
    assert "no answer within 0.2 seconds" in text


def test_a_missing_library_is_a_failure() -> None:
    status, text = cuda_memory.judge(cuda_memory.ask(("/nowhere/libcuda.so.1",), 0, [MIB], 5))
    assert status == "fail"
    assert "can't be loaded" in text


@pytest.mark.parametrize(
    ("available_kb", "shared", "tried"),
    [(2_000_000, True, True), (1_500_000, True, False), (1_500_000, False, True)],
)
def test_shared_memory_is_tried_only_where_it_leaves_enough(available_kb: int, shared: bool, tried: bool) -> None:
    reason = cuda_memory.room(f"MemAvailable: {available_kb} kB\n", shared, 1024 * MIB, 512 * MIB)
    assert (reason == "") is tried


def test_unknown_memory_is_not_tried() -> None:
    assert "does not tell" in cuda_memory.room(None, True, MIB, MIB)


def test_a_child_gives_its_answer_or_says_why_not() -> None:
    def fail() -> dict[str, Any]:
        raise ValueError

    assert in_child(lambda: {"a": 1}, 5) == {"a": 1}
    with pytest.raises(ForkError) as error:
        in_child(fail, 5)
    assert error.value.kind == CRASHED
    assert TIMED_OUT != CRASHED
