# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Workflows and credentials of a running n8n, by its public API; what is there is changed only where it differs."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json, mapping_of, mappings_of, printable, why_unread
from ansible.module_utils.ai_idp.http_exchange import NoAnswer, direct, exchange

KEY_LABEL = "AI-IDP provisioning"
KEY_SCOPES = (
    "workflow:read",
    "workflow:update",
    "workflow:activate",
    "workflow:deactivate",
    # n8n counts taking something out of the archive as this.
    "workflow:delete",
    "credential:list",
    "credential:create",
    "credential:update",
)
"""What the key may do, and nothing else: no users, no settings, no executions."""

DROPPED_SETTINGS = frozenset({"binaryMode", "credentialResolverId"})
"""Settings of a workflow that the API takes and throws away."""

ADDED_TO_NODES = frozenset({"id", "webhookId"})
"""What n8n fills in where a node does not say it."""

KEY_NOTE = "key"
"""Under this the memory notes what the key may do; it is too short for an id."""

PAGE_SIZE = 100
LISTED = ("id", "name", "type", "updatedAt")
MOST_PAGES = 1000

Json = dict[str, Any]


class N8nError(Exception):
    """n8n did not do what it was asked for; the text says what and what to do."""


class Answer(NamedTuple):
    """What n8n answered: its status, its JSON (None where there is none), and the cookies that it set."""

    status: int
    body: Any
    cookies: list[str]


class Client:
    """Requests to one n8n."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.key = ""

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send one request.

        Raises:
            N8nError: nobody answers, or what answers is no n8n.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        # A proxy of the environment is not for a server of this host.
        opener = direct()
        try:
            answer = exchange(
                lambda: opener.open(
                    urllib.request.Request(self.url + path, data=data, headers=headers, method=method),
                    timeout=self.timeout,
                )
            )
        except NoAnswer as error:
            raise N8nError(f"n8n does not answer at {self.url}: {error}. See docker compose logs n8n.") from error
        try:
            told = from_json(answer.body) if answer.body else None
        except ValueError:
            told = None
        return Answer(answer.status, told, answer.headers.get_all("Set-Cookie") or [])

    def api(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask the public API, with the key."""
        return self.ask(method, f"/api/v1{path}", body, {"X-N8N-API-KEY": self.key})

    def wanted(self, purpose: str, method: str, path: str, body: Any = None) -> Any:
        """Ask the public API for something that must succeed; returns its JSON."""
        answer = self.api(method, path, body)
        if answer.status >= 300:
            raise refused(purpose, answer)
        return answer.body


@contextlib.contextmanager
def understood(purpose: str) -> Iterator[None]:
    """Where an answer has another form than n8n's, say whose it is.

    Raises:
        N8nError: it has.
    """
    try:
        yield
    except WRONG_SHAPE as error:
        raise N8nError(
            f"What answers is no n8n that this platform knows: {purpose} has another form ({type(error).__name__}). "
            "Check the port, and the version in playbooks/group_vars/all/versions.yml."
        ) from error


def refused(purpose: str, answer: Answer) -> N8nError:
    """The error of an answer that is a refusal."""
    said = answer.body.get("message") if isinstance(answer.body, dict) else None
    return N8nError(f"n8n refuses {purpose} with status {answer.status}: {said or 'no reason given'}")


def find_key(client: Client, stored: str) -> bool:
    """Take the stored key if n8n still knows it; returns whether it does."""
    client.key = stored
    if not stored:
        return False
    answer = client.api("GET", "/credentials?limit=1")
    if answer.status in (401, 403):
        client.key = ""
        return False
    if answer.status != 200:
        raise refused("its list of credentials", answer)
    return True


def make_key(client: Client, email: str, password: str) -> str:
    """Log in as the owner and make an API key, in the place of an earlier one of the same name.

    Raises:
        N8nError: n8n refuses.
    """
    answer = client.ask("POST", "/rest/login", {"emailOrLdapLoginId": email, "password": password})
    if answer.status != 200:
        raise N8nError(
            f"{refused(f'to let {email} in', answer)} Where the owner uses a second factor, switch it off for this one"
            " run, or make an API key by hand and put it into the file that api_key_file names."
        )
    cookie = {"Cookie": "; ".join(text.partition(";")[0] for text in answer.cookies)}
    answer = client.ask("GET", "/rest/api-keys", headers=cookie)
    if answer.status != 200:
        raise refused("its list of API keys", answer)
    for known in _items(answer.body):
        if known.get("label") == KEY_LABEL:
            client.ask("DELETE", f"/rest/api-keys/{urllib.parse.quote(str(known.get('id')))}", headers=cookie)
    body = {"label": KEY_LABEL, "expiresAt": None, "scopes": list(KEY_SCOPES)}
    answer = client.ask("POST", "/rest/api-keys", body, cookie)
    key = mapping_of(mapping_of(answer.body).get("data")).get("rawApiKey")
    if not key:
        raise refused("an API key", answer)
    client.ask("POST", "/rest/logout", {}, cookie)
    client.key = str(key)
    return client.key


