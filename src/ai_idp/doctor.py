"""Is the platform well? Real requests to everything that was deployed, all at once, each within its time.

What can't be told is "unknown", and unknown is never ok.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx
from pydantic import BaseModel, BeforeValidator, ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ai_idp.endpoints import Endpoint, EndpointsMissing, Secrets, ca_path, engine_ca_path, load_endpoints
from ai_idp.errors import FrontError, from_json, printable
from ai_idp.progress import STYLES, duration
from ai_idp.project import Host, Project

# A chat on a CPU may take ten seconds; nothing that is well takes longer than this.
CHECK_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
SSH_PORT = 22
CHAT_TOKENS = 8
WRONG_KEY = "wrong-key-of-ai-idp-doctor"
_SAMPLE = re.compile(r"^[A-Za-z_:][A-Za-z0-9_:]*(\{.*\})?\s+\S+", re.MULTILINE)
_REPLAYED = re.compile(r'^[A-Za-z_:][A-Za-z0-9_:]*\{[^}\n]*replay="true"', re.MULTILINE)

CheckStatus = Literal["ok", "fail", "unknown", "skipped"]
# What somebody answered may hold what can be neither printed nor written as JSON.
Said = Annotated[str, BeforeValidator(lambda text: printable(str(text)))]


class Check(BaseModel):
    """One question and its answer."""

    model_config = ConfigDict(frozen=True)

    name: Said
    host: Said
    status: CheckStatus
    detail: Said


class Report(BaseModel):
    """All answers; `ok` only if each check is ok or was skipped with a reason, and at least one is ok."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    checks: list[Check]

    @classmethod
    def of(cls, checks: list[Check]) -> Report:
        """The report of these checks."""
        statuses = {check.status for check in checks}
        return cls(ok="ok" in statuses and not statuses & {"fail", "unknown"}, checks=checks)


class CheckFailed(Exception):
    """The thing is not well; the message is what a reader needs to know."""


class CheckUnknown(Exception):
    """It can't be told whether the thing is well."""


class CheckSkipped(Exception):
    """The question does not arise."""


@dataclass(frozen=True)
class _Planned:
    """A check to be made: its function returns the detail, or raises one of the above."""

    name: str
    host: str
    ask: Callable[[], Awaitable[str]]


def examine(project: Project, inventory: str, *, timeout_s: float = CHECK_TIMEOUT_S) -> Report:
    """Makes all checks of an environment. FrontError if its inventory can't be read."""
    hosts = project.hosts(inventory)
    return asyncio.run(examine_hosts(project.inventory(inventory), hosts, timeout_s))


async def examine_hosts(inventory: Path, hosts: list[Host], timeout_s: float = CHECK_TIMEOUT_S) -> Report:
    """Makes all checks of these hosts and of the endpoints recorded in an inventory folder."""
    head: list[Check] = []
    endpoints: list[Endpoint] = []
    try:
        known = load_endpoints(inventory)
    except EndpointsMissing as error:
        head.append(Check(name="endpoints", host="controller", status="unknown", detail=str(error)))
    except FrontError as error:
        head.append(Check(name="endpoints", host="controller", status="fail", detail=str(error)))
    else:
        endpoints = known.endpoints
        status: CheckStatus = "ok" if endpoints else "unknown"
        detail = f"{len(endpoints)} recorded" if endpoints else "none recorded: nothing has been deployed"
        head.append(Check(name="endpoints", host="controller", status=status, detail=detail))
    if not hosts:
        detail = f"inventory {inventory.name!r} has no hosts"
        head.append(Check(name="inventory", host="controller", status="unknown", detail=detail))
    timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
    # These are addresses of the local network: a proxy that is set for the internet is not asked.
    trusted = ssl.create_default_context()
    head += _trust(trusted, inventory)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False, verify=trusted) as client:
        secrets = Secrets(inventory)
        rows: list[Awaitable[list[Check]]] = [_one_after_another([_ssh(host)], timeout_s) for host in hosts]
        for endpoint in endpoints:
            rows.append(_one_after_another(_Prober(client, endpoint, secrets).planned(), timeout_s))
        answered = await asyncio.gather(*rows)
    return Report.of([*head, *(check for row in answered for check in row)])


