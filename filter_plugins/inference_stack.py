"""Filters of the role inference_stack, for what would be unreadable in Jinja."""

from typing import Any

import yaml


def image_requests(
    services: list[str], images: dict[str, str], registry: str, lock: dict[str, Any] | None
) -> list[dict[str, str | None]]:
    """Say which images the enabled services need.

    Args:
        services: names of the enabled services.
        images: whole production name of each service's image, registry and tag included.
        registry: registry with copies under the production names, or an empty string for the vendors' own.
        lock: content of the lock file, ``{"images": {REFERENCE: DIGEST}}``; may be empty.

    Returns:
        For each service, in order, its ``reference`` and the recorded ``digest`` or None.
    """
    known = (lock or {}).get("images") or {}
    references = [f"{registry}/{images[service]}" if registry else images[service] for service in services]
    return [{"reference": reference, "digest": known.get(reference)} for reference in references]


def image_references(pulled: list[dict[str, Any]], services: list[str]) -> dict[str, str]:
    """Name each service's image by tag and digest, or by its tag where it has no digest yet (check mode)."""
    return {
        service: f"{image['reference']}@{image['digest']}" if image["digest"] else image["reference"]
        for service, image in zip(services, pulled, strict=True)
    }


def image_lock(pulled: list[dict[str, Any]], lock: dict[str, Any] | None) -> dict[str, Any]:
    """Add the digests that were read to the lock; those of other images stay."""
    found = {image["reference"]: image["digest"] for image in pulled if image["digest"]}
    return {"images": dict(sorted({**((lock or {}).get("images") or {}), **found}.items()))}


def registry_urls(services: list[str], images: dict[str, str], registry: str, scheme: str, running: str) -> list[str]:
    """List the registries that must answer, as the address that a registry's API answers at.

    Args:
        services: names of the enabled services.
        images: whole production name of each service's image.
        registry: registry with copies, or an empty string.
        scheme: ``http`` or ``https``, for ``registry`` only.
        running: text of the release that runs; images that it names (``image: NAME``) are there already.

    Returns:
        Addresses, each once, in the order of the services.
    """
    prefix = f"{registry}/" if registry else ""
    wanted = [images[service] for service in services if f" {prefix}{images[service]}" not in running]
    if registry:
        return [f"{scheme}://{registry}/v2/"] if wanted else []
    hosts = [image.partition("/")[0] for image in wanted]
    # Docker Hub's API has another name than its images.
    names = ["registry-1.docker.io" if host == "docker.io" else host for host in hosts]
    return [f"https://{name}/v2/" for name in dict.fromkeys(names)]


ENGINES = {"huggingface": ["vllm"], "gguf": ["llama_cpp"]}
"""Engines that serve each format of the catalogue."""


def catalogue_figures(catalogue: list[dict[str, Any]], models_dir: str) -> dict[str, dict[str, Any]]:
    """Describe every model of the catalogue as the module model_fit takes it.

    Args:
        catalogue: entries of the model catalogue.
        models_dir: folder with one folder for each model; files that are there count more than figures.

    Returns:
        By model, its ``name``, ``path``, ``figures`` and the ``engines`` that serve it.
    """
    return {
        entry["name"]: {
            "name": entry["name"],
            "path": f"{models_dir}/{entry['name']}",
            "figures": {
                **({"weights_bytes": entry["size_bytes"]} if entry.get("size_bytes") else {}),
                **(entry.get("figures") or {}),
            },
            "engines": ENGINES[entry["format"]],
        }
        for entry in catalogue
    }


def with_keys(endpoints: list[dict[str, Any]], keys: dict[str, str]) -> list[dict[str, Any]]:
    """Put each endpoint's key in the place of the key's name, as the module endpoint_check takes it."""
    return [
        {**{k: v for k, v in endpoint.items() if k != "key"}, "api_key": keys.get(endpoint.get("key", ""))}
        for endpoint in endpoints
    ]


def endpoint_report(endpoints: list[dict[str, Any]], host: str, replayed: list[str]) -> list[dict[str, Any]]:
    """Describe the endpoints of a host for ``endpoints.json``, without a secret.

    Args:
        endpoints: the endpoints as the role describes them; ``key`` names an entry of the secrets file.
        host: the host's name in the inventory.
        replayed: names of the endpoints whose metrics are replayed and not measured.
    """
    blank: dict[str, Any] = {"key": None, "model": None, "models": [], "health_path": None}
    return [{**blank, **endpoint, "host": host, "replay": endpoint["name"] in replayed} for endpoint in endpoints]


