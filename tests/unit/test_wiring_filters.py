"""What is derived from groups, hosts and secrets: as functions, and through Ansible with the wiring itself."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import wiring
import yaml
from ansible._internal._datatag._tags import Origin
from ansible.errors import AnsibleFilterError
from expressions import evaluated

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "wiring"
TABLE: list[dict[str, Any]] = yaml.safe_load(
    (ROOT / "playbooks" / "group_vars" / "all" / "engines.yml").read_text(encoding="utf-8")
)["ai_idp_engines"]
SECRETS = {
    "engine_gate_key": "h8",
    "inference_stack_vllm_api_key": "a1",
    "inference_stack_llama_cpp_api_key": "b2",
    "edge_inference_api_key": "c3",
    "gateway_client_key": "d4",
    "gateway_client_key_load": "e5",
    "gateway_password": "f6",
    "grafana_admin_password": "g7",
}

Groups = dict[str, list[str]]
HostVars = dict[str, dict[str, Any]]

# One host for everything; three; twenty with two gateways and no edge. YAML would take some of the names for others.
ODD = ["on", "010", "1e3", "yes"]
SITES: dict[str, Groups] = {
    "one": {"all": ["box"], "gpu_servers": ["box"], "gateways": ["box"], "edge": ["box"]},
    "three": {"all": ["gpu", "door", "board"], "gpu_servers": ["gpu"], "gateways": ["door"], "edge": ["board"]},
    "twenty": {
        "all": [*ODD, *(f"node{number}" for number in range(16))],
        "gpu_servers": [f"node{number}" for number in range(16)] + ["1e3", "yes"],
        "gateways": ["on", "010"],
    },
}


def hosts_of(site: str) -> HostVars:
    """Every second host has an address of its own; the others are reached by their names."""
    return {
        name: {"ansible_host": f"10.0.0.{number}"} if number % 2 == 0 else {}
        for number, name in enumerate(SITES[site]["all"])
    }


class Counted(dict[str, dict[str, Any]]):
    """Counts how often a host's variables are collected, which is what costs."""

    reads = 0

    def __getitem__(self, name: str) -> dict[str, Any]:
        self.reads += 1
        return super().__getitem__(name)


@pytest.mark.parametrize("site", SITES)
def test_a_host_without_an_address_is_reached_by_its_name(site: str) -> None:
    names = SITES[site]["all"]
    found = wiring.host_addresses(names, hosts_of(site))
    assert list(found) == names
    assert all(found[name] == (f"10.0.0.{at}" if at % 2 == 0 else name) for at, name in enumerate(names))
    assert wiring.host_address("", {}) == ""


@pytest.mark.parametrize("site", SITES)
def test_the_peers_are_all_others(site: str) -> None:
    names, hosts = SITES[site]["all"], hosts_of(site)
    for name in names:
        peers = wiring.benchmark_peers(names, name, hosts)
        assert [peer["name"] for peer in peers] == [other for other in names if other != name]
        asked = wiring.readiness_peers(names, name, hosts)
        assert [{"name": peer["name"], "address": peer["address"]} for peer in asked] == peers
        assert {peer["port"] for peer in asked} <= {22}


@pytest.mark.parametrize(
    ("stated", "address"),
    [("10.0.0.9", "10.0.0.9"), ("fd00::9", "fd00::9"), ("board", "10.0.0.3"), ("010", "10.0.0.3"), ("1e3", "10.0.0.3")],
)
def test_a_name_is_no_address_to_listen_at(stated: str, address: str) -> None:
    facts = {"default_ipv4": {"address": "10.0.0.3"}}
    assert wiring.own_address(stated, facts) == address
    assert wiring.host_address("board", {"board": {"ansible_host": stated, "ansible_facts": facts}}) == address
    assert wiring.own_address("board", {"default_ipv4": {}}) == "board"


def test_an_address_that_only_facts_tell_admits_nobody_until_they_are_gathered() -> None:
    hosts: HostVars = {"named": {}, "told": {"ansible_facts": {"default_ipv4": {"address": "10.0.0.4"}}}}
    hosts["stated"] = {"ansible_host": "fd00::5"}
    assert wiring.known_addresses(list(hosts), hosts) == ["10.0.0.4", "fd00::5"]
    assert wiring.hosts_without_address(list(hosts), hosts) == ["named"]


def test_where_a_host_listens_it_is_called(tmp_path: Path) -> None:
    """Services were bound to the default route's address, and called at ansible_host."""
    (tmp_path / "group_vars").symlink_to(ROOT / "inventory" / "lab" / "group_vars")
    hosts = {
        "gpu_servers": {"gpu": {"ansible_host": "10.0.0.1", "ai_idp_address": "192.168.7.1"}},
        "gateways": {"door": {"ansible_host": "127.0.0.1", "ai_idp_address": "192.168.7.2"}},
        "edge": {"board": {"ansible_host": "10.0.0.3"}},
    }
    children = {group: {"hosts": members} for group, members in hosts.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": children}}, sort_keys=False))
    bound = ["node_exporter_listen_address", "engine_gate_listen_address"]
    bound += ["nginx_gateway_listen_addresses[0]", "tls_certificates_addresses[0]", "ai_idp_unmeasured_link.address"]
    called = {"jobs": "prometheus_scrape_jobs", "routes": "nginx_gateway_routes", "peers": "benchmark_peers"}
    seen = render(tmp_path, {**{f"bound_{at}": text for at, text in enumerate(bound)}, **called}, SECRETS)
    addresses = {"gpu": "192.168.7.1", "door": "192.168.7.2", "board": "10.0.0.3"}
    # At the time of this plan nothing is known of the facts.
    facts = {"default_ipv4": {"address": "10.99.0.1"}}
    for name, address in addresses.items():
        assert {seen[name][f"bound_{at}"] for at in range(len(bound))} == {address}
        assert wiring.host_address(name, {name: {"ai_idp_address": address, "ansible_facts": facts}}) == address
    door = seen["door"]
    targets = {row["name"]: [target["address"] for target in row["targets"]] for row in door["jobs"]}
    assert targets["node"] == [f"{address}:9100" for address in addresses.values()]
    assert targets["vllm"] == ["192.168.7.1:8000"]
    upstreams = {row["name"]: row["upstreams"] for row in door["routes"]}
    assert (upstreams["vllm"][0]["address"], upstreams["edge"][0]["address"]) == ("192.168.7.1", "10.0.0.3")
    assert {row["name"]: row["address"] for row in door["peers"]} == {"gpu": "192.168.7.1", "board": "10.0.0.3"}


def test_a_port_of_its_own_is_asked() -> None:
    hosts: HostVars = {"a": {}, "b": {"ansible_port": "2222", "ansible_host": "10.0.0.2"}}
    assert wiring.readiness_peers(["a", "b"], "a", hosts) == [{"name": "b", "address": "10.0.0.2", "port": 2222}]


def test_a_host_is_looked_for_by_the_others_at_the_address_that_its_facts_tell() -> None:
    """Its name in the inventory may be one of the controller's own, such as an alias of SSH's."""
    hosts: HostVars = {"a": {}, "board": {"ansible_facts": {"default_ipv4": {"address": "10.0.0.3"}}}}
    assert wiring.readiness_peers(["a", "board"], "a", hosts) == [{"name": "board", "address": "10.0.0.3", "port": 22}]


@pytest.mark.parametrize("site", SITES)
def test_jobs_and_routes_lead_to_every_host_of_their_group(site: str) -> None:
    groups = {"gpu_servers": SITES[site]["gpu_servers"], "edge": SITES[site].get("edge", [])}
    rows: list[dict[str, Any]] = [
        {"name": "first", "hosts": "gpu_servers", "port": 1, "credentials": "k"},
        {"name": "second", "hosts": "gpu_servers", "port": 2},
        {"name": "third", "hosts": "edge", "port": 3},
        {"name": "own", "targets": [], "port": 4},
    ]
    hosts = Counted(hosts_of(site))
    jobs = wiring.scrape_jobs(rows, groups, hosts)
    # Twice the same group is looked up once.
    assert hosts.reads == sum(len(names) for names in groups.values())
    addresses = wiring.host_addresses(groups["gpu_servers"], hosts)
    assert [list(job) for job in jobs] == [
        ["name", "targets", "credentials"],
        ["name", "targets"],
        ["name", "targets"],
        ["name", "targets", "port"],
    ]
    assert jobs[1]["targets"] == [{"host": name, "address": f"{addresses[name]}:2"} for name in groups["gpu_servers"]]
    assert len(jobs[2]["targets"]) == len(groups["edge"])
    routes = wiring.upstream_routes(rows[:3], groups, hosts)
    assert routes[1]["upstreams"] == [{"address": address, "port": 2} for address in addresses.values()]


def test_a_group_that_nobody_knows_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="vllm: hosts is 'gpus', which is none of gpu_servers, edge"):
        wiring.scrape_jobs([{"name": "vllm", "hosts": "gpus", "port": 1}], {"gpu_servers": [], "edge": []}, {})


