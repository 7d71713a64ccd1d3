"""The gateway: routes and clients as nginx gets them, what is refused before, and requests counted from the log."""

import importlib.util
import json
import re
import threading
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import nginx_gateway as gateway
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "nginx_gateway"
TABLE = yaml.safe_load((ROOT / "playbooks/group_vars/all/engines.yml").read_text())["ai_idp_engines"]
# What is let through to each engine that the gateway has.
ENGINES: dict[str, Any] = {row["name"]: row["paths"] for row in TABLE if "route" in row}
KEY = "0123456789abcdef0123"
SERVER = {"address": "10.0.0.1", "port": 8000}
DEFAULTS = {"requests_per_second": 10, "burst": 20, "connections": 32}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gateway_metrics", ROLE / "files" / "gateway_metrics.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


metrics = script()


def route(**more: Any) -> dict[str, Any]:
    return {"name": "vllm", "path": "/", "allowed": ENGINES["vllm"], "upstreams": [SERVER], **more}


def client(**more: Any) -> dict[str, Any]:
    return {"name": "alice", "key": KEY, **more}


def problems(
    routes: list[dict[str, Any]] | None = None,
    clients: list[dict[str, Any]] | None = None,
    files: list[dict[str, Any]] | None = None,
    users: list[dict[str, Any]] | None = None,
) -> list[str]:
    return gateway.gateway_problems(routes or [], clients or [], files or [], users or [])


def test_a_route_without_a_server_does_not_appear() -> None:
    assert gateway.gateway_routes([route(upstreams=[]), route(name="b", upstreams=None)], 20) == []


@pytest.mark.parametrize(("said", "kept"), [(None, True), (True, True), (False, False), ("no", False)])
def test_connections_are_kept_unless_the_upstream_closes_them(said: object, kept: bool) -> None:
    (entry,) = gateway.gateway_routes([route(**({} if said is None else {"keepalive": said}))], 20)
    assert entry["keepalive"] is kept


def test_an_engine_s_paths_lie_below_the_route_s() -> None:
    (entry,) = gateway.gateway_routes([route(path="/llama/", allowed=ENGINES["llama_cpp"])], 20)
    found = {location["match"]: location for location in entry["locations"]}
    chat = found["= /llama/v1/chat/completions"]
    assert (chat["methods"], chat["target"], chat["rewrite"]) == (["POST"], "/v1/chat/completions", "")
    assert found["= /llama/v1/models"]["methods"] == ["GET", "HEAD"]
    assert (entry["auth"], entry["servers"], entry["body_megabytes"]) == ("client_key", ["10.0.0.1:8000"], 20)


def test_a_star_is_one_part_of_a_path_and_can_hold_nothing_strange() -> None:
    (entry,) = gateway.gateway_routes([route(path="/triton/", allowed=ENGINES["triton"])], 20)
    patterns = [location["rewrite"] for location in entry["locations"] if location["rewrite"]]

    def upstream_path(path: str) -> list[str]:
        return [found[1] for pattern in patterns if (found := re.search(pattern, path))]

    assert upstream_path("/triton/v2/models/a-b_1.x/infer") == ["/v2/models/a-b_1.x/infer"]
    assert upstream_path("/triton/v2/models/a/versions/1/infer") == ["/v2/models/a/versions/1/infer"]
    for path in ("/triton/v2/models/a/b/infer", "/triton/v2/models/a b/infer", "/triton/v2/models/a\r\nX: y/infer"):
        assert upstream_path(path) == []
    for path in ("/triton/v2/models//infer", "/other/triton/v2/models/a/infer", "/triton/v2/models/a/load"):
        assert upstream_path(path) == []