def _items(body: Any) -> list[Json]:
    """The entries of a list, however deep the internal API wraps it."""
    while isinstance(body, dict):
        body = body.get("data", body.get("items"))
    return mappings_of(body)


def credentials(client: Client) -> dict[str, Json]:
    """Every credential by its id, without what is inside."""
    found: dict[str, Json] = {}
    cursor, purpose = "", "its list of credentials"
    for _ in range(MOST_PAGES):
        page = client.wanted(purpose, "GET", f"/credentials?limit={PAGE_SIZE}{cursor}")
        with understood(purpose):
            found.update({entry["id"]: {key: entry[key] for key in LISTED} for entry in page["data"]})
            if not page.get("nextCursor"):
                return found
            cursor = "&cursor=" + urllib.parse.quote(page["nextCursor"])
    raise N8nError(f"n8n's list of credentials does not end within {MOST_PAGES} pages: is it n8n that answers?")


def workflow(client: Client, workflow_id: str) -> Json | None:
    """A workflow, or None where there is none of this id."""
    answer = client.api("GET", f"/workflows/{urllib.parse.quote(workflow_id)}")
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise refused(f"the workflow {workflow_id}", answer)
    with understood(f"the workflow {workflow_id}"):
        found = {**answer.body}
        return {**found, "nodes": mappings_of(found.get("nodes")), "settings": mapping_of(found.get("settings"))}


def body_of(wanted: Json) -> Json:
    """What the API takes of a workflow; what the running workflow remembers (staticData) is left alone."""
    content = wanted["content"]
    body = {
        "name": wanted["name"],
        "nodes": content["nodes"],
        "connections": content["connections"],
        "settings": content.get("settings") or {},
    }
    return {**body, "nodeGroups": content["nodeGroups"]} if content.get("nodeGroups") else body


def _is_node(wanted: Json, current: Json) -> bool:
    """Whether a node says what is wanted, and no more than n8n adds; one that is switched off says more."""
    more = {key for key, value in current.items() if key not in wanted and value}
    return more <= ADDED_TO_NODES and all(current.get(key) == value for key, value in wanted.items())


def differences(wanted: Json, current: Json) -> list[str]:
    """Say in which parts a workflow differs from what is wanted; n8n's own additions are no difference.

    Args:
        wanted: ``name`` and ``content`` (nodes, connections, settings).
        current: the workflow as n8n returns it.
    """
    body, found = body_of(wanted), []
    if body["name"] != current.get("name"):
        found.append("name")
    there = {str(node.get("name")): node for node in current.get("nodes") or []}
    for node in body["nodes"]:
        other = there.pop(str(node.get("name")), None)
        if other is None or not _is_node(node, other):
            found.append(f"node {node.get('name')}")
    found += [f"node {name} (not ours)" for name in there]
    if body["connections"] != current.get("connections"):
        found.append("connections")
    settings = current.get("settings") or {}
    found += [
        f"setting {key}"
        for key, value in body["settings"].items()
        if key not in DROPPED_SETTINGS and settings.get(key) != value
    ]
    if body.get("nodeGroups", current.get("nodeGroups")) != current.get("nodeGroups"):
        found.append("node groups")
    return found


def is_published(current: Json) -> bool:
    """Whether the version that runs is the one that is seen."""
    return bool(current.get("active")) and current.get("activeVersionId") == current.get("versionId")


def plan(wanted: Json, current: Json | None) -> list[str]:
    """What has to be done with one workflow, in order; an empty list where nothing has."""
    if wanted.get("stopped"):
        return ["deactivate"] if current and current.get("active") else []
    if current is None:
        return ["create", "activate"] if wanted["active"] else ["create"]
    steps = ["restore"] if current.get("isArchived") else []
    if differences(wanted, current):
        steps.append("update")
    # One that shall not be active is left as it is: only one that was stopped is ever deactivated.
    if wanted["active"] and (steps or not is_published(current)):
        steps.append("activate")
    return steps