def stack_plan(
    services: list[dict[str, Any]], gpus: list[dict[str, Any]], replayed: bool, more: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Sum up what is planned, in a form that changes when the hardware or a parameter does, and with nothing else.

    Args:
        services: answer of the module model_fit for each service.
        gpus: GPUs as gpu_info returns them.
        replayed: the GPUs are a replay.
        more: by service, what the role derives from the hardware by itself.
    """
    keys = ("device", "gpus", "context_length", "sequences", "tensor_parallel_size")
    return {
        "gpus": [_gpu_text(gpu) for gpu in gpus],
        "replayed": replayed,
        "services": {
            row["name"]: {**{key: row[key] for key in keys if row[key] is not None}, **more.get(row["name"], {})}
            for row in services
        },
    }


def cdi_devices(services: dict[str, dict[str, Any]], total: int) -> dict[str, list[str]]:
    """Name the devices of each planned service as the container runtime knows them.

    Args:
        services: the plan's services.
        total: how many GPUs the host has.
    """
    found = {}
    for name, planned in services.items():
        names = ["all"] if len(planned["gpus"]) == total else [str(index) for index in planned["gpus"]]
        found[name] = [f"nvidia.com/gpu={device}" for device in names]
    return found


def _gpu_text(gpu: dict[str, Any]) -> str:
    size = gpu.get("memory_total_bytes")
    name = gpu.get("name") or f"GPU {gpu['index']}"
    return f"{name} ({size / (1 << 30):.1f} GiB)" if size else f"{name} (memory not known)"


def running_plan(text: str) -> dict[str, Any]:
    """Read the plan out of the release that runs; empty where there is none, or none that can be read."""
    try:
        release = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    plan = release.get("x-plan") if isinstance(release, dict) else None
    return plan if isinstance(plan, dict) else {}


WORDS = {
    "context_length": "context of {:,} tokens",
    "sequences": "{:,} requests at once",
    "tensor_parallel_size": "tensor parallel size {}",
    "threads": "{} threads",
}
"""How a plan's numbers are said, in this order."""


def _device_text(planned: dict[str, Any]) -> str:
    if planned["device"] == "cpu":
        return "on the CPU"
    return f"on GPU {', '.join(str(index) for index in planned['gpus'])}"


def _number_text(key: str, number: int) -> str:
    text = WORDS[key].format(number)
    return text.replace("requests", "request").replace("threads", "thread") if number == 1 else text


def _service_lines(planned: dict[str, Any], before: dict[str, Any] | None, reasons: dict[str, str]) -> list[str]:
    """Each number with its reason; only those that change where the service was planned before."""
    lines = []
    if before and _device_text(before) != _device_text(planned):
        lines.append(f"{_device_text(before)} -> {_device_text(planned)}")
    for key in WORDS:
        if key not in planned or (before and before.get(key) == planned[key]):
            continue
        text = _number_text(key, planned[key])
        if before and key in before:
            text = f"{_number_text(key, before[key])} -> {text}"
        lines.append(text + (f": {reasons[key]}" if key in reasons else ""))
    return lines


def plan_text(
    plan: dict[str, Any], before: dict[str, Any], services: list[dict[str, Any]], host: str, always: bool
) -> str:
    """Say what is planned and why, or what changes of it.

    Args:
        plan: what is planned now.
        before: what the release that runs was planned for; may be empty.
        services: answer of the module model_fit for each service, for the reasons.
        host: the host's name in the inventory.
        always: say the whole plan when nothing changes; otherwise the text is empty then.
    """
    if plan == before and not always:
        return ""
    changes = bool(before) and plan != before
    replayed = " (replayed)" if plan["replayed"] or before.get("replayed") else ""
    gpus = " and ".join(plan["gpus"]) or "none"
    if changes and before["gpus"] != plan["gpus"]:
        gpus = f"{' and '.join(before['gpus']) or 'none'} -> {gpus}"
    said = "changes" if changes else "is the one that runs" if before else "is"
    lines = [f"The plan for {host}{replayed} {said}:", f"  GPUs{replayed}: {gpus}"]
    same = []
    for row in services:
        name, planned = row["name"], plan["services"][row["name"]]
        found = _service_lines(planned, before["services"].get(name) if changes else None, row["reasons"])
        if changes and not found:
            same.append(name)
            continue
        where = "" if changes and name in before["services"] else f" {_device_text(planned)}"
        lines += [f"  {name}{where}{':' if found else ''}", *(f"    {line}" for line in found)]
    gone = sorted(set(before.get("services", {})) - set(plan["services"]))
    lines += [f"  {name}: not planned any more" for name in gone]
    if same:
        lines.append(f"  as before: {', '.join(same)}")
    if plan["replayed"] and plan["gpus"]:
        lines.append("  The GPUs are a replay: the engines run on the CPU, with tensor parallel size 1.")
    return "\n".join(lines)


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {
            "image_requests": image_requests,
            "image_references": image_references,
            "image_lock": image_lock,
            "registry_urls": registry_urls,
            "catalogue_figures": catalogue_figures,
            "stack_plan": stack_plan,
            "cdi_devices": cdi_devices,
            "running_plan": running_plan,
            "plan_text": plan_text,
            "with_keys": with_keys,
            "endpoint_report": endpoint_report,
        }