@pytest.mark.parametrize(
    "path",
    [
        *("/pause", "/v1/score", "/v1/load_lora_adapter", "/invocations", "/reset_prefix_cache", "/metrics", "/sleep"),
        *("/v2/models/a/stats", "/v2/models/a/versions/1/stats", "/v2/models/a/trace/setting"),
        *("/v2/repository/index", "/v2/repository/models/a/load", "/v2/systemsharedmemory/status", "/v2/logging"),
        *("/slots", "/props", "/lora-adapters", "/v1/../pause", "/detokenize", "/v1/responses/a/b"),
    ],
)
def test_no_engine_s_operator_paths_are_let_through(path: str) -> None:
    for engine in ENGINES:
        (entry,) = gateway.gateway_routes([route(allowed=ENGINES[engine])], 20)
        for location in entry["locations"]:
            assert location["match"] != f"= {path}"
            assert not location["rewrite"] or not re.search(location["rewrite"], path)


def test_the_page_says_what_is_let_through_to_which_engine() -> None:
    page = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
    table = page.partition("\n| path | methods |")[2].partition("\n\n")[0]
    head, _, *rows = (line.strip("|").split("|") for line in table.splitlines())
    names = [cell.strip(" `") for cell in head[:-1]]
    said: dict[str, set[tuple[str, str]]] = {name: set() for name in names}
    for paths, methods, *cells in rows:
        # The last cell says why.
        for name, cell in zip(names, cells[:-1], strict=True):
            assert cell.strip() in {"yes", "no"}
            if cell.strip() == "yes":
                said[name] |= {(path, methods.strip()) for path in re.findall("`([^`]+)`", paths)}
    assert said == {
        name: {(allowed["path"], ", ".join(allowed["methods"])) for allowed in paths} for name, paths in ENGINES.items()
    }
    # It is of the versions that are pinned.
    images = yaml.safe_load((ROOT / "playbooks/group_vars/all/versions.yml").read_text())["ai_idp_images"]
    for image in ("vllm", "llama_cpp"):
        assert re.split("[:v-]", images[image])[-1] in page


