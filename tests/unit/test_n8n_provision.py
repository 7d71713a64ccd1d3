"""Workflows and credentials in n8n: what is compared, what is done, and what a small n8n of our own sees of it."""

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import n8n_provision
import pytest
from ansible.module_utils.ai_idp import n8n
from ansible.module_utils.testing import patch_module_args

Json = dict[str, Any]
PASSWORD = "not-a-secret-Password-1"


def node(name: str, **more: Any) -> Json:
    return {"name": name, "type": "n8n-nodes-base.noOp", "typeVersion": 1, "position": [0, 0], "parameters": {}, **more}


def wanted(workflow_id: str = "aiIdpTest0001", **more: Any) -> Json:
    content = {"nodes": [node("A"), node("B")], "connections": {"A": {"main": [[]]}}, "settings": {"timezone": "UTC"}}
    return {"id": workflow_id, "name": "Test", "content": content, "active": True, **more}


def there(one: Json, **more: Any) -> Json:
    """The workflow as n8n tells of it, with what it adds by itself."""
    body = n8n.body_of(one)
    body["nodes"] = [{**entry, "id": f"made-up-{entry['name']}"} for entry in body["nodes"]]
    body["settings"] = {**body["settings"], "callerPolicy": "workflowsFromSameOwner"}
    version = {"versionId": "v1", "activeVersionId": "v1", "active": True}
    return {**body, "id": one["id"], "isArchived": False, "staticData": {"seen": 7}, **version, **more}


CREDENTIAL = {
    "id": "aiIdpCred0001",
    "name": "Model",
    "type": "httpHeaderAuth",
    "data": {"name": "X", "value": "s3cr3t"},
}


