"""A fuzz over everything that reads what somebody else wrote: state files, programs' outputs, answers, inventories.

Whatever it says, there is an answer or the reader's own error; anything else would be a traceback. Seeded, so that a
failure can be repeated: its message names case, seed and number. ``AI_IDP_PROFILE=full`` takes a hundred times as many
inputs, and ``AI_IDP_FUZZ_SEED`` another seed.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import random
import runpy
import subprocess
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import httpx
import image_pull
import inference_stack
import model_store
import pytest
import state_files
import wiring
from ansible.errors import AnsibleFilterError
from ansible.module_utils.ai_idp import (
    benchmark_measure,
    certificate_info,
    docker_engine,
    endpoint_check,
    findings,
    gpu_info,
    grafana_check,
    hardware_profile,
    hf_config,
    jetson,
    load_client,
    mlflow_runs,
    model_fit,
    model_manifest,
    model_shape,
    n8n,
    postgresql,
    preflight_check,
    prometheus_check,
    readiness,
    rpc_latency,
    sample_statistics,
)
from ansible.module_utils.ai_idp.benchmark_errors import MeasurementError
from ansible.module_utils.ai_idp.benchmark_tools import TOOLS
from ansible.module_utils.ai_idp.findings import FindingsError, Inputs
from ansible.module_utils.ai_idp.host_state import due, units
from ansible.module_utils.ai_idp.http_ask import Reply
from ansible.module_utils.ai_idp.hub_client import DownloadError, Web
from ansible.module_utils.ai_idp.model_source import Lister, Source
from ansible.module_utils.ai_idp.programs import Answer
from ansible.module_utils.ai_idp.registry_upload import Repository, UploadError
from ansible.module_utils.ai_idp.rpc_link import CASES
from mutations import mutated, spoiled, spoiled_json
from rich.console import Console
from test_docker_engine import INFO, WANTED
from test_findings import CLAIMS, HOSTS, result
from test_model_fit import H100, llama, triton, vllm
from test_n8n_provision import CREDENTIAL, there
from test_n8n_provision import wanted as workflow

from ai_idp import doctor, lab, project
from ai_idp.benchmarks import report
from ai_idp.benchmarks.claims import ClaimsError, load_claims
from ai_idp.endpoints import Endpoint, EndpointsFile, Secrets, load_endpoints
from ai_idp.errors import FrontError
from ai_idp.events import RunState
from ai_idp.forecast import Forecast, remembered
from ai_idp.progress import PlainView, expected
from ai_idp.ready import Readiness

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
SEED = os.environ.get("AI_IDP_FUZZ_SEED", "4711")
INPUTS = 3000 if os.environ.get("AI_IDP_PROFILE") == "full" else 30
URL = "http://127.0.0.1:1"

Chance = random.Random
Read = Callable[[Chance, Path], object]
CASES_OF: dict[str, tuple[Read, tuple[type[Exception], ...]]] = {}


def case(*errors: type[Exception]) -> Callable[[Read], Read]:
    """Takes a function as a case: it makes something wrong and has it read. ``errors`` are the reader's own."""

    def take(read: Read) -> Read:
        CASES_OF[read.__name__] = (read, errors)
        return read

    return take


def text(sample: Any, chance: Chance) -> str:
    """A spoiled text as a module gets it from a program: what is no UTF-8 is replaced."""
    data = sample.encode() if isinstance(sample, str) else sample
    return spoiled(data, chance).decode("utf-8", "replace")


def told(sample: Any, chance: Chance) -> str:
    """The same of a document as JSON."""
    return spoiled_json(sample, chance).decode("utf-8", "replace")


def golden(name: str) -> Any:
    path = GOLDEN / name
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_text()


# --- answers over HTTP ----------------------------------------------------------------------------------

ENDPOINT = {
    "name": "e", "kind": "openai", "url": URL, "health_path": "/health", "metrics_url": f"{URL}/metrics",
    "api_key": "k", "model": "tiny", "models": ["text_embedder"],
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "/v1/models": {"data": [{"id": "tiny", "object": "model"}]},
    "/v1/chat/completions": {"choices": [{"message": {"content": "hello"}}], "usage": {"completion_tokens": 8}},
    "/v2/models/text_embedder": {"name": "text_embedder", "versions": ["1"]},
    "/v2/models/text_embedder/infer": {"outputs": [{"shape": [2, 2], "data": [0.6, 0.8, 1.0, 0.0]}]},
}
PLAIN = '# TYPE up gauge\nup 1\nx{replay="true"} 2\n'
STREAM = 'data: {"choices": [{"delta": {}}]}\n\ndata: {"x": 1}\n\ndata: [DONE]\n\n'


@case()
def check_of_an_endpoint(chance: Chance, folder: Path) -> object:
    def send(url: str, *_arguments: Any, **_more: Any) -> tuple[int, str]:
        sample = ANSWERS.get(url.removeprefix(URL))
        return chance.choice((200, 200, 200, 401, 500)), text(PLAIN, chance) if sample is None else told(sample, chance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint_check, "request", send)
        return [endpoint_check.check_endpoint({**ENDPOINT, "kind": kind}, 1) for kind in endpoint_check.CHECKS]


def reply(sample: Any, chance: Chance) -> Reply:
    return Reply(chance.choice((200, 200, 200, 500)), told(sample, chance))