def routing(*routes: dict[str, Any], clients: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return gateway.gateway_routing(gateway.gateway_routes(list(routes), 20), clients or [])


def test_what_serves_models_is_found_in_the_table_s_order() -> None:
    found = routing(
        route(),
        route(name="edge", path="/edge/", allowed=ENGINES["edge"], max_body_megabytes=40),
        route(name="triton", path="/triton/", allowed=ENGINES["triton"]),
        route(name="away", path="/away/", upstreams=[]),
        route(name="open", path="/open/", auth="none"),
        {"name": "ui", "path": "/ui/", "type": "ui", "upstreams": [SERVER], "max_body_megabytes": 2048},
    )
    assert [row["name"] for row in found["table"]["routes"]] == ["vllm", "edge"]
    assert found["paths"] == list(gateway.MODEL_PATHS)
    assert found["body_megabytes"] == 40
    assert {"= /v1/models", "= /v1/chat/completions"} < set(found["match"])


def test_a_route_gets_those_paths_alone_that_it_has() -> None:
    allowed = [{"path": "/v1/models"}, {"path": "/v1/messages", "methods": ["POST"]}, {"path": "/v1/embeddings"}]
    found = routing(route(name="one", path="/one/", allowed=allowed))
    assert found["table"]["routes"] == [{"name": "one", "paths": ["/v1/messages"], "body_bytes": 20 << 20}]
    assert found["match"] == ["= /v1/models", "= /v1/messages"]


def test_without_models_nothing_is_taken_from_a_route() -> None:
    found = routing(route(name="triton", path="/triton/", allowed=ENGINES["triton"]))
    assert (found["paths"], found["match"], found["body_megabytes"]) == ([], [], 0)


def test_a_client_s_models_are_part_of_its_entry() -> None:
    clients = [client(models=["m"]), client(name="bob", models=[]), client(name="gone", models=["m"], state="absent")]
    assert routing(route(), clients=clients)["table"]["clients"] == {"alice": ["m"]}
    assert gateway.gateway_model_problems(clients, routing=True) == []
    (problem,) = gateway.gateway_model_problems(clients, routing=False)
    assert "alice" in problem


@pytest.mark.parametrize(
    ("distribution", "version", "has"),
    [
        *(("Debian", "11", False), ("Debian", "12", True), ("Debian", "13.1", True), ("Debian", "forky/sid", False)),
        *(("Ubuntu", "22.04", False), ("Ubuntu", "24.04", True), ("Ubuntu", "26.04", True), ("Fedora", "44", False)),
    ],
)
def test_njs_is_packaged_from_a_release_on(distribution: str, version: str, has: bool) -> None:
    assert gateway.gateway_has_njs(distribution, version) is has


ERROR = {"status": 401, "type": "invalid_request_error", "code": "invalid_api_key", "message": "It's wrong."}


def test_openai_s_clients_read_their_form_of_errors() -> None:
    assert json.loads(gateway.error_body(ERROR, "openai")) == {
        "error": {"message": "Its wrong.", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error")),
        *((404, "not_found_error"), (405, "invalid_request_error"), (413, "request_too_large")),
        *((429, "rate_limit_error"), (500, "api_error"), (502, "api_error"), (504, "timeout_error")),
    ],
)
def test_anthropic_s_clients_read_their_own_kinds_of_errors(status: int, kind: str) -> None:
    assert json.loads(gateway.error_body({**ERROR, "status": status}, "anthropic")) == {
        "type": "error",
        "error": {"type": kind, "message": "Its wrong."},
    }


def test_a_user_interface_has_one_location_and_its_own_sign_in() -> None:
    (entry,) = gateway.gateway_routes(
        [route(name="ui", path="/ui/", type="ui", upstreams=[{"address": "fd00::1", "port": 80}])], 20
    )
    assert "locations" not in entry
    assert (entry["auth"], entry["strip"], entry["servers"]) == ("none", False, ["[fd00::1]:80"])


@pytest.mark.parametrize(("said", "strips"), [(True, True), ("yes", True), (False, False), ("no", False)])
def test_a_path_is_stripped_when_it_is_said_so_in_text_too(said: bool | str, strips: bool) -> None:
    (entry,) = gateway.gateway_routes([route(name="ui", path="/ui/", type="ui", strip_path=said)], 20)
    assert entry["strip"] is strips


def test_clients_with_the_same_limits_share_a_zone_and_revoked_ones_have_none() -> None:
    limits = gateway.gateway_limits(
        [
            client(name="b"),
            client(name="a"),
            client(name="slow", requests_per_second=0.5, burst=0, connections=1),
            client(name="gone", state="absent"),
        ],
        DEFAULTS,
    )
    assert limits["rates"] == [
        {"zone": "rate_30_0", "per_minute": 30, "burst": 0, "clients": ["slow"]},
        {"zone": "rate_600_20", "per_minute": 600, "burst": 20, "clients": ["a", "b"]},
    ]
    assert [(one["limit"], one["clients"]) for one in limits["connections"]] == [(1, ["slow"]), (32, ["a", "b"])]


@pytest.mark.parametrize(
    ("origin", "matches", "others"),
    [
        (
            "app://obsidian.md",
            ["app://obsidian.md"],
            ["app://obsidianxmd", "app://obsidian.md:1", "xapp://obsidian.md"],
        ),
        (
            "http://localhost:*",
            ["http://localhost", "http://localhost:80", "http://localhost:5173"],
            [
                "http://localhost:",
                "http://localhost:a",
                "http://localhost.evil",
                "https://localhost",
                "http://x.localhost",
            ],
        ),
        ("http://[fd00::1]:8080", ["http://[fd00::1]:8080"], ["http://[fd00::1]", "http://f:8080"]),
        ("chrome-extension://abc", ["chrome-extension://abc"], ["chrome.extension://abc"]),
    ],
)
def test_an_origin_is_the_one_that_was_named(origin: str, matches: list[str], others: list[str]) -> None:
    entry = client(origins=[origin])
    assert problems(clients=[entry]) == []
    [found] = gateway.gateway_origins([entry])
    for other in matches:
        assert re.fullmatch(found["pattern"], other)
    for other in others:
        assert not re.fullmatch(found["pattern"], other)


def test_only_clients_with_origins_are_used_by_pages() -> None:
    origins = {"origins": ["app://obsidian.md", "http://localhost:*"]}
    clients = [
        client(**origins),
        client(name="b"),
        client(name="c", origins=[]),
        client(name="d", state="absent", **origins),
    ]
    [found] = gateway.gateway_origins(clients)
    assert found == {"name": "alice", "pattern": r"app://obsidian\.md|http://localhost(?::[0-9]+)?"}
    assert gateway.gateway_origins(clients[1:]) == []


def test_a_zone_of_other_limits_has_another_name() -> None:
    """nginx refuses to reload a zone whose limits' key has changed."""
    before = gateway.gateway_limits([client()], DEFAULTS)["rates"][0]["zone"]
    after = gateway.gateway_limits([client(burst=21)], DEFAULTS)["rates"][0]["zone"]
    assert before != after


def test_good_settings_have_no_problem() -> None:
    assert (
        problems(
            [
                route(upstream_key=KEY),
                route(name="llama", path="/llama/", allowed=ENGINES["llama_cpp"]),
                route(name="triton", path="/triton/", allowed=ENGINES["triton"]),
                route(name="own", path="/own/", allowed=[{"path": "/a/*/b", "methods": ["PUT"]}]),
                route(name="ui", path="/ui/", type="ui", allowed=None, auth="basic"),
            ],
            [
                *(client(), client(name="bob", key=KEY + "b"), {"name": "gone", "state": "absent"}),
                client(name="own", key="""an-owner's-key-$a"b\\c~"""),
            ],
            [{"path": "/", "file": "/x/index.html"}, {"path": "/ca.crt", "file": "/x/ca.crt"}],
            [{"name": "admin", "password": "p" * 16}],
        )
        == []
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"routes": [route(name="Big")]}, "is 'Big'"),
        ({"routes": [route(), route(path="/b/")]}, "there twice"),
        ({"routes": [route(path="/llama")]}, "begin and end with /"),
        ({"routes": [route(path="/a b/")]}, "begin and end with /"),
        ({"routes": [route(allowed=[])]}, "allowed is empty, so nothing would be let through"),
        ({"routes": [route(upstream_name="engines.lan")]}, "nginx_gateway_upstream_ca names no authority"),
        ({"routes": [route(type="ui")]}, "front page"),
        ({"routes": [route(type="ui", path="/ui/", auth="client_key")]}, "browsers send no client key"),
        ({"routes": [route(auth="basic")]}, "client_key or none"),
        ({"routes": [route(allowed=[{"path": "v1"}])]}, "'v1'"),
        ({"routes": [route(allowed=[{"path": "/v1/{id}"}])]}, "'/v1/{id}'"),
        ({"routes": [route(upstreams=[{"address": "a;b", "port": 1}])]}, "'a;b:1'"),
        ({"routes": [route(upstreams=[{"address": "a", "port": 70000}])]}, "'a:70000'"),
        ({"routes": [route(upstream_key="a key with blanks")]}, "upstream_key must be"),
        ({"clients": [{"name": "a", "key": "k" * 20, "former_key": "a b"}]}, "(a): former_key must be"),
        ({"clients": [{"name": "a", "key": "k" * 20, "former_key": "K" * 20}]}, "(a): former_key is that of a too"),
        ({"routes": [route(), route(name="b")]}, "/v1/models is that of the route vllm already"),
        ({"routes": [route(type="ui", path="/ui/", auth="basic")]}, "nginx_gateway_users is empty"),
        ({"routes": [route()], "files": [{"path": "/v1/models", "file": "/x"}]}, "already"),
        ({"files": [{"path": "x", "file": "/x"}]}, "path 'x'"),
        ({"clients": [client(key="short")]}, "openssl rand -hex 32"),
        ({"clients": [client(key=None)]}, "openssl rand -hex 32"),
        ({"clients": [client(key="a" * 20 + ",b")]}, "without a comma"),
        ({"clients": [client(key="a" * 20 + "ä")]}, "without a comma"),
        ({"clients": [client(), client(name="b", key=KEY.upper())]}, "that of alice too"),
        ({"clients": [client(requests_per_second=0)]}, "requests_per_second is 0"),
        ({"clients": [client(connections=0)]}, "connections is 0"),
        *(
            ({"clients": [client(origins=["app://obsidian.md", origin])]}, f"(alice): origins has '{origin}'")
            for origin in (
                *("*", "null", "obsidian.md", "https://*", "https://*.example.org", "https://a.example/", "HTTPS://a"),
                *("http://localhost:**", "http://localhost:0", "http://a b", "http://a/b", "http://a;b", "http://a$b"),
            )
        ),
        ({"users": [{"name": "a", "password": "short"}]}, "16 characters"),
    ],
)
def test_each_mistake_is_named(wrong: dict[str, Any], said: str) -> None:
    found = problems(**wrong)
    assert any(said in problem for problem in found), found
    assert not any(KEY in problem or "short" in problem for problem in found)