DOORS: list[dict[str, Any]] = [
    {"name": "vllm", "hosts": "gpu_servers", "port": "2", "admits": ["gateways", "controllers"]},
    {"name": "https", "hosts": "gateways", "port": 443, "admits": ["network"]},
    {"name": "node", "hosts": "all", "port": 1, "admits": ["gateways"]},
]
ADMITTED = {"network": ["10.0.0.0/8"], "gateways": ["10.0.0.2", "10.0.0.3"], "controllers": []}


def test_a_host_admits_whom_its_doors_are_for() -> None:
    assert wiring.firewall_rules(DOORS, ["gpu_servers"], ADMITTED, "10.0.0.1") == [
        {"comment": "vllm", "port": 2, "protocol": "tcp", "sources": ["10.0.0.2", "10.0.0.3"]},
        {"comment": "node", "port": 1, "protocol": "tcp", "sources": ["10.0.0.2", "10.0.0.3"]},
    ]
    # A gateway reaches itself by loopback.
    [https, node] = wiring.firewall_rules(DOORS, ["gateways"], ADMITTED, "10.0.0.2")
    assert (https["sources"], node["sources"]) == (["10.0.0.0/8"], ["10.0.0.3"])


def test_a_door_that_is_for_nobody_stays_shut() -> None:
    nobody = {**ADMITTED, "gateways": []}
    assert wiring.firewall_rules(DOORS, ["gpu_servers"], nobody, "10.0.0.1") == []
    [rule] = wiring.firewall_rules(DOORS, ["gpu_servers"], {**nobody, "controllers": ["10.0.0.9"]}, "10.0.0.1")
    assert (rule["comment"], rule["sources"]) == ("vllm", ["10.0.0.9"])


def test_the_door_of_a_measurement_is_in_the_table_and_not_in_the_rules() -> None:
    door = {"name": "iperf3", "hosts": "all", "port": 5, "admits": ["gateways"], "measured": True, "wants": "nothing"}
    assert wiring.firewall_rules([door], ["gpu_servers"], ADMITTED, "10.0.0.1") == []
    [row] = wiring.door_table([door], ["gpu_servers"], ADMITTED, "10.0.0.1")
    assert (row["measured"], row["sources"]) == (True, ["10.0.0.2", "10.0.0.3"])


def test_the_table_of_doors_has_each_with_what_it_takes() -> None:
    doors = [{**door, "wants": f"{door['name']} wants"} for door in DOORS]
    [https, node] = wiring.door_table(doors, ["gateways"], {**ADMITTED, "gateways": ["10.0.0.2"]}, "10.0.0.2")
    assert (https["port"], https["who"], https["sources"]) == (443, ["network"], ["10.0.0.0/8"])
    # Only this host itself, which comes by loopback.
    assert node == {
        **{"name": "node", "address": "10.0.0.2", "port": 1, "who": ["gateways"], "sources": []},
        **{"wants": "node wants", "measured": False},
    }


def test_who_is_admitted_is_known_by_name() -> None:
    with pytest.raises(AnsibleFilterError, match="vllm: admits is 'controllers', which is none of network, gateways"):
        wiring.firewall_rules(DOORS, ["gpu_servers"], {"network": [], "gateways": []}, "10.0.0.1")


CATALOGUE: list[dict[str, Any]] = [
    {"name": "whole", "format": "huggingface", "figures": {"weights_bytes": 7}},
    {"name": "small", "files": ["small.gguf", "more.gguf"], "size_bytes": 5, "figures": {"weights_bytes": 4}},
    {"name": "plain", "files": ["plain.gguf"]},
]


def test_a_model_is_found_in_the_catalogue() -> None:
    assert wiring.catalogue_entry(CATALOGUE, "plain") == CATALOGUE[2]
    assert wiring.catalogue_entry(CATALOGUE, "nobody") == {}
    assert wiring.model_file(CATALOGUE, "small", "/m") == "/m/small/small.gguf"
    assert wiring.model_file(CATALOGUE, "whole", "/m") == "/m/whole/"
    assert wiring.model_file(CATALOGUE, "", "/m") == "/m//"
    assert wiring.llama_models(CATALOGUE, "small", "/m") == [{"name": "small", "path": "/m/small/small.gguf"}]
    assert wiring.llama_models(CATALOGUE, "", "/m") == []


def test_the_size_of_a_wanted_model_may_be_unknown() -> None:
    assert wiring.wanted_models(CATALOGUE, ["plain", "whole", "small", "nobody"]) == [
        {"name": "whole", "size_bytes": 7},
        {"name": "small", "size_bytes": 5},
        {"name": "plain", "size_bytes": None},
    ]


@pytest.mark.parametrize(
    ("site", "edge_says", "lenders"),
    [
        ("one", {}, ["box"]),
        ("three", {}, ["board"]),
        ("three", {"edge_inference_rpc_enabled": "no"}, []),
        ("three", {"edge_inference_rpc_enabled": False}, []),
        ("twenty", {}, []),
    ],
)
def test_the_edge_lends_memory_unless_it_says_no(site: str, edge_says: dict[str, Any], lenders: list[str]) -> None:
    hosts = hosts_of(site)
    for name in SITES[site].get("edge", []):
        hosts[name].update(edge_says)
    assert wiring.rpc_lenders(SITES[site], hosts) == lenders


def test_each_host_of_the_edge_lends_for_itself() -> None:
    hosts: HostVars = {"first": {"edge_inference_rpc_enabled": "false"}, "second": {}}
    assert wiring.rpc_lenders({"edge": ["first", "second"], "gpu_servers": ["gpu"]}, hosts) == ["second"]


def test_an_edge_without_a_gpu_server_lends_nothing() -> None:
    assert wiring.rpc_lenders({"all": ["board"], "edge": ["board"], "gpu_servers": []}, {"board": {}}) == []


@pytest.mark.parametrize(
    ("read", "old"),
    [
        pytest.param(["10.0.0.3", "10.9.0.2"], False, id="as before"),
        pytest.param(["10.0.0.3", "10.9.0.2", "10.8.0.2"], True, id="plugged in"),
        pytest.param(["10.0.0.3"], True, id="pulled out"),
    ],
)
def test_a_cable_is_seen_before_facts_are_gathered_again(read: list[str], old: bool) -> None:
    # Facts have the bridge of the containers too.
    facts = ["10.0.0.3", "10.9.0.2", "172.17.0.1"]
    links = {"board": {"address": "10.9.0.2", "client": "10.9.0.1"}}
    rows = [{"address": address} for address in read]
    assert wiring.addresses_are_old(facts, rows, links, "board") is old