@case()
def answers_of_grafana_and_prometheus(chance: Chance, folder: Path) -> object:
    rules = {"data": {"groups": [{"rules": [{"name": "r", "health": "err", "lastError": "e"}]}]}}
    reloaded = "prometheus_config_last_reload_success_timestamp_seconds 1.7e9\n"
    return [
        grafana_check.unreached(reply({"status": "OK", "message": "m"}, chance)),
        grafana_check.missing(reply([{"uid": "a"}, {"uid": "b"}], chance), ["a"]),
        prometheus_check.wrong_targets(reply({"data": {"activeTargets": [{}]}}, chance), 1),
        prometheus_check.failing_rules(reply(rules, chance)),
        prometheus_check.not_taken_over(Reply(200, text(reloaded, chance)), 1.0),
    ]


class N8nThatTells(n8n.Client):
    """An n8n whose answers are wrong somewhere."""

    def __init__(self, chance: Chance) -> None:
        super().__init__(URL, 1)
        self.chance = chance

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> n8n.Answer:
        listed = {**{name: CREDENTIAL[name] for name in ("id", "name", "type")}, "updatedAt": "2026"}
        sample: Any = {"data": [listed], "nextCursor": None} if method == "GET" else listed
        if "workflows" in path:
            sample = there(workflow())
        if path == "/rest/api-keys":
            sample = {"data": [{"id": 1, "label": n8n.KEY_LABEL}]} if method == "GET" else {"data": {"rawApiKey": "k"}}
        try:
            answer = json.loads(spoiled_json(sample, self.chance)) if self.chance.random() < 0.5 else sample
        except (ValueError, RecursionError):
            answer = None
        return n8n.Answer(self.chance.choice((200, 200, 200, 200, 404)), answer, ["a=b; Path=/"])


@case(n8n.N8nError)
def answers_of_n8n(chance: Chance, folder: Path) -> object:
    client, memory = N8nThatTells(chance), folder / "memory.json"
    memory.write_bytes(spoiled_json({CREDENTIAL["id"]: {"mark": "m", "updated_at": "2026"}}, chance))
    known = n8n.read_memory(str(memory))
    n8n.find_key(client, "k")
    n8n.make_key(client, "a@b", "p")
    heard: list[str] = []
    return n8n.provision(client, [workflow()], [CREDENTIAL], known, "p", heard.append, heard.append, check=False)


@case(n8n.N8nError)
def files_of_n8n(chance: Chance, folder: Path) -> object:
    path = folder / "config"
    path.write_bytes(spoiled_json({"encryptionKey": "k"}, chance))
    return n8n.key_matches(str(path), "k"), n8n.read_memory(str(path)), n8n.read_private(str(path))


@case(UploadError)
def answers_of_a_registry(chance: Chance, folder: Path) -> object:
    repository = Repository("127.0.0.1:1", "n")
    manifest = {"annotations": {"ai-idp.lab.image-id": "i"}, "config": {"digest": "d"}}
    answer = (chance.choice((200, 200, 404)), {}, spoiled_json(manifest, chance))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository, "_ask", lambda *_arguments, **_more: answer)
        return repository.has_image("t", "i")


@case(DownloadError)
def listing_of_a_hub(chance: Chance, folder: Path) -> object:
    web = Web(URL, "token", 1)
    oid = {"oid": "sha256:" + "a" * 64, "size": 10}
    tree = [{"type": "file", "path": "model.gguf", "size": 10, "oid": "b" * 40, "lfs": oid}]

    class Page:
        def __init__(self, content: bytes) -> None:
            self.content = content
            self.headers = {"Link": text('<https://h/next>; rel="next"', chance) if chance.random() < 0.05 else ""}

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_error: object) -> None:
            return None

        def read(self, _most: int) -> bytes:
            return self.content

    def open_page(url: str, *_arguments: Any, **_more: Any) -> Page:
        return Page(spoiled_json({"sha": "c" * 40} if "/revision/" in url else tree, chance))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "open", open_page)
        return Lister("m", web, 0, 0).listing(Source(type="huggingface", repository="a/b", revision="main"))


def answering(chance: Chance) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        sample = ANSWERS.get(request.url.path)
        if request.url.path.endswith("chat/completions") and b'"stream":true' in request.content.replace(b" ", b""):
            kind = {"content-type": "text/event-stream"}
            return httpx.Response(200, content=spoiled(STREAM.encode(), chance), headers=kind)
        content = spoiled(PLAIN.encode(), chance) if sample is None else spoiled_json(sample, chance)
        return httpx.Response(chance.choice((200, 200, 200, 401, 502)), content=content)

    return httpx.MockTransport(answer)


@case()
def checks_of_the_doctor(chance: Chance, folder: Path) -> object:
    url = chance.choice((URL, URL, URL, "http://ü.x", "http://a b", "http://x:1/\0"))
    (folder / "secrets.yml").write_text(chance.choice(("k: x\n", "k: ü\n", 'k: "a\\nb"\n', "k: [1]\n", "k: 1e3\n")))

    async def ask() -> list[doctor.Check]:
        found = []
        async with httpx.AsyncClient(transport=answering(chance), trust_env=False) as client:
            for kind in ("openai", "triton", "metrics", "http"):
                more: dict[str, Any] = {"model": "tiny", "models": ["text_embedder"], "metrics_path": "/m"}
                endpoint = Endpoint(name="e", host="h", kind=kind, url=url, key="k", **more)
                planned = doctor._Prober(client, endpoint, Secrets(folder)).planned()
                found += await doctor._one_after_another(planned, 5)
        return found

    report = doctor.Report.of(asyncio.run(ask()))
    return report.model_dump_json(), shown(lambda console: doctor.show_report(console, report, "lab"))