def import_document(workflows: Iterable[Json]) -> str:
    """The workflows as n8n's own import takes them: with the ids that the API does not let anybody choose."""
    return json.dumps([{**body_of(one), "id": one["id"], "active": False} for one in workflows])


def carry_out(client: Client, wanted: Json, steps: list[str]) -> None:
    """Do with one workflow what was planned, the import aside."""
    path, name = f"/workflows/{urllib.parse.quote(wanted['id'])}", wanted["name"]
    if "deactivate" in steps:
        client.wanted(f"to deactivate the workflow {name}", "POST", f"{path}/deactivate", {})
    if "restore" in steps:
        client.wanted(f"to take the workflow {name} out of the archive", "POST", f"{path}/unarchive")
    if "update" in steps:
        client.wanted(f"the workflow {name}", "PUT", path, body_of(wanted))
    if "activate" in steps and not is_published(workflow(client, wanted["id"]) or {}):
        client.wanted(f"to activate the workflow {name}", "POST", f"{path}/activate", {})


def fingerprint(secret: str, credential: Json) -> str:
    """Stands for a credential's content without telling it; n8n never gives the content back to be compared."""
    text = json.dumps([credential["name"], credential["type"], credential["data"]], sort_keys=True)
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def credential_step(wanted: Json, current: Json | None, remembered: Json | None, mark: str) -> str:
    """What has to be done with one credential: ``create``, ``update`` or nothing.

    Args:
        wanted: the credential.
        current: how n8n lists it, or None.
        remembered: what was noted when it was last written: its ``mark`` and n8n's ``updated_at``.
        mark: its fingerprint now.
    """
    if current is None:
        return "create"
    same = (
        remembered is not None
        and remembered.get("mark") == mark
        and remembered.get("updated_at") == current["updatedAt"]
        and (current["name"], current["type"]) == (wanted["name"], wanted["type"])
    )
    return "" if same else "update"


def write_credential(client: Client, wanted: Json, step: str) -> str:
    """Create or change a credential; returns when n8n says it was changed."""
    body = {key: wanted[key] for key in ("name", "type", "data")}
    if step == "create":
        answer = client.wanted(f"the credential {wanted['name']}", "POST", "/credentials", {**body, "id": wanted["id"]})
    else:
        path = f"/credentials/{urllib.parse.quote(wanted['id'])}"
        answer = client.wanted(f"the credential {wanted['name']}", "PATCH", path, body)
    with understood(f"the credential {wanted['name']}"):
        return str(answer["updatedAt"])


def check_wanted(workflows: list[Json], wanted_credentials: list[Json]) -> list[str]:
    """Every mistake in what is wanted, each as a sentence that says what to do."""
    problems = []
    for kind, entries in (("workflow", workflows), ("credential", wanted_credentials)):
        ids = [entry["id"] for entry in entries]
        problems += [
            f"The id {one} is given to more than one {kind}: give each its own."
            for one in sorted(set(ids))
            if ids.count(one) > 1
        ]
    for one in workflows:
        if one.get("stopped"):
            continue
        missing = [key for key in ("nodes", "connections") if key not in one["content"]]
        if missing:
            problems.append(
                f"The content of the workflow {one['name']} lacks {' and '.join(missing)}: export it from n8n again."
            )
            continue
        names = [node.get("name") for node in one["content"]["nodes"]]
        if len(set(names)) != len(names):
            problems.append(f"The workflow {one['name']} has two nodes of one name: rename one.")
    return problems


