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


PROFILES = {
    "quick": Profile(
        seconds=1,
        disk_mib=256,
        requests=200,
        prompts_per_slot=4,
        input_tokens=64,
        output_tokens=32,
        prompt_tokens=256,
        decode_tokens=64,
        depths=(0,),
        concurrency={"vllm": (1, 4), "llama.cpp": (1,)},
        client_warmup_runs=0,
        peers=1,
    ),
    "full": Profile(
        seconds=10,
        disk_mib=4096,
        requests=2000,
        prompts_per_slot=16,
        input_tokens=128,
        output_tokens=128,
        prompt_tokens=512,
        decode_tokens=128,
        depths=(0, 2048, 8192),
        concurrency={"vllm": (1, 4, 8, 16), "llama.cpp": (1, 4)},
        client_warmup_runs=100,
        peers=100,
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
                    "num_prompts": max(8, profile.prompts_per_slot * concurrency),
                    "input_tokens": profile.input_tokens,
                    "output_tokens": profile.output_tokens,
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


def benchmark_plan(given: dict[str, Any]) -> list[Item]:
    """All measurements of a host, in order, each with a label for the progress.

    Args:
        given: the role's variables without its name in front: ``host``, ``profile``, ``runs``, ``warmup_runs``,
            ``timeout``, ``measurements``, ``extra_measurements``, ``only``, ``endpoints``, ``models_dir``, and what the
            measurements need.

    Returns:
        Dictionaries with the options of the module benchmark_measure, plus ``key`` (name of an API key), ``peer`` and
        ``label``.

    Raises:
        AnsibleFilterError: when a measurement is named twice, or one that is asked for is none of them.
    """
    profile = PROFILES[given["profile"]]
    items = list(given["measurements"])
    if not items:
        endpoints = [entry for entry in given["endpoints"] if (entry.get("host") or given["host"]) == given["host"]]
        items = _system(profile, given["models_dir"]) + _llama_bench(profile, given)
        for endpoint in endpoints:
            if endpoint.get("kind", "openai") == "openai" and endpoint.get("model"):
                items += _openai(profile, endpoint, given)
            elif endpoint.get("kind") == "triton":
                items += _triton(profile, endpoint)
        items += _network(profile, given)
    items = [dict(item) for item in [*items, *given["extra_measurements"]]]
    names = [item["id"] for item in items]
    for name in names:
        if names.count(name) > 1:
            raise AnsibleFilterError(
                f"The measurement {name} is planned twice: give that of benchmark_extra_measurements another id."
            )
    unknown = [name for name in given["only"] if name not in names]
    if unknown:
        near = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise AnsibleFilterError(
            f"benchmark_only names {unknown[0]}, which is no measurement of {given['host']}.{hint} "
            f"It has {', '.join(names)}."
        )
    items = [item for item in items if not given["only"] or item["id"] in given["only"]]
    for number, item in enumerate(items, start=1):
        wrong = sorted(set(item) - set(KEYS))
        if wrong:
            raise AnsibleFilterError(
                f"The measurement {item['id']} has the key {wrong[0]}, which is unknown. Known are {', '.join(KEYS)}."
            )
        item["parameters"] = {
            name: value for name, value in (item.get("parameters") or {}).items() if value not in (None, "", [])
        }
        item.setdefault("runs", given["runs"])
        item.setdefault("warmup_runs", given["warmup_runs"])
        item.setdefault("timeout", given["timeout"])
        item.setdefault("expected_seconds", _expected_seconds(item, profile))
        item["label"] = f"{number} of {len(items)}: {item['id']}, about {_duration(item['expected_seconds'])}"
    return items


def benchmark_plan_text(plan: list[Item]) -> str:
    """The plan as lines for a person."""
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


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {
            "benchmark_packages": benchmark_packages,
            "benchmark_plan": benchmark_plan,
            "benchmark_plan_text": benchmark_plan_text,
        }