def _trust(trusted: ssl.SSLContext, inventory: Path) -> list[Check]:
    """Adds the platform's CAs to what is trusted; a check that says why where a file can't be used."""
    checks = []
    for path, week in ((ca_path(inventory), 3), (engine_ca_path(inventory), 2)):
        shown = f"inventory/{inventory.name}/state/{path.name}"
        try:
            trusted.load_verify_locations(cafile=path)
        except FileNotFoundError:
            continue
        except OSError as error:
            what = "holds no certificate" if isinstance(error, ssl.SSLError) else f"can't be read: {error.strerror}"
            detail = f"{shown} {what}: remove it and run `ai-idp run week{week} --inventory {inventory.name}` again"
            checks.append(Check(name="ca certificate", host="controller", status="fail", detail=detail))
    return checks


async def _one_after_another(planned: list[_Planned], timeout_s: float) -> list[Check]:
    """The checks of one endpoint in turn, so that they don't slow each other down."""
    return [await _answer(check, timeout_s) for check in planned]


async def _answer(planned: _Planned, timeout_s: float) -> Check:
    status: CheckStatus = "ok"
    try:
        async with asyncio.timeout(timeout_s):
            detail = await planned.ask()
    except CheckFailed as error:
        status, detail = "fail", str(error)
    except CheckUnknown as error:
        status, detail = "unknown", str(error)
    except CheckSkipped as error:
        status, detail = "skipped", str(error)
    except TimeoutError:
        status, detail = "fail", f"no answer within {timeout_s:g} s"
    except httpx.TimeoutException as error:
        stage = "connection" if isinstance(error, httpx.ConnectTimeout) else "answer"
        status, detail = "fail", f"no {stage} in time: {_asked(error)}"
    except httpx.HTTPError as error:
        status, detail = "fail", f"{error or type(error).__name__}: {_asked(error)}"
    except (httpx.InvalidURL, OverflowError, ValueError) as error:
        # What is asked comes from files that somebody may have edited.
        reason = str(error) if isinstance(error, httpx.InvalidURL) else "host or port can't be used"
        status, detail = "fail", f"the recorded address is no URL that can be asked: {reason}"
    return Check(name=planned.name, host=planned.host, status=status, detail=detail)


def _asked(error: httpx.HTTPError) -> str:
    try:
        return str(error.request.url)
    except RuntimeError:
        return "no request was sent"


def _ssh(host: Host) -> _Planned:
    async def ask() -> str:
        if host.connection not in ("ssh", "smart", "ansible.builtin.ssh", "paramiko"):
            raise CheckSkipped(f"reached by {host.connection}, not by SSH")
        if "{{" in host.address:
            raise CheckUnknown(f"the address is a template: {host.address}")
        return await ssh_banner(*await ssh_server(host))

    return _Planned("ssh", host.name, ask)


async def ssh_server(host: Host) -> tuple[str, int]:
    """Where SSH finds a host: its name may be an alias of the user's own settings (ssh_config(5)).

    Returns:
        Address or name, and port.

    Raises:
        CheckUnknown: another host stands between the two.
    """
    address, port = host.address, host.port
    if _is_address(address) or "{{" in host.ssh_args:
        return address, port or SSH_PORT
    given = [*shlex.split(host.ssh_args), *(["-p", str(port)] if port else [])]
    command = ["ssh", "-G", *given, "--", address]
    try:
        asked = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, errors="replace")
    except OSError:
        return address, port or SSH_PORT
    settings = dict(line.split(" ", 1) for line in asked.stdout.splitlines() if " " in line)
    for name in ("proxyjump", "proxycommand"):
        if name in settings:
            raise CheckUnknown(f"SSH reaches it through another host ({name} {settings[name]}), which is not asked")
    number = settings.get("port", "")
    return settings.get("hostname", address), int(number) if number.isdecimal() else port or SSH_PORT


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