class FakeN8n:
    """The few paths that the module asks for, with n8n's rules about ids, drafts and keys."""

    def __init__(self) -> None:
        self.workflows: dict[str, Json] = {}
        self.credentials: dict[str, Json] = {}
        self.contents: dict[str, Json] = {}
        self.keys: dict[str, str] = {}
        self.made = 0
        self.clock = 0
        self.page_size = 100
        self.seen: list[tuple[str, str, Any]] = []
        self.refuse: dict[str, tuple[int, Json]] = {}

    def tick(self) -> str:
        self.clock += 1
        return f"2026-11-24T00:00:{self.clock:02}.000Z"

    def answer(self, method: str, path: str, query: str, body: Any, headers: Any) -> tuple[int, Any, str]:
        if path in self.refuse:
            return (*self.refuse[path], "")
        if path.startswith("/rest/"):
            return self.rest(method, path, body, headers)
        if headers["X-N8N-API-KEY"] not in self.keys.values():
            return 401, {"message": "unauthorized"}, ""
        parts = path.removeprefix("/api/v1/").split("/")
        return (*(self.credential if parts[0] == "credentials" else self.workflow)(method, parts, query, body), "")

    def rest(self, method: str, path: str, body: Any, headers: Any) -> tuple[int, Any, str]:
        if path == "/rest/login":
            good = body == {"emailOrLdapLoginId": "owner@test.lan", "password": PASSWORD}
            return (200, {"data": {}}, "n8n-auth=session; Path=/; Secure") if good else (401, {"message": "wrong"}, "")
        if headers["Cookie"] != "n8n-auth=session":
            return 401, {"message": "Unauthorized"}, ""
        if method == "DELETE":
            del self.keys[path.rpartition("/")[2]]
        elif method == "POST" and path == "/rest/api-keys":
            self.made += 1
            self.keys[str(self.made)] = f"raw-key-{self.made}"
            return 200, {"data": {"rawApiKey": f"raw-key-{self.made}"}}, ""
        return 200, {"data": {"items": [{"id": one, "label": n8n.KEY_LABEL} for one in self.keys]}}, ""

    def credential(self, method: str, parts: list[str], query: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            start = int(query.partition("cursor=")[2] or 0)
            page = list(self.credentials.values())[start : start + self.page_size]
            more = start + self.page_size < len(self.credentials)
            return 200, {"data": page, "nextCursor": str(start + self.page_size) if more else None}
        one = body["id"] if method == "POST" else parts[1]
        entry = {"id": one, "name": body["name"], "type": body["type"], "updatedAt": self.tick()}
        self.credentials[one], self.contents[one] = entry, body["data"]
        return 200, entry

    def workflow(self, method: str, parts: list[str], _query: str, body: Any) -> tuple[int, Any]:
        current = self.workflows.get(parts[1])
        if current is None:
            return 404, {"message": "Not Found"}
        if method == "PUT":
            if unknown := set(body) - {"name", "nodes", "connections", "settings", "nodeGroups"}:
                return 400, {"message": f"must NOT have additional properties: {sorted(unknown)}"}
            # As n8n does it: neither a new name nor another setting makes a version.
            parts_of_version = ("nodes", "connections", "nodeGroups")
            if any(body.get(part) != current.get(part) for part in parts_of_version):
                current["versionId"] = self.tick()
            current.update(body)
        elif parts[2:] == ["deactivate"]:
            current.update(active=False, activeVersionId=None)
        elif parts[2:] == ["activate"]:
            current.update(active=True, activeVersionId=current["versionId"])
        elif parts[2:] == ["unarchive"]:
            current["isArchived"] = False
        return 200, current

    def run_import(self, document: str) -> None:
        for one in json.loads(document):
            assert one["id"] not in self.workflows, "an import takes the webhooks of what is there"
            self.workflows[one["id"]] = {**one, "isArchived": False, "versionId": "v1", "activeVersionId": None}


@pytest.fixture
def fake() -> FakeN8n:
    return FakeN8n()


@pytest.fixture
def client(fake: FakeN8n) -> Iterator[n8n.Client]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(text) if text else None
            path, _mark, query = self.path.partition("?")
            fake.seen.append((self.command, path, body))
            status, answer, cookie = fake.answer(self.command, path, query, body, self.headers)
            self.send_response(status)
            if cookie:
                self.send_header("Set-Cookie", cookie)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, format: str, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield n8n.Client(f"http://127.0.0.1:{server.server_port}/", 5)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def known(fake: FakeN8n, client: n8n.Client) -> n8n.Client:
    """A client whose key n8n knows."""
    fake.keys["1"] = "raw-key"
    assert n8n.find_key(client, "raw-key")
    fake.seen.clear()
    return client


def run(
    fake: FakeN8n,
    client: n8n.Client,
    workflows: list[Json],
    credentials: list[Json],
    memory: Json,
    check: bool = False,
    told: list[str] | None = None,
) -> n8n.Provisioned:
    tell = ([] if told is None else told).append
    return n8n.provision(client, workflows, credentials, memory, PASSWORD, fake.run_import, tell, check=check)


def changes(fake: FakeN8n) -> list[tuple[str, str]]:
    return [(method, path) for method, path, _body in fake.seen if method != "GET"]


def test_what_n8n_adds_is_no_difference() -> None:
    assert n8n.differences(wanted(), there(wanted())) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"name": "Renamed"}, ["name"]),
        ({"nodes": [node("A")]}, ["node B"]),
        ({"nodes": [node("A"), node("B", parameters={"x": 1})]}, ["node B"]),
        ({"nodes": [node("A"), node("B"), node("C")]}, ["node C (not ours)"]),
        ({"nodes": [node("A"), node("B", disabled=True)]}, ["node B"]),
        ({"nodes": [node("A"), node("B", disabled=False, webhookId="x")]}, []),
        ({"connections": {}}, ["connections"]),
        ({"settings": {"timezone": "Europe/Berlin"}}, ["setting timezone"]),
    ],
)
def test_a_difference_is_named(change: Json, found: list[str]) -> None:
    assert n8n.differences(wanted(), there(wanted(), **change)) == found


def test_a_setting_that_n8n_throws_away_is_no_difference() -> None:
    one = wanted()
    one["content"]["settings"]["binaryMode"] = "separate"
    assert n8n.differences(one, there(wanted())) == []