def shown(show: Callable[[Console], object]) -> bytes:
    """What would be on a terminal, whose streams `main` makes take everything."""
    written = TextIOWrapper(BytesIO(), encoding="utf-8", errors="backslashreplace")
    show(Console(file=written, width=140))
    written.flush()
    return written.buffer.getvalue()


# --- what programs print --------------------------------------------------------------------------------


@case(MeasurementError)
def addresses_and_routes(chance: Chance, folder: Path) -> object:
    entry = {"family": "inet", "local": "10.0.0.2", "prefixlen": 24, "scope": "global"}
    sample = [{"ifname": "eth0", "flags": ["UP"], "mtu": 1500, "addr_info": [entry]}]
    addresses = rpc_latency.parse_addresses(told(sample, chance))
    route = rpc_latency.parse_route(told([{"dst": "10.0.0.3", "dev": "eth0", "prefsrc": "10.0.0.2"}], chance))
    peers = [{"address": "10.0.0.3", "prefix": 24, "interface": "eth0"}]
    return rpc_latency.paths_between(addresses, peers, lambda address: route)


def client_told() -> dict[str, Any]:
    cases = {one.name: {"milliseconds": [0.1, 0.2, 0.3]} for one in CASES}
    stream = {"bytes": 1_000_000, "seconds": 0.1}
    counted = {"sent": 100, "received": 100}
    kernel = {"shortest_rtt_ms": 0.05, "retransmits": 0}
    return {"cases": cases, "streams": {"there": stream, "back": stream}, "kernel": kernel, "program_bytes": counted,
            "interface_bytes": counted}  # fmt: skip


@case(MeasurementError)
def runs_over_a_link(chance: Chance, folder: Path) -> object:
    source = {"address": "10.0.0.2", "interface": "eth0", "kind": "ethernet"}
    path = rpc_latency.Path(source, {"address": "10.0.0.3"}, True, True)
    path.runs = [rpc_latency.parse_client(json.dumps(client_told()))]
    path.runs.append(rpc_latency.parse_client(told(client_told(), chance)))
    return path.describe(), rpc_latency.best_path([path])


@case(MeasurementError)
def outputs_of_benchmark_tools(chance: Chance, folder: Path) -> object:
    name, file = chance.choice(
        (
            ("llama_bench", "llama-bench-11669-cpu.json"), ("llama_bench", "llama-bench-11669-rpc.json"),
            ("iperf3", "iperf3-3.18.json"), ("fio_read", "fio-3.39.json"), ("apache_bench", "ab-2.3.txt"),
            ("sockperf", "sockperf-3.7.txt"), ("sysbench_cpu", "sysbench-1.0.20-cpu.txt"),
            ("sysbench_memory", "sysbench-1.0.20-memory.txt"),
        )
    )  # fmt: skip
    percentiles = golden("benchmark/ab-2.3-percentiles.csv").encode()
    (folder / "percentiles.csv").write_bytes(spoiled(percentiles, chance) if chance.random() < 0.5 else percentiles)
    sample = golden(f"benchmark/{file}")
    return TOOLS[name].parse(text(sample, chance) if isinstance(sample, str) else told(sample, chance), str(folder))


@case(MeasurementError)
def result_of_the_load_client(chance: Chance, folder: Path) -> object:
    sample = golden("load_client/vllm-0.30.0-ok-concurrency-4.json")
    (folder / load_client.RESULT).write_bytes(spoiled_json(sample, chance))
    return load_client.parse(text("ValueError: x\n", chance), str(folder))


@case()
def answers_of_docker_info(chance: Chance, folder: Path) -> object:
    units_of = "LoadState=loaded\nActiveState=active\nSubState=running\n"

    def program(argv: list[str], timeout: float) -> Answer:
        if argv[0] == "systemctl":
            return Answer(0, units_of)
        return Answer(0, told(INFO, chance) if argv[1] == "info" else text("10.0.0.1\n", chance))

    return docker_engine.look(WANTED, program)


def docker_prints(chance: Chance, sample: Any) -> Callable[..., Any]:
    def run(argv: list[str], **_more: Any) -> Any:
        return subprocess.CompletedProcess(argv, 0, told(sample, chance), "")

    return run


@case(image_pull.PullError)
def answers_of_docker_inspect_and_ps(chance: Chance, folder: Path) -> object:
    ports = "10.77.0.11:8000->8000/tcp, :::8080-8082->80-82/tcp"
    row = {"ID": "a", "Names": "n", "Labels": "com.docker.compose.project=p", "Ports": ports}
    image = [{"Id": "sha256:1", "RepoDigests": ["r/i@sha256:1"]}]
    images = image_pull.Images(1, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight_check.shutil, "which", lambda *_arguments, **_more: "/usr/bin/docker")
        patch.setattr(preflight_check.subprocess, "run", docker_prints(chance, row))
        containers = preflight_check.Host().containers()
        patch.setattr(image_pull.subprocess, "run", docker_prints(chance, image))
        return containers, images.ensure({"reference": "r/i:1", "digest": None}, True)


@case()
def what_drivers_tell_of_gpus(chance: Chance, folder: Path) -> object:
    kind = chance.choice(("h100/nvidia-smi-q-x.xml", "gpu/constructed-mig.xml"))
    probe = gpu_info.Probe(smi=Answer(chance.choice((0, 0, 0, 9)), text(golden(kind), chance)), pci_devices=["0000:00"])
    return gpu_info.describe(probe)


