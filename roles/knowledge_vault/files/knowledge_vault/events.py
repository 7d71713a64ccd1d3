"""The sender: looks for new commits, keeps an event of each on the disk, and sends them until they are taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import repository as repositories
from .asking import send as send_request
from .files import write_whole
from .repository import GitError
from .settings import Settings

SEND_TIMEOUT_SECONDS = 30
LOOK_SECONDS = 0.5


def say(level: int, words: str) -> None:
    """Write to the journal, which takes the number for the message's level."""
    print(f"<{level}>{words}", file=sys.stderr, flush=True)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Sign an event: HMAC-SHA256 over the time, a dot and the body as it is sent."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def poll(settings: Settings, told: dict[str, str] | None = None) -> int:
    """Put an event of each new commit into the spool.

    A repository counts as looked at only when all its events are on the disk; otherwise the next time finds the same
    commits and writes the same files.

    Args:
        settings: of the vault.
        told: what was said last of a repository that can't be read, by its name; it is not said again and again.

    Returns:
        How many events were written.
    """
    written = 0
    told = {} if told is None else told
    for one in settings.repositories:
        try:
            written += _poll_one(settings, one)
        except (GitError, OSError, ValueError, subprocess.SubprocessError) as error:
            if told.get(one["name"]) != str(error):
                say(4, f"{one['name']}: {error}")
            told[one["name"]] = str(error)
        else:
            told.pop(one["name"], None)
    return written


def watch(settings: Settings, pause: Callable[[float], object] = time.sleep) -> None:
    """Look for commits and send them, without an end.

    That happens at once where a repository of this host has changed, and after each interval for the others and for
    what waits. The service may be killed at any time: what was begun is begun again.
    """
    settings.spool.mkdir(parents=True, exist_ok=True)
    folders = [Path(one["path"]) for one in settings.repositories if one.get("path")]
    told: dict[str, str] = {}
    while True:
        # Read before the look: a commit that is made meanwhile is another one.
        before = repositories.marks(folders)
        poll(settings, told)
        send(settings)
        until = time.monotonic() + settings.interval
        while time.monotonic() < until and repositories.marks(folders) == before:
            pause(LOOK_SECONDS)


def _poll_one(settings: Settings, one: dict[str, Any]) -> int:
    seen_file = settings.state / "seen" / f"{one['name']}.json"
    seen = json.loads(seen_file.read_text(encoding="utf-8")) if seen_file.is_file() else None
    folder = Path(one["path"]) if one.get("path") else settings.state / "copies" / f"{one['name']}.git"
    if one.get("url"):
        repositories.fetch(folder, one["url"])
    now = repositories.branches(folder, one.get("branches") or [])
    if seen and seen["branches"] == now:
        return 0
    commits = repositories.new_commits(folder, seen, now, int(one.get("history") or 0))
    for number, (commit, branch) in enumerate(commits):
        told = repositories.event(folder, one, commit, branch)
        # The names are those of the commits: written a second time, an event is there once. They sort as they came.
        waiting = next(settings.spool.glob(f"*-{commit}.json"), None)
        path = waiting or settings.spool / f"{time.time_ns():020d}-{number:06d}-{commit}.json"
        write_whole(path, json.dumps(told, ensure_ascii=True, sort_keys=True))
    write_whole(seen_file, json.dumps({"branches": now, "recent": repositories.recent(folder, now)}))
    if commits:
        say(6, f"{one['name']}: {len(commits)} new commits")
    return len(commits)


class NotTaken(Exception):
    """n8n did not take an event; it stays in the spool."""


def send(settings: Settings) -> int:
    """Send what waits in the spool, the oldest first, and stop at the first that is not taken.

    Returns:
        How many were taken.
    """
    taken = 0
    for path in sorted(settings.spool.glob("*.json")):
        try:
            answer = _post(settings, path.read_bytes())
        except NotTaken as error:
            say(4, f"{len(list(settings.spool.glob('*.json')))} events wait: {error}")
            break
        if answer == "rejected":
            # Nothing would make it right; it is kept for whoever looks.
            kept = settings.state / "rejected" / path.name
            kept.parent.mkdir(exist_ok=True)
            path.replace(kept)
            say(3, f"{kept} was rejected")
            continue
        path.unlink()
        taken += 1
    return taken


def _post(settings: Settings, body: bytes) -> str:
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "X-AI-IDP-Timestamp": timestamp,
        "X-AI-IDP-Signature": signature(settings.webhook_secret, timestamp, body),
    }
    request = urllib.request.Request(settings.webhook_url, data=body, headers=headers, method="POST")  # noqa: S310
    try:
        with send_request(request, SEND_TIMEOUT_SECONDS, settings.ca_file) as reply:
            told = reply.read(100_000)
    except urllib.error.HTTPError as error:
        told = error.read(100_000)
        # Only the service itself can say that an event is wrong; a webhook that is not there yet is a 404 too.
        if _status(told) == "rejected":
            return "rejected"
        raise NotTaken(f"{settings.webhook_url} answers {error.code}") from error
    except (OSError, ValueError) as error:
        raise NotTaken(f"{settings.webhook_url}: {getattr(error, 'reason', error)}") from error
    status = _status(told)
    if status not in ("new", "known", "rejected"):
        raise NotTaken(f"{settings.webhook_url} does not say that the note is written")
    return status


def _status(told: bytes) -> str:
    try:
        document = json.loads(told)
    except ValueError:
        return ""
    return str(document.get("status", "")) if isinstance(document, dict) else ""