def plan(action: str, build: int) -> dict[str, Any]:
    return {"__llama_cpp_plan": {"action": action, "release": {"build": build, "commit": "c" * 40}}}


@pytest.mark.parametrize(
    ("hosts", "ran", "said"),
    [
        ({"board": plan("build", 2), "gpu": plan("build", 2)}, ["board", "gpu"], ""),
        ({"board": plan("none", 1), "gpu": plan("build", 2)}, ["board", "gpu"], "board llama.cpp 1 (ccc"),
        ({"board": plan("none", 1), "gpu": {}}, ["board"], ""),
        ({"board": plan("build", 2), "gpu": {}}, ["board"], "board would get another llama.cpp, and gpu, the other"),
        ({"board": {}, "gpu": plan("switch", 2)}, ["gpu"], "gpu would get another llama.cpp, and board, the other"),
        ({"board": {}, "gpu": {}}, ["door"], ""),
    ],
)
def test_both_ends_of_rpc_are_one_build(hosts: HostVars, ran: list[str], said: str) -> None:
    problems = wiring.rpc_build_problems(["board"], "gpu", hosts, ran)
    assert len(problems) == bool(said)
    assert said in " ".join(problems)


def test_a_host_that_is_both_ends_has_one_build() -> None:
    assert wiring.rpc_build_problems(["box"], "box", {"box": plan("build", 2)}, ["box"]) == []


def test_a_link_holds_as_long_as_the_host_has_its_address() -> None:
    links = {"board": {"address": "10.9.0.2", "client": "10.9.0.1"}}
    assert wiring.measured_link(links, "board", None) == links["board"]
    assert wiring.measured_link(links, "board", ["10.0.0.3", "10.9.0.2"]) == links["board"]
    assert wiring.measured_link(links, "board", ["10.0.0.3"]) == {}
    assert wiring.measured_link(links, "other", None) == {}
    assert wiring.measured_link({}, "board", None) == {}


LENT = [{"name": name, "files": [f"{name}.gguf"]} for name in ("small", "other")]


def lender(address: str, model: str = "small") -> dict[str, Any]:
    return {"edge_inference_model_name": model, "ai_idp_rpc_link": {"address": address}}


def test_the_edges_memory_is_measured_without_it_and_with_it() -> None:
    loans = wiring.rpc_loans(["board"], {"board": lender("10.9.0.2")}, 50052)
    [alone] = wiring.edge_measurements("small", "/m/small/small.gguf", "/bin/bench")
    local, remote = wiring.rpc_measurements(loans, LENT, "/m", "/bin/bench")
    assert [row["id"] for row in (alone, local, remote)] == ["edge-llama-bench", "rpc-bench-local", "rpc-bench-remote"]
    assert alone["parameters"] == local["parameters"]
    assert remote["parameters"] == {**local["parameters"], "extra_args": ["--rpc", "10.9.0.2:50052"]}
    assert (local["tool"], local["model"], local["model_path"]) == ("llama_bench", "small", "/m/small/small.gguf")
    assert local["parameters"]["command"] == ["/bin/bench"]


def test_each_lender_is_measured_with_its_own_model() -> None:
    hosts = {"a": lender("10.9.0.2"), "b": lender("10.9.1.2", "other"), "c": lender("10.9.2.2")}
    loans = wiring.rpc_loans(list(hosts), hosts, 50052)
    assert [(loan["local"], loan["remote"], loan["server"]) for loan in loans] == [
        ("rpc-bench-local", "rpc-bench-remote", "10.9.0.2:50052"),
        ("rpc-bench-local-b", "rpc-bench-remote-b", "10.9.1.2:50052"),
        ("rpc-bench-local", "rpc-bench-remote-c", "10.9.2.2:50052"),
    ]
    measured = wiring.rpc_measurements(loans, LENT, "/m", "/bin/bench")
    assert {row["id"]: row["model_path"] for row in measured} == {
        "rpc-bench-local": "/m/small/small.gguf",
        "rpc-bench-remote": "/m/small/small.gguf",
        "rpc-bench-local-b": "/m/other/other.gguf",
        "rpc-bench-remote-b": "/m/other/other.gguf",
        "rpc-bench-remote-c": "/m/small/small.gguf",
    }
    assert wiring.lent_models(list(hosts), hosts) == ["small", "other"]


CLIENTS: list[dict[str, Any]] = [
    {"name": "load", "burst": 9},
    {"name": "own", "key": "mine"},
    {"name": "empty", "key": ""},
    {"name": "late"},
]


def test_who_brings_no_key_gets_one_made() -> None:
    made = ["gateway_client_key", "gateway_password", "grafana_admin_password"]
    assert wiring.gateway_keys([]) == made
    assert wiring.gateway_keys(CLIENTS) == [*made, "gateway_client_key_load", "gateway_client_key_late"]


def test_a_client_without_a_key_is_none_yet() -> None:
    secrets = {"gateway_client_key": "1e3", "gateway_client_key_load": "010", "gateway_client_key_empty": "on"}
    assert wiring.gateway_clients(CLIENTS, secrets) == [
        {"name": "owner", "key": "1e3"},
        {"name": "load", "burst": 9, "key": "010"},
        {"name": "own", "key": "mine"},
        {"name": "empty", "key": "on"},
    ]
    assert wiring.gateway_clients([], {}) == []
    assert CLIENTS[0] == {"name": "load", "burst": 9}


def test_while_a_client_s_key_is_replaced_the_one_before_is_good_too() -> None:
    secrets = {
        **{"gateway_client_key": "new", "gateway_client_key_before": "old"},
        **{"gateway_client_key_load": "new-load", "gateway_client_key_load_before": "old-load"},
        "gateway_client_key_own_before": "made before the owner brought a key",
    }
    assert wiring.gateway_clients(CLIENTS[:2], secrets) == [
        {"name": "owner", "key": "new", "former_key": "old"},
        {"name": "load", "burst": 9, "key": "new-load", "former_key": "old-load"},
        {"name": "own", "key": "mine"},
    ]


@pytest.mark.parametrize("name", ["before", "load_before"])
def test_no_client_is_named_as_a_key_of_before(name: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"{name} is no name for a client"):
        wiring.gateway_keys([{"name": "load"}, {"name": name}])
    assert len(wiring.gateway_keys([{"name": name, "key": "its own"}])) == 3


def test_a_machine_is_for_what_its_groups_say() -> None:
    one = {**SITES["one"], "ai_idp_there": ["box"], "ungrouped": []}
    assert wiring.status_page_machines(one) == [{"name": "box", "role": "edge, gateways, gpu servers"}]
    machines = wiring.status_page_machines(SITES["twenty"])
    assert [machine["name"] for machine in machines] == SITES["twenty"]["all"]
    assert machines[0] == {"name": "on", "role": "gateways"}
    assert wiring.status_page_machines({"all": ["lone"], "ai_idp_there": ["lone"]}) == [
        {"name": "lone", "role": "no group"}
    ]