def read_private(path: str) -> str:
    """Text of a file, or nothing where there is none.

    Raises:
        N8nError: it can't be read, or is no text.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise N8nError(f"{path} can't be read: {why_unread(error)}. Correct or remove it, then run again.") from error


def read_memory(path: str) -> dict[str, Json]:
    """What was noted of workflows and credentials by their ids; nothing of a file that can't be read as such.

    Without it a run writes credentials once more, which is right for a file that was damaged, too.
    """
    try:
        memory = mapping_of(from_json(read_private(path) or "{}"))
    except (N8nError, ValueError):
        return {}
    return {key: value for key, value in memory.items() if isinstance(value, dict)}


def key_matches(path: str, key: str) -> bool | None:
    """Tell whether n8n's data was made with a key.

    Args:
        path: the file ``config`` that n8n keeps beside its data.
        key: the encryption key.

    Returns:
        None where there is no data yet.

    Raises:
        N8nError: the file can't be read, or is not as n8n writes it.
    """
    text = read_private(path)
    if not text:
        return None
    try:
        known = from_json(text)["encryptionKey"]
    except WRONG_SHAPE:
        raise N8nError(f"{path} names no encryption key as n8n writes it: put back the one of a backup.") from None
    return hmac.compare_digest(printable(str(known)).encode(), key.encode())


def write_private(path: str, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all.

    Raises:
        N8nError: it can't be written.
    """
    temporary = f"{path}.new"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise N8nError(f"{path} can't be written: {error.strerror}.") from error


class Provisioned(NamedTuple):
    """What was done, or would be."""

    changed: bool
    workflows: list[Json]
    credentials: list[Json]


def edit_of(wanted: Json, current: Json | None, remembered: Json | None) -> str:
    """Say what somebody changed of a workflow since a run left it; empty when nothing, or when nobody can tell.

    n8n's own number of a version tells less: a new name or another setting gets none.

    Args:
        wanted: the workflow.
        current: the workflow as n8n returns it.
        remembered: what was noted when a run left it: ``left``, its ``name`` and ``content`` as they were wanted then.
    """
    if current is None or wanted.get("stopped"):
        return ""
    try:
        left = mapping_of((remembered or {})["left"])
        # What is as it is wanted is not put back, whoever brought it about.
        what = differences(left, current) if differences(wanted, current) else []
    except WRONG_SHAPE:
        return ""
    if current.get("isArchived"):
        what.append("in the archive")
    elif wanted["active"] and not is_published(current):
        what.append("not active as it is")
    if not what:
        return ""
    return (
        f"The workflow {wanted['name']} was changed in n8n ({', '.join(what)}) and is put back. Keep a copy under "
        "another name to change it."
    )


def note_of(wanted: Json) -> Json:
    """What is noted of a workflow that a run leaves as it is wanted."""
    return {"left": {"name": wanted["name"], "content": wanted["content"]}}


def provision(
    client: Client,
    workflows: list[Json],
    wanted_credentials: list[Json],
    memory: dict[str, Json],
    secret: str,
    run_import: Callable[[str], None],
    tell: Callable[[str], None],
    *,
    check: bool,
) -> Provisioned:
    """Bring n8n to what is wanted, and touch nothing else.

    Args:
        client: n8n, with a key.
        workflows: ``id``, ``name``, ``content`` and ``active`` of each.
        wanted_credentials: ``id``, ``name``, ``type`` and ``data`` of each.
        memory: what was noted of each credential and workflow by its id; changed in place.
        secret: what the fingerprints of credentials are made with.
        run_import: hands a document to n8n's own import.
        tell: takes what somebody had changed in n8n, a sentence each, before any of it is put back.
        check: only say what would be done.
    """
    done_workflows = []
    for one in workflows:
        current = workflow(client, one["id"])
        steps = plan(one, current)
        parts = differences(one, current) if current and not one.get("stopped") else []
        done_workflows.append({"id": one["id"], "name": one["name"], "steps": steps, "differences": parts})
        # First of all: what fails later must not keep it back, since the next run may not know any more.
        if edit := edit_of(one, current, memory.get(one["id"])):
            tell(edit)
    done_credentials = []
    known = credentials(client) if wanted_credentials else {}
    for one in wanted_credentials:
        mark = fingerprint(secret, one)
        step = credential_step(one, known.get(one["id"]), memory.get(one["id"]), mark)
        if step and not check:
            memory[one["id"]] = {"mark": mark, "updated_at": write_credential(client, one, step)}
        done_credentials.append({"id": one["id"], "name": one["name"], "steps": [step] if step else []})
    new = [one for one, done in zip(workflows, done_workflows, strict=True) if "create" in done["steps"]]
    if not check:
        if new:
            run_import(import_document(new))
        for one, done in zip(workflows, done_workflows, strict=True):
            carry_out(client, one, done["steps"])
            if one.get("stopped"):
                # So that nobody is taken to have deactivated it when it comes back.
                memory.pop(one["id"], None)
            else:
                memory[one["id"]] = note_of(one)
    changed = any(entry["steps"] for entry in done_credentials + done_workflows)
    return Provisioned(changed, done_workflows, done_credentials)
