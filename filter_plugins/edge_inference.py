"""Filters of the role edge_inference: how the memory of a small board is shared out, and what its units say."""

import ipaddress
import re
from typing import Any

MIB = 1 << 20
STEP = 64 * MIB
# Below this a peer can't place a layer of any useful model.
LEAST_RPC = 256 * MIB
# What the RPC server takes of the host's memory beside the buffers of its clients.
RPC_OVERHEAD = 512 * MIB
# More than this part must be gained before clients are let have more: what is free differs from run to run.
WORTH = 0.25

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_IPV4 = re.compile(r"(\d{1,3}\.){3}\d{1,3}")
_NETWORK = re.compile(r"(\d{1,3}\.){3}\d{1,3}(/\d{1,2})?|[0-9a-fA-F]*:[0-9a-fA-F:]*(/\d{1,3})?")
_KEY = re.compile(r"[!-~]{16,256}")
_MODEL_FILE = re.compile(r"/[A-Za-z0-9._/@+-]+[.]gguf")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
# The smallest number that each setting may be.
LEAST = {
    "threads": 0,
    "rpc_threads": 0,
    "cache_ram_mib": 0,
    "memory_reserved_mib": 0,
    "start_timeout": 1,
    "rpc_cache_days": 1,
    "rpc_cache_min_free_mib": 0,
}

_UP_TO = re.compile(r"^up to (\d+)$")


def size_text(count: int | None) -> str:
    """1503238553 is 1.5 GB, as the fit's own messages write sizes."""
    if count is None:
        return "an unknown size"
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"


def _down(count: int) -> int:
    return count // STEP * STEP