async def ssh_banner(address: str, port: int, timeout_s: float = CONNECT_TIMEOUT_S) -> str:
    """What an SSH server says of itself. CheckFailed if there is none."""
    where = f"{address}:{port}"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                banner = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        raise CheckFailed(f"{where} gives no SSH banner within {timeout_s:g} s") from None
    except (OSError, OverflowError, ValueError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number is not None and number > 0 else str(error)
        raise CheckFailed(f"{where}: {reason}") from None
    if not banner.startswith(b"SSH-"):
        raise CheckFailed(f"{where} answers, but not with SSH")
    return f"{where} {banner.decode('ascii', 'replace').strip()}"


class _Prober:
    """The checks of one endpoint."""

    def __init__(self, client: httpx.AsyncClient, endpoint: Endpoint, secrets: Secrets) -> None:
        self._client = client
        self._endpoint = endpoint
        self._secrets = secrets
        self._model = endpoint.model

    def planned(self) -> list[_Planned]:
        """Its checks, in the order in which they build on each other."""
        if self._endpoint.reached_from:
            return [_Planned(f"{self._endpoint.name}: reached", self._endpoint.host, self._not_from_here)]
        asks: list[tuple[str, Callable[[], Awaitable[str]]]] = []
        if self._endpoint.health_path or self._endpoint.kind == "http":
            asks.append(("health", self._health))
        if self._endpoint.kind == "openai":
            asks += [
                ("models", self._models),
                ("chat", self._chat),
                ("stream", self._stream),
                ("wrong key", self._wrong_key),
            ]
        if self._endpoint.kind == "triton":
            asks.append(("ready", self._triton_ready))
            asks += [(f"model {name}", partial(self._triton_model, name)) for name in self._endpoint.models]
        if self._endpoint.metrics_at or self._endpoint.kind == "metrics":
            asks.append(("metrics", self._metrics))
        return [_Planned(f"{self._endpoint.name}: {name}", self._endpoint.host, ask) for name, ask in asks]

    async def _not_from_here(self) -> str:
        admitted = " and ".join(self._endpoint.reached_from)
        raise CheckSkipped(
            f"its door admits {admitted} alone: name this machine's address in ai_idp_controllers to ask it from here"
        )

    def _headers(self) -> dict[str, str]:
        """The key as a header; CheckUnknown if it can't be had."""
        if self._endpoint.key is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._secrets.get(self._endpoint.key)}"}
        except FrontError as error:
            raise CheckUnknown(str(error)) from None

    async def _get(self, url: str, headers: dict[str, str] | None = None) -> httpx.Response:
        response = await self._client.get(url, headers=headers)
        _expect(response, 200)
        return response

    async def _health(self) -> str:
        began = time.monotonic()
        url = self._endpoint.at(self._endpoint.health_path or "/")
        await self._get(url, self._headers())
        return f"{url} answers in {duration(time.monotonic() - began)}"

    async def _triton_ready(self) -> str:
        url = self._endpoint.at("/v2/health/ready")
        await self._get(url, self._headers())
        return f"{url} is ready"

    async def _triton_model(self, name: str) -> str:
        body = _json(await self._get(self._endpoint.at(f"/v2/models/{quote(name, safe='')}"), self._headers()))
        # Triton tells about a model that is loaded, and about no other.
        versions = body.get("versions")
        return f"ready, version {', '.join(map(str, versions)) if isinstance(versions, list) else 'unknown'}"

    async def _models(self) -> str:
        body = _json(await self._get(self._endpoint.at("/v1/models"), self._headers()))
        listed = [str(model.get("id")) for model in _mappings(body.get("data"))]
        if not listed:
            raise CheckFailed("/v1/models lists no model")
        if self._endpoint.model is None:
            self._model = listed[0]
        elif self._endpoint.model not in listed:
            raise CheckFailed(f"/v1/models lists {', '.join(listed)}, not {self._endpoint.model}")
        return ", ".join(listed)

    def _question(self, *, stream: bool) -> dict[str, Any]:
        if self._model is None:
            raise CheckUnknown("no model to ask: /v1/models did not name one")
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": CHAT_TOKENS,
            "temperature": 0,
            "stream": stream,
        }

    async def _chat(self) -> str:
        began = time.monotonic()
        response = await self._client.post(
            self._endpoint.at("/v1/chat/completions"),
            json=self._question(stream=False),
            headers=self._headers(),
        )
        took = time.monotonic() - began
        _expect(response, 200)
        body = _json(response)
        choices = _mappings(body.get("choices"))
        if not choices or not isinstance(choices[0].get("message"), dict):
            raise CheckFailed("the answer holds no message")
        usage = body.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if tokens == 0 or (tokens is None and not choices[0]["message"].get("content")):
            raise CheckFailed("the answer is empty")
        return f"{tokens or 'some'} tokens in {duration(took)}"

    async def _stream(self) -> str:
        began = time.monotonic()
        first: float | None = None
        chunks, ended = 0, False
        async with self._client.stream(
            "POST",
            self._endpoint.at("/v1/chat/completions"),
            json=self._question(stream=True),
            headers=self._headers(),
        ) as response:
            if response.status_code != 200:
                await response.aread()
                _expect(response, 200)
            kind = response.headers.get("content-type", "no content type")
            if not kind.startswith("text/event-stream"):
                raise CheckFailed(f"the stream arrives as {kind}, not as text/event-stream")
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    ended = True
                    break
                if first is None:
                    first = time.monotonic() - began
                chunks += 1
                _check_chunk(data)
        if first is None:
            raise CheckFailed("the stream holds no chunks")
        if not ended:
            raise CheckFailed(f"the stream broke off after {chunks} chunks")
        took = duration(time.monotonic() - began)
        return f"{chunks} chunks in {took}, the first after {duration(first)}"

    async def _wrong_key(self) -> str:
        if self._endpoint.key is None:
            raise CheckSkipped("this endpoint asks for no key")
        url = self._endpoint.at("/v1/models")
        response = await self._client.get(url, headers={"Authorization": f"Bearer {WRONG_KEY}"})
        if response.status_code == 200:
            raise CheckFailed("a wrong key is let in")
        _expect(response, 401)
        return "refused with 401"

    async def _metrics(self) -> str:
        url = self._endpoint.metrics_at
        if url is None:
            raise CheckUnknown("nothing says where its metrics are")
        text = (await self._get(url, self._headers())).text
        samples = len(_SAMPLE.findall(text))
        if samples == 0:
            raise CheckFailed(f"{url} holds no samples")
        replayed = self._endpoint.replay or _REPLAYED.search(text) is not None
        return f"{samples} samples{' (replay)' if replayed else ''}"


