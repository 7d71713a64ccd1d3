# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role benchmark measures on a host, derived from its variables."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleFilterError

Item = dict[str, Any]

# The endpoints of week 2 and the names that claims know them by.
ENDPOINT_IDS = {"llama.cpp": "llama-cpp-server"}
# What a process takes beside the seconds that it was asked to measure, on a slow machine.
START_SECONDS = {"vllm_bench_serve": 12.0, "llama_bench": 2.0, "fio_read": 1.5}
PACKAGES = {
    "apache_bench": "apache2-utils",
    "fio_read": "fio",
    "iperf3": "iperf3",
    "sockperf": "sockperf",
    "sysbench_cpu": "sysbench",
    "sysbench_memory": "sysbench",
}
# As the module benchmark_measure knows them, which a filter can't import.
TOOLS = (*sorted(PACKAGES), "llama_bench", "vllm_bench_serve")
NFT = "/usr/sbin/nft"
VALID_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")
KEYS = (
    *("id", "tool", "parameters", "runs", "warmup_runs", "timeout", "model", "model_path", "model_hash", "build"),
    *("expected_seconds", "requires_gpu", "unavailable", "key", "peer"),
)


@dataclass(frozen=True)
class Profile:
    """How long and how much is measured."""

    seconds: int
    disk_mib: int
    requests: int
    prompts_per_slot: int
    least_prompts: int
    input_tokens: int
    output_tokens: int
    prompt_tokens: int
    decode_tokens: int
    depths: tuple[int, ...]
    concurrency: dict[str, tuple[int, ...]]
    # Processes of the load client for warming up, at most: it takes many seconds to start, and each of its processes
    # sends requests for warming up.
    client_warmup_runs: int
    # To how many others the network is measured, at most.
    peers: int
    # One process of each measurement at a time, in turn. Within a few seconds a machine keeps its clocks and
    # temperature, and an interval of such runs is narrower than what the next hour shows.
    in_turn: bool


# The lengths are the same in both: tokens per second depend on them, and so would the verdict.
PROFILES = {
    "quick": Profile(
        seconds=1,
        disk_mib=256,
        requests=200,
        prompts_per_slot=2,
        least_prompts=4,
        input_tokens=128,
        output_tokens=128,
        prompt_tokens=512,
        decode_tokens=128,
        depths=(0,),
        concurrency={"vllm": (1, 4), "llama.cpp": (1,)},
        client_warmup_runs=0,
        peers=1,
        in_turn=False,
    ),
    "full": Profile(
        seconds=10,
        disk_mib=4096,
        requests=2000,
        prompts_per_slot=16,
        least_prompts=8,
        input_tokens=128,
        output_tokens=128,
        prompt_tokens=512,
        decode_tokens=128,
        depths=(0, 2048, 8192),
        concurrency={"vllm": (1, 4, 8, 16), "llama.cpp": (1, 4)},
        client_warmup_runs=100,
        peers=100,
        in_turn=True,
    ),
}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _system(profile: Profile, models_dir: str) -> list[Item]:
    timed = {"seconds": profile.seconds}
    items: list[Item] = [
        {"id": "cpu-events", "tool": "sysbench_cpu", "parameters": timed},
        {"id": "memory-bandwidth", "tool": "sysbench_memory", "parameters": timed},
    ]
    if models_dir:
        parameters = {**timed, "directory": models_dir, "size_mib": profile.disk_mib}
        items.append({"id": "model-store-read", "tool": "fio_read", "parameters": parameters})
    return items


def _llama_bench(profile: Profile, given: dict[str, Any]) -> list[Item]:
    depths = given["depths"] or profile.depths
    items = []
    for number, model in enumerate(given["llama_models"]):
        for place, layers in (("cpu", 0), ("gpu", 999)):
            # A CPU takes minutes to read what a GPU reads in a second.
            for depth in depths if place == "gpu" else depths[:1]:
                # The first model has the plain name, by which claims ask for it.
                parts = ["llama-bench", place]
                parts += [_slug(model["name"])] if number else []
                parts += [f"d{depth}"] if depth else []
                items.append(
                    {
                        "id": "-".join(parts),
                        "tool": "llama_bench",
                        "parameters": {
                            "command": given["llama_bench_command"],
                            "image": given["llama_bench_image"],
                            "docker_options": given["llama_bench_docker_options"] if layers else [],
                            "model_path": model["path"],
                            "gpu_layers": layers,
                            "prompt_tokens": profile.prompt_tokens,
                            "output_tokens": profile.decode_tokens,
                            "depth": depth,
                        },
                        "model": model["name"],
                        "model_path": model["path"],
                        "requires_gpu": layers > 0,
                    }
                )
    return items


