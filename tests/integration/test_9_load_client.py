"""The load client's own error: what it reports of a server whose timing is known, and what it makes of faults.

In the quick profile two of the four extreme combinations are measured, other ones for each commit; in the full profile
all twelve (4 minutes), and their figures are written to ``benchmarks/proofs/load_client.json``.
"""

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import load_client
from ansible.module_utils.ai_idp.benchmark_errors import MeasurementError
from ansible.module_utils.ai_idp.benchmark_parsed import Parsed

from lab.tiny_models import main as write_tiny_models
from tests.mock_openai import mock_server, stats

from .suite import FULL, rotation, write_proof

KEY = "sk-of-the-mock"
TTFT_ERROR_MS = 2.0
THROUGHPUT_ERROR = 0.02
# What else runs on the machine delays the client and the server, and never makes them faster: the best run tells the
# client's own error.
ATTEMPTS = 8
ALL = list(itertools.product((10, 50, 150), (5, 20), (1, 8)))
EXTREMES = [case for case in ALL if case[:2] in ((10, 5), (150, 20))]
SEEDS = itertools.count(int(time.time()))


@dataclass
class Client:
    """The real client in the lab's serving image."""

    image: str
    tokenizer: Path
    results: Path

    def run(self, url: str, key: str = KEY, **parameters: Any) -> tuple[Parsed, float]:
        """One process; gives its result and the seconds that it took."""
        seed = str(next(SEEDS))
        folder = self.results / seed
        folder.mkdir()
        asked = {"url": url, "model": "mock", "tokenizer": self.tokenizer, "image": self.image, "timeout_seconds": 120}
        words = load_client.argv({**asked, **parameters})
        command = [word.replace("{output_dir}", str(folder)).replace("{seed}", seed) for word in words]
        assert key not in " ".join(command)
        started = time.monotonic()
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            env={**os.environ, "OPENAI_API_KEY": key},
        )
        seconds = time.monotonic() - started
        assert key not in done.stdout
        return load_client.parse(done.stdout, str(folder)), seconds


@pytest.fixture(scope="module", autouse=True)
def _lab_at_rest() -> Iterator[None]:
    """Nothing of the lab runs meanwhile: on two cores its engines and scrapes would be part of the client's error."""
    listing = ["docker", "ps", "--quiet", "--filter", "label=ai-idp.lab=host", "--filter", "status=running"]
    hosts = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    try:
        if hosts:
            subprocess.run(["docker", "pause", *hosts], capture_output=True, check=True)
        yield
    finally:
        if hosts:
            subprocess.run(["docker", "unpause", *hosts], capture_output=True, check=True)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The client, with the tokenizer of the lab's tiny model."""
    listing = ["docker", "images", "--quiet", "ai-idp-lab/vllm"]
    images = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    assert images, "the lab's vLLM image is not here: run `make lab`"
    folder = tmp_path_factory.mktemp("load_client")
    assert write_tiny_models(["--out", str(folder / "hub")]) == 0
    results = folder / "results"
    results.mkdir()
    yield Client(images[0], folder / "hub" / "ai-idp" / "tiny-llama" / "resolve" / "main", results)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def proof() -> Iterator[list[dict[str, Any]]]:
    """The figures of the cases that were measured; written down when they are all there."""
    found: list[dict[str, Any]] = []
    yield found
    if len(found) == len(ALL):
        write_proof("load_client", found)


def compare(client: Client, ttft_ms: int, spacing_ms: int, concurrency: int) -> dict[str, float]:
    """One run against a server of this timing: what was reported, and what was true."""
    tokens = 128 if spacing_ms == 5 else 64
    with mock_server(ttft_ms=ttft_ms, spacing_ms=spacing_ms, key=KEY) as url:
        requests = 8 * concurrency
        parsed, seconds = client.run(url, concurrency=concurrency, output_tokens=tokens, num_prompts=requests)
        told = stats(url)
    true_seconds = (ttft_ms + (tokens - 1) * spacing_ms) / 1000
    return {
        "true_ttft": told["ttft_p50_ms"],
        "ttft": parsed.metrics["ttft_p50_ms"],
        "true_throughput": concurrency * tokens / true_seconds,
        "throughput": parsed.metrics["output_tokens_per_second"],
        "itl": parsed.metrics["itl_p50_ms"],
        "late_p99": told["late_p99_ms"],
        "startup": seconds - (requests / concurrency + 1) * true_seconds,
    }


@pytest.mark.parametrize(
    ("ttft_ms", "spacing_ms", "concurrency"), ALL if FULL else rotation("timings of the load client", EXTREMES, 2)
)
def test_the_client_reports_what_is_true(
    client: Client, proof: list[dict[str, Any]], ttft_ms: int, spacing_ms: int, concurrency: int
) -> None:
    tries = []
    for _ in range(ATTEMPTS):
        seen = compare(client, ttft_ms, spacing_ms, concurrency)
        tries.append(seen)
        print({name: round(value, 2) for name, value in seen.items()})
        ttft_error = abs(seen["ttft"] - seen["true_ttft"])
        throughput_error = abs(seen["throughput"] / seen["true_throughput"] - 1)
        if ttft_error <= TTFT_ERROR_MS and throughput_error <= THROUGHPUT_ERROR:
            assert seen["itl"] == pytest.approx(spacing_ms, abs=0.5)
            proof.append({"ttft_ms": ttft_ms, "spacing_ms": spacing_ms, "concurrency": concurrency, "runs": len(tries),
                          **{name: round(value, 3) for name, value in seen.items()}})  # fmt: skip
            return
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    pytest.fail(f"off in each of {ATTEMPTS} runs (load average {load}): {tries}")


# By name: what the server does, what the client is asked for, and the words of the error.
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "a few requests fail": (
        {"fail_every": 60},
        {"num_prompts": 100, "concurrency": 8},
        ["1 of 100 requests failed", "Internal Server"],
    ),
    "wrong key": ({"key": "another"}, {}, ["4 of 4 requests failed", "refuses the API key"]),
    "hangs mid-stream": (
        {"hang_after": 3},
        {"timeout_seconds": 20},
        ["left no result", "the server hangs or is too slow"],
    ),
    "drops the connection": ({"drop_after": 3}, {}, ["4 of 4 requests failed"]),
    "error inside the stream": (
        {"error_after": 3},
        {},
        ["4 of 4 answers do not have the 8 tokens asked for but 3 to 3"],
    ),
}


@pytest.fixture(scope="module")
def faults(client: Client) -> Iterator[dict[str, Future[tuple[Parsed, float]]]]:
    """What the client makes of each fault. Nothing is timed, and most of it is waiting: three at a time."""

    def ask(case: str) -> tuple[Parsed, float]:
        behaviour, parameters, _ = FAULTS[case]
        with mock_server(**{"key": KEY, "spacing_ms": 1, **behaviour}) as url:
            return client.run(url, **{"num_prompts": 4, "output_tokens": 8, **parameters})

    with ThreadPoolExecutor(3) as pool:
        yield {case: pool.submit(ask, case) for case in FAULTS}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_no_result(faults: dict[str, Future[tuple[Parsed, float]]], case: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        faults[case].result()
    for word in FAULTS[case][2]:
        assert word in str(caught.value)


def test_an_endpoint_that_is_down_is_no_result(client: Client) -> None:
    with mock_server() as url:
        pass
    with pytest.raises(MeasurementError, match=r"4 of 4 requests failed.*nothing listens there"):
        client.run(url, num_prompts=4, output_tokens=8)