@pytest.mark.parametrize(
    ("active", "state", "steps"),
    [
        (True, {}, []),
        (True, {"active": False, "activeVersionId": None}, ["activate"]),
        # The owner saved a draft and did not publish it.
        (True, {"versionId": "v2"}, ["activate"]),
        (True, {"name": "Renamed"}, ["update", "activate"]),
        (True, {"isArchived": True, "active": False}, ["restore", "activate"]),
        # Nothing is ever deactivated.
        (False, {}, []),
        (False, {"name": "Renamed"}, ["update"]),
    ],
)
def test_only_what_differs_is_done(active: bool, state: Json, steps: list[str]) -> None:
    assert n8n.plan(wanted(active=active), there(wanted(), **state)) == steps


def test_what_is_new_is_imported_and_activated(fake: FakeN8n, known: n8n.Client) -> None:
    idle = wanted("aiIdpTest0002", active=False)
    result = run(fake, known, [wanted(), idle], [], {})
    assert result.changed
    assert [one["steps"] for one in result.workflows] == [["create", "activate"], ["create"]]
    assert fake.workflows["aiIdpTest0001"]["active"]
    assert not fake.workflows["aiIdpTest0002"]["active"]
    assert not run(fake, known, [wanted(), idle], [], {}).changed


def test_a_second_run_changes_nothing_and_leaves_others_alone(fake: FakeN8n, known: n8n.Client) -> None:
    fake.workflows = {"aiIdpTest0001": there(wanted()), "theOwners0001": there(wanted("theOwners0001"), name="Mine")}
    memory: Json = {}
    run(fake, known, [wanted()], [CREDENTIAL], memory)
    fake.seen.clear()
    result = run(fake, known, [wanted()], [CREDENTIAL], memory)
    assert not result.changed
    assert changes(fake) == []
    assert not any("theOwners0001" in path for _method, path, _body in fake.seen)


def test_an_edit_is_undone_and_what_the_workflow_remembers_stays(fake: FakeN8n, known: n8n.Client) -> None:
    fake.workflows = {"aiIdpTest0001": there(wanted(), name="Renamed")}
    result = run(fake, known, [wanted()], [], {})
    assert result.workflows[0]["differences"] == ["name"]
    assert fake.workflows["aiIdpTest0001"]["name"] == "Test"
    assert fake.workflows["aiIdpTest0001"]["staticData"] == {"seen": 7}
    assert n8n.is_published(fake.workflows["aiIdpTest0001"])


def test_an_archived_workflow_comes_back(fake: FakeN8n, known: n8n.Client) -> None:
    fake.workflows = {"aiIdpTest0001": there(wanted(), isArchived=True, active=False)}
    run(fake, known, [wanted()], [], {})
    assert changes(fake) == [
        ("POST", "/api/v1/workflows/aiIdpTest0001/unarchive"),
        ("POST", "/api/v1/workflows/aiIdpTest0001/activate"),
    ]


def test_check_mode_says_it_and_does_nothing(fake: FakeN8n, known: n8n.Client) -> None:
    fake.workflows = {"aiIdpTest0001": there(wanted(), name="Renamed")}
    memory: Json = {}
    result = run(fake, known, [wanted(), wanted("aiIdpTest0002")], [CREDENTIAL], memory, check=True)
    assert [one["steps"] for one in result.workflows] == [["update", "activate"], ["create", "activate"]]
    assert [one["steps"] for one in result.credentials] == [["create"]]
    assert changes(fake) == []
    assert memory == {}


def test_a_credential_is_written_when_it_changed_here_or_there(fake: FakeN8n, known: n8n.Client) -> None:
    memory: Json = {}
    assert run(fake, known, [], [CREDENTIAL], memory).credentials[0]["steps"] == ["create"]
    assert fake.contents["aiIdpCred0001"] == CREDENTIAL["data"]
    assert run(fake, known, [], [CREDENTIAL], memory).credentials[0]["steps"] == []
    other = {**CREDENTIAL, "data": {"name": "X", "value": "another"}}
    assert run(fake, known, [], [other], memory).credentials[0]["steps"] == ["update"]
    assert fake.contents["aiIdpCred0001"]["value"] == "another"
    fake.credentials["aiIdpCred0001"]["updatedAt"] = "changed by the owner"
    assert run(fake, known, [], [other], memory).credentials[0]["steps"] == ["update"]
    # Without what was noted nobody knows what is inside.
    assert run(fake, known, [], [other], {}).credentials[0]["steps"] == ["update"]
    assert "another" not in json.dumps(memory)