def test_services_are_those_of_the_groups() -> None:
    with_edge = wiring.status_page_services("door", TABLE, {"gpu_servers": ["gpu"], "edge": ["board"]}, grafana=True)
    assert [(row["job"], row["host"]) for row in with_edge] == [
        *((job, "gpu") for job in ("vllm", "llama_cpp", "triton", "dcgm")),
        ("edge_llama_cpp", "board"),
        *((job, "door") for job in ("nginx", "prometheus", "alertmanager", "grafana")),
    ]
    none: dict[str, list[str]] = {"gpu_servers": [], "edge": []}
    kept = wiring.status_page_services("door", TABLE, none, grafana=False, knowledge=["mlflow", "knowledge_vault"])
    assert [row["job"] for row in kept][-2:] == ["mlflow", "knowledge_vault"]
    twenty = {"gpu_servers": SITES["twenty"]["gpu_servers"], "edge": []}
    many = wiring.status_page_services("on", TABLE, twenty, grafana=False)
    assert len(many) == 18 * 4 + 3
    assert {"job": "nginx", "host": "on"} in many
    # An engine more is a row more in the engines' table, and nowhere else.
    more = [*TABLE, {"name": "sglang", "hosts": "gpu_servers", "port": 8020, "metrics": {"job": "sglang"}}]
    assert {"job": "sglang", "host": "gpu"} in wiring.status_page_services(
        "door", more, {"gpu_servers": ["gpu"], "edge": []}, grafana=False
    )


def test_versions_are_the_tags_of_the_images() -> None:
    images = {
        "vllm": "docker.io/vllm/vllm-openai:v0.30.0",
        "llama_cpp": "ghcr.io/x/llama.cpp:server-b1",
        "triton": "reg:5000/triton:26.08-py3",
        "dcgm_exporter": "nvcr.io/dcgm:4.6.0",
    }
    rows = wiring.status_page_versions(images, [], {})
    assert [row["version"] for row in rows] == ["v0.30.0", "server-b1", "26.08-py3", "4.6.0"]
    hosts: HostVars = {"board": {"llama_cpp_build": 11434}, "new": {}}
    assert wiring.status_page_versions(images, ["board", "new"], hosts)[4:] == [
        {"name": "llama.cpp at the edge", "version": "b11434"}
    ]
    # Where no build is pinned, none is named.
    assert wiring.status_page_versions(images, ["new"], hosts)[4:] == []


def test_each_gateway_is_two_endpoints() -> None:
    found = wiring.gateway_endpoints(SITES["twenty"]["gateways"], hosts_of("twenty"))
    assert [(row["host"], row["name"], row["url"], row["health_path"]) for row in found] == [
        ("on", "gateway", "https://10.0.0.0", "/"),
        ("on", "gateway, llama.cpp", "https://10.0.0.0/llama", None),
        ("010", "gateway", "https://010", "/"),
        ("010", "gateway, llama.cpp", "https://010/llama", None),
    ]
    assert {"kind": "openai", "key": "gateway_client_key", "models": []}.items() <= found[0].items()


def test_a_gateway_is_asked_by_the_name_that_its_certificate_has() -> None:
    """A public authority signs no address of the house."""
    hosts: HostVars = {"door": {"ansible_host": "10.0.0.1", "ai_idp_door": "https://ai.example"}}
    assert [row["url"] for row in wiring.gateway_endpoints(["door"], hosts)] == [
        "https://ai.example",
        "https://ai.example/llama",
    ]
    before = [{"name": "edge", "host": "board"}]
    [edge] = wiring.edge_endpoints(["door"], {"gateways": ["door"], "edge": ["board"]}, hosts, before, TABLE, [])
    assert edge["url"] == "https://ai.example/edge"


def test_an_edge_that_told_nothing_has_no_endpoint() -> None:
    report = {"url": "http://127.0.0.1:8090", "model": "1e3"}
    hosts: HostVars = {
        "board": {"__edge_inference_report": report, "ansible_host": "10.0.0.2"},
        "other": {},
        "door": {},
    }
    groups = {"edge": ["board", "other"], "gateways": ["door"]}
    own, through = wiring.edge_endpoints(["board", "other", "door"], groups, hosts, [], TABLE, [])
    assert (own["host"], own["url"], own["model"], own["metrics_path"]) == (
        "board",
        "https://10.0.0.2:8090",
        "1e3",
        "/metrics",
    )
    assert own["key"] == "engine_gate_key"
    assert own["own"] == {"url": report["url"], "metrics_url": None, "key": "edge_inference_api_key"}
    assert (through["host"], through["url"], through["model"]) == ("door", "https://door/edge", None)
    assert wiring.edge_endpoints(["other", "door"], groups, hosts, [], TABLE, []) == []
    assert len(wiring.edge_endpoints(["board"], {"edge": ["board"]}, hosts, [], TABLE, [])) == 1


def test_a_gateway_leads_to_the_edge_as_long_as_a_host_of_it_serves() -> None:
    """What a run outside of the edge sees of it is what is written down."""
    hosts: HostVars = {"board": {}, "other": {}, "door": {}}
    groups = {"edge": ["board", "other"], "gateways": ["door"]}
    written = [entry("board", "edge", 4), entry("gone", "edge", 4)]
    assert [row["name"] for row in wiring.edge_endpoints(["door"], groups, hosts, written, TABLE, [])] == [
        "gateway, edge"
    ]
    assert [row["name"] for row in wiring.edge_endpoints(["other", "door"], groups, hosts, written, TABLE, [])] == [
        "gateway, edge"
    ]
    # The board was taken away (edge_inference_state: absent), and the other host never served.
    assert wiring.edge_endpoints(["board", "door"], groups, hosts, written, TABLE, []) == []


def test_what_keeps_runs_and_notes_is_reached_through_the_gateway() -> None:
    services = ["mlflow", "n8n", "knowledge_vault"]
    found = wiring.knowledge_endpoints("door", services, "https://10.0.0.2")
    assert [(row["name"], row["kind"], row["url"], row["health_path"]) for row in found] == [
        ("MLflow", "http", "https://10.0.0.2/mlflow", "/health"),
        ("n8n", "http", "https://10.0.0.2/n8n", "/healthz/readiness"),
        ("vault", "metrics", "https://10.0.0.2/vault", None),
    ]
    assert {"key": "gateway_client_key", "metrics_path": "/metrics"}.items() <= found[2].items()
    assert [row["name"] for row in wiring.knowledge_endpoints("door", ["n8n"], "https://x")] == ["n8n"]
    assert wiring.knowledge_endpoints("", [], "https://x") == []


def test_what_tells_no_metrics_is_probed_as_people_reach_it() -> None:
    found = wiring.knowledge_endpoints("door", ["mlflow", "knowledge_vault"], "https://10.0.0.2")
    assert wiring.knowledge_targets(found, 5690) == {
        "mlflow": [{"host": "door", "address": "https://10.0.0.2/mlflow/health", "module": "https_ok"}],
        "n8n": [],
        "knowledge_vault": [{"host": "door", "address": "127.0.0.1:5690"}],
    }
    images = {"mlflow": "ghcr.io/mlflow/mlflow:v3.17.0-full", "n8n": "reg:5000/n8n:2.41.1"}
    assert wiring.knowledge_versions(["n8n", "knowledge_vault"], images) == [{"name": "n8n", "version": "2.41.1"}]


def test_the_gateway_leads_to_what_is_on_its_own_host() -> None:
    ports = {"mlflow": 5500, "n8n": 5678}
    assert wiring.local_upstreams(["n8n"], ports) == {"mlflow": [], "n8n": [{"address": "127.0.0.1", "port": 5678}]}
    assert wiring.local_upstreams([], ports) == {"mlflow": [], "n8n": []}


def test_endpoints_are_news_until_they_are_written_down() -> None:
    found = [entry("door", "MLflow", None), entry("door", "n8n", None)]
    written = [entry("door", "gateway", 3), *({**row, "week": 5} for row in found)]
    assert wiring.are_news(found, written, 5) is False
    assert wiring.are_news(found, written[:2], 5) is True
    assert wiring.are_news(found[:1], written, 5) is True
    assert wiring.are_news([], [], 5) is False
    assert wiring.are_news([{**found[0], "url": "http://other"}, found[1]], written, 5) is True