def _openai(profile: Profile, endpoint: dict[str, Any], given: dict[str, Any]) -> list[Item]:
    name, model = endpoint["name"], endpoint["model"]
    folder = f"{given['models_dir']}/{model}"
    items = []
    for concurrency in endpoint.get("concurrency") or profile.concurrency.get(name, (1,)):
        items.append(
            {
                "id": f"{ENDPOINT_IDS.get(name, _slug(name))}-c{concurrency}",
                "tool": "vllm_bench_serve",
                "parameters": {
                    "command": given["client_command"],
                    "image": given["client_image"],
                    "url": endpoint["url"],
                    "model": model,
                    "tokenizer": endpoint.get("tokenizer") or given["tokenizer"] or folder,
                    "concurrency": concurrency,
                    "num_prompts": max(profile.least_prompts, profile.prompts_per_slot * concurrency),
                    "input_tokens": profile.input_tokens,
                    "output_tokens": profile.output_tokens,
                    "device": endpoint.get("device"),
                },
                "warmup_runs": min(given["warmup_runs"], profile.client_warmup_runs),
                "model": model,
                "model_path": endpoint.get("model_path") or (folder if given["models_dir"] else None),
                "key": endpoint.get("key"),
            }
        )
    return items


def _triton(profile: Profile, endpoint: dict[str, Any]) -> list[Item]:
    models = endpoint.get("models") or [endpoint.get("model") or "text_embedder"]
    return [
        {
            # The first model has the plain name, by which claims ask for it.
            "id": "-".join([f"{_slug(endpoint['name'])}-infer", *([_slug(model)] if number else [])]),
            "tool": "apache_bench",
            "parameters": {"url": endpoint["url"], "model": model, "requests": profile.requests},
            "model": model,
        }
        for number, model in enumerate(models)
    ]


def _network(profile: Profile, given: dict[str, Any]) -> list[Item]:
    items = []
    peers = [peer for peer in given["peers"] if peer["name"] != given["host"]]
    for number, peer in enumerate(peers[: profile.peers]):
        for kind, tool in (("throughput", "iperf3"), ("latency", "sockperf")):
            items.append(
                {
                    "id": "-".join([f"network-{kind}", *([_slug(peer["name"])] if number else [])]),
                    "tool": tool,
                    "parameters": {
                        "seconds": profile.seconds,
                        "peer": peer["name"],
                        "peer_address": peer["address"],
                        "port": given["ports"][tool],
                    },
                    "peer": peer["name"],
                }
            )
    return items


def _expected_seconds(item: Item, profile: Profile) -> float:
    """A guess for a machine that has not been measured yet; results of an earlier time know better."""
    one: float = START_SECONDS.get(item["tool"], 0.5)
    one += float(item["parameters"].get("seconds", 0))
    if item["tool"] == "vllm_bench_serve":
        tokens = item["parameters"].get("num_prompts", 16) * item["parameters"].get("output_tokens", 64)
        # 50 tokens a second for one request, and somewhat less for each of several.
        one += tokens / 50 / item["parameters"].get("concurrency", 1)
    return one * int(item["runs"] + item["warmup_runs"])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _endpoint_items(profile: Profile, endpoints: list[dict[str, Any]], given: dict[str, Any]) -> list[Item]:
    items = []
    for endpoint in endpoints:
        if endpoint.get("kind", "openai") == "openai" and endpoint.get("model"):
            items += _openai(profile, endpoint, given)
        elif endpoint.get("kind") == "triton":
            items += _triton(profile, endpoint)
    return items


def _only(given: dict[str, Any]) -> list[str]:
    """The names of ``only``, which on a command line is a text: ``-e benchmark_only=vllm-c1,vllm-c4``."""
    only = given["only"]
    names = only.split(",") if isinstance(only, str) else only or []
    return [name for name in (str(name).strip() for name in names) if name]


def _possible(given: dict[str, Any]) -> set[str]:
    """The names that measurements of any host have, where they can be listed."""
    profile = PROFILES[given["profile"]]
    endpoints = list(given["endpoints"])
    # Before week 2 there are none; claims ask for these by name.
    for name, kind in (("vllm", "openai"), ("llama.cpp", "openai"), ("triton", "triton")):
        if not any(endpoint["name"] == name for endpoint in endpoints):
            endpoints.append({"name": name, "kind": kind, "url": "", "model": "a-model"})
    items = [*_system(profile, "/"), *_endpoint_items(profile, endpoints, given)]
    others = [item for item in given.get("elsewhere") or [] if isinstance(item, dict)]
    return {str(item.get("id")) for item in [*items, *others]}


