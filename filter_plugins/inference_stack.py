"""Filters of the role inference_stack, for what would be unreadable in Jinja."""

from typing import Any


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
            "with_keys": with_keys,
            "endpoint_report": endpoint_report,
        }