def test_the_door_is_on_named_networks_and_waits_long_enough() -> None:
    assert gateway.gateway_door_problems(["10.0.0.2", "fd00::2"], 600) == []
    assert "is empty" in gateway.gateway_door_problems([], 600)[0]
    for address in ("0.0.0.0", "::", "*"):
        assert f"'{address}' is every network" in gateway.gateway_door_problems([address], 600)[0]
    assert "nginx_gateway_read_timeout is 60" in gateway.gateway_door_problems(["10.0.0.2"], 60)[0]


def test_each_address_is_asked_once_without_a_key() -> None:
    routes = gateway.gateway_routes(
        [
            route(name="ui", type="ui", path="/ui/"),
            route(name="own", path="/own/", allowed=[{"path": "/a/*", "methods": ["PUT"]}]),
            route(),
        ],
        1,
    )
    asks = gateway.gateway_doors(routes, ["10.0.0.2", "fd00::2"], 8443)
    assert [(ask["url"], ask["method"], ask["status"]) for ask in asks] == [
        ("https://10.0.0.2:8443/own/a/any", "PUT", [401]),
        ("https://[fd00::2]:8443/own/a/any", "PUT", [401]),
    ]
    assert gateway.gateway_doors(routes[:1], ["10.0.0.2"], 443) == []


