"""What follows from the engines' table: ports, doors, routes of the gateway and jobs of Prometheus."""

from pathlib import Path
from typing import Any

import engine_gate
import engines
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLE: list[dict[str, Any]] = yaml.safe_load(
    (ROOT / "playbooks" / "group_vars" / "all" / "engines.yml").read_text(encoding="utf-8")
)["ai_idp_engines"]
KEYS = {row["key"]: f"value-of-{row['key']}" for row in TABLE if "key" in row}
TOY: list[dict[str, Any]] = [
    {
        "name": "toy",
        "hosts": "gpu_servers",
        "port": "7000",
        "admits": ["gateways"],
        "key": "toy_key",
        "route": "/toy/",
        "paths": [{"path": "/v1/models", "methods": ["GET"]}],
        "metrics": {"job": "toy_job", "path": "/figures", "port": 7001},
    },
    {"name": "plain", "hosts": "edge", "port": 7100, "admits": ["network"], "metrics": {"job": "plain", "path": "/m"}},
]


def test_every_row_says_all_that_is_asked_of_it() -> None:
    for row in TABLE:
        assert (
            {"name", "hosts", "port", "admits", "metrics"}
            <= {*row}
            <= {*("name", "hosts", "port", "admits", "key", "route", "keepalive", "paths", "health", "metrics")}
        ), row["name"]
        # What clients may ask is said for each engine that they reach, and nothing else is let through.
        assert ("route" in row) == ("paths" in row) == ("health" in row), row["name"]
    assert len({row["name"] for row in TABLE}) == len(TABLE)
    for hosts in ("gpu_servers", "edge"):
        ports = engines.engine_ports([row for row in TABLE if row["hosts"] == hosts]).values()
        assert len({*ports}) == len(ports)


def test_ports_are_named_by_their_engine() -> None:
    assert engines.engine_ports(TOY) == {"toy": 7000, "toy_metrics": 7001, "plain": 7100}


def test_every_engine_has_one_door() -> None:
    assert [{key: door[key] for key in ("name", "hosts", "port", "admits")} for door in engines.engine_doors(TOY)] == [
        {"name": "toy", "hosts": "gpu_servers", "port": "7000", "admits": ["gateways"]},
        {"name": "plain", "hosts": "edge", "port": 7100, "admits": ["network"]},
    ]


def test_no_engine_is_for_everybody() -> None:
    """From any host of the network engines were reached without the gateway, over plain HTTP."""
    for door in engines.engine_doors(TABLE):
        assert {*door["admits"]} <= {"gateways", "controllers"}, door
    assert all(route["upstream_name"] == engines.ENGINES_NAME for route in engines.engine_routes(TABLE, "k"))
    assert {job["scheme"] for job in engines.engine_jobs(TABLE, "k", "/ca.crt")} == {"https"}


def test_the_gate_of_a_host_has_the_engines_of_its_groups() -> None:
    assert engines.engine_gates(TOY, ["gpu_servers"], {"toy_key": "s3cret"}) == [
        {
            **{"name": "toy", "port": "7000", "upstream_port": "7000", "upstream_key": "s3cret"},
            "keepalive": True,
            "allowed": [{"path": "/v1/models", "methods": ["GET"]}],
            "metrics": {"path": "/figures", "port": 7001},
        }
    ]
    [plain] = engines.engine_gates(TOY, ["edge"], {})
    assert (plain["allowed"], plain["metrics"]) == ([], {"path": "/m"})
    assert "upstream_key" not in plain
    assert engines.engine_gates(TOY, [], {}) == []
    assert engines.engine_gates(TOY, ["gpu_servers"], {})[0]["upstream_key"] == ""


def test_the_gate_tells_how_an_engine_is_and_nothing_twice() -> None:
    for gate in engines.engine_gates(TABLE, ["gpu_servers", "edge"], KEYS):
        [row] = [row for row in TABLE if row["name"] == gate["name"]]
        paths = [allowed["path"] for allowed in gate["allowed"]]
        assert len({*paths}) == len(paths)
        assert row.get("health", "") in {"", *paths}
        # The gateway lets through nothing that the gate would not.
        assert {allowed["path"] for allowed in row.get("paths", [])} <= {*paths}


def test_keys_are_those_of_a_group() -> None:
    assert engines.engine_keys(TOY, "gpu_servers") == ["toy_key"]
    assert engines.engine_keys(TOY, "edge") == []


@pytest.mark.parametrize("key", ["s3cret", ""])
def test_the_gateway_has_an_engine_that_has_a_route(key: str) -> None:
    [route] = engines.engine_routes(TOY, key)
    assert route == {
        **{"name": "toy", "path": "/toy/", "hosts": "gpu_servers", "port": "7000"},
        "allowed": [{"path": "/v1/models", "methods": ["GET"]}],
        **{"upstream_key": key, "upstream_name": engines.ENGINES_NAME},
    }