def _up(count: int) -> int:
    return -(-count // STEP) * STEP


def rpc_wish(value: Any) -> tuple[int | None, bool] | None:
    """``auto``, ``up to N`` or ``N`` MiB as (bytes or None for no end, exactly); None for anything else."""
    text = " ".join(str(value).split()).lower()
    if text == "auto":
        return None, False
    limited = _UP_TO.match(text)
    number = limited.group(1) if limited else text
    if isinstance(value, bool) or not number.isdigit() or not LEAST_RPC // MIB <= int(number) <= 1 << 20:
        return None
    return int(number) * MIB, limited is None


def _address_errors(address: str, addresses: list[str]) -> list[str]:
    """What is wrong with the address of the API."""
    there = ", ".join(addresses) or "none"
    if not _IPV4.fullmatch(address) or not address.strip("0."):
        return [
            f"edge_inference_listen_address is '{address}'; name one IPv4 address of this host (it has {there})",
        ]
    if not address.startswith("127.") and address not in addresses:
        return [f"edge_inference_listen_address is '{address}', which this host does not have (it has {there})"]
    return []


def edge_errors(settings: dict[str, Any], addresses: list[str]) -> list[str]:
    """Say what is wrong with the settings of accounts, API and model. The key is never shown.

    Args:
        settings: the role's variables by their names without ``edge_inference_``.
        addresses: the host's IPv4 addresses.

    Returns:
        One sentence for each thing that is wrong.
    """
    errors = [
        f"edge_inference_{name} is '{settings[name]}'; name a system account of its own, such as edge-inference"
        for name in ("user", "rpc_user")
        if not _ACCOUNT.fullmatch(settings[name]) or settings[name] == "root"
    ]
    if settings["user"] == settings["rpc_user"]:
        errors.append(
            f"edge_inference_user and edge_inference_rpc_user are both '{settings['user']}'; give RPC, which has no "
            "password, an account that can't read the API's key"
        )
    errors += _address_errors(settings["listen_address"], addresses)
    errors += [
        f"edge_inference_{name} is {settings[name]}; the account may bind ports from 1024 to 65535"
        for name in ("port", "rpc_port")
        if not 1024 <= settings[name] <= 65535
    ]
    errors += [
        f"edge_inference_client_networks has '{network}'; write an address or a network such as 192.168.1.0/24"
        for network in settings["client_networks"]
        if not _NETWORK.fullmatch(network)
    ]
    if not _KEY.fullmatch(settings["api_key"]):
        what = "too short, too long or has other signs than visible ASCII" if settings["api_key"] else "empty"
        errors.append(
            f"edge_inference_api_key is {what}; set 16 to 256 of them, for example the output of openssl rand -hex 32"
        )
    if not _MODEL_FILE.fullmatch(settings["model_file"]):
        errors.append(
            f"edge_inference_model_file is '{settings['model_file']}'; name the absolute path of a .gguf file, of "
            "letters, digits and . _ / @ + -"
        )
    if not _MODEL_NAME.fullmatch(settings["model_name"]):
        errors.append(f"edge_inference_model_name is '{settings['model_name']}'; use letters, digits and . _ : / -")
    errors += [
        f"edge_inference_{name} is {settings[name]}; set {least} or more"
        for name, least in LEAST.items()
        if settings[name] < least
    ]
    return errors


def edge_rpc_errors(settings: dict[str, Any], addresses: list[str]) -> list[str]:
    """Say what is wrong with the settings of the RPC server.

    Args:
        settings: ``address``, ``port``, ``peers``, ``memory``, and ``http`` as (address, port) of llama-server.
        addresses: the host's IPv4 addresses.

    Returns:
        One sentence for each thing that is wrong.
    """
    errors = []
    address = str(settings["address"])
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError:
        wanted = None
    there = ", ".join(addresses) or "none"
    if wanted is None or wanted.is_unspecified:
        errors.append(
            f"edge_inference_rpc_listen_address is '{address}'; RPC has no password, so name the one IPv4 address of "
            f"the link to the GPU server (this host has {there})"
        )
    elif not wanted.is_loopback and address not in addresses:
        errors.append(
            f"edge_inference_rpc_listen_address is '{address}', which this host does not have (it has {there}); "
            "connect the link, or correct the address"
        )
    if not settings["peers"] and not (wanted and wanted.is_loopback):
        errors.append(
            "edge_inference_rpc_peers is empty; name the addresses of the GPU servers that may use this host's memory"
        )
    for peer in settings["peers"]:
        try:
            if ipaddress.IPv4Address(str(peer)).is_unspecified:
                raise ValueError
        except ValueError:
            errors.append(
                f"edge_inference_rpc_peers has '{peer}', which is no IPv4 address of one host; whole networks and "
                "names are not admitted"
            )
    if str(settings["port"]) == str(settings["http"][1]) and address == settings["http"][0]:
        errors.append(
            f"edge_inference_port and edge_inference_rpc_port are both {settings['port']}; RPC's usual one is 50052"
        )
    if rpc_wish(settings["memory"]) is None:
        errors.append(
            f"edge_inference_rpc_memory_mib is '{settings['memory']}'; set a whole number of MiB from "
            f'{LEAST_RPC // MIB} on, auto, or "up to" and a number'
        )
    return errors


def edge_release_errors(release: dict[str, Any], minimum: int, rpc_enabled: bool, folder: str) -> list[str]:
    """Say why a build of llama.cpp is not served.

    Args:
        release: the ``release.json`` beside the programs, empty where there is none.
        minimum: first build with every fix that is known to be needed when RPC is on.
        rpc_enabled: whether the RPC server is to run.
        folder: where the programs are, for the message.
    """
    build = release.get("build")
    if not isinstance(build, int) or isinstance(build, bool) or build < 1:
        return [
            f"the build of the programs in {folder} is not known (no release.json with a build beside that folder); "
            "install them with the role llama_cpp, which writes it, or correct edge_inference_llama_cpp_bin"
        ]
    errors = []
    if rpc_enabled and not release.get("rpc"):
        errors.append(f"build {build} in {folder} was made without RPC; build it with GGML_RPC=ON")
    if rpc_enabled and build < minimum and release.get("rdma") is not False:
        errors.append(
            f"build {build} in {folder} is older than {minimum} and not known to be without RDMA, so its RPC port can "
            "be attacked (CVE-2026-118375); build a newer one, or this one with GGML_RPC_RDMA=OFF"
        )
    return errors


def edge_model_errors(model: dict[str, Any] | None, path: str) -> list[str]:
    """Say why a model's file can't be served.

    Args:
        model: what edge_host_info says of it, None where there is none.
        path: variable ``edge_inference_model_file``.
    """
    if model is None:
        return [
            f"edge_inference_model_file is '{path}', and this host has no such file: the role model_store fetches it, "
            "or the path is wrong"
        ]
    if not model["everybody_reads"]:
        return [f"edge_inference_model_file is '{path}', which not everybody may read: run chmod o+r on it"]
    return []


def edge_running(inference_unit: str, rpc_unit: str) -> dict[str, int]:
    """Read what runs now from the text of the two units; empty where there are none.

    Returns:
        ``context_length`` and ``sequences`` of llama-server, and ``rpc_memory_bytes``.
    """
    found = {}
    for key, pattern, text in (
        ("context_length", r"--ctx-size (\d+)", inference_unit),
        ("sequences", r"--parallel (\d+)", inference_unit),
        ("rpc_memory_bytes", r"# for clients: (\d+) bytes", rpc_unit),
    ):
        number = re.search(pattern, text)
        if number:
            found[key] = int(number.group(1))
    return found


def _for_clients(wish: tuple[int | None, bool], room: int, running: int) -> int:
    """Bytes for RPC clients; what they have now stays where it fits and little would be gained."""
    most, exactly = wish
    if exactly and most is not None:
        return most
    possible = _down(room if most is None else min(most, room))
    if running and running <= possible and possible - running < WORTH * possible:
        return running
    return possible


def edge_memory_plan(
    service: dict[str, Any], is_shared: bool, rpc_enabled: bool, rpc_memory: Any, running: dict[str, int]
) -> dict[str, Any]:
    """Share out the memory that the edge may have between its own model and RPC clients.

    Args:
        service: what model_fit says of llama-server; ``available_bytes`` is all that the edge may have.
        is_shared: the GPU has no memory of its own, so what the server holds of the host counts too.
        rpc_enabled: whether clients are served at all.
        rpc_memory: ``edge_inference_rpc_memory_mib``.
        running: what ``edge_running`` read.

    Returns:
        ``server_bytes`` (what the model takes), ``server_memory_max`` and ``rpc_memory_max`` (limits of the units),
        ``rpc_bytes`` (for clients), ``left_bytes`` (all that is left for them), ``problems``, and ``text``.
    """
    margin = (service.get("breakdown") or {}).get("margin") or 0
    device, host = (service.get("required_bytes") or 0) + margin, service.get("host_bytes") or 0
    available = service.get("available_bytes")
    on_gpu = service["device"] == "gpu"
    taken = device + (host if on_gpu and is_shared else 0)
    left = None if available is None or not device else max(0, available - taken)
    # Weights are mapped files and count as the unit's own while they are in memory.
    whole = device + host
    plan: dict[str, Any] = {
        "server_bytes": taken,
        "server_memory_max": _up(whole + max(whole * 15 // 100, 256 * MIB)),
        "left_bytes": left,
        "rpc_bytes": 0,
        "rpc_memory_max": 0,
        "problems": [],
        "text": f"{service['model']} takes {size_text(taken)} of the {size_text(available)} that the edge may have.",
    }
    wish = rpc_wish(rpc_memory)
    if not rpc_enabled or wish is None:
        return plan
    if left is None:
        plan["problems"] = ["How much memory is left for RPC clients can't be told: set edge_inference_rpc_memory_mib."]
        return plan
    clients = _for_clients(wish, left, running.get("rpc_memory_bytes", 0))
    if clients > left or clients < LEAST_RPC:
        wanted = size_text(max(clients, LEAST_RPC)) + (" that edge_inference_rpc_memory_mib names" if wish[1] else "")
        plan["problems"] = [
            f"{plan['text']} {size_text(left)} are left for RPC clients, not the {wanted}. Set a smaller "
            "edge_inference_rpc_memory_mib, edge_inference_context_length or edge_inference_memory_reserved_mib, or "
            "edge_inference_rpc_enabled: false."
        ]
        return plan
    plan["rpc_bytes"] = clients
    plan["rpc_memory_max"] = clients + (RPC_OVERHEAD if on_gpu else 0)
    plan["text"] += f" {size_text(left)} are left for RPC clients, who get {size_text(clients)}."
    return plan


def edge_fit_gpus(gpus: list[dict[str, Any]], reserved_bytes: int) -> list[dict[str, Any]]:
    """The GPUs as model_fit takes them: what is kept for the system is taken off where they share the host's memory.

    Args:
        gpus: as unit_memory tells them.
        reserved_bytes: what is kept.
    """
    return [
        {
            **gpu,
            "other_processes_bytes": gpu["other_processes_bytes"] + (reserved_bytes if gpu["memory_is_shared"] else 0),
        }
        for gpu in gpus
    ]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "edge_errors": edge_errors,
            "edge_fit_gpus": edge_fit_gpus,
            "edge_model_errors": edge_model_errors,
            "edge_memory_plan": edge_memory_plan,
            "edge_release_errors": edge_release_errors,
            "edge_rpc_errors": edge_rpc_errors,
            "edge_running": edge_running,
        }