def test_ports_of_the_door_are_nginx_s() -> None:
    ports = gateway.gateway_ports(["10.0.0.2"], 443, 0, 8088)
    assert [(port["address"], port["port"], port["owner_processes"]) for port in ports] == [
        ("127.0.0.1", 8088, ["nginx"]),
        ("10.0.0.2", 443, ["nginx"]),
    ]
    assert ("10.0.0.2", 80) in [
        (port["address"], port["port"]) for port in gateway.gateway_ports(["10.0.0.2"], 1, 80, 2)
    ]


def test_only_upstreams_with_a_key_have_a_file_for_it() -> None:
    assert gateway.gateway_upstream_keys([route(upstream_key=KEY), route(name="b", upstream_key="")]) == {
        "upstream_vllm.conf": f'proxy_set_header Authorization "Bearer {KEY}";\n'
    }
    assert gateway.gateway_upstream_keys([route(upstream_key="""a$b"c\\d'e""")]) == {
        "upstream_vllm.conf": r"""proxy_set_header Authorization "Bearer a${dollar}b\"c\\d'e";""" + "\n"
    }


LINE = {
    "client": "alice",
    "route": "vllm",
    "status": 200,
    "bytes_in": 100,
    "bytes_out": 900,
    "seconds": 1.5,
    "upstream_first_byte_seconds": "0.020",
}