@case()
def settings_of_a_jetson(chance: Chance, folder: Path) -> object:
    board = GOLDEN / "jetson" / "board"
    modes = (board / "etc/nvpmodel.conf").read_bytes()
    return [
        jetson.parse_modes(text(modes, chance)),
        jetson.parse_current(text(b"NV Power Mode: 15W\n0\n", chance)),
        jetson.parse_swaps(text((board / "proc/swaps").read_bytes(), chance)),
        jetson.judge_release(jetson.file_release(text((board / "etc/nv_tegra_release").read_bytes(), chance))),
    ]


@case(postgresql.PostgresqlError)
def rows_of_postgresql(chance: Chance, folder: Path) -> object:
    verifier = postgresql.scram_verifier("p", b"0" * 16, 1)
    rows = f"login\tmlflow\t{verifier}\t\ndatabase\tmlflow\tmlflow\tfalse\n"
    database = {"name": "mlflow", "owner": "mlflow", "password": "p"}
    return postgresql.steps_to(postgresql.read_server(text(rows, chance)), [database], postgresql.new_salt)


@case()
def certificates_as_openssl_prints_them(chance: Chance, folder: Path) -> object:
    printed = (
        "subject=\n    commonName = x\nnotAfter=Dec 31 22:00:07 2027 GMT\n-----BEGIN PUBLIC KEY-----\nMFkw\n"
        "-----END PUBLIC KEY-----\nX509v3 Subject Alternative Name: critical\n"
        "    DNS:a, IP Address:FD00:0:0:0:0:0:0:2\n"
    )

    def program(argv: list[str], timeout: float) -> Answer:
        return Answer(0, text(printed, chance))

    (folder / "c").write_bytes(spoiled(printed.encode(), chance))
    inspector = certificate_info.Inspector(owner=os.getuid(), program=program)
    path = str(folder / "c")
    inspector.server(certificate_info.Server(path, path, path, ("a",), ("10.0.0.1",), 30, private=True, client=True))
    return inspector.problems, certificate_info.text_of(path)


@case()
def what_systemd_and_the_kernel_tell(chance: Chance, folder: Path) -> object:
    mounts = "36 35 0:33 / /srv rw,noatime shared:1 - nfs4 nas:/models rw\n"
    (folder / "unit").write_bytes(spoiled(b"restart 0123\n", chance))
    shown_units = units.parse_show(text("LoadState=loaded\nActiveState=active\n\nLoadState=masked\n", chance))

    def show(names: list[str]) -> dict[str, units.Unit]:
        return dict.fromkeys(names, units.parse_show("LoadState=loaded\nActiveState=active\nInvocationID=0123\n")[0])

    return [
        shown_units,
        due.Due(True, {"unit": due.Triggers()}, show, str(folder)).verb("unit"),
        preflight_check.check_mount({"path": "/srv", "fstype": "nfs4", "source": "nas:/models"}, text(mounts, chance)),
    ]


# --- files that were written by an earlier run ----------------------------------------------------------


def link_result() -> dict[str, Any]:
    run = {"seconds": 1.0, "metrics": {"rpc_latency_p50_ms": 0.2, "link_rtt_ms": 0.1}, "samples": {}}
    best = {"source": {"address": "10.0.0.2"}, "peer": {"address": "10.0.0.3"}, "reason": "r"}
    return {**result("rpc-latency"), "parameters": {"seconds": 1.0}, "runs": [run] * 3, "subject": {"best": best}}


@case(MeasurementError)
def results_that_are_kept(chance: Chance, folder: Path) -> object:
    wanted = rpc_latency.Wanted([], [], str(folder), "p", runs=2, seconds=0.5)
    survey = rpc_latency.Survey(wanted, lambda address: ("", ""))
    kept = {**link_result(), "key": survey.result["key"]}
    (folder / "rpc-latency.json").write_bytes(spoiled_json(kept, chance))
    finished = survey.finished()
    if finished:
        # What week 4 and the module read of it.
        assert finished["subject"]["best"]["peer"]["address"]
        assert finished["measured_at"] is not None
    measurement = benchmark_measure.Measurement(
        benchmark_measure.Wanted("m", "sysbench_cpu", {"seconds": 1}, str(folder), runs=2, rounds=2)
    )
    parameters = {"seconds": 1, "requests": 3}
    kept = {**result("m"), "key": measurement.result["key"], "parameters": parameters, "rounds": 2}
    kept["runs"] = [{"seconds": 2.0, "metrics": {"m": 1.0}}] * 2
    (folder / "m.json").write_bytes(spoiled_json(kept, chance))
    (folder / "m.json.started").write_bytes(spoiled_json({**kept, "status": "started"}, chance))
    return measurement.plan(), measurement._started()


@case(MeasurementError)
def hashes_of_models(chance: Chance, folder: Path) -> object:
    model, cache = folder / "model.gguf", folder / "hashes.json"
    model.write_bytes(b"GGUF")
    status = model.stat()
    mark = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    cache.write_bytes(spoiled_json({str(model): {"mark": mark, "sha256": "a" * 64}}, chance))
    return benchmark_measure.model_hash(str(model), str(cache))


@case(sample_statistics.StatisticsError, MeasurementError)
def verdict_on_offloading(chance: Chance, folder: Path) -> object:
    run = {"metrics": {"decode_tokens_per_second": 10.0, "prompt_tokens_per_second": 90.0}}
    local = {**result("l"), "command": ["llama-bench"], "runs": [run, {**run}, {**run}]}
    remote = {**local, "command": ["llama-bench", "--rpc", "10.0.0.3:1"], "devices": ["RPC[10.0.0.3:1]"]}
    chosen = [mutated(one, chance) if chance.random() < 0.6 else one for one in (local, remote, link_result())]
    return rpc_latency.offload_of(*chosen, through="10.0.0.3:1", minimum_ratio=1.0)


