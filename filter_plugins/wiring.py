# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the inventory's wiring and the playbooks derive from groups, hosts and secrets.

Ansible hands a filter containers that are templated when they are read. Reading ``hostvars[NAME]`` collects every
variable of that host, so each function reads a host once, and only hosts that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import urlsplit

import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

Item = dict[str, Any]
HostVars = Mapping[str, Mapping[str, Any]]

# What the status page calls the images of an inference host.
IMAGE_NAMES = {"vllm": "vLLM", "llama_cpp": "llama.cpp", "triton": "Triton", "dcgm_exporter": "DCGM exporter"}
KNOWLEDGE_NAMES = {"mlflow": "MLflow", "n8n": "n8n"}
# Keys and tokens are a flat list; brackets stand in few of them.
MOST_NESTED = 1000
# Of a key that is made.
KEY_LENGTH = 64
# Behind the name of a key while it is replaced: the one before, as the action platform_secrets keeps it.
FORMER = "_before"
GATEWAY_JOBS = ("nginx", "prometheus", "alertmanager")


def own_address(stated: str, facts: Mapping[str, Any]) -> str:
    """Tell at which address a host listens and is called.

    Args:
        stated: its ``ansible_host``, or its name where it has none.
        facts: its facts, as far as they are known.

    Returns:
        What is stated where that is an address. Of a name, which nothing can bind to, and which only the controller may
        know, the address of the default route; the name itself as long as that is not known.
    """
    try:
        return str(ip_address(str(stated)))
    except ValueError:
        return str((facts.get("default_ipv4") or {}).get("address") or stated)


def host_address(name: str, hostvars: HostVars) -> str:
    """Tell where a host is called, which is where it listens.

    Args:
        name: the host's name in the inventory; empty for none.
        hostvars: variables of every host; ``ai_idp_address`` is the address.

    Returns:
        Its address (`own_address` where the inventory has no wiring), and an empty string for no host.
    """
    if not name:
        return ""
    own = hostvars[name]
    stated = own.get("ai_idp_address")
    return str(stated) if stated else own_address(own.get("ansible_host", name), own.get("ansible_facts") or {})