def entry(host: str, name: str, week: int | None) -> dict[str, Any]:
    return {"host": host, "name": name, "url": f"http://{host}"} | ({} if week is None else {"week": week})


BEFORE = [entry("gpu", "vllm", 2), entry("second", "vllm", 2), entry("gpu", "gateway", 3), entry("gone", "vllm", 2)]
NAMES = ["gpu", "second", "door"]


@pytest.mark.parametrize(
    ("found", "ran", "after"),
    [
        pytest.param([("gpu", "triton")], ["gpu"], ["gpu gateway 3", "gpu triton 2", "second vllm 2"], id="limit"),
        pytest.param([], ["gpu"], ["gpu gateway 3", "second vllm 2"], id="taken away"),
        pytest.param([], [], ["gpu gateway 3", "gpu vllm 2", "second vllm 2"], id="all failed"),
        pytest.param([("second", "vllm")], ["gpu", "second"], ["gpu gateway 3", "second vllm 2"], id="all ran"),
    ],
)
def test_a_week_answers_for_the_hosts_that_it_has_run_on(
    found: list[tuple[str, str]], ran: list[str], after: list[str]
) -> None:
    rows = [{"host": host, "name": name, "url": "http://new"} for host, name in found]
    got = wiring.endpoints_after(BEFORE, rows, 2, ran, NAMES)
    assert [f"{row['host']} {row['name']} {row['week']}" for row in got] == after


def test_entries_from_before_weeks_were_told_apart_go_with_their_host() -> None:
    before = [entry("gpu", "vllm", None), entry("second", "vllm", None)]
    got = wiring.endpoints_after(before, [entry("gpu", "vllm", None)], 2, ["gpu"], NAMES)
    assert [(row["host"], row.get("week")) for row in got] == [("gpu", 2), ("second", None)]


def test_a_gateway_or_a_stack_that_is_taken_away_answers_at_nothing() -> None:
    hosts: HostVars = {"door": {"nginx_gateway_state": "absent"}, "gpu": {}, "second": {"__inference_stack_report": {}}}
    assert wiring.gateway_endpoints(["door"], hosts) == []
    assert wiring.inference_endpoints(["gpu", "second"], hosts, TABLE, []) == []
    hosts["gpu"]["__inference_stack_report"] = {"endpoints": [entry("gpu", "vllm", None)]}
    assert [row["name"] for row in wiring.inference_endpoints(["gpu", "second"], hosts, TABLE, [])] == ["vllm"]


def test_engines_are_written_down_by_their_gates_and_known_to_their_own_host_as_they_are() -> None:
    rows = [
        {"host": "gpu", "name": "vllm", "url": "http://127.0.0.1:8000", "key": "inference_stack_vllm_api_key",
         "metrics_url": "http://127.0.0.1:8000/metrics"},
        {"host": "gpu", "name": "triton", "url": "http://127.0.0.1:8010", "key": None,
         "metrics_url": "http://127.0.0.1:8012/metrics"},
    ]  # fmt: skip
    hosts: HostVars = {"gpu": {"__inference_stack_report": {"endpoints": rows}, "ansible_host": "10.0.0.1"}}
    vllm, triton = wiring.inference_endpoints(["gpu"], hosts, TABLE, [])
    assert (vllm["url"], vllm["metrics_url"]) == ("https://10.0.0.1:8000", "https://10.0.0.1:8000/metrics")
    # The gate has an engine's metrics beside its API.
    assert (triton["url"], triton["metrics_url"]) == ("https://10.0.0.1:8010", "https://10.0.0.1:8010/metrics")
    assert {row["key"] for row in (vllm, triton)} == {"engine_gate_key"}
    assert (vllm["reached_from"], triton["reached_from"]) == (["gateways"], ["gateways"])
    assert wiring.inference_endpoints(["gpu"], hosts, TABLE, ["10.0.0.9"])[0]["reached_from"] == []
    assert wiring.own_endpoints([vllm, triton, entry("other", "vllm", 2)], "gpu") == rows
    # What was written before there were gates is as it was.
    assert wiring.own_endpoints([entry("other", "vllm", 2)], "other") == [entry("other", "vllm", 2)]


def told_keys(**told: list[str]) -> dict[str, Any]:
    return {"__platform_secrets": told}


KEY_SITE: Groups = {"all": ["gpu", "door", "board"], "gpu_servers": ["gpu"], "gateways": ["door"], "edge": ["board"]}


def key_steps(hosts: HostVars) -> list[list[str]]:
    names = KEY_SITE["all"]
    return [wiring.gate_key_hosts(names, KEY_SITE, hosts, step) for step in ("let_in", "present", "forget")]


def test_a_key_changes_step_by_step_and_on_all_hosts_or_not_at_all() -> None:
    replaced = told_keys(overlapping=["engine_gate_key"], made=["engine_gate_key"])
    hosts: HostVars = {"gpu": {**replaced, "ai_idp_edge_hosts": ["board"]}, "door": {}, "board": {}}
    assert key_steps(hosts) == [["gpu", "board"], [], []]
    hosts["gpu"]["__gate_key_step"] = "let_in"
    # The board failed, or --limit leaves it out: gateways go on with the old key, which every gate lets in.
    assert key_steps(hosts)[1:] == [[], []]
    hosts["board"]["__gate_key_step"] = "let_in"
    assert key_steps(hosts)[1:] == [["door"], []]
    hosts["door"]["__gate_key_step"] = "present"
    assert key_steps(hosts)[1:] == [["door"], ["gpu", "board"]]


def test_a_key_that_nobody_replaces_is_taken_nowhere() -> None:
    assert key_steps({name: told_keys(overlapping=[], made=[]) for name in KEY_SITE["all"]}) == [[], [], []]
    assert key_steps({}) == [[], [], []]


def test_a_first_key_is_presented_at_once_where_there_was_a_gateway_before() -> None:
    hosts: HostVars = {"gpu": told_keys(overlapping=[], made=["engine_gate_key"]), "door": {}, "board": {}}
    assert key_steps(hosts) == [[], ["door"], []]


def test_one_host_for_everything_takes_every_step() -> None:
    groups = SITES["one"]
    box = {**told_keys(overlapping=["engine_gate_key"]), "ai_idp_edge_hosts": ["box"]}
    assert wiring.gate_key_hosts(["box"], groups, {"box": box}, "let_in") == ["box"]
    assert wiring.gate_key_hosts(["box"], groups, {"box": {**box, "__gate_key_step": "let_in"}}, "present") == ["box"]
    assert wiring.gate_key_hosts(["box"], groups, {"box": {**box, "__gate_key_step": "present"}}, "forget") == ["box"]


GROUPS: Groups = {"all": ["gpu", "door", "board"], "gpu_servers": ["gpu"], "gateways": ["door"], "edge": ["board"]}


@pytest.mark.parametrize(
    ("ran", "keys", "problem", "notice"),
    [
        (["gpu", "door", "board"], ["gpu_servers", "gateways"], "", ""),
        (["gpu"], [], "", ""),
        (["board"], [], "", "Week 2 sets up gpu_servers, and --limit leaves all of it out: there is nothing to do."),
        (
            ["gpu"],
            ["gpu_servers", "gateways"],
            "rotate_keys replaces keys everywhere, and --limit leaves out door, which",
            "",
        ),
    ],
)
def test_a_week_says_what_a_limit_leaves_of_it(ran: list[str], keys: list[str], problem: str, notice: str) -> None:
    said = wiring.week_hosts(GROUPS, ran, 2, "gpu_servers", ["gpu_servers"], keys, "inventory/home")
    assert said["notice"] == notice
    assert said["problem"].startswith(problem)
    assert bool(said["problem"]) == bool(problem)