def _expect(response: httpx.Response, status: int) -> None:
    if response.status_code != status:
        body = " ".join(response.text.split())[:200]
        raise CheckFailed(f"{response.request.url.path} answers {response.status_code}{f': {body}' if body else ''}")


def _json(response: httpx.Response) -> dict[str, Any]:
    body = _decoded(response)
    if not isinstance(body, dict):
        raise CheckFailed(f"{response.request.url.path} answers JSON of another shape")
    return body


def _decoded(response: httpx.Response) -> Any:
    try:
        return from_json(response.content)
    except ValueError:
        raise CheckFailed(f"{response.request.url.path} does not answer JSON") from None


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _check_chunk(data: str) -> None:
    try:
        chunk = from_json(data)
    except ValueError:
        raise CheckFailed("a chunk of the stream is not JSON") from None
    if isinstance(chunk, dict) and "error" in chunk:
        raise CheckFailed(f"the stream holds an error: {str(chunk['error'])[:200]}")


def show_report(console: Console, report: Report, inventory: str) -> None:
    """The report as a table, with a sentence below it."""
    verdict = ("well", STYLES["ok"]) if report.ok else ("not well", STYLES["fail"])
    rows = [CheckRow(check.name, check.host, check.status, Text(check.detail)) for check in report.checks]
    show_checks(console, rows, Text.assemble(f"{inventory} is ", verdict))


@dataclass(frozen=True)
class CheckRow:
    """A line of a table of checks; `style` is that of its status unless it is given."""

    name: str
    host: str
    status: str
    detail: Text
    style: str | None = None


def show_checks(console: Console, rows: Sequence[CheckRow], verdict: Text) -> None:
    """Checks as a table, and below it the verdict with how many there are of each status."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("check", "host", "status"):
        table.add_column(name, no_wrap=True)
    table.add_column("detail", overflow="fold")
    for row in rows:
        status = Text(row.status, STYLES[row.status] if row.style is None else row.style)
        table.add_row(Text(row.name), Text(row.host), status, row.detail)
    console.print(table)
    counts = {status: sum(row.status == status for row in rows) for status in STYLES}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    console.print(Text.assemble(verdict, f": {said}"), soft_wrap=True)
