"""Each fault that was found where something wrong was read: it ends in an answer, or in one sentence.

`test_wrong_input_fuzz.py` looks for more of the kind.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import image_pull
import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.ai_idp import (
    benchmark_measure,
    benchmark_tools,
    certificate_info,
    docker_engine,
    edge_host,
    endpoint_check,
    findings,
    fit_input,
    hardware_profile,
    hf_config,
    http_answers,
    http_ask,
    hub_client,
    load_client,
    model_manifest,
    model_shape,
    n8n,
    postgresql,
    preflight_check,
    prometheus_check,
    readiness,
    rpc_latency,
    sample_statistics,
    stack_info,
)
from ansible.module_utils.ai_idp.benchmark_errors import MeasurementError
from ansible.module_utils.ai_idp.host_state import due, units
from ansible.module_utils.ai_idp.http_ask import Reply
from ansible.module_utils.ai_idp.model_source import Lister, Source
from ansible.module_utils.ai_idp.programs import Answer
from ansible.module_utils.ai_idp.registry_upload import Repository, UploadError
from grafana import dashboard_errors, grafana_dashboard_problems
from inference_stack import running_plan
from mutations import DEEP, HTML
from state_files import (
    measured_runs,
    recorded_endpoints,
    recorded_gpus,
    recorded_links,
    recorded_lock,
    recorded_runs,
)
from test_n8n_provision import CREDENTIAL, there
from test_n8n_provision import wanted as workflow
from typer.testing import CliRunner
from wiring import secrets_of

from ai_idp import lab, project
from ai_idp.benchmarks.claims import ClaimsError, load_claims
from ai_idp.benchmarks.findings_file import read_findings
from ai_idp.cli import app
from ai_idp.doctor import Check, Report, examine_hosts
from ai_idp.endpoints import Secrets, load_endpoints
from ai_idp.errors import FrontError
from ai_idp.events import RunState
from ai_idp.forecast import Forecast, remembered
from ai_idp.progress import expected
from ai_idp.project import Host, Project
from ai_idp.runner import extra_vars

# --- what answers in place of a web server ---------------------------------------------------------------

NO_HTTP = {
    "no HTTP at all": b"SSH-2.0-OpenSSH_10.0\r\n",
    "nothing": b"",
    "half a status line": b"HTTP/1.1 2",
    "a line without end": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
    "an answer that breaks off": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    "a refusal that breaks off": b"HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\nno",
    "a refusal in broken chunks": b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.fixture(params=NO_HTTP)
def rude(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that says always the same and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(2)
                    connection.recv(65536)
                    connection.sendall(NO_HTTP[request.param])
                    connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=5)


def endpoint(url: str, **more: Any) -> dict[str, Any]:
    return {"name": "e", "kind": "openai", "url": url, "health_path": "/health", "metrics_url": f"{url}/metrics",
            "api_key": "secret-key", "model": "tiny", "models": None, **more}  # fmt: skip


BAD_URLS = ("http://127.0.0.1:99999", "http://[", "http://a b:x/", "ftp//")


def test_an_endpoint_that_speaks_no_http_fails_its_checks(rude: str) -> None:
    checks = endpoint_check.check_endpoint(endpoint(rude), 5)
    assert {check["status"] for check in checks} == {"fail"}
    assert all(rude in check["detail"] for check in checks)


@pytest.mark.parametrize("url", BAD_URLS)
def test_an_endpoint_whose_address_is_none_fails_its_checks(url: str) -> None:
    checks = endpoint_check.check_endpoint(endpoint(url), 5)
    assert {check["status"] for check in checks} == {"fail"}


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines", "half \ud800"])
def test_a_key_that_no_header_can_hold_is_not_shown(key: str) -> None:
    checks = endpoint_check.check_endpoint(endpoint("http://127.0.0.1:1", api_key=key), 5)
    assert {check["status"] for check in checks} == {"fail"}
    assert not any(key[:5] in check["detail"] for check in checks)


@pytest.mark.parametrize("answer", ['["x"]', "[null]", "3", DEEP, '{"outputs": [{"shape": [2, 2], "data": [1e400]}]}'])
def test_an_embedding_in_another_form_fails_the_check(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_check, "request", lambda *_arguments, **_more: (200, answer))
    checks = endpoint_check.check_endpoint(endpoint("http://h", kind="triton", models=["text_embedder"]), 5)
    failed = {check["name"] for check in checks if check["status"] == "fail"}
    assert "e: infer" in failed


def test_questions_to_programs_of_the_host_get_no_answer_or_a_refusal(rude: str) -> None:
    assert http_ask.ask(rude).status == 0
    assert http_ask.ask(rude).text
    assert http_answers.fetch(http_answers.Ask("x", rude)).status is None


@pytest.mark.parametrize("url", BAD_URLS)
def test_questions_to_no_address_get_no_answer(url: str) -> None:
    assert http_ask.ask(url).status == 0
    assert http_answers.fetch(http_answers.Ask("x", url)).status is None
    assert isinstance(units.answer_of(url), str)


def test_a_text_that_is_nested_too_deeply_is_no_json() -> None:
    assert Reply(200, DEEP).json() is None


def test_n8n_that_is_none_is_one_sentence(rude: str) -> None:
    with pytest.raises(n8n.N8nError, match="n8n does not answer at"):
        n8n.Client(rude, 5).ask("GET", "/")


@pytest.mark.parametrize("url", BAD_URLS)
def test_n8n_at_no_address_is_one_sentence(url: str) -> None:
    with pytest.raises(n8n.N8nError, match="n8n does not answer at"):
        n8n.Client(url, 5).ask("GET", "/")


def test_a_server_that_is_to_be_measured_and_is_none_is_one_sentence(rude: str) -> None:
    with pytest.raises(MeasurementError, match="does not answer"):
        benchmark_measure.probe_endpoint(rude, "key", None)


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_server_at_no_address_is_one_sentence(url: str) -> None:
    with pytest.raises(MeasurementError, match="does not answer"):
        benchmark_measure.probe_endpoint(url, "key", None)


def test_a_registry_that_is_none_is_one_sentence(rude: str) -> None:
    with pytest.raises(UploadError):
        Repository(rude.removeprefix("http://"), "n").has_image("t", "i")


@pytest.mark.parametrize("registry", ["127.0.0.1:99999", "127.0.0.1:x", "[::1"])
def test_a_registry_at_no_address_is_one_sentence(registry: str) -> None:
    with pytest.raises(UploadError):
        Repository(registry, "n").has_image("t", "i")


@pytest.mark.parametrize("body", [b"null", b"[]", b'{"annotations": null, "config": []}'])
def test_a_manifest_in_another_form_is_of_another_image(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository("127.0.0.1:1", "n")
    monkeypatch.setattr(repository, "_ask", lambda *_arguments, **_more: (200, {}, body))
    assert not repository.has_image("t", "i")


@pytest.mark.parametrize("body", [b"", HTML.encode(), DEEP.encode()])
def test_a_registry_that_tells_no_manifest(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository("127.0.0.1:1", "n")
    monkeypatch.setattr(repository, "_ask", lambda *_arguments, **_more: (200, {}, body))
    with pytest.raises(UploadError, match="is no registry"):
        repository.has_image("t", "i")


@pytest.mark.parametrize("location", [None, "", "http://["])
def test_a_registry_that_does_not_say_where_an_upload_goes(
    location: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository = Repository("127.0.0.1:1", "n")
    monkeypatch.setattr(repository, "_ask", lambda *_arguments, **_more: (202, {"Location": location}, b""))
    (tmp_path / "layer").write_bytes(b"x")
    with (tmp_path / "layer").open("rb") as stream, pytest.raises(UploadError, match="does not say where"):
        repository.upload(stream, 1)


def test_a_hub_that_speaks_no_http_is_one_sentence(rude: str) -> None:
    lister = Lister("m", hub_client.Web(rude, "token", 5), 0, 0)
    with pytest.raises(hub_client.DownloadError):
        lister.listing(Source(type="huggingface", repository="a/b", revision="main"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[", "http://h:x"])
@pytest.mark.parametrize("kind", ["huggingface", "url"])
def test_a_hub_at_no_address_is_one_sentence(url: str, kind: str) -> None:
    lister = Lister("m", hub_client.Web(url, "token", 5), 0, 0)
    source = Source(type=kind, repository="a/b", revision="main", url=f"{url}/file")
    with pytest.raises(hub_client.DownloadError):
        lister.listing(source)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "https://127.0.0.1:0x", "tcp://[", "http://[::1", "tcp://h:99999"]
)
def test_a_preflight_names_an_address_that_is_none(url: str) -> None:
    check = preflight_check.check_url({"url": url, "variable": "some_url"}, 1)
    assert check.status == preflight_check.FAIL
    assert check.problem.startswith(f"some_url: '{url}' is not a usable URL") or "is not a usable URL" in check.problem


def test_a_preflight_asks_for_no_more_than_a_status(rude: str) -> None:
    check = preflight_check.check_url({"url": rude, "accept_status": [200]}, 5)
    assert (check.status == preflight_check.OK) == (check.detail == "HTTP 200")


# --- Prometheus, Grafana, n8n ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    ['{"data": {"groups": [{"rules": [null]}]}}', '{"data": {"groups": [{"rules": [{"health": "err"}]}]}}', DEEP],
)
def test_rules_in_another_form_are_a_problem(answer: str) -> None:
    assert prometheus_check.failing_rules(Reply(200, answer)).startswith("it does not tell its rules")


def test_a_time_that_is_none_is_a_problem() -> None:
    text = "prometheus_config_last_reload_success_timestamp_seconds soon\n"
    assert "does not tell when" in prometheus_check.not_taken_over(Reply(200, text), 1.0)


class SmallN8n(n8n.Client):
    """An n8n that answers the same to everything."""

    def __init__(self, body: Any) -> None:
        super().__init__("http://127.0.0.1:1", 1)
        self.body = body

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> n8n.Answer:
        return n8n.Answer(200, self.body, [])


@pytest.mark.parametrize(
    "body", [None, [], "x", {"data": None}, {"data": [None]}, {"data": [{"id": []}]}, {"data": [{}]}]
)
def test_credentials_in_another_form_are_one_sentence(body: Any) -> None:
    with pytest.raises(n8n.N8nError, match="its list of credentials has another form"):
        n8n.credentials(SmallN8n(body))


def test_a_list_of_credentials_that_does_not_end_is_one_sentence() -> None:
    entry = {**CREDENTIAL, "updatedAt": "2026"}
    with pytest.raises(n8n.N8nError, match="does not end"):
        n8n.credentials(SmallN8n({"data": [entry], "nextCursor": "again"}))


@pytest.mark.parametrize("body", [None, [], "x", 3])
def test_a_workflow_in_another_form_is_one_sentence(body: Any) -> None:
    with pytest.raises(n8n.N8nError, match="has another form"):
        n8n.workflow(SmallN8n(body), "w")


@pytest.mark.parametrize("more", [{"nodes": [None, "x"]}, {"nodes": 3}, {"settings": []}, {"nodes": [{"name": []}]}])
def test_parts_of_a_workflow_in_another_form_differ(more: dict[str, Any]) -> None:
    current = n8n.workflow(SmallN8n({**there(workflow()), **more}), "w")
    assert n8n.differences(workflow(), current or {})


@pytest.mark.parametrize("body", [{"data": []}, {"data": 5}, {"data": {"rawApiKey": None}}, [], None])
def test_a_key_that_n8n_does_not_give_is_one_sentence(body: Any) -> None:
    with pytest.raises(n8n.N8nError, match="refuses an API key"):
        n8n.make_key(SmallN8n(body), "a@b", "p")


def test_what_n8n_says_of_a_written_credential_may_have_another_form() -> None:
    with pytest.raises(n8n.N8nError, match="the credential Model has another form"):
        n8n.write_credential(SmallN8n({}), CREDENTIAL, "create")


@pytest.mark.parametrize("content", [b"\xff", b"[]", b'{"c": "x"}', b'{"c": null}', DEEP.encode()])
def test_a_memory_of_n8n_that_is_damaged_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(content)
    assert n8n.read_memory(str(path)) == {}
    assert n8n.read_memory(str(tmp_path)) == {}


@pytest.mark.parametrize("content", [b"\xff", DEEP.encode(), b"[]", b"null", b"3"])
def test_a_config_of_n8n_that_is_damaged_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(content)
    with pytest.raises(n8n.N8nError, match=str(path)):
        n8n.key_matches(str(path), "k")


def test_a_folder_in_place_of_a_file_of_n8n_is_one_sentence(tmp_path: Path) -> None:
    for act in (n8n.read_private, lambda path: n8n.write_private(path, "x")):
        with pytest.raises(n8n.N8nError, match=str(tmp_path)):
            act(str(tmp_path))


@pytest.mark.parametrize("panel", ["gridPos", "targets", "fieldConfig", "datasource"])
def test_a_dashboard_in_another_form_has_its_sentence(panel: str) -> None:
    document = {"panels": [{"id": [], "type": "x", "title": "t", panel: "x"}, {"id": 2, panel: 3}]}
    assert all(error.startswith("d: ") for error in dashboard_errors(json.dumps(document), "d", "u"))
    assert dashboard_errors(DEEP, "d", "u")


def test_a_dashboard_that_is_no_text_has_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_bytes(b"\xff")
    assert "no UTF-8 text" in grafana_dashboard_problems({"d": str(tmp_path / "d.json")}, "u")[0]


# --- what programs print --------------------------------------------------------------------------------


def client_told(rtt: float | None) -> str:
    names = ("hello", "allocate", "rtt", "rpc_latency", "logits")
    stream = {"bytes": 1_000_000, "seconds": 0.1}
    kernel = {} if rtt is None else {"shortest_rtt_ms": rtt}
    cases = {name: {"milliseconds": [0.1, 0.2, 0.3]} for name in names}
    return json.dumps({"cases": cases, "streams": {"there": stream, "back": stream}, "kernel": kernel})


def test_a_path_may_lack_what_the_kernel_does_not_tell_each_time() -> None:
    """``link_rtt_ms`` is optional: the first run has it, the second has not."""
    path = rpc_latency.Path({"address": "10.0.0.2", "interface": "eth0"}, {"address": "10.0.0.3"}, True, True)
    path.runs = [rpc_latency.parse_client(client_told(0.05)), rpc_latency.parse_client(client_told(None))]
    metrics = path.describe()["metrics"]
    assert "link_rtt_ms" not in metrics
    assert metrics["rpc_latency_p50_ms"]["n"] == 2


@pytest.mark.parametrize(
    "more",
    [
        {"kernel": {"retransmits": [1]}},
        {"kernel": [1]},
        {"program_bytes": {"sent": 1}, "interface_bytes": {"sent": 1}},
        {"program_bytes": {"sent": 1, "received": 1}, "interface_bytes": [1]},
        {"streams": {"there": {"bytes": 10**400, "seconds": 1}, "back": {"bytes": 1, "seconds": 1}}},
        {"streams": {"there": {"bytes": 1e308, "seconds": 1e-308}, "back": {"bytes": 1, "seconds": 1}}},
    ],
)
def test_a_client_that_tells_something_else_gives_no_measurement(more: dict[str, Any]) -> None:
    with pytest.raises(MeasurementError):
        rpc_latency.parse_client(json.dumps({**json.loads(client_told(0.1)), **more}))


@pytest.mark.parametrize(
    "text",
    [
        "[null]", "3", DEEP, '[{"ifname": "eth0", "addr_info": ["x"]}]',
        '[{"ifname": "eth0", "addr_info": [{"family": "inet"}]}]',
        '[{"ifname": "eth0", "addr_info": [{"family": "inet", "local": "x", "prefixlen": 24}]}]',
        '[{"ifname": "eth0", "addr_info": [{"family": "inet", "local": "10.0.0.2", "prefixlen": 240}]}]',
        '[{"ifname": "eth0", "addr_info": [{"family": "inet", "local": "10.0.0.2", "prefixlen": "255.0.0.0"}]}]',
    ],
)  # fmt: skip
def test_addresses_in_another_form_are_one_sentence(text: str) -> None:
    with pytest.raises(MeasurementError, match="ip told no addresses but"):
        rpc_latency.parse_addresses(text)


@pytest.mark.parametrize("text", ["[1]", '["x"]', "[null]", DEEP])
def test_a_route_in_another_form_is_none(text: str) -> None:
    assert rpc_latency.parse_route(text) == ("", "")


@pytest.mark.parametrize(
    "more",
    [{"runs": ["x"]}, {"runs": {}, "parameters": 3}, {"command": "x"}, {"runs": [{"metrics": 1}]}, {"devices": 3},
     {"subject": {"best": "x"}}, {"flags": [1]}],
)  # fmt: skip
def test_a_result_in_another_form_gives_no_verdict(more: dict[str, Any]) -> None:
    run = {"metrics": {"decode_tokens_per_second": 1.0, "prompt_tokens_per_second": 1.0, "rtt_p50_ms": 1.0}}
    good = {"status": "ok", "command": ["llama-bench"], "runs": [run, run]}
    for place in range(3):
        results = [good] * 3
        results[place] = {**good, **more}
        found = rpc_latency.offload_of(*results, through="10.0.0.3:1", minimum_ratio=1.0)
        assert found["verdict"] == "not_measured"


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan"), "1", None, True])
def test_a_number_that_no_float_holds_is_no_figure(value: Any) -> None:
    with pytest.raises(sample_statistics.StatisticsError, match="not a finite number"):
        sample_statistics.numbers([1.0, value])


def test_figures_that_are_too_large_are_one_sentence() -> None:
    with pytest.raises(sample_statistics.StatisticsError, match="too large"):
        sample_statistics.summarize([1.0, 1e308, 1e308])


def test_a_load_client_that_left_a_folder_or_too_long_a_number(tmp_path: Path) -> None:
    result = tmp_path / load_client.RESULT
    result.mkdir()
    with pytest.raises(MeasurementError, match="can't be read"):
        load_client.parse("", str(tmp_path))
    result.rmdir()
    golden = json.loads((GOLDEN / "load_client" / "vllm-0.30.0-ok-concurrency-4.json").read_text())
    for content in (DEEP, json.dumps({**golden, "request_rate": 10**400})):
        result.write_text(content)
        with pytest.raises(MeasurementError, match="another form"):
            load_client.parse("", str(tmp_path))


def told_by(info: str) -> Callable[[list[str], float], Answer]:
    def program(argv: list[str], timeout: float) -> Answer:
        shown = "LoadState=loaded\nActiveState=active\nSubState=running\n"
        return Answer(0, shown if argv[0] == "systemctl" else info)

    return program


@pytest.mark.parametrize("info", ["{", '{"ClientInfo": {"Plugins": ["x"]}}', '{"ClientInfo": 3}', '{"a": ' + DEEP])
def test_a_docker_that_tells_something_else_is_a_problem(info: str) -> None:
    (problem,) = docker_engine.look({"log-driver": "local"}, told_by(info)).problems
    assert "another form" in problem


@pytest.mark.parametrize(
    "output", ["[1]", "null", "[[]]", '{"Labels": 3, "ID": "x"}', '{"ID": "x", "Ports": null}', DEEP]
)
def test_docker_ps_in_another_form_tells_of_no_containers(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_check.shutil, "which", lambda *_arguments, **_more: "docker")
    monkeypatch.setattr(
        preflight_check.subprocess, "run", lambda *_arguments, **_more: SimpleNamespace(returncode=0, stdout=output)
    )
    assert preflight_check.Host().containers() is None


@pytest.mark.parametrize("output", ["", "[]", "{}", "[null]", '[{"RepoDigests": [3]}]', '[{"RepoDigests": 3}]', DEEP])
def test_an_image_in_another_form_is_one_sentence(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        image_pull.subprocess, "run", lambda *_arguments, **_more: SimpleNamespace(returncode=0, stdout=output)
    )
    with pytest.raises(image_pull.PullError, match="another form"):
        image_pull.Images(1, None).inspect("r/i:1", None)


def test_a_docker_that_hangs_or_can_not_be_started_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    images = image_pull.Images(1, None)
    images.docker = ["sleep", "5"]
    monkeypatch.setattr(image_pull, "pinned", lambda *_arguments: "5")
    images.run = lambda argv: image_pull.Images.run(SimpleNamespace(docker=["sleep", "5"], timeout=0.1), [])  # type: ignore[method-assign]
    with pytest.raises(image_pull.PullError, match="it hangs"):
        images.inspect("r/i:1", None)
    with pytest.raises(image_pull.PullError, match="can't be started"):
        image_pull.Images.run(SimpleNamespace(docker=["/nowhere/docker"], timeout=1), [])


@pytest.mark.parametrize("text", ["login\tx\n", "ERROR\n", "login\ta\tb\tc\td\n", "x\ta\tb\tc\n"])
def test_rows_of_postgresql_in_another_form_are_one_sentence(text: str) -> None:
    with pytest.raises(postgresql.PostgresqlError, match="four fields"):
        postgresql.read_server(text)


def test_a_password_of_postgresql_may_be_kept_in_any_form() -> None:
    kept = postgresql.scram_verifier("p", b"0" * 16, 1)
    assert not postgresql.is_of("p", kept[:-4] + "üü==")


def test_a_certificate_whose_end_can_not_be_read_is_a_problem(tmp_path: Path) -> None:
    printed = (
        "subject=\nnotAfter=Foo 31 22:00:07 2027 GMT\n-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
    )
    (tmp_path / "c").touch()
    path = str(tmp_path / "c")
    inspector = certificate_info.Inspector(program=lambda argv, timeout: Answer(0, printed))
    inspector.server(certificate_info.Server(path, path, "", ("a",), (), 30, private=False, client=False))
    assert inspector.problems == [f"{path} is no certificate that can be read"]


# --- files of an earlier run ----------------------------------------------------------------------------


def test_a_result_whose_runs_have_another_form_is_not_there(tmp_path: Path) -> None:
    wanted = benchmark_measure.Wanted("m", "sysbench_cpu", {}, str(tmp_path))
    measurement = benchmark_measure.Measurement(wanted)
    for more in ({"runs": ["x"]}, {"runs": [{"seconds": "1"}]}, {"runs": 3}, {"parameters": []}, {"rounds": "x"}):
        content = {"schema": benchmark_measure.SCHEMA, "status": "ok", "key": None, "runs": [], **more}
        (tmp_path / "m.json").write_text(json.dumps(content))
        assert measurement.plan()["finished"] is None
    (tmp_path / "m.json").write_text(DEEP)
    assert measurement.plan()["finished"] is None


@pytest.mark.parametrize(
    "more", [{"parameters": 3}, {"parameters": {"seconds": "x"}}, {"runs": [3, 3]}, {"subject": {}}]
)
def test_a_link_result_in_another_form_is_measured_anew(more: dict[str, Any], tmp_path: Path) -> None:
    wanted = rpc_latency.Wanted([], [], str(tmp_path), "p", runs=2)
    survey = rpc_latency.Survey(wanted, lambda address: ("", ""))
    run = {"metrics": {"rpc_latency_p50_ms": 1.0}}
    best = {"source": {"address": "a"}, "peer": {"address": "b"}}
    good = {"schema": 1, "status": "ok", "key": survey.result["key"], "parameters": {"seconds": 1}, "runs": [run, run],
            "subject": {"best": best}, "measured_at": "2026"}  # fmt: skip
    (tmp_path / "rpc-latency.json").write_text(json.dumps(good))
    assert survey.finished() == good
    (tmp_path / "rpc-latency.json").write_text(json.dumps({**good, **more}))
    assert survey.finished() is None


@pytest.mark.parametrize("entry", ["x", 3, {"mark": "MARK"}, {"mark": "MARK", "sha256": 3}])
def test_a_cache_of_hashes_in_another_form_is_passed_over(entry: Any, tmp_path: Path) -> None:
    model, cache = tmp_path / "m", tmp_path / "cache"
    model.write_bytes(b"x")
    info = model.stat()
    mark = f"{info.st_size}:{info.st_mtime_ns}:{info.st_ino}"
    cache.write_text(json.dumps({str(model): entry}).replace("MARK", mark))
    digest = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert benchmark_measure.model_hash(str(model), str(cache)) == digest


def test_findings_in_another_form_are_none() -> None:
    row = dict.fromkeys(findings.COLUMNS, "x")
    good = {"schema": findings.SCHEMA, "environment": "lab", "findings": [row], "measurements": [], "history": []}
    assert findings.read_document(json.dumps(good)) == good
    for more in ({"findings": [{**row, "reason": None}]}, {"measurements": [{}]}, {"history": [{"host": 3}]}):
        assert findings.read_document(json.dumps({**good, **more})) is None
    assert findings.read_document(DEEP) is None
    assert findings.parse_history(DEEP) == ([], [DEEP])


@pytest.mark.parametrize("more", [{"runs": {"a": {}}}, {"devices": 0.5}, {"hardware": {"gpus": 3}}])
def test_lists_that_are_none_make_a_result_unusable(more: dict[str, Any]) -> None:
    result = {"id": "a", "host": "h", "status": "ok", "schema": findings.SCHEMA, "runs": []}
    assert findings.usable(result) == ""
    assert "another form" in findings.usable({**result, **more})


@pytest.mark.parametrize("tokens", ["x", [1], 10**400, -1])
def test_tokens_of_llama_bench_that_are_none_are_one_sentence(tokens: Any) -> None:
    row = {"n_prompt": tokens, "n_gen": 0, "samples_ns": [1]}
    with pytest.raises(MeasurementError, match="the tokens of a test of llama-bench is"):
        benchmark_tools.parse_llama_bench(json.dumps([row]), "")


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e308", "-1e308", "1" + "0" * 400])
def test_findings_with_a_number_that_no_measurement_gives_are_one_sentence(number: str, tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    path.write_text(f'{{"schema": 1, "findings": [], "history": [{{"id": "a", "metrics": {{"m": [{number}]}}}}]}}')
    with pytest.raises(FrontError, match="holds a number that no measurement gives"):
        read_findings(path)


def test_half_a_character_in_findings_can_be_written() -> None:
    row = dict.fromkeys(findings.COLUMNS, "\ud800")
    assert findings.csv_text({"findings": [row]}).encode()
    assert findings.json_text({"a": "\ud800"}).encode()
    assert findings.history_text([{"a": "\ud800"}], []).encode()


def test_a_profile_in_another_form_is_none() -> None:
    good: dict[str, Any] = {"format": hardware_profile.FORMAT, **dict.fromkeys(hardware_profile.PARTS)}
    assert hardware_profile.parse_stored(json.dumps(good)) == good
    for more in ({"disks": ["x"]}, {"gpus": 3}, {"cpu": {"x": 1}}, {"memory": {"total_bytes": "x", "modules": []}}):
        assert hardware_profile.parse_stored(json.dumps({**good, **more})) is None
    assert hardware_profile.parse_stored(DEEP) is None


@pytest.mark.parametrize("entry", [None, "x", {}, {"path": 3}, {"path": "\ud800", "size_bytes": 1, "mtime_ns": 1},
                                   {"path": "a\0", "size_bytes": 1, "mtime_ns": 1}])  # fmt: skip
def test_a_manifest_in_another_form_is_none(entry: Any, tmp_path: Path) -> None:
    (tmp_path / model_manifest.MANIFEST_NAME).write_text(json.dumps({"files": [entry]}))
    assert model_manifest.read_manifest(str(tmp_path)) == {}
    assert readiness.held_bytes(readiness.Model("m", str(tmp_path))) is None


def test_a_manifest_that_is_a_folder_is_no_model_that_is_held(tmp_path: Path) -> None:
    (tmp_path / model_manifest.MANIFEST_NAME).mkdir()
    assert readiness.held_bytes(readiness.Model("m", str(tmp_path))) is None


@pytest.mark.parametrize("number", ["Infinity", "1e400", "1" + "0" * 400, "NaN"])
def test_a_number_of_a_model_that_no_float_holds_is_one_sentence(number: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        f'{{"num_hidden_layers": {number}, "hidden_size": 64, "num_attention_heads": 2}}'
    )
    with pytest.raises(model_shape.ShapeError, match="num_hidden_layers"):
        model_shape.from_path("m", str(tmp_path))
    index = {"metadata": {"total_size": 0}}
    (tmp_path / hf_config.INDEX_NAME).write_text(json.dumps(index).replace("0}", f"{number}}}"))
    assert hf_config.read_folder(str(tmp_path)).weights_bytes is None


def test_offsets_without_end_are_one_sentence(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "F16", "data_offsets": [0, Infinity]}}'
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(hf_config.ConfigError, match="tensor 'a' is broken"):
        hf_config.read_safetensors_header(str(tmp_path / "a"))


def test_a_setting_that_no_float_holds_is_one_sentence() -> None:
    with pytest.raises(fit_input.InputError, match="x is 1000"):
        fit_input.whole(10**400, "x", 1, 1, 10, "what", "advice")


def test_what_is_due_for_a_unit_may_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "unit").write_bytes(b"rest\xefart 1\n")
    shown = units.parse_show("LoadState=loaded\nActiveState=active\nInvocationID=1\n")[0]
    assert due.Due(True, {"unit": due.Triggers()}, lambda names: {"unit": shown}, str(tmp_path))


def test_a_compose_file_that_is_no_text_is_another(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_bytes(b"\xff")
    assert stack_info.describe(str(tmp_path), "root")["release"] == "\ufffd"


def test_a_release_of_llama_cpp_that_is_nested_too_deeply_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "release.json").write_text(DEEP)
    with pytest.raises(ValueError, match="nested"):
        edge_host.release_of(str(tmp_path / "release.json"))


# --- what playbooks read --------------------------------------------------------------------------------

NO_JSON = ["", "{", HTML, DEEP, "9" * 5000]


@pytest.mark.parametrize(
    "text", [*NO_JSON, "null", "[]", "{}", '{"endpoints": null}', '{"endpoints": [{"name": "a"}]}']
)
def test_endpoints_for_a_playbook_are_whole_or_one_sentence(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"^/x\.json .*: remove it and run week 2"):
        recorded_endpoints(text, "/x.json")


@pytest.mark.parametrize(
    "odd",
    [
        *({"own": "x"}, {"own": []}, {"own": {}}, {"own": {"url": 3}}, {"own": {"url": "http://x", "name": "b"}}),
        *({"own": {"url": "http://x", "key": []}}, {"key": ["k"]}, {"models": "m"}, {"models": [1]}, {"model": {}}),
    ],
)
def test_an_odd_endpoint_for_a_playbook_is_one_sentence(odd: dict[str, Any]) -> None:
    one = {"name": "a", "host": "h", "kind": "http", "url": "http://x"}
    with pytest.raises(AnsibleFilterError, match=r"^/x\.json has an endpoint 'a' of 'h' .*: remove it and run week 2"):
        recorded_endpoints(json.dumps({"endpoints": [one, {**one, **odd}]}), "/x.json")


@pytest.mark.parametrize(
    "text", [*NO_JSON, "null", "[]", '{"jetson": null}', '{"jetson": {"address": 3, "client": "a"}}']
)
def test_links_for_a_playbook_are_whole_or_one_sentence(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"^/x\.json .*: remove it and run week 4"):
        recorded_links(text, "/x.json")


@pytest.mark.parametrize(
    "text",
    [
        *NO_JSON,
        *("null", "[]", '{"experiment": "e"}', '{"runs": []}', '{"experiment": "e", "runs": [null]}'),
        '{"experiment": "e", "runs": [{"run_name": "r", "params": {}, "metrics": [], "tags": {}}]}',
    ],
)
def test_runs_for_a_playbook_are_whole_or_one_sentence(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"^/x\.json .*: remove it and run week 1"):
        recorded_runs(text, "/x.json")


def test_runs_are_read_as_they_were_written() -> None:
    text = '{"experiment": "e", "runs": [{"run_name": "r", "params": {}, "metrics": {"m": 1.5}, "tags": {}}]}'
    assert recorded_runs(text, "p")["runs"][0]["metrics"] == {"m": 1.5}


def write_runs(folder: Path, *environments: str) -> None:
    folder.mkdir(exist_ok=True)
    runs = [{"run_name": f"week1-{name}", "params": {}, "metrics": {}, "tags": {"environment": name}}
            for name in environments]  # fmt: skip
    untagged = {"run_name": "of nobody", "params": {}, "metrics": {}, "tags": {}}
    (folder / "week1_mlflow.json").write_text(json.dumps({"experiment": "e", "runs": [*runs, untagged]}))
    (folder / "week1_findings.csv").write_text(f"table of {environments}\n")


def test_each_environment_has_its_own_runs_logged_whichever_was_measured_last(tmp_path: Path) -> None:
    assert measured_runs(str(tmp_path), "production") == []
    write_runs(tmp_path, "lab")
    assert measured_runs(str(tmp_path), "production") == []
    write_runs(tmp_path / "production", "production")
    for name in ("lab", "production"):
        [found] = measured_runs(str(tmp_path), name)
        assert [run["run_name"] for run in found["runs"]] == [f"week1-{name}"]
        assert (found["experiment"], found["artifacts"]) == ("e", {"week1_findings.csv": f"table of {(name,)}\n"})
    (tmp_path / "production" / "week1_findings.csv").unlink()
    assert measured_runs(str(tmp_path), "production")[0]["artifacts"] == {}


def test_a_table_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    write_runs(tmp_path, "lab")
    (tmp_path / "week1_findings.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(AnsibleFilterError, match=r"week1_mlflow\.json or week1_findings\.csv beside it can't be read"):
        measured_runs(str(tmp_path), "lab")


@pytest.mark.parametrize("text", [*NO_JSON, "null", "[]"])
def test_a_recorded_gpu_is_whole_or_one_sentence(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"^/x\.json is no .*inference_stack_gpu_replay"):
        recorded_gpus(text, "/x.json")


@pytest.mark.parametrize(
    "text",
    ["images: [a\n", "- a\n", "x\n", HTML, DEEP, "x: 2026-99-99\n", "\ud800", "images: [a]\n", "images: {a: null}\n",
     "models: {a: x}\n", "models: {a: {files: {b: {}}}}\n"],
)  # fmt: skip
def test_a_lock_is_whole_or_one_sentence(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"^/lock\.yml .*: correct it, or take it back from Git"):
        recorded_lock(text, "/lock.yml")


def test_state_files_that_are_good_are_read() -> None:
    one = {"name": "a", "host": "h", "kind": "http", "url": "http://x"}
    assert recorded_endpoints(json.dumps({"endpoints": [one]}), "p") == [one]
    own = {"url": "http://127.0.0.1:1", "metrics_url": None, "key": "k"}
    gated = {**one, "own": own, "key": "g", "model": None, "models": ["m"], "health_path": None, "metrics_url": None}
    assert recorded_endpoints(json.dumps({"endpoints": [gated]}), "p") == [gated]
    assert recorded_links('{"j": {"address": "a", "client": "b"}}', "p") == {"j": {"address": "a", "client": "b"}}
    assert recorded_gpus('{"gpus": []}', "p") == {"gpus": []}
    assert recorded_lock("", "p") == {}
    assert recorded_lock("images: {a: sha256:1}\nmodels:\n  m: {source: {}, files: {b: {sha256: c}}}\n", "p")["models"][
        "m"
    ]


@pytest.mark.parametrize("text", ["x: 2026-99-99\n", DEEP, "\ud800: x\n", "- a\n", "a: [\n"])
def test_secrets_for_a_playbook_are_whole_or_one_sentence(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"^/s\.yml is no list of NAME: VALUE lines"):
        secrets_of(text, "/s.yml")


@pytest.mark.parametrize("text", [DEEP, "x: 2026-99-99\n"])
def test_a_release_that_can_not_be_read_has_no_plan(text: str) -> None:
    assert running_plan(text) == {}


# --- the command ----------------------------------------------------------------------------------------

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose lab has one endpoint of the gateway, and no hosts that would be asked."""
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "ansible.cfg").touch()
    state = tmp_path / "inventory" / "lab" / "state"
    state.mkdir(parents=True)
    (state.parent / "hosts.yml").touch()
    one = {"name": "gateway", "host": "h", "kind": "openai", "url": "https://127.0.0.1:1", "key": "k"}
    (state / "endpoints.json").write_text(json.dumps({"schema": 1, "environment": "lab", "endpoints": [one]}))
    (state.parent / "secrets.yml").write_text("k: abc\n")
    monkeypatch.setenv("AI_IDP_HOME", str(tmp_path))
    monkeypatch.setattr(Project, "hosts", lambda *_arguments: [Host("h", "127.0.0.1", 1, "local")])
    return tmp_path