def counted(*lines: Any, names: dict[str, Any] | None = None) -> dict[str, float]:
    counters = metrics.Counters()
    counters.begin(names or {})
    for line in lines:
        counters.count(line if isinstance(line, str) else json.dumps(line))
    rows = [line.rpartition(" ") for line in counters.text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in rows}


def test_requests_are_counted_by_client_route_and_status() -> None:
    found = counted(LINE, LINE, {**LINE, "status": 429, "upstream_first_byte_seconds": ""}, {**LINE, "client": ""})
    prefix = "ai_idp_gateway"
    assert found[f'{prefix}_requests_total{{client="alice",route="vllm",status="200"}}'] == 2
    assert found[f'{prefix}_requests_total{{client="alice",route="vllm",status="429"}}'] == 1
    assert found[f'{prefix}_requests_total{{client="(none)",route="vllm",status="200"}}'] == 1
    assert found[f'{prefix}_sent_bytes_total{{client="alice",route="vllm"}}'] == 2700
    assert found[f'{prefix}_received_bytes_total{{client="alice",route="vllm"}}'] == 300
    # The refused one came from no upstream.
    pair = '{client="alice",route="vllm"}'
    assert found[f"{prefix}_first_byte_seconds_count{pair}"] == 2
    assert found[f"{prefix}_request_seconds_sum{pair}"] == 3.0


def test_buckets_add_up() -> None:
    found = counted(*({**LINE, "upstream_first_byte_seconds": text} for text in ("0.010", "0.011", "1000")))
    bucket = 'ai_idp_gateway_first_byte_seconds_bucket{client="alice",route="vllm",le="%s"}'
    assert [found[bucket % bound] for bound in ("0.01", "0.025", "300.0", "+Inf")] == [1, 2, 2, 3]


def test_the_last_upstream_s_time_counts() -> None:
    assert metrics.seconds_of("0.001, 0.020") == 0.02
    assert metrics.seconds_of("-, 0.5") == 0.5
    assert metrics.seconds_of("0.1 : 0.2") == 0.2
    assert metrics.seconds_of("-") is None
    assert metrics.seconds_of("") is None


@pytest.mark.parametrize("line", ["", "no json", "[]", "{}", '{"client": "a"}', json.dumps({**LINE, "status": "x"})])
def test_a_line_that_can_not_be_read_is_counted_as_that(line: str) -> None:
    assert counted(line)["ai_idp_gateway_unreadable_log_lines_total"] == 1


def test_known_clients_stand_at_zero_before_their_first_request() -> None:
    found = counted(names={"clients": ["alice"], "api_routes": ["vllm"], "ui_routes": ["grafana"]})
    assert found['ai_idp_gateway_requests_total{client="alice",route="vllm",status="200"}'] == 0
    assert found['ai_idp_gateway_requests_total{client="(none)",route="grafana",status="200"}'] == 0


def test_the_log_is_followed_through_rotation_and_half_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    follower = metrics.Follower(log)
    with log.open("a") as stream:
        stream.write("one\ntw")
        stream.flush()
        assert follower.lines() == ["one"]
        stream.write("o\n")
        stream.flush()
        assert follower.lines() == ["two"]
        log.rename(tmp_path / "log.1")
        stream.write("late\n")
        stream.flush()
        assert follower.lines() == ["late"]
    log.write_text("new\n")
    assert follower.lines() == ["new"]
    log.write_text("x\n")
    assert follower.lines() == ["x"], "the file was cut"


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    follower = metrics.Follower(tmp_path / "log")
    assert follower.lines() == []
    (tmp_path / "log").write_text("first\n")
    assert follower.lines() == ["first"]


def test_counters_are_read_over_http() -> None:
    counters = metrics.Counters()
    counters.count(json.dumps(LINE))
    with metrics.Server(("127.0.0.1", 0), counters) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert b'client="alice"' in answer.read()
        server.shutdown()
