# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files on the controller that an earlier run wrote: where everything answers, links, locks, a recorded GPU.

Somebody may have edited one, a full disk may have cut it off. The error names the file and what to do; a template that
goes on reading would tell neither.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

Item = dict[str, Any]
# What an endpoint may have beside what it needs, and what its own host knows of it. Null is as good as nothing.
TEXTS = ("key", "model", "health_path", "metrics_path", "metrics_url")
OWN = ("url", "metrics_url", "key")
# A lock is written without brackets.
MOST_NESTED = 1000


def _json(text: str, path: str, advice: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, json.JSONDecodeError) else "it is nested too deeply, or a number too long"
        raise AnsibleFilterError(f"{path} is no JSON ({why}): {advice}") from None


def recorded_endpoints(text: str, path: str) -> list[Item]:
    """Read what the weeks wrote down of what answers where.

    Args:
        text: what is in the file.
        path: the file, for an error.

    Returns:
        The endpoints: ``name``, ``host``, ``url`` and more of each.

    Raises:
        AnsibleFilterError: the file is not as it was written.
    """
    advice = "remove it and run week 2 and the later weeks again, which write it."
    read = _json(text, path, advice)
    endpoints = read.get("endpoints") if isinstance(read, dict) else None
    needed = ("name", "host", "kind", "url")
    if not isinstance(endpoints, list) or not all(
        isinstance(one, dict) and all(isinstance(one.get(name), str) and one[name] for name in needed)
        for one in endpoints
    ):
        raise AnsibleFilterError(f"{path} has no list endpoints of name, host, kind and url: {advice}")
    odd = next((one for one in endpoints if not _is_endpoint(one)), None)
    if odd:
        raise AnsibleFilterError(
            f"{path} has an endpoint {odd['name']!r} of {odd['host']!r} that is not as it was written (own has url, "
            f"metrics_url and key, models are a list, and the rest is text): {advice}"
        )
    return endpoints


def _is_endpoint(one: Item) -> bool:
    """Whether what an endpoint has beside its name, host, kind and URL is in its form."""
    models, own = one.get("models"), one.get("own")
    return (
        _are_texts(one, TEXTS)
        and (models is None or (isinstance(models, list) and all(isinstance(name, str) for name in models)))
        and (
            own is None
            or (isinstance(own, dict) and {*own} <= {*OWN} and bool(own.get("url")) and _are_texts(own, OWN))
        )
    )


def _are_texts(entry: Item, names: tuple[str, ...]) -> bool:
    return all(entry.get(name) is None or isinstance(entry[name], str) for name in names)


def recorded_links(text: str, path: str) -> dict[str, dict[str, str]]:
    """Read which link week 4 chose for each host of the edge.

    Args:
        text: what is in the file.
        path: the file, for an error.

    Returns:
        ``address`` of the host on the link and ``client``, the other end's, by host.

    Raises:
        AnsibleFilterError: the file is not as it was written.
    """
    advice = "remove it and run week 4 again, which measures the links anew."
    read = _json(text, path, advice)
    if not isinstance(read, dict) or not all(
        isinstance(link, dict) and all(isinstance(link.get(end), str) for end in ("address", "client"))
        for link in read.values()
    ):
        raise AnsibleFilterError(f"{path} does not have address and client for each host: {advice}")
    return read


def recorded_runs(text: str, path: str) -> Item:
    """Read what was measured, as it is logged in MLflow.

    Args:
        text: what is in the file.
        path: the file, for an error.

    Returns:
        ``experiment``, its name, and ``runs``, each with ``run_name``, ``params``, ``metrics`` and ``tags``.

    Raises:
        AnsibleFilterError: the file is not as it was written.
    """
    advice = "remove it and run week 1 again, which writes it."
    read = _json(text, path, advice)
    document: Item = read if isinstance(read, dict) else {}
    runs = document.get("runs")
    if (
        not isinstance(runs, list)
        or not isinstance(document.get("experiment"), str)
        or not all(
            isinstance(run, dict)
            and isinstance(run.get("run_name"), str)
            and all(isinstance(run.get(part), dict) for part in ("params", "metrics", "tags"))
            for run in runs
        )
    ):
        raise AnsibleFilterError(f"{path} has no experiment with runs of names, params, metrics and tags: {advice}")
    return document


