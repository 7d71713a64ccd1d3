"""The load client's call and results; ``tests/golden/load_client/README.md`` says how the results were captured."""

import http.client
import json
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible.module_utils.ai_idp import load_client
from ansible.module_utils.ai_idp.benchmark_errors import MeasurementError
from ansible.module_utils.ai_idp.load_client import METRICS, RESULT, argv, explain, parse

from tests.mock_openai import mock_server, stats

GOLDEN = Path(__file__).parent.parent / "golden" / "load_client"
PARAMETERS = {"url": "http://10.77.0.11:8000/", "model": "tiny-llama", "tokenizer": "/models/tiny-llama"}


def golden(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((GOLDEN / f"vllm-0.30.0-{name}.json").read_text())
    return result


def left(folder: Path, result: Any) -> str:
    """The folder of a run in which the client left this."""
    (folder / RESULT).write_text(result if isinstance(result, str) else json.dumps(result))
    return str(folder)


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_the_call_asks_for_what_is_wanted() -> None:
    words = argv({**PARAMETERS, "concurrency": 4, "num_prompts": 40, "input_tokens": 100, "output_tokens": 50})
    assert words[:3] == ["vllm", "bench", "serve"]
    assert option(words, "--base-url") == "http://10.77.0.11:8000"
    assert option(words, "--endpoint") == "/v1/chat/completions"
    assert option(words, "--max-concurrency") == "4"
    assert option(words, "--num-prompts") == "40"
    assert option(words, "--random-input-len") == "100"
    assert option(words, "--random-output-len") == "50"
    assert "--ignore-eos" in words


def test_each_run_has_prompts_that_no_cache_has_seen() -> None:
    assert option(argv(PARAMETERS), "--seed") == "{seed}"


def test_connections_are_kept_only_on_demand() -> None:
    assert option(argv(PARAMETERS), "--header") == "Connection=close"
    assert "--header" not in argv({**PARAMETERS, "keep_connections": True})


def test_requests_one_at_a_time_wait_for_no_arrival() -> None:
    assert option(argv(PARAMETERS), "--request-rate") == "inf"
    assert option(argv({**PARAMETERS, "concurrency": 8}), "--request-rate") == "400"


@pytest.mark.parametrize(
    ("endpoint", "backend", "path"),
    [("chat", "openai-chat", "/v1/chat/completions"), ("completions", "openai", "/v1/completions")],
)
def test_each_endpoint_has_its_backend(endpoint: str, backend: str, path: str) -> None:
    words = argv({**PARAMETERS, "endpoint": endpoint})
    assert (option(words, "--backend"), option(words, "--endpoint")) == (backend, path)


def test_the_container_gets_the_key_by_name_and_ends_by_itself() -> None:
    words = argv({**PARAMETERS, "image": "vllm/vllm-openai:v0", "timeout_seconds": 90})
    assert "--env=OPENAI_API_KEY" in words
    after = words[words.index("vllm/vllm-openai:v0") + 1 :]
    assert after[:6] == ["--verbose", "--kill-after=5", "90", "vllm", "bench", "serve"]
    assert "type=bind,source=/models/tiny-llama,target=/models/tiny-llama,readonly" in words
    assert argv({**PARAMETERS, "command": ["python", "-m", "x"], "image": "y"})[:3] == ["python", "-m", "x"]


@pytest.mark.parametrize("name", ["ok-concurrency-1", "ok-concurrency-4", "ok-chat"])
def test_all_metrics_are_read(name: str, tmp_path: Path) -> None:
    result = golden(name)
    parsed = parse("", left(tmp_path, result))
    assert parsed.metrics == {metric: result[key] for metric, key in METRICS.items()}
    assert parsed.model == "mock"
    assert len(parsed.samples["ttft_ms"]) == len(parsed.samples["itl_ms"]) == result["num_prompts"]
    assert median(parsed.samples["ttft_ms"]) == pytest.approx(parsed.metrics["ttft_p50_ms"])
    # The mock sent the first token after 10 ms and the next ones 5 ms apart.
    assert 10 < parsed.metrics["ttft_p50_ms"] < 20
    assert parsed.metrics["itl_p50_ms"] == pytest.approx(5, abs=0.5)
    assert median(parsed.samples["itl_ms"]) == pytest.approx(5, abs=0.5)
    assert parsed.metrics["output_tokens_per_second"] / parsed.metrics["requests_per_second"] == pytest.approx(8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one-of-100-fails", "1 of 100 requests failed; the first one: Internal Server Error"),
        ("wrong-key", "4 of 4 requests failed; the first one: Unauthorized (the endpoint refuses the API key)"),
        ("down", "(nothing listens there: is the service up?)"),
        ("dropped", "4 of 4 requests failed; the first one: "),
        ("error-inside-stream", "4 of 4 answers do not have the 8 tokens asked for but 3 to 3: "),
    ],
)
def test_failed_requests_fail_the_measurement(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError) as caught:
        parse("", left(tmp_path, golden(name)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hang", "the load client left no result: it was still waiting for answers when its time was over"),
        ("no-tokenizer", "bind source path does not exist: /models/missing"),
    ],
)
def test_no_result_says_why(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError) as caught:
        parse((GOLDEN / f"vllm-0.30.0-{name}.txt").read_text(), str(tmp_path))
    assert message in str(caught.value)