def test_every_page_of_credentials_is_read(fake: FakeN8n, known: n8n.Client) -> None:
    fake.page_size = 2
    for number in range(5):
        fake.credentials[str(number)] = {"id": str(number), "name": "x", "type": "y", "updatedAt": ""}
    assert list(n8n.credentials(known)) == ["0", "1", "2", "3", "4"]


def test_a_key_is_made_once_and_replaces_an_earlier_one(fake: FakeN8n, client: n8n.Client) -> None:
    fake.keys["7"] = "lost"
    assert not n8n.find_key(client, "")
    assert not n8n.find_key(client, "unknown")
    key = n8n.make_key(client, "owner@test.lan", PASSWORD)
    assert list(fake.keys.values()) == [key]
    assert n8n.find_key(client, key)


def test_a_refused_owner_is_told_what_to_do(fake: FakeN8n, client: n8n.Client) -> None:
    with pytest.raises(n8n.N8nError, match=r"let owner@test.lan in with status 401: wrong.*second factor"):
        n8n.make_key(client, "owner@test.lan", "not it")
    assert fake.keys == {}


def test_a_refusal_carries_n8ns_reason(fake: FakeN8n, known: n8n.Client) -> None:
    fake.workflows = {"aiIdpTest0001": there(wanted(), active=False)}
    fake.refuse["/api/v1/workflows/aiIdpTest0001/activate"] = (409, {"message": "webhook path is taken"})
    with pytest.raises(n8n.N8nError, match=r"activate the workflow Test with status 409: webhook path is taken"):
        run(fake, known, [wanted()], [], {})


def test_nobody_there_is_one_sentence() -> None:
    with pytest.raises(n8n.N8nError, match=r"does not answer at http://127.0.0.1:1:"):
        n8n.Client("http://127.0.0.1:1", 1).ask("GET", "/")


def test_what_is_noted_before_a_failure_stays_noted(fake: FakeN8n, known: n8n.Client) -> None:
    memory: Json = {}
    fake.workflows = {"aiIdpTest0001": there(wanted(), active=False)}
    fake.refuse["/api/v1/workflows/aiIdpTest0001/activate"] = (500, {})
    with pytest.raises(n8n.N8nError, match="no reason given"):
        run(fake, known, [wanted()], [CREDENTIAL], memory)
    assert list(memory) == ["aiIdpCred0001"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        # Another version of the same is none: the editor saves what it shows.
        ({"versionId": "v7", "activeVersionId": "v7"}, ""),
        ({"versionId": "v7", "activeVersionId": "v7", "connections": {}}, "(connections)"),
        # These two make no version.
        ({"name": "Mine"}, "(name)"),
        ({"settings": {"timezone": "Asia/Tokyo"}}, "(setting timezone)"),
        ({"settings": {"timezone": "UTC", "errorWorkflow": "mine"}}, ""),
        ({"versionId": "v7"}, "(not active as it is)"),
        ({"active": False}, "(not active as it is)"),
        ({"isArchived": True, "active": False}, "(in the archive)"),
    ],
)
def test_who_changed_a_workflow_in_n8n_is_told(fake: FakeN8n, known: n8n.Client, change: Json, words: str) -> None:
    memory: Json = {}
    first: list[str] = []
    run(fake, known, [wanted()], [], memory, told=first)
    fake.workflows["aiIdpTest0001"].update(change)
    for check in (True, False):
        said: list[str] = []
        run(fake, known, [wanted()], [], memory, check, told=said)
        assert len(said) == bool(words)
        assert words in "".join(said)
    run(fake, known, [wanted()], [], memory, told=first)
    assert first == []