def doctor_says(*hosts: Host, folder: Path) -> dict[str, Check]:
    report = asyncio.run(examine_hosts(folder / "inventory" / "lab", list(hosts), 5))
    assert not report.ok
    return {check.name: check for check in report.checks}


@pytest.mark.parametrize("content", [b"", b"\xff", HTML.encode(), b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_the_doctor_names_a_ca_that_is_none(content: bytes, checkout: Path) -> None:
    (checkout / "inventory" / "lab" / "state" / "ca.crt").write_bytes(content)
    said = doctor_says(folder=checkout)["ca certificate"]
    assert said.status == "fail"
    assert said.detail.startswith("inventory/lab/state/ca.crt holds no certificate: remove it and run")


def test_the_doctor_names_a_ca_that_is_a_folder(checkout: Path) -> None:
    (checkout / "inventory" / "lab" / "state" / "ca.crt").mkdir()
    assert doctor_says(folder=checkout)["ca certificate"].status == "fail"


@pytest.mark.parametrize("port", [99999, -1])
def test_the_doctor_takes_a_port_that_is_none(port: int, checkout: Path) -> None:
    said = doctor_says(Host("h", "127.0.0.1", port, "ssh"), folder=checkout)["ssh"]
    assert said.status == "fail"
    assert str(port) in said.detail


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[", "http://a b", "http://", "http://" + "ü" * 80])
def test_the_doctor_takes_an_endpoint_whose_address_is_none(url: str, checkout: Path) -> None:
    path = checkout / "inventory" / "lab" / "state" / "endpoints.json"
    path.write_text(path.read_text().replace("https://127.0.0.1:1", url))
    said = doctor_says(folder=checkout)
    assert said.get("gateway: models", said["endpoints"]).status == "fail"


@pytest.mark.parametrize("key", ["schlüssel", '"a\\nb"', "[1]", "{a: b}"])
def test_a_key_that_no_header_can_hold_is_unknown_to_the_doctor(key: str, checkout: Path) -> None:
    (checkout / "inventory" / "lab" / "secrets.yml").write_text(f"k: {key}\n", encoding="utf-8")
    said = doctor_says(folder=checkout)["gateway: models"]
    assert said.status == "unknown"
    assert "inventory/lab/secrets.yml" in said.detail


def test_the_doctor_names_an_endpoint_that_speaks_no_http(rude: str, checkout: Path) -> None:
    path = checkout / "inventory" / "lab" / "state" / "endpoints.json"
    path.write_text(path.read_text().replace("https://127.0.0.1:1", rude))
    assert doctor_says(folder=checkout)["gateway: models"].status == "fail"


def test_a_report_can_be_written_whatever_was_answered() -> None:
    check = Check(name="\ud800", host="h", status="ok", detail="\udcff")
    assert Report.of([check]).model_dump_json().encode()


@pytest.mark.parametrize("answer", [DEEP, "null", "[]", '{"data": [{"id": "\\ud800"}]}'])
def test_the_doctor_takes_any_json(answer: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = httpx.AsyncClient

    def client(**_more: Any) -> httpx.AsyncClient:
        return whole(transport=httpx.MockTransport(lambda request: httpx.Response(200, text=answer)))

    monkeypatch.setattr(httpx, "AsyncClient", client)
    said = doctor_says(folder=checkout)
    assert Report.of(list(said.values())).model_dump_json().encode()


@pytest.mark.parametrize("content", [b"", b"\xff", DEEP.encode(), HTML.encode(), b"null", b'{"schema": "\\ud800"}'])
def test_endpoints_that_make_no_sense_are_one_sentence(content: bytes, checkout: Path) -> None:
    inventory = checkout / "inventory" / "lab"
    (inventory / "state" / "endpoints.json").write_bytes(content)
    with pytest.raises(FrontError, match=r"^inventory/lab/state/endpoints\.json .*run `ai-idp lab up` again") as caught:
        load_endpoints(inventory)
    assert str(caught.value).encode()


@pytest.mark.parametrize(
    "content", [b"\xff", b"k: 2026-99-99\n", b"k: !vault [1]\n", DEEP.encode(), b"- a\n", b"k: [\n"]
)
def test_secrets_that_make_no_sense_are_one_sentence(content: bytes, checkout: Path) -> None:
    inventory = checkout / "inventory" / "lab"
    (inventory / "secrets.yml").write_bytes(content)
    with pytest.raises(FrontError, match=r"inventory/lab/secrets\.yml"):
        Secrets(inventory).get("k")


def test_encrypted_secrets_that_hold_no_text_are_one_sentence(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible.parsing.vault import VaultLib, VaultSecret

    inventory = checkout / "inventory" / "lab"
    (checkout / "password").write_text("p\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(checkout / "password"))
    encrypted = VaultLib().encrypt(b"k: \xff\n", secret=VaultSecret(b"p"))
    (inventory / "secrets.yml").write_bytes(encrypted)
    with pytest.raises(FrontError, match="its text is no UTF-8"):
        Secrets(inventory).get("k")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(checkout / "nowhere"))
    with pytest.raises(FrontError, match="can't be decrypted"):
        Secrets(inventory).get("k")


def inventory_says(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SimpleNamespace(returncode=0, stdout=output, stderr="")
    monkeypatch.setattr(project.subprocess, "run", lambda *_arguments, **_more: answer)


@pytest.mark.parametrize("port", ["99999", "0", '"x"', "Infinity", "[]", "true", '"{{ port }}"'])
def test_a_port_that_is_none_is_named(port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventory" / "x").mkdir(parents=True)
    (tmp_path / "inventory" / "x" / "hosts.yml").touch()
    inventory_says(f'{{"_meta": {{"hostvars": {{"a": {{"ansible_port": {port}}}}}}}}}', monkeypatch)
    with pytest.raises(FrontError, match="ansible_port of a is "):
        Project(tmp_path).hosts("x")


@pytest.mark.parametrize("output", ["", "[]", '{"g": {"hosts": 3}}', '{"_meta": {"hostvars": {"a": []}}}', DEEP])
def test_an_inventory_in_another_form_is_one_sentence(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inventory" / "x").mkdir(parents=True)
    (tmp_path / "inventory" / "x" / "hosts.yml").touch()
    inventory_says(output, monkeypatch)
    with pytest.raises(FrontError, match="answered something unexpected"):
        Project(tmp_path).hosts("x")


def test_an_ansible_that_can_not_be_started_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventory" / "x").mkdir(parents=True)
    (tmp_path / "inventory" / "x" / "hosts.yml").touch()
    monkeypatch.setattr(project, "ansible_program", lambda name: str(tmp_path))
    with pytest.raises(FrontError, match="can't be started"):
        Project(tmp_path).hosts("x")


def test_a_home_that_is_none_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FrontError, match="no such home"):
        extra_vars(["@~nobody-has-this-name/x.yml"])
    monkeypatch.setenv("AI_IDP_HOME", "~nobody-has-this-name")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "no such home" in result.output


@pytest.mark.parametrize(
    "content",
    ['[{"what": "w", "seconds": Infinity, "steps": {}}]', '[{"what": "w", "seconds": NaN, "steps": {}}]', DEEP,
     '[{"what": "w", "seconds": 1' + "0" * 400 + ', "steps": {}}]',
     '[{"what": "w", "seconds": 1, "steps": {"a": NaN}}]'],
)  # fmt: skip
def test_a_run_without_end_is_not_remembered(content: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(content)
    assert remembered(tmp_path / "f") == []
    assert expected(Forecast(remembered(tmp_path / "f"))) == ""


@pytest.mark.parametrize("content", [b"\xff", DEEP.encode(), b"", b"null", b'{"schema": "\\ud800"}'])
def test_findings_that_make_no_sense_are_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    path.write_bytes(content)
    with pytest.raises(FrontError, match=str(path)) as caught:
        read_findings(path)
    assert str(caught.value).encode()


@pytest.mark.parametrize("content", ["claims:\n- id: 2026-99-99\n", DEEP])
def test_claims_that_are_no_yaml_are_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "claims.yml").write_text(content)
    with pytest.raises(ClaimsError, match="this is no YAML"):
        load_claims(tmp_path / "claims.yml")


@pytest.mark.parametrize("attributes", [{}, {"State": None}, {"NetworkSettings": {"Networks": [1]}, "State": {}}])
def test_a_docker_that_is_none_is_one_sentence(
    attributes: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import docker

    listed = SimpleNamespace(list=lambda **_more: [SimpleNamespace(attrs=attributes)])
    monkeypatch.setattr(docker, "from_env", lambda **_more: SimpleNamespace(containers=listed, close=lambda: None))
    with pytest.raises(FrontError, match="what answers as Docker"):
        lab.containers(Project(checkout))


def test_tries_that_are_no_numbers_are_not_told() -> None:
    view = SimpleNamespace()
    state = RunState(view=view)  # type: ignore[arg-type]
    state.handle({"event": "runner_retry", "event_data": {"res": {"retries": [], "attempts": "x"}, "task_uuid": "u"}})
    assert state.tasks == {}


def test_a_file_that_can_not_be_read_is_one_line_of_the_command(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "/x/inventory")

    monkeypatch.setattr(Project, "inventories", property(denied))
    result = CliRunner().invoke(app, ["doctor"])
    assert (result.exit_code, result.output) == (2, "ai-idp: /x/inventory: Permission denied\n")