def test_prometheus_reads_every_engine_by_its_gate() -> None:
    first, second = engines.engine_jobs(TOY, "s3cret", "/ca.crt")
    tls = {"scheme": "https", "ca_file": "/ca.crt", "credentials": "s3cret"}
    assert first == {"name": "toy_job", "metrics_path": "/figures", "hosts": "gpu_servers", "port": "7000", **tls}
    assert second == {"name": "plain", "metrics_path": "/m", "hosts": "edge", "port": 7100, **tls}
    assert [job["name"] for job in engines.engine_jobs(TABLE, "k", "")] == [row["metrics"]["job"] for row in TABLE]


def test_certificates_of_engine_hosts_have_one_name_in_common() -> None:
    assert engines.certificate_names("gpu", ["gpu", "board"]) == ["gpu", engines.ENGINES_NAME]
    assert engines.certificate_names("door", ["gpu", "board"]) == ["door"]


DOORS = engines.engine_gates(TABLE, ["gpu_servers", "edge"], dict.fromkeys(KEYS, "0123456789abcdef0123"))
GATE_KEY = "abcdef0123456789abcd"


def test_doors_are_to_nginx_what_routes_are() -> None:
    routes = {route["name"]: route for route in engine_gate.gate_routes(DOORS)}
    assert [*routes] == ["vllm", "llama_cpp", "triton", "triton_metrics", "edge", "dcgm_exporter"]
    assert routes["vllm"]["allowed"][-2:] == [
        {"path": "/health", "methods": ["GET"]},
        {"path": "/metrics", "methods": ["GET"]},
    ]
    assert routes["triton_metrics"] == {
        **{"name": "triton_metrics", "path": "/", "allowed": [{"path": "/metrics", "methods": ["GET"]}]},
        "upstreams": [{"address": "127.0.0.1", "port": 8012}],
        "keepalive": True,
    }
    assert [name for name, route in routes.items() if not route["keepalive"]] == ["llama_cpp", "edge"]
    assert {route["upstreams"][0]["address"] for route in routes.values()} == {"127.0.0.1"}
    assert [name for name, route in routes.items() if "upstream_key" in route] == ["vllm", "llama_cpp", "edge"]


def test_each_door_is_asked_without_a_key_and_for_what_is_not_there() -> None:
    asks = engine_gate.gate_asks(DOORS, "fd00::1")
    assert len(asks) == 2 * len(DOORS)
    assert asks[0] == {
        **{"name": "vllm without a key", "url": "https://[fd00::1]:8000/v1/models", "method": "GET", "status": [401]}
    }
    assert asks[-1]["status"] == [404]
    assert asks[-2]["url"] == "https://[fd00::1]:9400/metrics"


def test_a_door_may_be_held_by_the_engine_that_it_stands_before() -> None:
    ports = engine_gate.gate_ports(DOORS[:1], "10.0.0.1", 8087, "stack")
    assert [(row["address"], row["port"]) for row in ports] == [("10.0.0.1", 8000), ("127.0.0.1", 8087)]
    assert ports[0]["owner_compose_project"] == "stack"
    assert "owner_compose_project" not in engine_gate.gate_ports(DOORS, "10.0.0.1", 8087, "")[0]


def gate_problems(**more: Any) -> list[str]:
    given = {"doors": DOORS, "keys": [GATE_KEY], "address": "10.0.0.1", "own": ["10.0.0.1"], "read_timeout": 600}
    return engine_gate.gate_problems(**{**given, **more})


def test_good_settings_of_a_gate_have_no_problem() -> None:
    assert gate_problems() == []
    assert gate_problems(own=[]) == []
    assert gate_problems(address="127.0.0.1") == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"keys": []}, "engine_gate_keys is empty"),
        ({"keys": [GATE_KEY, "short"]}, "engine_gate_keys[1] must be 20 to 256"),
        ({"doors": []}, "engine_gate_doors is empty"),
        ({"read_timeout": 60}, "less than 600 seconds"),
        ({"address": "0.0.0.0"}, "every network of the host"),
        ({"address": "gpu"}, "engine_gate_listen_address is 'gpu'"),
        ({"address": "10.0.0.9"}, "which this host does not have (this host has 10.0.0.1)"),
        ({"doors": [{**DOORS[0], "name": "a_metrics"}]}, "does not end in _metrics"),
        ({"doors": [DOORS[0], {**DOORS[1], "port": 8000}]}, "engine_gate_doors[1] (llama_cpp): name or port is there"),
        ({"doors": [{**DOORS[0], "allowed": [], "metrics": {}}]}, "nothing would be let through"),
        ({"doors": [{**DOORS[0], "upstream_key": 'a" of a key, too'}]}, "upstream_key must be"),
        ({"doors": [{**DOORS[0], "allowed": [{"path": "/a b"}]}]}, "path '/a b' is not like"),
        ({"doors": [{**DOORS[0], "allowed": [{"path": "/metrics"}]}]}, "path '/metrics' is there twice"),
    ],
)
def test_each_wrong_setting_of_a_gate_is_named(more: dict[str, Any], said: str) -> None:
    [problem] = gate_problems(**more)
    assert said in problem
    assert GATE_KEY not in problem
    assert 'a"' not in problem