def measured_runs(folder: str, environment: str) -> list[Item]:
    """Find what was measured on the machines of an environment, as it is logged in MLflow.

    Week 1 leaves the figures of the environment that it measured last in the folder itself, and those of each other one
    in a folder of its name. So neither place alone tells whose they are: each run's tag does.

    Args:
        folder: where week 1 leaves what it has found.
        environment: name of the environment.

    Returns:
        for each file with runs of it: ``experiment``, ``runs`` as of ``recorded_runs``, and ``artifacts``, the text of
        the table beside it by its name.

    Raises:
        AnsibleFilterError: a file can't be read, or is not as it was written.
    """
    found = []
    for place in (Path(folder), Path(folder) / environment):
        path, table = place / "week1_mlflow.json", place / "week1_findings.csv"
        try:
            if not path.is_file():
                continue
            document = recorded_runs(path.read_text(encoding="utf-8"), str(path))
            artifacts = {table.name: table.read_text(encoding="utf-8")} if table.is_file() else {}
        except (OSError, UnicodeDecodeError) as error:
            raise AnsibleFilterError(f"{path} or {table.name} beside it can't be read: {error}") from error
        runs = [run for run in document["runs"] if run["tags"].get("environment") == environment]
        if runs:
            found.append({"experiment": document["experiment"], "runs": runs, "artifacts": artifacts})
    return found


def recorded_gpus(text: str, path: str) -> Item:
    """Read what gpu_info is to answer in place of a look at the host.

    Raises:
        AnsibleFilterError: the file is no JSON object.
    """
    advice = "name another recording in inference_stack_gpu_replay, or leave it empty."
    read = _json(text, path, advice)
    if not isinstance(read, dict):
        raise AnsibleFilterError(f"{path} is no answer of gpu_info: {advice}")
    return read


def recorded_lock(text: str, path: str) -> Item:
    """Read a lock: digests of images or hashes of models, by name; of an empty file none.

    Args:
        text: what is in the file.
        path: the file, for an error.

    Raises:
        AnsibleFilterError: it is no YAML, or not in the form of a lock. Nothing of it would be enforced.
    """
    advice = "correct it, or take it back from Git. Without it anything would be accepted."
    try:
        # The compiled parser, since roles compute this often; of what is nested without end it dies.
        if sum(text.count(mark) for mark in ("[", "{", "- - ", "? ? ")) > MOST_NESTED:
            raise ValueError
        read = yaml.load(text.encode(), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise AnsibleFilterError(f"{path} is no YAML{where}: {advice}") from None
    if read is None:
        return {}
    if not isinstance(read, dict):
        raise AnsibleFilterError(f"{path} is no mapping: {advice}")
    images, models = read.get("images") or {}, read.get("models") or {}
    if not isinstance(images, dict) or not all(isinstance(text, str) for row in images.items() for text in row):
        raise AnsibleFilterError(f"{path} does not have a digest for each of its images: {advice}")
    if not isinstance(models, dict) or not all(isinstance(name, str) and _is_locked(models[name]) for name in models):
        raise AnsibleFilterError(
            f"{path} does not have source and files, each with its sha256, of its models: {advice}"
        )
    return read


def _is_locked(model: Any) -> bool:
    """Whether an entry of a lock is one of a model."""
    files = model.get("files") if isinstance(model, dict) else None
    return isinstance(files, dict) and all(
        isinstance(path, str) and isinstance(file, dict) and isinstance(file.get("sha256"), str)
        for path, file in files.items()
    )


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        functions = (recorded_endpoints, recorded_links, measured_runs, recorded_gpus, recorded_lock)
        return {function.__name__: function for function in functions}
