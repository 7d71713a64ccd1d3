"""Measures an OpenAI-compatible endpoint with ``vllm bench serve``, the client inside the serving image.

The client ends with 0 even when every request failed, and it takes an answer that breaks off for a short one. So what
it says is believed only when every request was answered with exactly the tokens that were asked for.

Its own error against a server of known timing is measured by ``tests/integration/test_9_load_client.py``.
"""

from __future__ import annotations

import os
import re
from typing import Any

from ansible.module_utils.ai_idp.benchmark_errors import MeasurementError
from ansible.module_utils.ai_idp.benchmark_parsed import Parsed
from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json
from ansible.module_utils.ai_idp.messages import shorten
from ansible.module_utils.ai_idp.sample_statistics import can_be_figure

RESULT = "load_client.json"
# The last line of a traceback, what argparse says, and what Docker says.
_ERROR = re.compile(r"[\w.]+(Error|Exception): |[\w. ]+: error: |docker: Error ")
COMMAND = ("vllm", "bench", "serve")
# llama.cpp's server tells how many tokens it made in the last chunk that has choices; the client looks for that only in
# one without, as both engines send it for a chat. Otherwise the client counts by itself, and not exactly.
ENDPOINTS = {"completions": ("openai", "/v1/completions"), "chat": ("openai-chat", "/v1/chat/completions")}
# Requests that start in the same instant wait for one another inside the client, which adds 2 to 4 ms to the time to
# first token of eight. So the first ones start within some 20 ms, at random, and keep apart from then on.
ARRIVALS_PER_SECOND_AND_SLOT = 50
# Where the server answers faster than this part of the arrivals, it waits for the client.
HIGHEST_USE_OF_ARRIVALS = 0.8
METRICS = {
    "output_tokens_per_second": "output_throughput",
    "total_tokens_per_second": "total_token_throughput",
    "requests_per_second": "request_throughput",
    "ttft_p50_ms": "p50_ttft_ms",
    "ttft_p95_ms": "p95_ttft_ms",
    "itl_p50_ms": "p50_itl_ms",
}


def container_command(image: str, tokenizer: str, seconds: int) -> list[str]:
    """The client inside an image that has it, reading the key from the environment of the caller.

    :param image: the serving image; it must be there already.
    :param tokenizer: folder of the host with the tokenizer.
    :param seconds: when the client is ended from inside the container: one that is left behind by a killed
        ``docker run`` would go on sending requests.
    """
    return [
        *("docker", "run", "--rm", "--pull=never", "--network=host", "--security-opt=no-new-privileges"),
        *("--env=OPENAI_API_KEY", "--env=HF_HUB_OFFLINE=1", "--env=VLLM_NO_USAGE_STATS=1"),
        # Docker may give containers a proxy, which would be measured along.
        *("--env=NO_PROXY=*", "--env=no_proxy=*", "--cidfile={output_dir}/cid"),
        # The same paths inside and outside, so that the command is the same with and without a container.
        # Unlike --volume, --mount makes no empty folder of a path that is missing.
        *("--mount", "type=bind,source={output_dir},target={output_dir}"),
        *("--mount", f"type=bind,source={tokenizer},target={tokenizer},readonly"),
        *("--entrypoint=timeout", image, "--verbose", "--kill-after=5", str(seconds), *COMMAND),
    ]


def argv(parameters: dict[str, Any]) -> list[str]:
    """The call of the client; the key is in the environment variable OPENAI_API_KEY, never here.

    ``{output_dir}`` and ``{seed}`` are left to be filled in for each run. Each run needs a seed that was never used
    before: an engine that has seen a prompt answers it from its prefix cache, and the time to first token is that of
    the cache.

    :param parameters: ``url`` (without ``/v1``), ``model`` (name at the endpoint) and ``tokenizer`` (folder of the
        model); ``image``, or ``command`` to call the client in another way; ``endpoint`` (chat or completions),
        ``concurrency``, ``num_prompts``, ``input_tokens``, ``output_tokens``, ``timeout_seconds``, ``seed``,
        ``keep_connections`` (use a connection for several requests, for endpoints behind TLS).
    """
    backend, path = ENDPOINTS[parameters.get("endpoint", "chat")]
    concurrency = int(parameters.get("concurrency", 1))
    tokenizer, output_tokens = str(parameters["tokenizer"]), int(parameters.get("output_tokens", 64))
    command = [str(word) for word in parameters.get("command") or ()]
    if not command and parameters.get("image"):
        command = container_command(parameters["image"], tokenizer, int(parameters.get("timeout_seconds", 600)))
    rate = "inf" if concurrency == 1 else str(ARRIVALS_PER_SECOND_AND_SLOT * concurrency)
    # llama.cpp's server closes some connections after an answer, and a request that is just then sent on one fails.
    # A new connection for each request costs less than can be measured, where there is no TLS.
    connection = () if parameters.get("keep_connections") else ("--header", "Connection=close")
    return [
        *(command or COMMAND),
        *("--backend", backend, "--base-url", str(parameters["url"]).rstrip("/"), "--endpoint", path),
        *("--model", str(parameters["model"]), "--tokenizer", tokenizer),
        *("--dataset-name", "random", "--seed", str(parameters.get("seed", "{seed}"))),
        *("--random-input-len", str(parameters.get("input_tokens", 128)), "--random-output-len", str(output_tokens)),
        *("--ignore-eos", "--temperature", "0"),
        *("--num-prompts", str(parameters.get("num_prompts", max(16, 4 * concurrency)))),
        *("--max-concurrency", str(concurrency), "--request-rate", rate),
        *connection,
        # The first requests of a process are slow; the times of these are not counted.
        *("--num-warmups", str(concurrency)),
        *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,95,99", "--disable-tqdm"),
        *("--metadata", f"asked_output_tokens={output_tokens}"),
        *("--save-result", "--save-detailed", "--result-dir", "{output_dir}", "--result-filename", RESULT),
    ]


