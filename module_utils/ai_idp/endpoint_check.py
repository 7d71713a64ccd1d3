"""Real requests to inference endpoints, and what their answers must look like."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from urllib.parse import quote

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE
from ansible.module_utils.ai_idp.http_exchange import NoAnswer, direct, exchange

SAMPLE = re.compile(r"^[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{.*\})?\s+\S+", re.MULTILINE)


class CheckError(Exception):
    """An endpoint gave no answer, or not the right one."""


def request(url, body=None, key=None, timeout=60):
    """Send one request.

    :param url: address, with ``http`` or ``https``.
    :param body: object that is sent as JSON by POST; None sends a GET.
    :param key: bearer token, or None.
    :param timeout: seconds.
    :returns: (status, text); a status of 400 and above is returned, not raised.
    :raises CheckError: when nothing answers in time, or what answers speaks no HTTP.
    """
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        # The request is made in there, too: an address may be none.
        answer = exchange(lambda: direct().open(urllib.request.Request(url, data, headers), timeout=timeout))
    except NoAnswer as error:
        raise CheckError(f"{url} does not answer within {timeout} s: {error}") from error
    return answer.status, answer.text


def expect(url, status, text, wanted=200):
    """Raise CheckError unless the status is the wanted one."""
    if status != wanted:
        raise CheckError(f"{url} answered {status} instead of {wanted}: {text[:200].strip()}")


def check_health(endpoint, timeout):
    """A health path answers 200."""
    url = endpoint["url"] + endpoint["health_path"]
    expect(url, *request(url, timeout=timeout))
    return "answers"


def check_models(endpoint, timeout):
    """``/v1/models`` lists the model that was deployed."""
    url = endpoint["url"] + "/v1/models"
    status, text = request(url, key=endpoint["api_key"], timeout=timeout)
    expect(url, status, text)
    names = [model["id"] for model in json.loads(text)["data"]]
    if endpoint["model"] not in names:
        raise CheckError(f"{url} lists {names}, not {endpoint['model']}")
    return endpoint["model"]


def chat_body(endpoint, **more):
    """A small chat completion."""
    return {
        "model": endpoint["model"],
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
        "temperature": 0,
        **more,
    }


def check_chat(endpoint, timeout):
    """A chat completion gives tokens."""
    url = endpoint["url"] + "/v1/chat/completions"
    start = time.monotonic()
    status, text = request(url, chat_body(endpoint), endpoint["api_key"], timeout)
    expect(url, status, text)
    tokens = json.loads(text)["usage"]["completion_tokens"]
    if tokens < 1:
        raise CheckError(f"{url} answered without a token")
    return f"{tokens} tokens in {time.monotonic() - start:.2f} s"


def check_stream(endpoint, timeout):
    """A streamed chat completion comes as server-sent events and ends as such."""
    url = endpoint["url"] + "/v1/chat/completions"
    status, text = request(url, chat_body(endpoint, stream=True), endpoint["api_key"], timeout)
    expect(url, status, text)
    events = [line for line in text.splitlines() if line.startswith("data: ")]
    if len(events) < 3 or events[-1] != "data: [DONE]":
        raise CheckError(f"{url} did not stream: {len(events)} events, the last {events[-1:] or 'none'}")
    return f"{len(events) - 1} events"


def check_key(endpoint, timeout):
    """A wrong key is refused, and so is none."""
    url = endpoint["url"] + "/v1/chat/completions"
    for key in ("wrong-key", None):
        expect(url, *request(url, chat_body(endpoint), key, timeout), wanted=401)
    return "a wrong key is refused (401)"


def check_triton(endpoint, timeout):
    """Every named model of a Triton server is ready. Its list of models is for its operator alone."""
    answers = {}
    for name in endpoint["models"]:
        url = f"{endpoint['url']}/v2/models/{quote(name, safe='')}/ready"
        answers[name] = request(url, key=endpoint["api_key"], timeout=timeout)[0]
    missing = sorted(name for name, status in answers.items() if status != 200)
    if missing:
        raise CheckError(f"{endpoint['url']}: not ready: {', '.join(missing)}")
    return f"ready: {', '.join(sorted(answers))}"


def check_infer(endpoint, timeout):
    """The text embedder gives one finite vector of unit length for each text."""
    url = endpoint["url"] + "/v2/models/text_embedder/infer"
    texts = ["a private AI platform", "three machines"]
    body = {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [2, 1], "data": texts}]}
    status, text = request(url, body, endpoint["api_key"], timeout)
    expect(url, status, text)
    output = json.loads(text)["outputs"][0]
    rows, width = output["shape"]
    length = sum(value * value for value in output["data"][:width]) ** 0.5
    if rows != len(texts) or abs(length - 1) > 1e-3:
        raise CheckError(f"{url} gave {rows} vectors, the first of length {length:.3f}, instead of 2 of length 1")
    return f"{rows} vectors of {width}"


def check_metrics(endpoint, timeout):
    """A metrics endpoint gives samples; a replayed one is called that."""
    url = endpoint["metrics_url"]
    status, text = request(url, key=endpoint["api_key"], timeout=timeout)
    expect(url, status, text)
    samples = len(SAMPLE.findall(text))
    if not samples:
        raise CheckError(f"{url} gave no sample")
    return f"{samples} samples" + (", replayed" if 'replay="true"' in text else "")


CHECKS = {
    "openai": [
        ("health", check_health),
        ("models", check_models),
        ("chat completion", check_chat),
        ("streamed chat completion", check_stream),
        ("wrong key", check_key),
        ("metrics", check_metrics),
    ],
    "triton": [("health", check_health), ("models", check_triton), ("metrics", check_metrics)],
    "metrics": [("metrics", check_metrics)],
}
"""Checks of each kind of endpoint, in the order in which they tell most."""


def check_endpoint(endpoint, timeout):
    """Ask one endpoint everything that its kind calls for.

    :param endpoint: mapping with ``name``, ``kind`` (a key of ``CHECKS``), ``url``, ``health_path``, ``metrics_url``,
        ``api_key``, ``model`` and ``models``; the last three may be None.
    :param timeout: seconds for each request.
    :returns: list of ``{"name", "status": "ok" | "fail", "detail"}``.
    """
    checks = list(CHECKS[endpoint["kind"]])
    if "text_embedder" in (endpoint["models"] or []):
        checks.insert(2, ("infer", check_infer))
    results = []
    for name, check in checks:
        try:
            status, detail = "ok", check(endpoint, timeout)
        except CheckError as error:
            status, detail = "fail", str(error)
        except WRONG_SHAPE as error:
            status, detail = "fail", f"{endpoint['url']} gave an answer of another form: {error!r}"
        results.append({"name": f"{endpoint['name']}: {name}", "status": status, "detail": detail})
    return results


def addresses_of(text, port, beside=""):
    """Name the addresses on which a port listens.

    :param text: what ``ss --no-header --listening --numeric --tcp --processes`` prints.
    :param port: the port.
    :param beside: a program whose listeners do not count, as its own door is before this one.
    :returns: sorted list of addresses.
    """
    found = set()
    for line in text.splitlines():
        columns = line.split()
        if len(columns) >= 4 and not (beside and f'"{beside}"' in line):
            address, _, number = columns[3].rpartition(":")
            if number == str(port):
                found.add(address.partition("%")[0].strip("[]"))
    return sorted(found)


def check_listeners(listeners, text):
    """Each port listens on its address and on no other.

    :param listeners: mappings with ``name``, ``address``, ``port`` and maybe ``beside``.
    :param text: what ``ss --no-header --listening --numeric --tcp --processes`` prints.
    :returns: as ``check_endpoint``.
    """
    results = []
    for listener in listeners:
        found = addresses_of(text, listener["port"], listener.get("beside") or "")
        where = ", ".join(found) or "nothing"
        detail = f"port {listener['port']} listens on {where}"
        if found != [listener["address"]]:
            detail += f", not on {listener['address']} alone"
        status = "ok" if found == [listener["address"]] else "fail"
        results.append({"name": f"{listener['name']}: listening", "status": status, "detail": detail})
    return results