# Whose names depend on other hosts' models, on depths and on peers.
FAMILIES = re.compile(r"(llama-bench-(cpu|gpu)|network-(throughput|latency)|triton-infer)(-[a-z0-9-]+)?")


def _refuse_unknown(only: list[str], names: list[str], given: dict[str, Any]) -> None:
    """A name that is another host's is nothing to do here; one that no host has is a mistake."""
    if not only:
        return
    possible = _possible(given)
    unknown = [name for name in only if name not in names and name not in possible and not FAMILIES.fullmatch(name)]
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], sorted({*names, *possible}), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    if given["profile"] != "full" and unknown[0] in _possible({**given, "profile": "full"}):
        hint = " The profile full has it: add -e benchmark_profile=full."
    raise AnsibleFilterError(
        f"benchmark_only names {unknown[0]}, which is no measurement of any host.{hint} "
        f"{given['host']} has {', '.join(names)}."
    )


def _check(variable: str, items: Any) -> list[Item]:
    """The user's own measurements, each of a form that can be measured."""
    found = []
    for number, item in enumerate(items, start=1):
        which = f"Entry {number} of {variable}"
        if not isinstance(item, dict):
            raise AnsibleFilterError(f"{which} is {item!r}; each is a mapping with id and tool.")
        name, tool = item.get("id"), item.get("tool")
        if not name:
            raise AnsibleFilterError(f"{which} has no id: give it a name of its own, such as my-endpoint-c1.")
        if not isinstance(name, str) or not VALID_ID.fullmatch(name):
            raise AnsibleFilterError(
                f"{which} has the id {name!r}: it names a file, and may have a-z, 0-9, dots and dashes, beginning with "
                "a letter or digit."
            )
        if tool not in TOOLS:
            wrong = f"the tool {tool!r}, which is unknown" if tool else "no tool"
            raise AnsibleFilterError(f"{which} ({name}) has {wrong}: known are {', '.join(TOOLS)}.")
        unknown = sorted(str(key) for key in set(item) - set(KEYS))
        if unknown:
            raise AnsibleFilterError(
                f"{which} ({name}) has the key {unknown[0]}, which is unknown: known are {', '.join(KEYS)}."
            )
        if not isinstance(item.get("parameters") or {}, dict):
            raise AnsibleFilterError(f"{which} ({name}) has parameters {item['parameters']!r}; they are a mapping.")
        item = dict(item)
        for key, least in (("runs", 2), ("warmup_runs", 0), ("timeout", 1), ("expected_seconds", 0)):
            if item.get(key) is None:
                item.pop(key, None)
                continue
            try:
                item[key] = (float if key == "expected_seconds" else int)(item[key])
            except (TypeError, ValueError):
                raise AnsibleFilterError(f"{which} ({name}) has {key} {item[key]!r}, which is no number.") from None
            if item[key] < least:
                why = "; an interval needs at least 2 independent runs" if key == "runs" else ""
                raise AnsibleFilterError(f"{which} ({name}) has {key} {item[key]}: it is {least} or more{why}.")
        found.append(item)
    return found


def benchmark_plan(given: dict[str, Any]) -> list[Item]:
    """All measurements of a host, in order, each with a label for the progress.

    Args:
        given: the role's variables without its name in front: ``host``, ``profile``, ``runs``, ``warmup_runs``,
            ``timeout``, ``measurements``, ``extra_measurements``, ``only``, ``endpoints``, ``models_dir``, and what the
            measurements need; ``elsewhere`` has other hosts' own measurements, whose names ``only`` may have.

    Returns:
        Dictionaries with the options of the module benchmark_measure, plus ``key`` (name of an API key), ``peer`` and
        ``label``.

    Raises:
        AnsibleFilterError: when a measurement makes no sense or is named twice, or when no host can have one that is
            asked for.
    """
    profile = PROFILES[given["profile"]]
    items = _check("benchmark_measurements", given["measurements"])
    extra = _check("benchmark_extra_measurements", given["extra_measurements"])
    if not items:
        endpoints = [entry for entry in given["endpoints"] if (entry.get("host") or given["host"]) == given["host"]]
        items = _system(profile, given["models_dir"]) + _llama_bench(profile, given)
        items += _endpoint_items(profile, endpoints, given)
        items += _network(profile, given)
    items = [dict(item) for item in [*items, *extra]]
    names = [item["id"] for item in items]
    for name in names:
        if names.count(name) > 1:
            raise AnsibleFilterError(
                f"The measurement {name} is planned twice: give that of benchmark_extra_measurements another id."
            )
    only = _only(given)
    _refuse_unknown(only, names, given)
    items = [item for item in items if not only or item["id"] in only]
    for number, item in enumerate(items, start=1):
        item["parameters"] = {
            name: value for name, value in (item.get("parameters") or {}).items() if value not in (None, "", [])
        }
        item.setdefault("runs", given["runs"])
        item.setdefault("warmup_runs", given["warmup_runs"])
        item.setdefault("timeout", given["timeout"])
        item.setdefault("expected_seconds", _expected_seconds(item, profile))
        item["label"] = f"{number} of {len(items)}: {item['id']}, about {_duration(item['expected_seconds'])}"
    return items