def test_a_week_without_its_group_is_refused() -> None:
    said = wiring.week_hosts({"all": ["gpu"]}, ["gpu"], 3, "gateways", ["all"], [], "inventory/home")
    assert "inventory/home has no host in the group gateways" in said["problem"]


def test_a_host_that_was_away_has_no_fingerprint() -> None:
    hosts: HostVars = {
        "on": {"group_names": ["edge"], "__hardware": {"fingerprint": "1e3"}},
        "010": {"group_names": []},
    }
    assert wiring.finding_hosts(["on", "010"], hosts) == [
        {"host": "on", "groups": ["edge"], "hardware_fingerprint": "1e3"},
        {"host": "010", "groups": [], "hardware_fingerprint": None},
    ]


@pytest.mark.parametrize(
    ("gpus", "documented"),
    [
        ({"replayed": False, "gpus": [{"index": 0}]}, False),
        ({"replayed": True, "gpus": [{"index": 0}]}, True),
        ({"replayed": False, "gpus": []}, True),
    ],
)
def test_without_a_gpu_the_documented_hardware_counts(gpus: dict[str, Any], documented: bool) -> None:
    fit = {"item": "gpu", "services": []}
    [row] = wiring.derived_findings([fit], {"gpu": {"__hardware": {"gpu_info": gpus}}}, 9.6e10)
    assert (row["documented_hardware"], row["host"], row["fit"]) == (documented, "gpu", fit)
    assert wiring.derived_findings([], {}, 9.6e10) == []


def test_secrets_are_names_and_values() -> None:
    tagged = Origin(description="a file").tag("a: ä\n")
    assert type(tagged) is not str
    assert wiring.secrets_of(tagged, "secrets.yml") == {"a": "ä"}
    assert wiring.secrets_of("# keys\n---\na: b\n", "secrets.yml") == {"a": "b"}
    assert wiring.secrets_of("# none yet\n", "secrets.yml") == {}


@pytest.mark.parametrize("text", ["- key-of-mine", "key-of-mine", "a: [key-of-mine"])
def test_secrets_that_are_something_else_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"secrets\.yml is no list of NAME: VALUE lines") as refused:
        wiring.secrets_of(text, "secrets.yml")
    assert "key-of-mine" not in str(refused.value)


def render(inventory: Path, expressions: dict[str, str], secrets: dict[str, str]) -> dict[str, Any]:
    """What Ansible makes of expressions on every host of an inventory."""
    message = ", ".join(f"'{name}': {expression}" for name, expression in expressions.items())
    return evaluated(inventory, "{" + message + "}", secrets)


def test_the_lab_gets_what_it_always_got(tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "lab.json").read_text(encoding="utf-8"))
    # Without what a lab that runs here keeps beside its inventory.
    for part in ("hosts.yml", "group_vars"):
        (tmp_path / part).symlink_to(ROOT / "inventory" / "lab" / part)
    names = {name: name for name in golden["jetson"]}
    rendered = render(tmp_path, names, SECRETS)
    assert sorted(rendered) == sorted(golden)
    for host, variables in golden.items():
        # Text is compared: the order of keys counts too.
        assert json.dumps(rendered[host]) == json.dumps(variables)


@pytest.mark.parametrize("site", ["one", "twenty"])
def test_any_inventory_gets_its_wiring(site: str, tmp_path: Path) -> None:
    groups, hosts = SITES[site], hosts_of(site)
    for host in hosts.values():
        host.update(
            {"__hardware": {"fingerprint": "1e3"}, "__edge_inference_report": {"url": "http://e", "model": "m"}}
        )
    hosts[groups["all"][0]]["ansible_port"] = 2222
    variables = {
        **{"ai_idp_environment": "test", "ai_idp_dir": "/ai", "ai_idp_user": "me", "ai_idp_network": "10.0.0.0/24"},
        **{"ai_idp_image_registry": "", "ai_idp_insecure_registries": []},
        **{"edge_inference_model_name": "llama-3.2-1b-q4", "llama_cpp_build": 1},
    }
    children = {name: {"hosts": {host: {} for host in members}} for name, members in groups.items() if name != "all"}
    (tmp_path / "group_vars" / "all").mkdir(parents=True)
    (tmp_path / "group_vars" / "all" / "wiring.yml").symlink_to(ROOT / "inventory" / "wiring.yml")
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"vars": variables, "hosts": hosts, "children": children}}, sort_keys=False)
    )
    seen = render(
        tmp_path,
        {
            "peers": "benchmark_peers",
            "asked": "groups['all'] | readiness_peers(inventory_hostname, hostvars)",
            "jobs": "prometheus_scrape_jobs",
            "routes": "nginx_gateway_routes",
            "rules": "host_baseline_firewall_allow",
            "machines": "status_page_machines",
            "services": "status_page_services",
            "measured": "benchmark_extra_measurements | map(attribute='id')",
            "clients": "nginx_gateway_clients",
            "door": "groups['gateways'] | gateway_endpoints(hostvars)",
            "edge": "groups['all'] | edge_endpoints(groups, hostvars, [], ai_idp_engines, [])",
            "found": "groups['all'] | finding_hosts(hostvars)",
            "wanted": "model_store_catalogue | wanted_models(['llama-3.2-1b-q4'])",
        },
        SECRETS,
    )
    assert sorted(seen) == sorted(groups["all"])
    for name, host in seen.items():
        assert host["peers"] == wiring.benchmark_peers(groups["all"], name, hosts)
        assert host["asked"] == wiring.readiness_peers(groups["all"], name, hosts)
        jobs = {job["name"]: [target["host"] for target in job["targets"]] for job in host["jobs"]}
        assert jobs["node"] == groups["all"]
        assert jobs["vllm"] == groups["gpu_servers"]
        assert jobs["edge_llama_cpp"] == groups.get("edge", [])
        upstreams = {route["name"]: len(route["upstreams"]) for route in host["routes"]}
        assert upstreams["vllm"] == len(groups["gpu_servers"])
        assert upstreams["edge"] == len(groups.get("edge", []))
        assert [row["name"] for row in host["machines"]] == groups["all"]
        assert {row["host"] for row in host["services"]} == {*groups["gpu_servers"], name}
        assert host["measured"] == (["edge-llama-bench"] if "edge" in groups else [])
        assert host["clients"] == [{"name": "owner", "key": "d4"}]
        assert [row["host"] for row in host["door"]] == [door for door in groups["gateways"] for _ in range(2)]
        assert len(host["edge"]) == (2 if "edge" in groups else 0)
        assert {row["hardware_fingerprint"] for row in host["found"]} == {"1e3"}
        assert [row["name"] for row in host["wanted"]] == ["llama-3.2-1b-q4"]
        opened = {rule["comment"] for rule in host["rules"]}
        # What engines and exporters answer is for gateways, and nothing but their own door for everybody.
        gateways = {*wiring.host_addresses(groups["gateways"], hosts).values()}
        for rule in host["rules"]:
            if rule["comment"] not in ("https", "http", "edge_rpc"):
                assert {*rule["sources"]} <= gateways, rule
        # What listens for a measurement opens its own door.
        assert opened.isdisjoint({"iperf3", "sockperf", "link_measurement"})
        assert ("https" in opened) == (name in groups["gateways"])
        # A host that borrows from itself does so by loopback.
        assert ("edge_rpc" in opened) == (name in groups.get("edge", []) and len(groups["all"]) > 1)


KNOWLEDGE_SECRETS = {**SECRETS, "n8n_encryption_key": "h8", "gateway_client_key_knowledge_vault": "i9"}