def explain(stdout: str) -> str:
    """Why the client left no result, from what it printed; empty when it does not say."""
    lines = [line.strip() for line in stdout.splitlines() if line.strip()]
    if any(line.startswith("timeout: sending signal") for line in lines):
        return "it was still waiting for answers when its time was over: the server hangs or is too slow"
    errors = [line for line in lines if _ERROR.match(line)]
    return shorten(errors[-1], 200) if errors else ""


def parse(stdout: str, output_dir: str) -> Parsed:
    """Read the result of one run.

    :param stdout: what the client printed; used only to say why there is no result.
    :param output_dir: folder in which the client left its result.
    :raises MeasurementError: when anything went wrong with any request.
    """
    try:
        with open(os.path.join(output_dir, RESULT), encoding="utf-8") as stream:
            result = from_json(stream.read())
        requests, completed, failed = (int(result[name]) for name in ("num_prompts", "completed", "failed"))
        asked = int(result["asked_output_tokens"])
        lengths = [int(length) for length in result["output_lens"]]
        if failed or completed != requests or len(lengths) != requests:
            raise MeasurementError(f"{requests - completed} of {requests} requests failed{_first_error(result)}")
        _refuse_other_lengths(lengths, asked)
        _refuse_slow_arrivals(result)
        metrics = {name: float(result[key]) for name, key in METRICS.items()}
        times = [(result["ttfts"][index], result["latencies"][index], lengths[index]) for index in range(requests)]
        samples = {
            "ttft_ms": [first * 1000 for first, _, _ in times],
            # The mean of each request; chunks may carry several tokens, so their distances would be too long.
            "itl_ms": [(last - first) / (length - 1) * 1000 for first, last, length in times if length > 1],
            "output_tokens": [float(length) for length in lengths],
        }
        model = str(result["model_id"])
        input_tokens = sum(result["input_lens"]) / requests
    except FileNotFoundError:
        reason = explain(stdout) or f"its last words: {shorten((stdout.strip().splitlines() or ['none'])[-1], 200)}"
        raise MeasurementError(f"the load client left no result: {reason}") from None
    except OSError as error:
        raise MeasurementError(f"the load client left a result that can't be read: {error.strerror}") from None
    except WRONG_SHAPE as error:
        raise MeasurementError(f"the load client left a result of another form: {error!r}") from None
    for name, value in metrics.items():
        # A single token has no distance to a next one.
        if not can_be_figure(value) or value < 0 or (value == 0 and not (name.startswith("itl") and asked == 1)):
            raise MeasurementError(f"the load client gave {name} = {value}, which no measurement gives")
    return Parsed(metrics, samples, model=model, subject={"requests": requests, "input_tokens": input_tokens})


def _first_error(result: dict[str, Any]) -> str:
    """What the first failed request says, with what to do where it is known."""
    errors = [str(text).strip() for text in result.get("errors", []) if str(text).strip()]
    if not errors:
        return ""
    last_line = errors[0].splitlines()[-1]
    advice = ""
    if last_line == "Unauthorized":
        advice = " (the endpoint refuses the API key)"
    elif "Cannot connect" in last_line:
        advice = " (nothing listens there: is the service up?)"
    elif last_line == "Not Found":
        advice = " (no such model or path)"
    return f"; the first one: {shorten(last_line, 200)}{advice}"


def _refuse_other_lengths(lengths: list[int], asked: int) -> None:
    """A stream that broke off with an error inside it counts as answered; only its length tells."""
    other = [length for length in lengths if length != asked]
    if other:
        raise MeasurementError(
            f"{len(other)} of {len(lengths)} answers do not have the {asked} tokens asked for but {min(other)} to "
            f"{max(other)}: their streams broke off, the context is too short, or the server reports no usage"
        )


def _refuse_slow_arrivals(result: dict[str, Any]) -> None:
    """A server that is faster than the requests arrive is not measured: the client is."""
    rate, reached = float(result["request_rate"]), float(result["request_throughput"])
    if reached > HIGHEST_USE_OF_ARRIVALS * rate:
        raise MeasurementError(
            f"the endpoint answers {reached:.0f} requests a second and only {rate:.0f} arrive: "
            "ask for more output tokens"
        )