def test_an_edit_is_told_before_it_is_put_back_and_also_where_the_run_fails_later(
    fake: FakeN8n, known: n8n.Client
) -> None:
    memory: Json = {}
    run(fake, known, [wanted()], [], memory)
    fake.workflows["aiIdpTest0001"].update(name="Mine", active=False)
    fake.refuse["/api/v1/workflows/aiIdpTest0001/activate"] = (500, {})
    fake.seen.clear()
    told: list[tuple[str, list[tuple[str, str]]]] = []
    with pytest.raises(n8n.N8nError, match="no reason given"):
        n8n.provision(
            known,
            [wanted()],
            [CREDENTIAL],
            memory,
            PASSWORD,
            fake.run_import,
            lambda edit: told.append((edit, changes(fake))),
            check=False,
        )
    [(edit, before)] = told
    assert "(name, not active as it is)" in edit
    assert before == []


def test_what_is_as_wanted_was_edited_by_nobody_whoever_brought_it_about(fake: FakeN8n, known: n8n.Client) -> None:
    """A run that was cut off after it had written has noted nothing."""
    memory: Json = {}
    run(fake, known, [wanted()], [], memory)
    fake.workflows["aiIdpTest0001"].update(name="Renamed")
    told: list[str] = []
    assert not run(fake, known, [wanted(name="Renamed")], [], memory, told=told).changed
    assert told == []


def test_a_note_that_was_damaged_or_of_a_former_release_tells_nothing(fake: FakeN8n, known: n8n.Client) -> None:
    for note in ({"version": "v1"}, {"left": []}, {"left": {"name": "Test", "content": {"nodes": 1}}}, {}):
        fake.workflows = {"aiIdpTest0001": there(wanted(), name="Mine")}
        told: list[str] = []
        assert run(fake, known, [wanted()], [], {"aiIdpTest0001": note}, told=told).changed
        assert told == []


def test_what_is_stopped_is_deactivated_once_and_comes_back_unremarked(fake: FakeN8n, known: n8n.Client) -> None:
    memory: Json = {}
    stopped = {"id": "aiIdpTest0001", "name": "Test", "content": {}, "active": True, "stopped": True}
    assert n8n.check_wanted([stopped], []) == []
    assert not run(fake, known, [stopped], [], memory).changed
    assert fake.workflows == {}
    run(fake, known, [wanted()], [], memory)
    fake.seen.clear()
    assert run(fake, known, [stopped], [], memory, check=True).workflows[0]["steps"] == ["deactivate"]
    assert changes(fake) == []
    assert run(fake, known, [stopped], [], memory).changed
    assert changes(fake) == [("POST", "/api/v1/workflows/aiIdpTest0001/deactivate")]
    assert not fake.workflows["aiIdpTest0001"]["active"]
    assert not run(fake, known, [stopped], [], memory).changed
    told: list[str] = []
    run(fake, known, [wanted()], [], memory, told=told)
    assert told == []
    assert n8n.is_published(fake.workflows["aiIdpTest0001"])


def test_a_workflow_that_the_platform_changed_was_edited_by_nobody(fake: FakeN8n, known: n8n.Client) -> None:
    memory: Json = {}
    run(fake, known, [wanted()], [], memory)
    told: list[str] = []
    result = run(fake, known, [wanted(name="Renamed")], [], memory, told=told)
    assert result.changed
    assert told == []


def test_mistakes_are_named_together() -> None:
    broken = wanted("aiIdpTest0003", name="Broken", content={"nodes": []})
    twice = wanted("aiIdpTest0004", name="Twice")
    twice["content"]["nodes"] = [node("A"), node("A")]
    problems = n8n.check_wanted([wanted(), wanted(), broken, twice], [CREDENTIAL])
    assert [problem.split(":")[0] for problem in problems] == [
        "The id aiIdpTest0001 is given to more than one workflow",
        "The content of the workflow Broken lacks connections",
        "The workflow Twice has two nodes of one name",
    ]