@case(FindingsError)
def findings_from_results(chance: Chance, folder: Path) -> object:
    first = findings.join(Inputs("production", CLAIMS, HOSTS, [result()]))[0]
    results = [mutated(result(), chance), result("gpu"), mutated(link_result(), chance)]
    previous = findings.read_document(told(first, chance))
    history, broken = findings.parse_history(told(first["history"][0] if first["history"] else {}, chance))
    inputs = Inputs("production", CLAIMS, HOSTS, results, previous=previous, history=history)
    document, history, _ = findings.join(inputs)
    for one in (document, previous):
        if one:
            findings.mark_stale(one, "schlimers-server", "other", ["a disk"])
            texts = [
                findings.csv_text(one),
                findings.json_text(findings.mlflow_document(one)),
                str(findings.counts(one)),
            ]
            assert all(written.encode() for written in texts)
    return (findings.json_text(document) + findings.history_text(history, broken)).encode()


@case()
def profile_of_the_hardware(chance: Chance, folder: Path) -> object:
    card = {"name": "RTX", "memory_total_bytes": 1 << 34, "memory_is_shared": False, "compute_capability": "12.0",
            "fingerprint": "f"}  # fmt: skip
    now = hardware_profile.read_profile("/nowhere", {"status": "ok", "gpus": [card]})
    module = {"size_bytes": 1 << 35, "speed_mts": 5600, "id": "i", "type": "DDR5", "part": "p"}
    disk = {"name": "nvme0n1", "model": "m", "size_bytes": 1 << 40, "rotational": False, "id": "i", "transport": "nvme"}
    cpu = {"model": "c", "threads": 2, "cores": 1, "sockets": 1}
    now = {**now, "cpu": cpu, "memory": {"total_bytes": 1 << 35, "modules": [module]}, "disks": [disk]}
    stored = hardware_profile.parse_stored(told({**now, "fingerprint": "f"}, chance))
    return hardware_profile.dump(hardware_profile.decide(stored, now)["profile"])


@case()
def manifest_of_a_model(chance: Chance, folder: Path) -> object:
    (folder / "w").write_bytes(b"x" * 10)
    entry = {"path": "w", "size_bytes": 10, "mtime_ns": 1, "sha256": "a" * 64, "git_oid": None}
    manifest = {"source": {"type": "file"}, "revision": "main", "files": [entry, {**entry, "path": "v"}]}
    (folder / model_manifest.MANIFEST_NAME).write_bytes(spoiled_json(manifest, chance))
    found = model_manifest.read_manifest(str(folder))
    return model_manifest.describe(found), readiness.held_bytes(readiness.Model("m", str(folder)))