@pytest.mark.parametrize(
    ("secrets", "states", "services"),
    [
        (SECRETS, {}, []),
        (KNOWLEDGE_SECRETS, {}, ["mlflow", "n8n", "knowledge_vault"]),
        (KNOWLEDGE_SECRETS, {"n8n_state": "absent"}, ["mlflow", "knowledge_vault"]),
    ],
)
def test_runs_and_notes_are_on_the_first_gateway_alone(
    secrets: dict[str, str], states: dict[str, str], services: list[str], tmp_path: Path
) -> None:
    (tmp_path / "group_vars").symlink_to(ROOT / "inventory" / "lab" / "group_vars")
    hosts = {
        "gpu_servers": {"gpu": {"ansible_host": "10.0.0.1"}},
        "gateways": {"on": {"ansible_host": "10.0.0.2"}, "010": {"ansible_host": "10.0.0.3"}},
    }
    children = {group: {"hosts": members} for group, members in hosts.items()}
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"vars": states, "children": children}}, sort_keys=False)
    )
    seen = render(
        tmp_path,
        {
            "routes": "nginx_gateway_routes | selectattr('upstreams') | map(attribute='name')",
            "clients": "nginx_gateway_clients | map(attribute='name')",
            "endpoints": "ai_idp_knowledge_endpoints | map(attribute='url')",
            "jobs": "prometheus_scrape_jobs | selectattr('targets') | map(attribute='name')",
            "boards": "grafana_dashboards",
            "rows": "status_page_services | map(attribute='job')",
            "links": "status_page_links | map(attribute='url')",
            "model": "knowledge_vault_model",
            "model_url": "knowledge_vault_model_url",
            "never_replaced": "'n8n_encryption_key' in platform_secrets_kept",
            "replaced": "platform_secrets_generate | intersect(platform_secrets_kept)",
        },
        secrets,
    )
    knowledge = {"mlflow", "n8n", "knowledge_vault"}
    assert [name for name in seen["on"]["routes"] if name in knowledge] == services
    assert not knowledge & {*seen["010"]["routes"], *seen["gpu"]["routes"]}
    assert ("knowledge_vault" in seen["on"]["clients"]) is ("knowledge_vault" in services)
    assert "knowledge_vault" not in seen["010"]["clients"]
    assert len(seen["on"]["endpoints"]) == len(services)
    assert [name for name in seen["on"]["jobs"] if name in knowledge] == services
    assert [name for name in seen["on"]["rows"] if name in knowledge] == services
    assert ("knowledge" in seen["on"]["boards"]) is ("knowledge_vault" in services)
    assert ("/n8n/" in seen["on"]["links"]) is ("n8n" in services)
    assert not knowledge & {*seen["010"]["jobs"], *seen["010"]["rows"]}
    assert seen["on"]["model"] == "tiny-llama-gguf"
    assert seen["on"]["model_url"] == "https://10.0.0.2/llama/v1"
    assert (seen["on"]["never_replaced"], seen["on"]["replaced"]) == (True, [])


PUBLIC = {"nginx_gateway_server_names": ["ai.example.org"]}