def test_private_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert n8n.read_private(str(path)) == ""
    n8n.write_private(str(path), "one\n")
    n8n.write_private(str(path), "two\n")
    assert n8n.read_private(str(path)) == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_memory_that_was_damaged_is_none(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    assert n8n.read_memory(str(path)) == {}
    for text, memory in (("{", {}), ("[]", {}), ('{"a": {}}', {"a": {}})):
        path.write_text(text)
        assert n8n.read_memory(str(path)) == memory


def test_data_of_another_key_is_known_before_anything_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "config"
    assert n8n.key_matches(str(path), "one") is None
    path.write_text('{"encryptionKey": "one"}')
    assert n8n.key_matches(str(path), "one") is True
    assert n8n.key_matches(str(path), "another") is False
    path.write_text('{"hidden": "one"}')
    with pytest.raises(n8n.N8nError, match="names no encryption key as n8n writes it") as error:
        n8n.key_matches(str(path), "one")
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("check", [False, True])
def test_the_module_asks_as_a_stranger_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    monkeypatch.setattr(n8n_provision, "run", lambda _module: (n8n.Provisioned(False, [], []), False))
    monkeypatch.setattr(n8n_provision, "ask_until_right", lambda asks, _seconds: [f"{asks[0].name}: answers 200"])
    given = {
        **{"url": "http://x", "email": "a@b", "password": PASSWORD, "project_dir": str(tmp_path)},
        **{"api_key_file": str(tmp_path / "key"), "memory_file": str(tmp_path / "memory")},
        "asks": [{"name": "API for a stranger", "url": "http://x/api", "status": [401]}],
        "_ansible_check_mode": check,
    }
    with patch_module_args(given), pytest.raises(SystemExit):
        n8n_provision.main()
    told = json.loads(capsys.readouterr().out)
    assert told.get("msg") == (None if check else "API for a stranger: answers 200.")


@pytest.mark.parametrize("check", [False, True])
def test_a_key_of_a_former_release_is_replaced_by_one_that_may_do_all_of_it(
    fake: FakeN8n, client: n8n.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], check: bool
) -> None:
    fake.keys["1"] = "raw-key"
    key, memory = tmp_path / "key", tmp_path / "memory"
    key.write_text("raw-key")
    memory.write_text('{"aiIdpTest0001": {"version": "v1"}}')
    given = {
        **{"url": client.url, "email": "owner@test.lan", "password": PASSWORD, "project_dir": str(tmp_path)},
        **{"api_key_file": str(key), "memory_file": str(memory), "_ansible_check_mode": check},
    }
    changed = []
    for _ in range(2):
        with patch_module_args(given), pytest.raises(SystemExit):
            n8n_provision.main()
        changed.append(json.loads(capsys.readouterr().out)["changed"])
    assert changed == [True, check]
    assert (key.read_text() == "raw-key") is check
    assert (list(fake.keys.values()) == ["raw-key"]) is check


def test_an_edit_is_a_warning_also_where_n8n_fails_after_it(
    fake: FakeN8n,
    known: n8n.Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ansible keeps warnings for the process, in which other tests have run.
    warned: list[str] = []
    monkeypatch.setattr(n8n_provision.AnsibleModule, "warn", lambda _module, text: warned.append(text))
    memory = tmp_path / "memory"
    noted: Json = {}
    run(fake, known, [wanted()], [], noted)
    memory.write_text(json.dumps({**noted, n8n.KEY_NOTE: {"scopes": list(n8n.KEY_SCOPES)}}))
    (tmp_path / "key").write_text("raw-key")
    fake.workflows["aiIdpTest0001"].update(name="Mine", active=False)
    fake.refuse["/api/v1/workflows/aiIdpTest0001/activate"] = (500, {})
    given = {
        **{"url": known.url, "email": "owner@test.lan", "password": PASSWORD, "project_dir": str(tmp_path)},
        **{"api_key_file": str(tmp_path / "key"), "memory_file": str(memory), "workflows": [wanted()]},
    }
    with patch_module_args(given), pytest.raises(SystemExit):
        n8n_provision.main()
    told = json.loads(capsys.readouterr().out)
    assert told["failed"]
    assert "activate the workflow Test" in told["msg"]
    assert ["(name, not active as it is)" in text for text in warned] == [True]