@case(hf_config.ConfigError, model_shape.ShapeError)
def configuration_of_a_model(chance: Chance, folder: Path) -> object:
    config = {
        "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072, "head_dim": 128,
        "tie_word_embeddings": False, "sliding_window": 4096, "layer_types": ["full_attention"] * 32,
        "quantization_config": {"quant_method": "awq", "bits": 4},
    }  # fmt: skip
    index = {"metadata": {"total_size": 16_060_522_496}, "weight_map": {"a": "model-00001.safetensors"}}
    (folder / "config.json").write_bytes(spoiled_json(config, chance))
    (folder / "model.safetensors.index.json").write_bytes(spoiled_json(index, chance))
    header = json.dumps({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    header = spoiled(header, chance)
    if chance.random() < 0.5:
        (folder / "model-00001.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"0000")
    service = vllm(model={"name": "m", "path": str(folder)})
    inputs, problems = model_fit.parse({**FIT, "services": [service]})
    return inputs and model_fit.decide(inputs), problems, model_shape.from_path("m", str(folder))


FIT: dict[str, Any] = {
    "services": [], "gpus": [H100], "host_memory_bytes": 1 << 37, "host_reserved_bytes": 1 << 31,
    "overhead_bytes": None, "alternatives": [], "host_memory_bandwidth_bytes_per_second": 89_600_000_000,
}  # fmt: skip


@case()
def what_is_to_fit(chance: Chance, folder: Path) -> object:
    # The shape of the list is what the module's arguments see to; what is in it is the inventory's.
    services = [mutated(one, chance) for one in (vllm(), llama(), triton())]
    services = [one if isinstance(one, dict) else {} for one in services]
    cards = mutated([dict(H100)], chance)
    gpus = [one for one in cards if isinstance(one, dict)] if isinstance(cards, list) else []
    inputs, problems = model_fit.parse({**FIT, "services": services, "gpus": gpus})
    return inputs and model_fit.decide(inputs), problems


# --- the command ----------------------------------------------------------------------------------------

ENDPOINTS = {
    "schema": 1,
    "environment": "lab",
    "endpoints": [
        {"name": "vllm", "host": "h", "kind": "openai", "url": URL, "key": "k", "model": None, "health_path": "/health",
         "metrics_url": None, "replay": False, "week": 2}
    ],
}  # fmt: skip


@case(FrontError)
def endpoints_that_were_recorded(chance: Chance, folder: Path) -> object:
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / "endpoints.json").write_bytes(spoiled_json(ENDPOINTS, chance))
    known = load_endpoints(folder)
    assert isinstance(known, EndpointsFile)
    return [endpoint.at("/v1") for endpoint in known.endpoints]


@case(FrontError, AnsibleFilterError)
def secrets(chance: Chance, folder: Path) -> object:
    good = b'# Keys\n---\nvllm_api_key: "abc"\nother: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3132\nday: 2026-01-01\n'
    path = folder / "secrets.yml"
    path.write_bytes(spoiled(good, chance))
    for name in ("vllm_api_key", "other", "day"):
        with contextlib.suppress(FrontError):
            Secrets(folder).get(name)
    return wiring.secrets_of(spoiled(good, chance).decode("utf-8", "replace"), str(path))


@case(FrontError)
def hosts_of_an_inventory(chance: Chance, folder: Path) -> object:
    variables = {"a": {"ansible_host": "10.0.0.1", "ansible_port": 22, "ansible_connection": "ssh"}}
    listing = {"_meta": {"hostvars": variables}, "all": {"children": ["g"]}, "g": {"hosts": ["a"]}}
    output = told(listing, chance)
    root = project.Project(folder)
    (folder / "inventory" / "x").mkdir(parents=True, exist_ok=True)
    (folder / "inventory" / "x" / "hosts.yml").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(project.subprocess, "run", lambda argv, **_more: subprocess.CompletedProcess(argv, 0, output, ""))
        hosts = root.hosts("x")
    return [asyncio.run(doctor._answer(doctor._ssh(host), 0.01)) for host in hosts]


@case(FrontError)
def findings_for_a_report(chance: Chance, folder: Path) -> object:
    few = golden("benchmark_findings/constructed-week1.json")
    few["findings"], few["measurements"], few["history"] = (
        few["findings"][:2],
        few["measurements"][:2],
        few["history"][:2],
    )
    (folder / report.FINDINGS).write_bytes(spoiled_json(few, chance))
    return (
        report.write_report(folder)
        if chance.random() < 0.02
        else report.make_view(report.read_findings(folder / report.FINDINGS))
    )


@case(ClaimsError)
def claims(chance: Chance, folder: Path) -> object:
    path = folder / "claims.yml"
    path.write_bytes(spoiled((ROOT / "benchmarks" / "claims.yml").read_bytes()[:3000], chance))
    return load_claims(path, mutated([{"id": "x", "description": "d", "unit": "s"}], chance))


@case()
def runs_that_are_remembered(chance: Chance, folder: Path) -> object:
    path = folder / "f.json"
    path.write_bytes(spoiled_json([{"what": "w", "seconds": 300.5, "steps": {"a": 0.1, "b": 200}}] * 2, chance))
    forecast = Forecast(remembered(path), path)
    forecast.begin("a")
    return expected(forecast), shown(lambda console: console.print(str(forecast.left())))


@case(ValueError)
def report_of_readiness(chance: Chance, folder: Path) -> object:
    row = {"name": "n", "host": "h", "status": "ok", "detail": "d", "remedy": "", "needed": True}
    return Readiness.model_validate(mutated({"ok": True, "checks": [row]}, chance)).model_dump_json()


@case(FrontError)
def containers_of_the_lab(chance: Chance, folder: Path) -> object:
    network = {"IPAMConfig": {"IPv4Address": "127.0.0.9"}, "IPAddress": "127.0.0.9"}
    state = {"Running": True, "Status": "running", "StartedAt": "2026-11-27T00:00:00.123456789Z"}
    container = {"Name": "/a", "NetworkSettings": {"Networks": {"n": network}}, "State": state}

    class Found:
        attrs = mutated(container, chance)

    class Engine:
        class containers:
            @staticmethod
            def list(**_more: Any) -> list[Found]:
                return [Found()]

        @staticmethod
        def close() -> None:
            return None

    import docker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(docker, "from_env", lambda **_more: Engine)
        patch.setattr(project.Project, "hosts", lambda *_arguments: [])
        found = lab.containers(project.Project(folder))
    return shown(lambda console: lab.show_containers(console, found))


@case()
def events_of_a_run(chance: Chance, folder: Path) -> object:
    res = {"msg": "m", "stdout": "o", "rc": 1, "changed": True, "item": {"a": 1}, "retries": 3, "attempts": 1}
    # The frame is ansible-runner's; what a module answers can be anything.
    data = {"task_uuid": "u", "task": "t", "host": "h", "res": mutated(res, chance), "duration": 0.1}
    data["res"] = data["res"] if isinstance(data["res"], dict) else {}
    kinds = ("runner_on_start", "runner_item_on_ok", "runner_item_on_failed", "runner_retry", "runner_on_ok",
             "runner_on_failed", "runner_on_unreachable")  # fmt: skip
    debug = {"task_action": chance.choice(("debug", "command"))}

    def run(console: Console) -> None:
        view = PlainView(console)
        state = RunState(view=view)
        view.begin(state)
        for kind in kinds:
            state.handle({"event": kind, "stdout": text("changed: [h]\n", chance), "event_data": {**data, **debug}})

    return shown(run)


# --- what playbooks read --------------------------------------------------------------------------------


@case()
def plan_of_the_release_that_runs(chance: Chance, folder: Path) -> object:
    release = "services: {}\nx-plan:\n  vllm: {device: gpu, gpus: [0], context_length: 8192}\n"
    return inference_stack.running_plan(text(release, chance))


OWN = {"url": URL, "metrics_url": None, "key": "llama_key"}
RECORDED = {
    "schema": 1,
    "environment": "lab",
    "endpoints": [
        {"name": "llama_cpp", "host": "gpu", "kind": "openai", "url": "https://10.0.0.1:8080", "key": "engine_gate_key",
         "own": OWN, "model": "m", "models": ["m"], "health_path": "/health", "metrics_url": None, "week": 2,
         "reached_from": ["gateways"], "replay": False},
        {"name": "edge", "host": "edge", "kind": "openai", "url": "https://10.0.0.2:8090", "key": "k", "week": 4},
    ],
}  # fmt: skip
GROUPS = {"all": ["gpu", "edge", "door"], "gpu_servers": ["gpu"], "edge": ["edge"], "gateways": ["door"]}
ADDRESSES = {name: {"ai_idp_address": f"10.0.0.{number}"} for number, name in enumerate(GROUPS["all"], 1)}
TABLE = [{"name": "edge", "hosts": "edge", "port": 8090, "metrics": {"port": 8090}}]


@case(AnsibleFilterError)
def endpoints_of_a_playbook(chance: Chance, folder: Path) -> object:
    rows = state_files.recorded_endpoints(told(RECORDED, chance), "/endpoints.json")
    report = {"__edge_inference_report": {"url": URL, "model": "m"}}
    hostvars = {**ADDRESSES, "edge": {**ADDRESSES["edge"], **report}}
    return [
        inference_stack.with_keys(wiring.own_endpoints(rows, "gpu"), {"llama_key": "x"}),
        wiring.edge_endpoints(["edge", "door"], GROUPS, hostvars, rows, TABLE, []),
        wiring.are_news(rows, rows, 2),
        json.dumps(wiring.endpoints_after(rows, rows[:1], 2, ["gpu"], GROUPS["all"])),
    ]


@case(AnsibleFilterError)
def links_of_a_playbook(chance: Chance, folder: Path) -> object:
    sample = {"edge": {"address": "10.1.0.2", "client": "10.1.0.1"}}
    links = state_files.recorded_links(told(sample, chance), "/links.json")
    return [
        *(wiring.measured_link(links, host, there) for host in [*links, "edge"] for there in (None, [], ["10.1.0.2"])),
        wiring.addresses_are_old(["10.1.0.2"], [{"address": "10.0.0.2"}], links, "edge"),
    ]


@case(AnsibleFilterError)
def locks_of_a_playbook(chance: Chance, folder: Path) -> object:
    good = "images:\n  r/i:1: sha256:1\nmodels:\n  m:\n    source: {type: url, url: u}\n    revision: main\n"
    lock = state_files.recorded_lock(
        text(f"{good}    files: {{w: {{sha256: a, size_bytes: 1}}}}\n", chance), "/lock.yml"
    )
    entry = {"name": "m", "source": {"type": "url", "url": "u"}}
    found = {"m": {"source": entry["source"], "revision": "main", "files": {"w": {"sha256": "a", "size_bytes": 1}}}}
    wanted = model_store.model_store_wanted([entry], ["m"], lock)
    return [
        inference_stack.image_requests(["i"], {"i": "r/i:1"}, "", lock),
        inference_stack.image_lock([{"reference": "r/j:1", "digest": "sha256:2"}], lock),
        *(model_store.model_store_arguments(wanted), model_store.model_store_is_locked(lock, found)),
        model_store.model_store_merge(lock, [found]),
    ]


@case(AnsibleFilterError)
def runs_of_a_playbook(chance: Chance, folder: Path) -> object:
    run = {"run_name": "r", "params": {"a": 1}, "metrics": {"m": 1.5}, "tags": {"host": "h"}}
    document = state_files.recorded_runs(told({"experiment": "e", "runs": [run]}, chance), "/runs.json")
    return [
        mlflow_runs.Wanted(*(one[key] for key in ("run_name", "params", "metrics", "tags")), {}).digest
        for one in document["runs"]
    ]


@case(AnsibleFilterError, gpu_info.AnswerError)
def gpus_of_a_playbook(chance: Chance, folder: Path) -> object:
    sample = golden("gpu/constructed-rtx5070ti.json")
    return gpu_info.replay(state_files.recorded_gpus(told(sample, chance), "/gpus.json"))


# What an owner writes of a host.
HOST = {
    "ansible_host": "10.0.0.1", "ansible_port": 22, "ansible_user": "u", "ansible_connection": "ssh",
    "ai_idp_address": "10.0.0.1", "inference_stack_gpu_replay": "", "edge_inference_rpc_enabled": True,
    "edge_inference_model_name": "m", "llama_cpp_build": 7, "nginx_gateway_state": "present",
    "model_store_catalogue": [{"name": "m", "gated": False, "files": ["w.gguf"], "figures": {"weights_bytes": 1}}],
}  # fmt: skip


@case(AnsibleFilterError)
def hosts_of_the_wiring(chance: Chance, folder: Path) -> object:
    # That each host of a group has variables is Ansible's; what they are is the owner's.
    odd = mutated(dict.fromkeys(GROUPS["all"], HOST), chance)
    odd = odd if isinstance(odd, dict) else {}
    hostvars = {name: odd[name] if isinstance(odd.get(name), dict) else {} for name in GROUPS["all"]}
    names, link = GROUPS["all"], {"ai_idp_rpc_link": {"address": "10.0.0.2"}}
    job = [{"name": "node", "hosts": "all", "port": 9100}]
    catalogue = hostvars["gpu"].get("model_store_catalogue") or []
    loans = wiring.rpc_loans(["edge"], {**hostvars, "edge": {**hostvars["edge"], **link}}, 50052)
    secrets = {"hugging_face_token": "t"}
    return [
        *(wiring.known_addresses(names, hostvars), wiring.hosts_without_address(names, hostvars)),
        *(wiring.scrape_jobs(job, GROUPS, hostvars), wiring.upstream_routes(job, GROUPS, hostvars)),
        *(wiring.readiness_peers(names, "door", hostvars), wiring.replay_problems(names, hostvars, "production")),
        wiring.readiness_report(names, hostvars, secrets, "/secrets.yml", "production"),
        *(wiring.rpc_lenders(GROUPS, hostvars), wiring.lent_models(["edge"], hostvars)),
        *(wiring.rpc_measurements(loans, catalogue, "/models", "p"), wiring.wanted_models(catalogue, ["m"])),
        *(wiring.llama_models(catalogue, "m", "/models"), wiring.model_file(catalogue, "m", "/models")),
        wiring.status_page_versions(dict.fromkeys(wiring.IMAGE_NAMES, "r/i:1"), ["edge"], hostvars),
        *(wiring.gateway_endpoints(["door"], hostvars), wiring.knowledge_endpoints("door", ["n8n"], hostvars)),
        wiring.finding_hosts(names, {name: {"group_names": ["all"], **own} for name, own in hostvars.items()}),
    ]


@case(AnsibleFilterError)
def clients_of_the_gateway(chance: Chance, folder: Path) -> object:
    clients = mutated([{"name": "laptop"}, {"name": "phone", "key": "0123456789abcdef0123"}], chance)
    secrets = dict.fromkeys([*wiring.gateway_keys(clients), "gateway_client_key_before"], "key")
    return wiring.gateway_clients(clients, secrets)


@case(AnsibleFilterError)
def who_may_ask_the_engines(chance: Chance, folder: Path) -> object:
    controllers = mutated(["10.0.0.9", "10.0.0.10"], chance)
    doors = [{"name": "vllm", "hosts": "all", "port": 8000, "admits": ["controllers"], "wants": "a key"}]
    arguments = (doors, ["gpu_servers"], {"controllers": controllers}, "10.0.0.1")
    return wiring.firewall_rules(*arguments), wiring.door_table(*arguments)


# --- what programs of ours on a host kept ---------------------------------------------------------------


def loaded(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STATUS_PAGE = loaded("roles/status_page/files/status_page.py")
JETSON_METRICS = runpy.run_path(str(ROOT / "roles/jetson_platform/files/jetson_metrics.py"))


@case(STATUS_PAGE.NoAnswer)
def state_of_the_status_page(chance: Chance, folder: Path) -> object:
    def series(job: str) -> list[dict[str, Any]]:
        return [
            {"labels": {"job": job, "host": "h", "gpu": "0", "version": "1", "__name__": "x_build_info"}, "value": 1.0}
        ]

    alert = {"name": "A", "severity": "critical", "host": "h", "summary": "s", "since": ""}
    known = {**{name: series("node") for name in STATUS_PAGE.QUERIES}, "alerts": [alert], "at": 1_790_000_000.0}
    row = {"claim_id": "c", "verdict": "below", "measured_mean": 1.5, "ci95_low": 1.0, "ci95_high": 2.0, "unit": "s"}
    (folder / "state.json").write_bytes(spoiled_json(known, chance))
    (folder / "findings.json").write_bytes(spoiled_json({"findings": [{**row, "measured_at": "2026"}]}, chance))
    shown_last = STATUS_PAGE.remembered(folder / "state.json")
    rows = STATUS_PAGE.finding_rows(folder / "findings.json")
    config = {"title": "t", "interval": 15, "machines": [{"name": "h"}], "services": [{"job": "node", "host": "h"}],
              "links": [], "versions": [], "certificate_warn_days": 30}  # fmt: skip
    STATUS_PAGE.write(folder / "index.html", STATUS_PAGE.render(config, shown_last, rows, 1_790_000_060.0, "gone"))

    def fetch(url: str) -> Any:
        metric = {"metric": {"job": "node", "host": "h"}, "value": [0, "1"]}
        firing = {"labels": {"alertname": "A"}, "annotations": {"summary": "s"}, "state": "firing", "activeAt": "2026"}
        sample = {"result": [metric]} if "/query?" in url else {"alerts": [firing]}
        return mutated(sample, chance) if chance.random() < 0.05 else sample

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STATUS_PAGE, "fetch", fetch)
        return STATUS_PAGE.render(config, {**STATUS_PAGE.ask(URL), "at": 1.0}, rows, 2.0, "")


@case()
def record_of_a_jetson(chance: Chance, folder: Path) -> object:
    record = {"model": "m", "release": "36.4.7", "release_verdict": "ok", "power_mode": "15W", "clocks_locked": False}
    (folder / "record.json").write_bytes(spoiled_json(record, chance))
    load = folder / "sys/class/devfreq/1.gpu/device/load"
    load.parent.mkdir(parents=True, exist_ok=True)
    load.write_bytes(spoiled(b"437\n", chance))
    return JETSON_METRICS["exposition"](folder, folder / "record.json").encode("utf-8", "replace")


@pytest.mark.parametrize("name", CASES_OF)
def test_whatever_is_read_there_is_an_answer(name: str, tmp_path: Path) -> None:
    read, errors = CASES_OF[name]
    for number in range(INPUTS):
        chance, said = random.Random(f"{SEED}/{name}/{number}"), "an answer"
        try:
            read(chance, tmp_path)
        except errors as error:
            said = str(error)
        except Exception as error:
            pytest.fail(f"{name}, seed {SEED}, input {number}: {error!r:.300}")
        assert said.strip(), f"{name}, seed {SEED}, input {number}: an error that says nothing"