def test_no_result_and_no_words(tmp_path: Path) -> None:
    assert explain("all is well\n") == ""
    with pytest.raises(MeasurementError, match="left no result: its last words: none"):
        parse("", str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"failed": 1}, "0 of 4 requests failed"),
        ({"completed": 3}, "1 of 4 requests failed"),
        ({"output_lens": [8, 8, 7, 8]}, "1 of 4 answers do not have the 8 tokens asked for but 7 to 7"),
        ({"output_lens": [8, 8]}, "0 of 4 requests failed"),
        ({"output_throughput": 0.0}, "output_tokens_per_second = 0.0"),
        ({"p50_ttft_ms": float("nan")}, "ttft_p50_ms = nan"),
        ({"p95_ttft_ms": -1}, "ttft_p95_ms = -1.0"),
        ({"p50_itl_ms": None}, "of another form"),
        ({"ttfts": [0.01]}, "of another form"),
        ({"output_lens": None}, "of another form"),
        ({"num_prompts": 0, "completed": 0, "output_lens": [], "input_lens": []}, "of another form"),
        ({"request_rate": 30.0, "request_throughput": 25.0}, "25 requests a second and only 30 arrive"),
    ],
)
def test_what_no_measurement_gives_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError) as caught:
        parse("", left(tmp_path, {**golden("ok-concurrency-1"), **change}))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"num_prompts": 4}'])
def test_a_broken_file_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="left a result of another form"):
        parse("", left(tmp_path, text))


def test_a_missing_metric_is_refused(tmp_path: Path) -> None:
    for key in load_client.METRICS.values():
        result = golden("ok-concurrency-1")
        del result[key]
        with pytest.raises(MeasurementError, match="of another form"):
            parse("", left(tmp_path, result))


def one_answer(url: str, tokens: int) -> tuple[float, list[float]]:
    """Milliseconds to the first token, and between the next ones, on a bare connection."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    connection.connect()
    started = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": tokens}))
    answer = connection.getresponse()
    times = []
    while line := answer.readline():
        if b'"text"' in line:
            times.append(time.perf_counter())
    connection.close()
    return (times[0] - started) * 1000, [(b - a) * 1000 for a, b in pairwise(times)]


def test_the_mock_keeps_its_times() -> None:
    with mock_server(ttft_ms=20, spacing_ms=5) as url:
        answers = [one_answer(url, 10)]
        # It is never early, and a moment without another process in the way is enough to see that it isn't late.
        while len(answers) < 60 and not in_time(answers):
            answers.append(one_answer(url, 10))
        told = stats(url)
    assert in_time(answers)
    assert told["requests"] == len(answers)
    assert min(first for first, _ in answers) >= 20
    assert told["ttft_p50_ms"] >= 20


def in_time(answers: list[tuple[float, list[float]]]) -> bool:
    """Whether one of the answers began in time, and one was spaced as it should be."""
    began = min(first for first, _ in answers) < 21.5
    return began and any(median(gaps) == pytest.approx(5, abs=0.5) for _, gaps in answers)


def test_the_mock_refuses_another_key() -> None:
    with mock_server(key="right") as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
        connection.request("POST", "/v1/completions", "{}", {"Authorization": "Bearer wrong"})
        assert connection.getresponse().status == 401