def benchmark_problems(given: dict[str, Any], hosts: list[str]) -> list[str]:
    """Say what of the settings makes no sense, a sentence each.

    Args:
        given: as for ``benchmark_plan``.
        hosts: those of the inventory.
    """
    runs, warmup_runs, timeout, peers = (given[name] for name in ("runs", "warmup_runs", "timeout", "peers"))
    problems = []
    if runs < 2:
        problems.append(
            f"benchmark_runs is {runs}; an interval needs at least 2 independent runs: set it to 2 or more."
        )
    if warmup_runs < 0:
        problems.append(f"benchmark_warmup_runs is {warmup_runs}; it is 0 or more.")
    if timeout < 1:
        problems.append(f"benchmark_timeout is {timeout}; it is a number of seconds above 0.")
    unknown = [peer["name"] for peer in peers if peer["name"] not in hosts]
    if unknown:
        problems.append(
            f"benchmark_peers names {', '.join(unknown)}, which the inventory does not have: name hosts of the "
            "inventory."
        )
    try:
        benchmark_plan(given)
    except AnsibleFilterError as error:
        problems.append(error.message)
    return problems


def benchmark_asked(plan: list[Item], api_keys: dict[str, str]) -> list[Item]:
    """The plan as the module benchmark_measure takes it, each endpoint with its key."""
    kept = set(KEYS) - {"key", "peer"}
    asked = []
    for item in plan:
        options = {name: value for name, value in item.items() if name in kept and value is not None}
        key = api_keys.get(item.get("key") or "")
        asked.append({**options, **({"secrets": {"OPENAI_API_KEY": key}} if key else {})})
    return asked


def benchmark_rounds(plan: list[Item], profile: str) -> int:
    """In how many rounds the plan is measured: in each of them, one process of each measurement or a few."""
    return max((int(item["runs"]) for item in plan), default=1) if PROFILES[profile].in_turn else 1


def benchmark_plan_text(plan: list[Item]) -> str:
    """The plan as lines for a person."""
    if not plan:
        return "Nothing is to be measured on this host."
    total = sum(item["expected_seconds"] for item in plan)
    lines = [
        f"{item['label']} ({item['runs']} runs of {item['tool']} after {item['warmup_runs']} for warming up)"
        for item in plan
    ]
    return "\n".join([*lines, f"In all about {_duration(total)}, less what is finished already."])


def benchmark_packages(plan: list[Item], known: list[str]) -> list[str]:
    """The packages that the plan needs, of those that may be installed."""
    needed = {
        PACKAGES[item["tool"]] for item in plan if item["tool"] in PACKAGES and "command" not in item["parameters"]
    }
    return sorted(needed & set(known))


def benchmark_door(parameters: dict[str, Any], source: str, seconds: int) -> list[str]:
    """Have the platform's firewall of the peer admit the host that measures, as long as the other side runs.

    The same as ``door_properties`` of the module rpc_latency, which a filter can't import. A peer without that firewall
    goes without: both commands may fail, before and after.

    Args:
        parameters: those of the measurement, with ``peer_address`` and ``port``.
        source: address of the host that measures; empty admits nobody.
        seconds: after so many the firewall forgets it by itself.

    Returns:
        Arguments of systemd-run.
    """
    if not source:
        return []
    command = "element inet ai_idp " + ("measuring6" if ":" in source else "measuring")
    door = f"{source} . {parameters['peer_address']} . {parameters['port']}"
    return [
        f"--property=ExecStartPre=+-{NFT} add {command} {{ {door} timeout {seconds}s }}",
        f"--property=ExecStopPost=+-{NFT} delete {command} {{ {door} }}",
    ]


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {
            "benchmark_packages": benchmark_packages,
            "benchmark_asked": benchmark_asked,
            "benchmark_door": benchmark_door,
            "benchmark_problems": benchmark_problems,
            "benchmark_plan": benchmark_plan,
            "benchmark_plan_text": benchmark_plan_text,
            "benchmark_rounds": benchmark_rounds,
        }