def host_addresses(names: Iterable[str], hostvars: HostVars) -> dict[str, str]:
    """Tell where hosts are reached, by their names and in the same order."""
    return {str(name): host_address(name, hostvars) for name in names}


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def known_addresses(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """List the addresses of hosts, without those that are called by a name and have told no facts yet."""
    return [address for address in host_addresses(names, hostvars).values() if _is_address(address)]


def hosts_without_address(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """Name the hosts whose addresses only their facts can tell, and have not told yet."""
    return [name for name, address in host_addresses(names, hostvars).items() if not _is_address(address)]


def _for_hosts(
    rows: Iterable[Item],
    groups: Mapping[str, Iterable[str]],
    hostvars: HostVars,
    key: str,
    entry: Callable[[str, str, int], Item],
) -> list[Item]:
    """In each row that has ``hosts`` and ``port``, put ``key`` in their place: an entry for each host of the group."""
    known: dict[str, dict[str, str]] = {}
    done = []
    for row in rows:
        made: Item = {}
        for name, value in row.items():
            if name == "hosts":
                if value not in groups:
                    raise AnsibleFilterError(
                        f"{row['name']}: hosts is {value!r}, which is none of {', '.join(groups)}: name one of them."
                    )
                if value not in known:
                    known[value] = host_addresses(groups[value], hostvars)
                made[key] = [entry(host, address, row["port"]) for host, address in known[value].items()]
            elif name != "port" or "hosts" not in row:
                made[name] = value
        done.append(made)
    return done


def _target(host: str, address: str, port: int) -> Item:
    return {"host": host, "address": f"{address}:{port}"}


def _upstream(_host: str, address: str, port: int) -> Item:
    return {"address": address, "port": port}


def scrape_jobs(rows: Iterable[Item], groups: Mapping[str, Iterable[str]], hostvars: HostVars) -> list[Item]:
    """Make the scrape jobs of Prometheus.

    Args:
        rows: jobs. One with ``hosts`` (a group) and ``port`` gets ``targets``: each host of the group, with its
            address and the port. Others have their targets already.
        groups: names of the hosts of each group that a job may name.
        hostvars: variables of every host.

    Returns:
        The jobs, in the same order.

    Raises:
        AnsibleFilterError: a job names a group that is not in ``groups``.
    """
    return _for_hosts(rows, groups, hostvars, "targets", _target)


def upstream_routes(rows: Iterable[Item], groups: Mapping[str, Iterable[str]], hostvars: HostVars) -> list[Item]:
    """Make the routes of the gateway.

    Args:
        rows: routes. One with ``hosts`` (a group) and ``port`` gets ``upstreams``: address and port of each host of
            the group. Others have their upstreams already.
        groups: names of the hosts of each group that a route may name.
        hostvars: variables of every host.

    Returns:
        The routes, in the same order.

    Raises:
        AnsibleFilterError: a route names a group that is not in ``groups``.
    """
    return _for_hosts(rows, groups, hostvars, "upstreams", _upstream)


def local_upstreams(services: Iterable[str], ports: Mapping[str, int]) -> dict[str, list[Item]]:
    """Name what the gateway finds on its own host.

    Args:
        services: the services that are there.
        ports: the port of each service that may be.

    Returns:
        By service its upstreams: one, or none where it is not there.
    """
    there = {*services}
    return {name: [_upstream(name, "127.0.0.1", port)] if name in there else [] for name, port in ports.items()}


def firewall_rules(
    doors: Iterable[Item], groups: Iterable[str], admitted: Mapping[str, Iterable[str]], own: str
) -> list[Item]:
    """Say whom a host admits where.

    Args:
        doors: every door, with its ``name``, the group of its ``hosts``, ``port`` and ``admits``; ``measured`` where
            what listens for a measurement opens and shuts it.
        groups: the host's groups.
        admitted: networks and addresses behind each word that ``admits`` may hold.
        own: the host's own address, which nobody has to admit.

    Returns:
        One rule for each door of the host that admits anybody, as host_baseline takes it, in the order of ``doors``.

    Raises:
        AnsibleFilterError: ``admits`` holds a word that nobody knows.
    """
    return [
        {"comment": door["name"], "port": int(door["port"]), "protocol": "tcp", "sources": sources}
        for door, sources in _sources(doors, groups, admitted, own, measured=False)
        if sources
    ]


def _sources(
    doors: Iterable[Item], groups: Iterable[str], admitted: Mapping[str, Iterable[str]], own: str, *, measured: bool
) -> list[tuple[Item, list[str]]]:
    """Find the networks and addresses that each door of a host admits; ``measured`` doors only where that is asked for.

    Those admit all hosts of a group, and to ask each of its address takes time that grows with the group.
    """
    mine = {"all", *groups}
    found = []
    for door in doors:
        if door["hosts"] not in mine:
            continue
        unknown = [word for word in door["admits"] if word not in admitted]
        if unknown:
            raise AnsibleFilterError(
                f"{door['name']}: admits is {unknown[0]!r}, which is none of {', '.join(admitted)}: name one of them."
            )
        if door.get("measured") and not measured:
            continue
        sources = dict.fromkeys(str(source) for word in door["admits"] for source in _listed(admitted[word], word))
        found.append((door, [source for source in sources if source != own]))
    return found


def _listed(addresses: Any, word: str) -> list[Any]:
    """Refuse what is no list of addresses; of one address each sign would be taken for one."""
    if isinstance(addresses, str | Mapping) or not isinstance(addresses, Iterable):
        raise AnsibleFilterError(
            f"ai_idp_{word} is {addresses!r}, which is no list of addresses: write one, such as [192.168.1.20]."
        )
    return [*addresses]


def door_table(
    doors: Iterable[Item], groups: Iterable[str], admitted: Mapping[str, Iterable[str]], own: str
) -> list[Item]:
    """List a host's doors as people read them.

    Args:
        doors: as for `firewall_rules`; each with what it ``wants`` of who comes in.
        groups: the host's groups.
        admitted: as for `firewall_rules`.
        own: the host's address.

    Returns:
        ``name``, ``address``, ``port``, ``who`` (words), ``sources`` (networks and addresses; none where the host
        itself is the only one), ``wants`` and ``measured`` of each door.
    """
    return [
        {
            **{"name": str(door["name"]), "address": own, "port": int(door["port"])},
            **{"who": [*door["admits"]], "sources": sources, "wants": door["wants"]},
            "measured": bool(door.get("measured")),
        }
        for door, sources in _sources(doors, groups, admitted, own, measured=True)
    ]


def _is_name(value: Any) -> bool:
    """Whether YAML brought what can be a name. A number can, and true, as ``on`` is read, can't."""
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def _entries(catalogue: Any) -> Iterator[Item]:
    """Read the catalogue of models, to which an inventory adds its own, only as far as it is asked for.

    Raises:
        AnsibleFilterError: an entry has no name, or other ``files`` or ``figures`` than a list and a mapping.
    """
    if isinstance(catalogue, str | Mapping) or not isinstance(catalogue, Iterable):
        raise AnsibleFilterError(f"model_store_catalogue is {catalogue!r:.80}, which is no list of models.")
    for entry in catalogue:
        files = entry.get("files") if isinstance(entry, dict) else None
        if (
            not isinstance(entry, dict)
            or not _is_name(entry.get("name"))
            or not isinstance(files or [], list)
            or not all(isinstance(file, str) for file in files or [])
            or not isinstance(entry.get("figures") or {}, Mapping)
        ):
            raise AnsibleFilterError(
                f"An entry of the model catalogue (ai_idp_models, ai_idp_extra_models) is {entry!r:.80}: it needs a "
                "name, files are a list of names, and figures a mapping."
            )
        yield cast("Item", entry)


def catalogue_entry(catalogue: Iterable[Item], name: str) -> Item:
    """Find a model in the catalogue; an empty entry when it is not there."""
    return next((entry for entry in _entries(catalogue) if entry["name"] == name), {})


def model_file(catalogue: Iterable[Item], name: str, models_dir: str) -> str:
    """Name the first file of a model, below the folder of all models; without a file when the catalogue has none."""
    files = catalogue_entry(catalogue, name).get("files") or [""]
    return f"{models_dir}/{name}/{files[0]}"


def llama_models(catalogue: Iterable[Item], name: str, models_dir: str) -> list[Item]:
    """List what llama-bench measures on a GPU server: the model of its llama.cpp, if the catalogue names its file."""
    files = catalogue_entry(catalogue, name).get("files")
    return [{"name": name, "path": f"{models_dir}/{name}/{files[0]}"}] if files else []


def wanted_models(catalogue: Iterable[Item], names: Iterable[str]) -> list[Item]:
    """List the wanted models with the bytes of their download, or None where the catalogue does not tell them.

    Args:
        catalogue: entries of the model catalogue.
        names: models that a host is to hold.

    Returns:
        ``name`` and ``size_bytes`` of each, in the order of the catalogue.
    """
    wanted = set(names)
    return [
        {
            "name": entry["name"],
            "size_bytes": entry.get("size_bytes", (entry.get("figures") or {}).get("weights_bytes")),
        }
        for entry in _entries(catalogue)
        if entry["name"] in wanted
    ]


def benchmark_peers(names: Iterable[str], host: str, hostvars: HostVars) -> list[Item]:
    """Name the other hosts, to which the network is measured, with their addresses."""
    return [{"name": str(name), "address": host_address(name, hostvars)} for name in names if name != host]


def readiness_peers(names: Iterable[str], host: str, hostvars: HostVars) -> list[Item]:
    """Name the other hosts with the addresses and ports of their SSH servers."""
    peers = benchmark_peers(names, host, hostvars)
    return [
        {**peer, "port": _ssh_port(peer["name"], hostvars[peer["name"]].get("ansible_port") or 22)} for peer in peers
    ]


def _ssh_port(name: str, stated: Any) -> int:
    try:
        port = int(stated)
    except (TypeError, ValueError, OverflowError):
        port = 0
    if not 0 < port < 65536:
        raise AnsibleFilterError(f"ansible_port of {name} is {stated!r:.80}: write a port from 1 to 65535.")
    return port


def _reached(name: str, own: Mapping[str, Any], environment: str) -> Item:
    """Tell whether Ansible gets into a host."""
    found = own.get("__readiness") or {}
    lost = bool(found.get("unreachable"))
    user = f"{own['ansible_user']}@" if own.get("ansible_user") else ""
    where = f"{user}{own.get('ansible_host', name)}"
    if lost:
        detail = str(found.get("msg", "unreachable")).removeprefix("Task failed: ").strip()
    else:
        detail = "this machine itself" if own.get("ansible_connection") == "local" else where
    repair = (
        "Make the lab: ai-idp lab up."
        if environment == "lab"
        else f"Try `ssh {where}`: a wrong address is corrected in hosts.yml, a refused key is brought there by "
        f"`ssh-copy-id {where}`, and a new host key wants to be accepted once."
    )
    return {
        "name": "ssh",
        "host": name,
        "status": "missing" if lost else "ok",
        "detail": detail,
        "remedy": repair if lost else "",
        "needed": True,
    }


def _credential(title: str, key: str, secrets: Mapping[str, Any] | None, path: str, remedy: str, needed: bool) -> Item:
    """Tell whether the owner has brought a key that only an account gives."""
    there = bool(secrets and secrets.get(key))
    if secrets is None:
        status, detail = "unknown", f"{path} can not be read"
        remedy = f"Set ANSIBLE_VAULT_PASSWORD_FILE and ask again. {remedy}"
    else:
        status, detail = ("ok", f"{key} in {path}") if there else ("missing", f"no {key} in {path}")
    return {
        "name": title,
        "host": "controller",
        "status": status,
        "detail": detail,
        "remedy": "" if there else remedy,
        "needed": needed,
    }


def readiness_report(
    names: Iterable[str], hostvars: HostVars, secrets: Mapping[str, Any] | None, secrets_path: str, environment: str
) -> Item:
    """Put together what every host told of what the platform needs.

    Args:
        names: the hosts that were asked.
        hostvars: variables of every host; ``__readiness`` is what ``readiness_info`` returned.
        secrets: the owner's secrets; None when they can't be read.
        secrets_path: where they lie, as the owner knows the file.
        environment: ``lab`` or another word.

    Returns:
        ``ok`` (nothing that is needed is missing) and ``checks``, a row for each thing that was looked at: ``name``,
        ``host``, ``status`` (ok, missing, unknown, ...), ``detail``, ``remedy`` and ``needed``.
    """
    checks: list[Item] = []
    gated: list[str] = []
    for name in names:
        own = hostvars[name]
        told = [dict(row) for row in (own.get("__readiness") or {}).get("checks") or []]
        checks += [_reached(name, own, environment), *told]
        missing = {str(row["name"]).removeprefix("model ") for row in told if row["status"] != "ok"}
        # Models to come that the hub hands out to accounts only.
        gated += [
            entry["name"]
            for entry in _entries(own.get("model_store_catalogue") or [])
            if boolean(entry.get("gated", False), strict=False)
            and entry["name"] in missing
            and entry["name"] not in gated
        ]
    licence = (
        f"{', '.join(gated)} is gated: accept its licence at huggingface.co, make a token that reads, and add it there."
        if gated
        else "Only gated models need one, and none is wanted."
    )
    checks += [
        _credential("Hugging Face token", "hugging_face_token", secrets, secrets_path, licence, bool(gated)),
        _credential(
            "NGC key",
            "ngc_api_key",
            secrets,
            secrets_path,
            "Only images of nvcr.io that are not public need one.",
            False,
        ),
    ]
    return {"ok": not any(row["needed"] and row["status"] != "ok" for row in checks), "checks": checks}


def replay_problems(names: Iterable[str], hostvars: HostVars, environment: str) -> list[str]:
    """Refuse recorded GPUs outside the lab: the platform would be planned for what is not there.

    Args:
        names: the hosts.
        hostvars: variables of every host; ``inference_stack_gpu_replay`` is the file of a recording.
        environment: ``lab`` or another word.

    Returns:
        One sentence for each host that replays and must not.
    """
    if environment == "lab":
        return []
    found = {name: hostvars[name].get("inference_stack_gpu_replay") for name in names}
    return [
        f"inference_stack_gpu_replay of {name} is {replay!r}, but ai_idp_environment {environment!r} is no lab: the "
        "platform would be planned for GPUs that are not there. Remove the variable."
        for name, replay in found.items()
        if replay
    ]


def rpc_lenders(
    groups: Mapping[str, Iterable[str]], hostvars: HostVars, among: Iterable[str] | None = None
) -> list[str]:
    """Name the hosts of the edge that lend their memory, if there is a GPU server to borrow it.

    Args:
        groups: names of the hosts of every group.
        hostvars: variables of every host; one of the edge may say ``edge_inference_rpc_enabled: false``.
        among: whom it is asked of; everybody where not given.
    """
    if not [*groups.get("gpu_servers", [])]:
        return []
    asked = None if among is None else {*among}
    return [
        str(host)
        for host in groups.get("edge", [])
        if (asked is None or host in asked)
        and boolean(hostvars[host].get("edge_inference_rpc_enabled", True), strict=False)
    ]


def measured_link(links: Mapping[str, Item], host: str, addresses: Iterable[str] | None) -> Item:
    """Find the link that was measured for a host.

    Args:
        links: what was measured, by host: its ``address`` on the link and that of the ``client``.
        host: the host.
        addresses: its addresses as they are now; None when they are not known.

    Returns:
        The link, or nothing when there is none or when the host has its address no more.
    """
    link = links.get(host) or {}
    if not link or (addresses is not None and link["address"] not in addresses):
        return {}
    return dict(link.items())


def addresses_are_old(known: Iterable[str], read: Iterable[Item], links: Mapping[str, Item], host: str) -> bool:
    """Tell whether a cable was plugged in or out since the facts of a host were gathered, which are kept for hours.

    Args:
        known: the addresses among its facts.
        read: its addresses as they were read just now; without those of containers and virtual machines, which facts
            have.
        links: as for `measured_link`.
        host: the host.
    """
    facts, there = {*known}, {row["address"] for row in read}
    link = (links.get(host) or {}).get("address")
    return bool(there - facts) or (link in facts and link not in there)


def _llama_bench(measurement_id: str, bench: Mapping[str, str], *more: str) -> Item:
    path = bench["model_path"]
    parameters: Item = {
        "command": [bench["program"]],
        "model_path": path,
        "prompt_tokens": 512,
        "output_tokens": 64,
    }
    if more:
        parameters["extra_args"] = [*more]
    return {
        "tool": "llama_bench",
        "model": bench["model"],
        "model_path": path,
        "id": measurement_id,
        "parameters": parameters,
    }


def edge_measurements(model: str, model_path: str, program: str) -> list[Item]:
    """Say what a host of the edge measures beside the rest: the model that it serves.

    Args:
        model: its name.
        model_path: its file.
        program: path of llama-bench.
    """
    return [_llama_bench("edge-llama-bench", {"model": model, "model_path": model_path, "program": program})]


def rpc_loans(lenders: Iterable[str], hostvars: HostVars, port: int) -> list[Item]:
    """Say what the edge lends to the host that uses its memory.

    Args:
        lenders: hosts that lend memory.
        hostvars: variables of every host; each lender's ``edge_inference_model_name`` and ``ai_idp_rpc_link``.
        port: port of the RPC servers.

    Returns:
        For each lender its name (``host``), its ``server`` (address and port), the ``model`` that it serves, and the
        names of the measurements of that model without its memory (``local``) and with it (``remote``). Those of the
        first have no host in their names; one model is measured without borrowed memory once.
    """
    loans: list[Item] = []
    local: dict[str, str] = {}
    for host in lenders:
        own = hostvars[host]
        model, suffix = str(own.get("edge_inference_model_name") or ""), f"-{host}" if loans else ""
        loans.append(
            {
                "host": host,
                "server": f"{own['ai_idp_rpc_link']['address']}:{port}",
                "model": model,
                "local": local.setdefault(model, f"rpc-bench-local{suffix}"),
                "remote": f"rpc-bench-remote{suffix}",
            }
        )
    return loans


def rpc_measurements(loans: Iterable[Item], catalogue: Iterable[Item], models_dir: str, program: str) -> list[Item]:
    """Say what the host measures that uses the edge's memory: each lender's model without that memory and with it.

    Args:
        loans: as `rpc_loans` returns them.
        catalogue: entries of the model catalogue.
        models_dir: the folder of all models.
        program: path of llama-bench.
    """
    measurements: dict[str, Item] = {}
    entries = [*_entries(catalogue)]
    for loan in loans:
        bench = {
            "model": loan["model"],
            "model_path": model_file(entries, loan["model"], models_dir),
            "program": program,
        }
        measurements.setdefault(loan["local"], _llama_bench(loan["local"], bench))
        measurements[loan["remote"]] = _llama_bench(loan["remote"], bench, "--rpc", loan["server"])
    return [*measurements.values()]


def lent_models(lenders: Iterable[str], hostvars: HostVars) -> list[str]:
    """Name the models of the hosts that lend memory, which the host that borrows it needs too."""
    return list(dict.fromkeys(str(hostvars[host].get("edge_inference_model_name") or "") for host in lenders))


def rpc_build_problems(lenders: Iterable[str], client: str, hostvars: HostVars, ran: Iterable[str]) -> list[str]:
    """Refuse two builds of llama.cpp at the ends of RPC: two builds may crash each other.

    Args:
        lenders: hosts of the edge that lend memory.
        client: the host that borrows it.
        hostvars: variables of every host; ``__llama_cpp_plan`` says what is to be done (``action``) for which build
            (``release``).
        ran: the hosts of the run, without those that failed. One that is not among them stays as it is.

    Returns:
        A sentence or two for each lender.
    """
    here, problems = {*ran}, []
    names = [*lenders]
    plans = {host: hostvars[host].get("__llama_cpp_plan") or {} for host in {client, *names} if host in here}
    for lender in names:
        ends = [host for host in dict.fromkeys((lender, client)) if "release" in plans.get(host, {})]
        releases = [plans[host]["release"] for host in ends]
        told = " and ".join(
            f"{host} llama.cpp {release['build']} ({release['commit']})"
            for host, release in zip(ends, releases, strict=True)
        )
        if len(ends) == 1 and lender != client and plans[ends[0]]["action"] != "none":
            other = client if ends == [lender] else lender
            problems.append(
                f"{ends[0]} would get another llama.cpp, and {other}, the other end of RPC, is not in this run; RPC "
                "between two builds is refused: run week 4 on both."
            )
        elif len({(release["build"], release["commit"]) for release in releases}) > 1:
            problems.append(
                f"{told} would be the ends of RPC, and RPC between two builds is refused: pin one in llama_cpp_build "
                "and llama_cpp_source_git for all hosts, in the inventory's group_vars/all."
            )
    return problems


def secrets_of(text: str, path: str) -> dict[str, Any]:
    """Read the file in which the platform keeps its keys.

    Args:
        text: what is in the file, decrypted.
        path: the file, for an error.

    Returns:
        Keys and the owner's own secrets by their names; none of an empty file.

    Raises:
        AnsibleFilterError: it is no list of names and values. Its text is never shown.
    """
    try:
        # Computed whenever a key is needed, so by the parser that is compiled. It takes no text of Ansible's own type,
        # and dies with the whole process of what is nested without end.
        nested = sum(text.count(mark) for mark in ("[", "{", "- - ", "? ? "))
        read = yaml.load(text.encode(), Loader=yaml.CSafeLoader) if nested <= MOST_NESTED else text
    except (yaml.YAMLError, ValueError, RecursionError):
        # What looks like a date and is none is a ValueError, and so is half a character.
        read = text
    if read is not None and not isinstance(read, dict):
        raise AnsibleFilterError(f"{path} is no list of NAME: VALUE lines: correct it, or remove it to have keys made.")
    return read or {}


def with_keys_to_come(known: Mapping[str, Any], names: Iterable[str], replaced: Iterable[str] = ()) -> dict[str, Any]:
    """Add a placeholder for each key that the run will make, so that a preflight sees the platform as it will be.

    It is as long as a key, of letters and signs that every service takes, and no two are the same.

    Args:
        known: keys by name.
        names: names of the keys to come.
        replaced: names of keys whose former ones nobody needs any more; they are left out.
    """
    left_out = {f"{name}{FORMER}" for name in replaced}
    to_come = {name: f"to-come-{name}".ljust(KEY_LENGTH, "-")[:KEY_LENGTH] for name in names}
    return {name: key for name, key in {**to_come, **known}.items() if name not in left_out}


def _client_key(name: str) -> str:
    return f"gateway_client_key_{name}"


def _clients(clients: Any) -> list[Item]:
    """Read the owner's clients of the gateway.

    Raises:
        AnsibleFilterError: it is no list, or one of them has no name.
    """
    if isinstance(clients, str | Mapping) or not isinstance(clients, Iterable):
        # What it is may be a key, so it is not shown.
        raise AnsibleFilterError("ai_idp_gateway_clients is no list: write one, such as [{name: laptop}].")
    rows = [*clients]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping) or not _is_name(row.get("name")):
            # What it has beside its name may be its key.
            raise AnsibleFilterError(f"ai_idp_gateway_clients: number {number} has no name: write {{name: laptop}}.")
    return rows


def gateway_keys(clients: Iterable[Item]) -> list[str]:
    """Name the secrets that the gateway needs made: its own, and a key for each client that brings none.

    Raises:
        AnsibleFilterError: a client has no name, or its key would have that of one that is being replaced.
    """
    own = ["gateway_client_key", "gateway_password", "grafana_admin_password"]
    made = [_client_key(client["name"]) for client in _clients(clients) if "key" not in client]
    for name in made:
        if name.endswith(FORMER):
            raise AnsibleFilterError(
                f"ai_idp_gateway_clients: {name.removeprefix(_client_key(''))} is no name for a client, since "
                f"{name} is a key that is being replaced: take another."
            )
    return own + made


def gateway_clients(clients: Iterable[Item], secrets: Mapping[str, str]) -> list[Item]:
    """List the clients of the gateway: the platform's own, and the owner's.

    Args:
        clients: the owner's clients; who brings no ``key`` has one among the secrets.
        secrets: secrets by name; those that are not made yet are missing.

    Returns:
        The clients that have a ``key``. While it is replaced, the one before (``former_key``) is good beside it.
    """
    rows: list[Item] = [{"name": "owner", **_overlapping(secrets, "gateway_client_key")}]
    for client in _clients(clients):
        made = {} if client.get("key") else _overlapping(secrets, _client_key(client["name"]))
        rows.append({**dict(client.items()), **made})
    return [row for row in rows if row.get("key")]


def _overlapping(secrets: Mapping[str, str], name: str) -> Item:
    former = secrets.get(name + FORMER)
    return {"key": secrets.get(name) or "", **({"former_key": former} if former else {})}


def status_page_machines(groups: Mapping[str, Iterable[str]]) -> list[Item]:
    """Name every machine and what it is for.

    Args:
        groups: names of the hosts of every group. Groups that a playbook made (``ai_idp_*``) say nothing of a purpose.

    Returns:
        ``name`` and ``role`` of each machine, in the inventory's order.
    """
    members = {
        name: set(hosts) for name, hosts in sorted(groups.items()) if name != "all" and not name.startswith("ai_idp_")
    }
    return [
        {
            "name": str(host),
            "role": ", ".join(name.replace("_", " ") for name, hosts in members.items() if host in hosts) or "no group",
        }
        for host in groups["all"]
    ]


def status_page_services(
    gateway: str,
    engines: Iterable[Item],
    hosts: Mapping[str, Iterable[str]],
    grafana: bool,
    knowledge: Iterable[str] = (),
) -> list[Item]:
    """List the services that should be there, by the names of their scrape jobs.

    Args:
        gateway: the gateway, with whose own services the list ends.
        engines: the engines' table.
        hosts: names of the hosts of each group of the table.
        grafana: whether the gateway has Grafana.
        knowledge: which of MLflow, n8n and the vault the gateway has.
    """
    own = (*GATEWAY_JOBS, "grafana") if grafana else GATEWAY_JOBS
    jobs: dict[str, list[str]] = {}
    for row in engines:
        jobs.setdefault(row["hosts"], []).append(row["metrics"]["job"])
    return [
        *(
            {"job": job, "host": str(host)}
            for group, of_group in jobs.items()
            for host in hosts[group]
            for job in of_group
        ),
        *({"job": job, "host": str(gateway)} for job in (*own, *knowledge)),
    ]


def status_page_versions(images: Mapping[str, str], edge: Iterable[str], hostvars: HostVars) -> list[Item]:
    """List versions of programs that do not tell their version themselves.

    Args:
        images: whole name of each image, with its tag.
        edge: hosts of the edge; the build that is pinned for the first one counts.
        hostvars: variables of every host.
    """
    rows = [{"name": name, "version": images[image].rpartition(":")[2]} for image, name in IMAGE_NAMES.items()]
    first = next(iter(edge), None)
    build = hostvars[first].get("llama_cpp_build") if first is not None else None
    if build:
        rows.append({"name": "llama.cpp at the edge", "version": f"b{build}"})
    return rows


def knowledge_versions(services: Iterable[str], images: Mapping[str, str]) -> list[Item]:
    """List versions of what keeps runs and notes, as far as it comes as an image.

    Args:
        services: which of ``mlflow``, ``n8n`` and ``knowledge_vault`` are there.
        images: whole name of each image, with its tag.
    """
    return [
        {"name": KNOWLEDGE_NAMES[name], "version": images[name].rpartition(":")[2]}
        for name in services
        if name in KNOWLEDGE_NAMES
    ]


def inference_endpoints(
    ran: Iterable[str], hostvars: HostVars, engines: Iterable[Item], controllers: Iterable[str]
) -> list[Item]:
    """Describe what the inference stacks answer at, by the gates of their hosts.

    Args:
        ran: hosts that the week has run on. One without a stack told nothing (``__inference_stack_report``).
        hostvars: variables of every host.
        engines: the engines' table.
        controllers: machines that the gates admit besides the gateways.
    """
    reports = {name: hostvars[name].get("__inference_stack_report") for name in ran}
    doors, asked = _doors_by_port(engines, "gpu_servers"), _listed(controllers, "controllers")
    return [
        _behind_gate(row, doors, host_address(name, hostvars), asked)
        for name, report in reports.items()
        if report
        for row in report["endpoints"]
    ]


def _doors_by_port(engines: Iterable[Item], group: str) -> dict[int, int]:
    """Say by which door each port of a group's engines is reached."""
    rows = [row for row in engines if row["hosts"] == group]
    ports = {int(row["metrics"]["port"]): int(row["port"]) for row in rows if "port" in row["metrics"]}
    return {**ports, **{int(row["port"]): int(row["port"]) for row in rows}}


def _behind_gate(row: Item, doors: Mapping[int, int], address: str, controllers: Iterable[str]) -> Item:
    """Say where an engine is reached from other hosts.

    Args:
        row: the endpoint as the engine's own host knows it, on loopback.
        doors: as `_doors_by_port` gives them.
        address: the host's address.
        controllers: machines that the gates admit besides the gateways.

    Returns:
        The endpoint with the gate's address and the name of its key; what they were is under ``own``.
        ``reached_from`` names who is admitted, where that are not the controllers too.
    """
    host = f"[{address}]" if ":" in address else address
    own = {key: row.get(key) for key in ("url", "metrics_url", "key")}
    asked: Item = {"key": "engine_gate_key", "own": own, "reached_from": [] if [*controllers] else ["gateways"]}
    for key in ("url", "metrics_url"):
        if row.get(key):
            parts = urlsplit(str(row[key]))
            asked[key] = f"https://{host}:{doors.get(parts.port or 0, parts.port)}{parts.path}"
    return {**row, **asked}


def own_endpoints(rows: Iterable[Item], host: str) -> list[Item]:
    """List the endpoints of a host as that host itself asks them, past its gate.

    Args:
        rows: what is written down of all hosts.
        host: the host.
    """
    gate = ("own", "reached_from")
    mine = [row for row in rows if row["host"] == host]
    return [{**{key: row[key] for key in row if key not in gate}, **(row.get("own") or {})} for row in mine]


def _gateway_doors(gateways: Iterable[str], hostvars: HostVars) -> dict[str, str]:
    """Give the address that clients of each gateway ask, by a name that its certificate is for (``ai_idp_door``)."""
    addresses = host_addresses(gateways, hostvars)
    return {host: hostvars[host].get("ai_idp_door") or f"https://{address}" for host, address in addresses.items()}


def gateway_endpoints(gateways: Iterable[str], hostvars: HostVars) -> list[Item]:
    """Describe what the gateways answer at, for whoever uses it.

    Args:
        gateways: names of the gateways; one that is taken away (``nginx_gateway_state``) is left out.
        hostvars: variables of every host.

    Returns:
        Two endpoints of each gateway: vLLM, which is its root, and llama.cpp.
    """
    there = [name for name in gateways if hostvars[name].get("nginx_gateway_state") != "absent"]
    return [
        _endpoint(name, host, f"{door}{path}", health_path, key="gateway_client_key", model=None, models=[])
        for host, door in _gateway_doors(there, hostvars).items()
        for name, path, health_path in (("gateway", "", "/"), ("gateway, llama.cpp", "/llama", None))
    ]


def edge_endpoints(
    ran: Iterable[str],
    groups: Mapping[str, Iterable[str]],
    hostvars: HostVars,
    before: Iterable[Item],
    engines: Iterable[Item],
    controllers: Iterable[str],
) -> list[Item]:
    """Describe what the edge answers at, by itself and through the gateways.

    Args:
        ran: hosts that week 4 has run on. One that serves nothing told nothing (``__edge_inference_report``).
        groups: names of the hosts of every group.
        hostvars: variables of every host.
        before: the endpoints that are written down.
        engines: the engines' table.
        controllers: machines that the gates admit besides the gateways.

    Returns:
        The endpoints of these hosts. A gateway has one as long as any host of the edge serves, in this run or since an
        earlier one.
    """
    here, edge = [*ran], {*groups.get("edge", [])}
    reports = {str(host): hostvars[host].get("__edge_inference_report") for host in here if host in edge}
    doors, asked = _doors_by_port(engines, "edge"), _listed(controllers, "controllers")
    own = []
    for host, report in reports.items():
        if report:
            more = {"metrics_path": "/metrics", "key": "edge_inference_api_key", "model": report["model"]}
            row = _endpoint("edge", host, report["url"], "/health", **more)
            own.append(_behind_gate(row, doors, host_address(host, hostvars), asked))
    elsewhere = [row for row in before if row["name"] == "edge" and row["host"] in edge and row["host"] not in reports]
    if not own and not elsewhere:
        return []
    gateways = [name for name in groups.get("gateways", []) if name in here]
    return own + [
        _endpoint("gateway, edge", host, f"{door}/edge", None, key="gateway_client_key", model=None)
        for host, door in _gateway_doors(gateways, hostvars).items()
    ]


def knowledge_endpoints(host: str, services: Iterable[str], door: str) -> list[Item]:
    """Describe what keeps runs and notes, as it is reached through the gateway.

    Args:
        host: the gateway that has it.
        services: which of ``mlflow``, ``n8n`` and ``knowledge_vault`` are there.
        door: address of the gateway, by the name that its certificate has (``https://10.0.0.2``).
    """
    there = {*services}
    rows = {
        "mlflow": _endpoint("MLflow", host, f"{door}/mlflow", "/health", "http", key=None, model=None),
        "n8n": _endpoint("n8n", host, f"{door}/n8n", "/healthz/readiness", "http", key=None, model=None),
        "knowledge_vault": _endpoint(
            "vault",
            host,
            f"{door}/vault",
            None,
            "metrics",
            metrics_path="/metrics",
            key="gateway_client_key",
            model=None,
        ),
    }
    return [row for name, row in rows.items() if name in there]


def knowledge_targets(endpoints: Iterable[Item], vault_port: int) -> dict[str, list[Item]]:
    """Say what Prometheus asks of what keeps runs and notes.

    Args:
        endpoints: what ``knowledge_endpoints`` gave.
        vault_port: port of the vault's service on loopback.

    Returns:
        By job its targets: MLflow and n8n are probed at the gateway, the vault tells metrics.
    """
    there = {str(row["name"]): row for row in endpoints}
    probed = {
        name.lower(): [
            {"host": row["host"], "address": f"{row['url']}{row['health_path']}", "module": "https_ok"}
            for row in [there.get(name)]
            if row
        ]
        for name in KNOWLEDGE_NAMES.values()
    }
    vault = [_target(there["vault"]["host"], "127.0.0.1", vault_port)] if "vault" in there else []
    return {**probed, "knowledge_vault": vault}


def are_news(found: Iterable[Item], before: Iterable[Item], week: int) -> bool:
    """Tell whether a week finds other endpoints than it wrote down when it last went through.

    Args:
        found: what there is now.
        before: the endpoints that are written down.
        week: number of the week.
    """
    written = {str(row["name"]): dict(row) for row in before if row.get("week") == week}
    return written != {str(row["name"]): {**row, "week": week} for row in found}


def endpoints_after(
    before: Iterable[Item], found: Iterable[Item], week: int, ran: Iterable[str], names: Iterable[str]
) -> list[Item]:
    """Say which endpoints there are after a week has run on some of the hosts.

    Args:
        before: the endpoints that are written down.
        found: what this run has found.
        week: number of the week that has run.
        ran: hosts that it has run on, without those that failed.
        names: every host of the inventory.

    Returns:
        What was found; what other weeks wrote; and what this week wrote of hosts that it has not run on. What belongs
        to a host that the inventory has no more is dropped, and so is what a file from before weeks were told apart
        says of the hosts of this run. Sorted by host and name, so the order does not tell which week ran last.
    """
    here, known = {*ran}, {*names}
    kept = [
        dict(row)
        for row in before
        if row["host"] in known and not (row["host"] in here and row.get("week", week) == week)
    ]
    rows = kept + [{**row, "week": week} for row in found]
    return sorted(rows, key=lambda row: (str(row["host"]), str(row["name"])))


def _endpoint(name: str, host: str, url: str, health_path: str | None, kind: str = "openai", **more: Any) -> Item:
    return {
        **{"name": name, "host": host, "url": url, "health_path": health_path},
        **more,
        **{"kind": kind, "metrics_url": None, "replay": False},
    }


def measured_results(names: Iterable[str], hostvars: HostVars) -> list[Item]:
    """Collect what was measured on hosts in this run, or was known from before.

    Args:
        names: names of the hosts.
        hostvars: variables of every host; ``__benchmark_results`` are those of the role benchmark, and ``__link`` is
            what week 4 measured of the host's link.

    Returns:
        Results as ``benchmark_measure`` returns them.
    """
    return [result for name in names for result in _results_of(hostvars[name])]


def _results_of(own: Mapping[str, Any]) -> list[Item]:
    link = [own["__link"]["measurement"]] if own.get("__link") else []
    return [*(own.get("__benchmark_results") or []), *link]


def week_hosts(
    groups: Mapping[str, Iterable[str]],
    ran: Iterable[str],
    week: int,
    needs: str,
    deploys_to: Iterable[str],
    key_groups: Iterable[str],
    inventory: str,
) -> dict[str, str]:
    """Say whether a run has the hosts that a week needs; ``--limit`` may leave some out.

    Args:
        groups: names of the hosts of every group.
        ran: the hosts of the run.
        week: number of the week.
        needs: the group that the week is nothing without.
        deploys_to: groups on whose hosts the week sets something up.
        key_groups: groups that hold the keys that this run replaces; none when it replaces none.
        inventory: the inventory as it was named, for an error.

    Returns:
        ``problem``, why the run must not begin, and ``notice``, why it has nothing to do; both may be empty.
    """
    here = {*ran}
    answer = {"problem": "", "notice": ""}
    left_out = list(
        dict.fromkeys(str(host) for name in key_groups for host in groups.get(name, []) if host not in here)
    )
    if not [*groups.get(needs, [])]:
        answer["problem"] = (
            f"The inventory {inventory} has no host in the group {needs}, which week {week} is about: put one into "
            "that group in its hosts.yml."
        )
    elif left_out:
        answer["problem"] = (
            f"rotate_keys replaces keys everywhere, and --limit leaves out {', '.join(left_out)}, which would go on "
            "with the old ones: run it without --limit."
        )
    elif not any(host in here for name in deploys_to for host in groups.get(name, [])):
        answer["notice"] = (
            f"Week {week} sets up {' and '.join(deploys_to)}, and --limit leaves all of it out: there is nothing to do."
        )
    return answer


def gate_key_hosts(
    names: Iterable[str], groups: Mapping[str, Iterable[str]], hostvars: HostVars, step: str
) -> list[str]:
    """Say on which hosts a step of replacing the gates' key is due in this run.

    Args:
        names: every host of the inventory.
        groups: names of the hosts of every group.
        hostvars: variables of every host; ``__platform_secrets`` is what became of the keys, and ``__gate_key_step``
            the last step that a host has taken in this run.
        step: ``let_in`` (gates take the new key beside the old one), ``present`` (gateways use the new one) or
            ``forget`` (gates take the old one no more).

    Returns:
        Nobody as long as a host of the step before has not taken it, also because --limit leaves it out. Gateways use
        a key that was made just now at once, since there was none before.
    """
    known = {name: hostvars[name] for name in names if name in hostvars}
    keys = [own.get("__platform_secrets") or {} for own in known.values()]
    replaced = any("engine_gate_key" in told.get("overlapping", []) for told in keys)
    new = any("engine_gate_key" in told.get("made", []) for told in keys)
    edge = next((own.get("ai_idp_edge_hosts") or [] for own in known.values()), []) if replaced else []
    engines = list(dict.fromkeys([*groups.get("gpu_servers", []), *edge]))
    gateways = [*groups.get("gateways", [])]

    def taken(hosts: list[str], done: str) -> bool:
        return all((known.get(host) or {}).get("__gate_key_step") == done for host in hosts)

    if step == "let_in":
        return engines if replaced else []
    # A host may be both.
    others = [host for host in engines if host not in gateways]
    if step == "present":
        return gateways if (taken(engines, "let_in") if replaced else new) else []
    return engines if replaced and taken(gateways, "present") and taken(others, "let_in") else []


def unmeasured(measurements: Iterable[Item], results: Iterable[Item]) -> list[str]:
    """Name the measurements (``id``) of which there is no finished result."""
    known = {result["id"] for result in results if result["status"] == "ok"}
    return [measurement["id"] for measurement in measurements if measurement["id"] not in known]


def but_finished(pattern: str | Iterable[str], names: Iterable[str], hostvars: HostVars) -> str | Iterable[str]:
    """Leave those out of a pattern of hosts of which this run found everything measured.

    Args:
        pattern: as ``hosts`` of a play has it.
        names: names of all hosts.
        hostvars: variables of every host; what the role benchmark found is ``__benchmark_known``.

    Returns:
        the pattern, with what it leaves out.
    """
    if not isinstance(pattern, str):
        return pattern
    known = {name: hostvars[name].get("__benchmark_known") for name in names if name in hostvars}
    return "".join([pattern, *(f":!{name}" for name, found in known.items() if not (found or {}).get("pending"))])


def serve_anew(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """Name the hosts whose engines this run has brought or changed, so that there is something new to measure.

    Args:
        names: names of hosts.
        hostvars: variables of every host: ``__inference_stack_release`` is the step that makes a release current, and
            ``__endpoints_written`` the one that writes down where everything answers.
    """
    steps = ("__inference_stack_release", "__endpoints_written")
    return [
        name
        for name in names
        if name in hostvars and any((hostvars[name].get(step) or {}).get("changed") for step in steps)
    ]


def findings_are_current(names: Iterable[str], hostvars: HostVars) -> bool:
    """Tell whether the verdicts that this run has given know of all that it has measured.

    Args:
        names: names of the hosts.
        hostvars: variables of every host; ``__findings`` are the verdicts.

    Returns:
        False also when this run has given none.
    """
    results: list[Item] = []
    verdicts: list[Item] = []
    for own in (hostvars[name] for name in names if name in hostvars):
        results += _results_of(own)
        verdicts += [own["__findings"]] if own.get("__findings") else []
    # All that hold verdicts of this run hold the same, so one is mostly enough to look at.
    known = ({(row["host"], row["id"], row["measured_at"]) for row in given["measurements"]} for given in verdicts)
    # A host that failed since holds verdicts of before.
    return any(
        times.issuperset(
            (result["host"], result["id"], result["measured_at"]) for result in results if result["status"] == "ok"
        )
        for times in known
    )


def finding_hosts(names: Iterable[str], hostvars: HostVars) -> list[Item]:
    """Name the hosts that claims are about.

    Args:
        names: names of the hosts.
        hostvars: variables of every host; ``__hardware`` is what was read of its hardware in this run.

    Returns:
        Each host's ``groups`` and its ``hardware_fingerprint``, None when its hardware was not read.
    """
    return [
        {
            "host": str(name),
            "groups": [*own["group_names"]],
            "hardware_fingerprint": (own.get("__hardware") or {}).get("fingerprint"),
        }
        for name, own in ((name, hostvars[name]) for name in names)
    ]


def derived_findings(fits: Iterable[Item], hostvars: HostVars, bandwidth: float) -> list[Item]:
    """Say what arithmetic alone tells of the 70B model.

    Args:
        fits: results of the module model_fit, of which ``item`` is the host.
        hostvars: variables of every host; ``__hardware`` is what was read of its hardware.
        bandwidth: bytes per second of the documented host's memory.

    Returns:
        One row for each host. Where there is no GPU of its own it is about the documented hardware.
    """
    rows = []
    for fit in fits:
        gpus = hostvars[fit["item"]]["__hardware"]["gpu_info"]
        rows.append(
            {
                "claim_id": "llama-3.3-70b-hybrid",
                "host": fit["item"],
                "fit": fit,
                "host_bandwidth_bytes_per_second": bandwidth,
                "documented_hardware": bool(gpus["replayed"] or not gpus["gpus"]),
            }
        )
    return rows


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        functions = (
            *(secrets_of, with_keys_to_come),
            *(own_address, host_address, host_addresses, known_addresses, hosts_without_address),
            *(scrape_jobs, upstream_routes, firewall_rules, door_table),
            *(local_upstreams, knowledge_endpoints, knowledge_targets, knowledge_versions, are_news),
            *(catalogue_entry, model_file, llama_models, wanted_models, benchmark_peers, readiness_peers),
            *(readiness_report, replay_problems),
            *(rpc_lenders, measured_link, addresses_are_old, rpc_loans, lent_models, rpc_build_problems),
            *(edge_measurements, rpc_measurements, gateway_keys, gateway_clients),
            *(status_page_machines, status_page_services, status_page_versions),
            *(inference_endpoints, gateway_endpoints, edge_endpoints, own_endpoints, endpoints_after),
            *(finding_hosts, derived_findings),
            *(measured_results, unmeasured, findings_are_current, but_finished, serve_anew, week_hosts, gate_key_hosts),
        )
        return {function.__name__: function for function in functions}