@pytest.mark.parametrize(
    ("given", "door", "authority"),
    [
        ({}, "10.0.0.2", "/etc/ai-idp/tls/ca.crt"),
        ({"tls_certificates_source": "acme", **PUBLIC}, "ai.example.org", ""),
        ({"tls_certificates_source": "files", **PUBLIC}, "ai.example.org", ""),
        # Authorities of the site's own.
        ({"tls_certificates_source": "acme", "tls_certificates_acme_ca_file": "/srv/ca.crt"}, "10.0.0.2", "ca.crt"),
        ({"tls_certificates_source": "files", "tls_certificates_file_ca": "/srv/ca.crt"}, "10.0.0.2", "ca.crt"),
    ],
)
def test_with_a_public_certificate_the_gateway_is_asked_by_its_name_and_no_file_names_the_authority(
    given: dict[str, Any], door: str, authority: str, tmp_path: Path
) -> None:
    (tmp_path / "group_vars").symlink_to(ROOT / "inventory" / "lab" / "group_vars")
    hosts = {
        "gpu_servers": {"gpu": {"ansible_host": "10.0.0.1"}},
        "gateways": {"on": {"ansible_host": "10.0.0.2", **given}},
    }
    children = {group: {"hosts": members} for group, members in hosts.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": children}}, sort_keys=False))
    seen = render(
        tmp_path,
        {
            "authorities": "[n8n_ca_file, blackbox_exporter_ca_file] | unique",
            "endpoints": "ai_idp_knowledge_endpoints | map(attribute='url')",
            "asked": "[knowledge_vault_model_url, n8n_public_url, knowledge_vault_mlflow_public_url]",
            "probed": "prometheus_scrape_jobs | map(attribute='targets') | flatten | selectattr('module', 'defined')"
            " | selectattr('module', 'eq', 'https_ok') | map(attribute='address')",
            "names": "n8n_reachable_names",
            "allowed": "mlflow_allowed_hosts",
        },
        KNOWLEDGE_SECRETS,
    )["on"]
    [file] = seen["authorities"]
    assert file.endswith(authority)
    assert bool(file) is bool(authority)
    assert seen["asked"] == [f"https://{door}/llama/v1", f"https://{door}/n8n/", f"https://{door}/mlflow"]
    assert seen["endpoints"] == [f"https://{door}/{path}" for path in ("mlflow", "n8n", "vault")]
    assert {re.split("/+", address)[1] for address in seen["probed"]} == {door}
    assert seen["names"] == ([door] if "example" in door else [])
    assert {"10.0.0.2", "on", door} == {*seen["allowed"]}


def test_two_hosts_of_the_edge_have_a_model_each(tmp_path: Path) -> None:
    (tmp_path / "group_vars").symlink_to(ROOT / "inventory" / "lab" / "group_vars")
    hosts = {
        "gpu_servers": {"gpu": {"ansible_host": "10.0.0.1"}},
        "edge": {
            "on": {"ansible_host": "10.0.0.2"},
            "010": {"ansible_host": "10.0.0.3", "edge_inference_model_name": "llama-3.2-1b-q4"},
        },
    }
    children = {group: {"hosts": members} for group, members in hosts.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": children}}, sort_keys=False))
    seen = render(
        tmp_path,
        {
            "file": "edge_inference_model_file",
            "weights": "edge_inference_model_figures.weights_bytes | default(0)",
            "models": "model_store_models",
            "measured": "benchmark_extra_measurements | map(attribute='model')",
            "peer": "edge_inference_rpc_peers",
        },
        SECRETS,
    )
    models = "/home/ubuntu/ai-idp/models"
    assert seen["on"]["file"] == f"{models}/tiny-llama-gguf/tiny-llama-f16.gguf"
    assert seen["010"]["file"] == f"{models}/llama-3.2-1b-q4/Llama-3.2-1B-Instruct-Q4_K_M.gguf"
    assert (seen["on"]["weights"], seen["010"]["weights"]) == (6291456, 807694464)
    assert (seen["on"]["models"], seen["010"]["models"]) == (["tiny-llama-gguf"], ["llama-3.2-1b-q4"])
    assert seen["gpu"]["models"] == ["tiny-llama", "tiny-llama-gguf", "llama-3.2-1b-q4"]
    assert (seen["on"]["measured"], seen["010"]["measured"]) == (["tiny-llama-gguf"], ["llama-3.2-1b-q4"])
    assert seen["gpu"]["measured"] == ["tiny-llama-gguf"] * 2 + ["llama-3.2-1b-q4"] * 2
    assert seen["on"]["peer"] == seen["010"]["peer"] == ["10.0.0.1"]


def test_nothing_is_written_in_the_order_of_a_set() -> None:
    """Which is another one in each run, so that files change and services are started anew."""
    folders = [ROOT / name for name in ("inventory", "playbooks", "roles")]
    files = [path for folder in folders for suffix in ("yml", "j2") for path in folder.rglob(f"*.{suffix}")]
    found = [path.name for path in files if re.search(r"\|\s*(union|symmetric_difference)\(", path.read_text("utf-8"))]
    assert found == []


def test_no_text_is_parsed_back() -> None:
    parsed = [
        str(path.relative_to(ROOT))
        for folder in ("inventory", "playbooks")
        for path in (ROOT / folder).rglob("*.yml")
        if "from_yaml" in path.read_text(encoding="utf-8")
    ]
    assert parsed == []


GATED = {"name": "llama-3.2-1b", "gated": True}


def readiness(secrets: dict[str, Any] | None, hosts: HostVars, environment: str = "home") -> dict[str, Any]:
    report = wiring.readiness_report(list(hosts), hosts, secrets, "inventory/home/secrets.yml", environment)
    return {"ok": report["ok"], **{(row["name"], row["host"]): row for row in report["checks"]}}


def told(*rows: tuple[str, str]) -> dict[str, Any]:
    return {"checks": [{"name": name, "host": "a", "status": status, "needed": True} for name, status in rows]}


def test_a_host_that_answers_is_told_with_its_address() -> None:
    hosts = {"a": {"__readiness": told(), "ansible_user": "me", "ansible_host": "10.0.0.1"}, "b": {}}
    rows = readiness({}, hosts)
    assert rows["ssh", "a"]["detail"] == "me@10.0.0.1"
    assert rows["ssh", "b"]["detail"] == "b"
    assert rows["ok"] is True


def test_a_host_that_is_away_is_missing_and_says_how_to_bring_it_back() -> None:
    away = {"unreachable": True, "msg": "Task failed: no route to host \n"}
    hosts: HostVars = {"a": {"__readiness": away}}
    rows = readiness({}, hosts)
    assert rows["ok"] is False
    assert (rows["ssh", "a"]["status"], rows["ssh", "a"]["detail"]) == ("missing", "no route to host")
    assert "`ssh a`" in rows["ssh", "a"]["remedy"]
    assert readiness({}, hosts, "lab")["ssh", "a"]["remedy"] == "Make the lab: ai-idp lab up."


@pytest.mark.parametrize(
    ("secrets", "status", "ok"),
    [({"hugging_face_token": "hf"}, "ok", True), ({}, "missing", False), (None, "unknown", False)],
)
def test_a_gated_model_to_come_needs_the_token(secrets: dict[str, Any] | None, status: str, ok: bool) -> None:
    hosts: HostVars = {"a": {"model_store_catalogue": [GATED], "__readiness": told(("model llama-3.2-1b", "missing"))}}
    hosts["a"]["__readiness"]["checks"][0]["needed"] = False
    rows = readiness(secrets, hosts)
    token = rows["Hugging Face token", "controller"]
    assert (token["status"], token["needed"], rows["ok"]) == (status, True, ok)
    assert ("llama-3.2-1b is gated" in token["remedy"]) is (status != "ok")
    assert ("ANSIBLE_VAULT_PASSWORD_FILE" in token["remedy"]) is (secrets is None)


@pytest.mark.parametrize(("gated", "status"), [(True, "ok"), ("yes", "ok"), (False, "missing"), ("no", "missing")])
def test_a_model_that_is_there_or_not_gated_needs_no_token(gated: bool | str, status: str) -> None:
    catalogue = [{**GATED, "gated": gated}]
    hosts = {"a": {"model_store_catalogue": catalogue, "__readiness": told(("model llama-3.2-1b", status))}}
    assert readiness({}, hosts)["Hugging Face token", "controller"]["needed"] is False


def test_recorded_gpus_are_for_the_lab() -> None:
    hosts: HostVars = {
        "gpu": {"inference_stack_gpu_replay": "two.json"},
        "none": {"inference_stack_gpu_replay": ""},
        "b": {},
    }
    assert wiring.replay_problems(list(hosts), hosts, "lab") == []
    (problem,) = wiring.replay_problems(list(hosts), hosts, "production")
    assert "of gpu is 'two.json'" in problem


def result(name: str, status: str = "ok", at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"id": name, "host": "edge", "status": status, "measured_at": at}


def edge(**more: Any) -> dict[str, Any]:
    return {
        "__benchmark_results": [result("network"), result("bench")],
        "__link": {"kept": True, "measurement": result("rpc-latency")},
        **more,
    }


def test_results_of_all_hosts_are_collected_with_their_links() -> None:
    hosts: HostVars = {"edge": edge(), "door": {}}
    assert [row["id"] for row in wiring.measured_results(list(hosts), hosts)] == ["network", "bench", "rpc-latency"]


def test_only_a_finished_result_counts_as_measured() -> None:
    results = [result("network"), result("bench", "failed")]
    assert wiring.unmeasured([{"id": "bench"}, {"id": "network"}], results) == ["bench"]
    assert wiring.unmeasured([{"id": "network"}], results) == []


OLD, NEW = "2025-12-31T00:00:00Z", "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("given", "current"),
    [
        (None, False),
        ({"network": NEW, "bench": NEW, "rpc-latency": NEW}, True),
        ({"network": NEW, "bench": OLD, "rpc-latency": NEW}, False),
        # The link was never measured before.
        ({"network": NEW, "bench": NEW}, False),
    ],
)
def test_verdicts_are_current_when_they_know_what_was_measured(given: dict[str, str] | None, current: bool) -> None:
    rows = [{"host": "edge", "id": name, "measured_at": at} for name, at in (given or {}).items()]
    hosts: HostVars = {"edge": edge(), "door": {"__findings": {"measurements": rows}} if given else {}}
    assert wiring.findings_are_current(list(hosts), hosts) is current


def test_keys_to_come_stand_in_until_they_are_made() -> None:
    secrets = wiring.with_keys_to_come({"a": "made"}, ["a", "b", "c"])
    assert secrets["a"] == "made"
    assert secrets["b"] != secrets["c"]
    # As the services want them; n8n takes no password of more than 72.
    assert re.fullmatch(r"[A-Za-z0-9_-]{64}", secrets["b"])


def test_a_former_key_that_nobody_needs_is_left_out() -> None:
    known = {"gate": "new", "gate_before": "old", "client_before": "older"}
    assert wiring.with_keys_to_come(known, [], ["gate", "none"]) == {"gate": "new", "client_before": "older"}


def test_what_an_engine_that_came_in_this_run_can_do_is_measured_in_it() -> None:
    """A GPU server that was installed anew has the same endpoints as before, and nothing was measured on it."""
    step: dict[str, Any] = {"changed": True}
    hosts: HostVars = {
        "same": {"__inference_stack_release": {"changed": False}, "__endpoints_written": {"changed": False}},
        "anew": {"__inference_stack_release": step, "__endpoints_written": {"changed": False}},
        "first": {"__inference_stack_release": {"changed": False}, "__endpoints_written": step},
        "away": {},
    }
    assert wiring.serve_anew([*hosts, "gone"], hosts) == ["anew", "first"]


def test_hosts_with_nothing_left_to_measure_are_left_out() -> None:
    hosts = {
        "gpu": {"__benchmark_known": {"pending": ["vllm-c1"]}},
        "edge": {"__benchmark_known": {"pending": []}},
        # This run has not looked at it.
        "gateway": {},
    }
    assert wiring.but_finished("gpu_servers:edge", [*hosts, "gone"], hosts) == "gpu_servers:edge:!edge:!gateway"
    assert wiring.but_finished([], list(hosts), hosts) == []
