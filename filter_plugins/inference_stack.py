"""Filters of the role inference_stack, for what would be unreadable in Jinja."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

# As Docker reads them: powers of 1024, with or without a b at the end.
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([bkmg])?b?", re.IGNORECASE)
UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
# What stands in the compose file and in units as it is given.
FORMS = {
    "account": (r"[a-z_][a-z0-9_-]{0,31}", "the name of an account, such as ubuntu"),
    "folder": (r"(/[\w.@+-]+)+", "an absolute path of letters, digits and . _ @ + -, such as /srv/inference"),
    "image": (
        r"[a-z0-9][\w.:/-]*:[\w.-]+(@sha256:[0-9a-f]{64})?",
        "a whole name with its tag, such as docker.io/vllm/vllm-openai:v0.30.0",
    ),
    "project": (r"[a-z0-9][a-z0-9_-]*", "lower-case letters, digits, dashes and underscores, such as ai-idp-inference"),
    "registry": (r"([A-Za-z0-9.-]+(:\d+)?)?", "a registry's name with its port, such as 192.168.1.5:5000, or nothing"),
}
KEY = re.compile(r"[!-~]+")


def stack_problems(host: str, given: dict[str, Any], gpus: dict[str, Any]) -> list[str]:
    """Say what of the settings does not fit together or to the host.

    Args:
        host: the host's name in the inventory.
        given: ``accelerator``, ``bind_address``, ``lan_address`` for the example, ``enabled`` services, ``catalogue``
            and ``models``, the names of models that are known and that are wanted; ``triton_known`` and
            ``triton_models``, the same for Triton; by their variables ``sizes``, ``keys``, and ``texts``, each with the
            name of its form.
        gpus: answer of the module gpu_info.

    Returns:
        A sentence or two for each problem.
    """
    problems = []
    said = " ".join(gpus.get("messages") or [])
    from_cpu = "set inference_stack_accelerator: none to serve from the CPU with CPU images"
    if given["accelerator"] == "nvidia" and not gpus["gpus"]:
        problems.append(
            f'inference_stack_accelerator is "nvidia", but no NVIDIA GPU answers on {host}. {said} Install the driver, '
            f"or {from_cpu}."
        )
    if given["accelerator"] == "auto" and gpus["status"] == "unknown":
        problems.append(f"Whether {host} has a GPU can not be told. {said} Mend that, or {from_cpu}.")
    problems += _address_problems(given["bind_address"], given["lan_address"])
    missing = [name for name in given["models"] if name not in given["catalogue"]]
    if missing:
        problems.append(
            f"The model {', '.join(missing)} is not in the catalogue. inference_stack_vllm_model and "
            f"inference_stack_llama_cpp_model take: {', '.join(sorted(given['catalogue']))}. Correct the name, or add "
            "the model in playbooks/group_vars/all/models.yml."
        )
    if missing := [name for name in given["triton_models"] if name not in given["triton_known"]]:
        problems.append(
            f"inference_stack_triton_models names {', '.join(missing)}; it takes {', '.join(given['triton_known'])}, "
            "the folders of roles/inference_stack/files/triton_models. Correct the name, or put the model there."
        )
    problems += [
        f'{variable} is "{text}"; it takes {FORMS[form][1]}.'
        for variable, (text, form) in given["texts"].items()
        if not re.fullmatch(FORMS[form][0], str(text))
    ]
    problems += [
        f"{variable} is {'no text' if key else 'empty'}; it takes a key of visible ASCII characters, such as "
        "platform_secrets makes it. It is not shown here."
        for variable, key in given["keys"].items()
        if not KEY.fullmatch(key)
    ]
    problems += [
        f'{variable} is "{size}"; it takes a number with b, k, m or g behind it, such as 24g'
        f"{', or nothing for no limit' if variable.endswith('_limit') else ''}."
        for variable, size in given["sizes"].items()
        if not SIZE.fullmatch(str(size)) and not (size == "" and variable.endswith("_limit"))
    ]
    if not given["enabled"]:
        problems.append(
            "Every service of the inference stack is switched off. Switch one on, or set inference_stack_state: absent."
        )
    return problems


def _address_problems(address: str, example: str) -> list[str]:
    try:
        every = ip_address(address).is_unspecified
    except ValueError:
        every = not address
        if address:
            return [f'inference_stack_bind_address is "{address}"; it takes an address of the host, such as {example}.']
    if not every:
        return []
    return [
        f'inference_stack_bind_address is "{address}", which is every network the host is in. Set it to the address of '
        f"the LAN, for example {example}."
    ]


def size_bytes(size: str) -> int | None:
    """Read a size as Docker does: ``24g`` is 24 GiB.

    Returns:
        Bytes; None of an empty text.

    Raises:
        AnsibleFilterError: it is no size.
    """
    if not size:
        return None
    found = SIZE.fullmatch(size)
    if not found:
        raise AnsibleFilterError(f"{size!r} is no size: a number with b, k, m or g behind it, such as 24g.")
    return int(float(found[1]) * UNITS[(found[2] or "b").lower()])


def triton_known(files: str) -> list[str]:
    """List the models that the role has for Triton."""
    return sorted(path.parent.name for path in Path(files, "triton_models").glob("*/config.pbtxt"))


def triton_repository(files: str, models: list[str]) -> dict[str, str]:
    """Read the repository of Triton's planned models.

    Args:
        files: the role's folder of files; each model has a folder below its ``triton_models``.
        models: names of the planned models.

    Returns:
        Text of each file by its path in a release.
    """
    # What Python compiled where tests ran the programs is not the role's.
    found = [
        path
        for name in models
        for path in sorted(Path(files, "triton_models", name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    texts = {str(path.relative_to(files)): path.read_text(encoding="utf-8") for path in found}
    # Triton wants a folder; files in it are no models.
    return texts or {"triton_models/none": "No model is planned.\n"}


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
        By model, its ``name``, ``path``, ``figures``, the ``engines`` that serve it and whether it is tried where
        nobody can tell whether it fits.
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
            **({"accept_unknown": True} if boolean(entry.get("accept_unknown", False), strict=False) else {}),
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
            row["name"]: {
                **{key: row[key] for key in keys if row[key] is not None},
                # Instances of a card that is cut up; others are named by their index.
                **({"devices": row["devices"]} if any(":" in name for name in row.get("devices", ())) else {}),
                **more.get(row["name"], {}),
            }
            for row in services
        },
    }


def cdi_devices(services: dict[str, dict[str, Any]], total: int) -> dict[str, list[str]]:
    """Name the devices of each planned service as the container runtime knows them.

    Args:
        services: the plan's services.
        total: how many GPUs the host has, each MIG instance being one.
    """
    found = {}
    for name, planned in services.items():
        own = planned.get("devices") or [str(index) for index in planned["gpus"]]
        names = ["all"] if len(planned["gpus"]) == total else own
        found[name] = [f"nvidia.com/gpu={device}" for device in names]
    return found


def option_value(arguments: list[str], option: str, default: str) -> str:
    """Read the value of an option out of a program's arguments, the last where it stands there twice.

    Args:
        arguments: the arguments, as ``--option=value`` or the value behind the option.
        option: the option with its dashes.
        default: what is said where the option is not there.
    """
    found = default
    for index, argument in enumerate(map(str, arguments)):
        if argument.startswith(f"{option}="):
            found = argument.split("=", 1)[1]
        elif argument == option and index + 1 < len(arguments):
            found = str(arguments[index + 1])
    return found


def taken_text(services: list[dict[str, Any]], gpus: list[dict[str, Any]]) -> list[str]:
    """Say of each service that was started without an answer what its device has in use now.

    Args:
        services: answer of the module model_fit for each service.
        gpus: GPUs as gpu_info returns them after the start.
    """
    found = []
    for row in services:
        if not row.get("accepted"):
            continue
        if row["required_bytes"]:
            thought = f"between {row['least_bytes'] / (1 << 30):.1f} and {row['required_bytes'] / (1 << 30):.1f} GiB"
        else:
            thought = "nobody could tell how much"
        used = [gpu["memory_used_bytes"] for gpu in gpus if gpu["index"] in row["gpus"] and gpu["memory_used_bytes"]]
        taken = f"{sum(used) / (1 << 30):.1f} GiB are in use on its GPUs now" if used else "what it takes was not read"
        found.append(f"{row['name']}: {row['model']}: {taken}; thought were {thought}.")
    return found


def _gpu_text(gpu: dict[str, Any]) -> str:
    size = gpu.get("memory_total_bytes")
    name = gpu.get("name") or f"GPU {gpu['index']}"
    return f"{name} ({size / (1 << 30):.1f} GiB)" if size else f"{name} (memory not known)"


def running_plan(text: str) -> dict[str, Any]:
    """Read the plan out of the release that runs; empty where there is none, or none that can be read."""
    try:
        release = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
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
            "stack_problems": stack_problems,
            "size_bytes": size_bytes,
            "triton_known": triton_known,
            "triton_repository": triton_repository,
            "image_requests": image_requests,
            "image_references": image_references,
            "image_lock": image_lock,
            "registry_urls": registry_urls,
            "catalogue_figures": catalogue_figures,
            "stack_plan": stack_plan,
            "cdi_devices": cdi_devices,
            "option_value": option_value,
            "taken_text": taken_text,
            "running_plan": running_plan,
            "plan_text": plan_text,
            "with_keys": with_keys,
            "endpoint_report": endpoint_report,
        }
