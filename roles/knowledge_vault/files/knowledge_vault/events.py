"""The sender: looks for new commits, keeps an event of each on the disk, and sends them until they are taken."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import repository as repositories
from .asking import send as send_request
from .files import whole, write_whole
from .repository import GitError
from .settings import Settings

SEND_TIMEOUT_SECONDS = 30
LOOK_SECONDS = 0.5
# So many commits of a repository are read, and so many events are sent, until everything else has its turn.
BATCH = 50
# While more wait, further commits stay in their repository and in the list of what is to be read.
SPOOL_LIMIT = 1000
# How often a commit that Git can't read is tried, the pauses doubling: an hour in all.
UNREAD_TRIES = 7
UNREAD_PAUSE_SECONDS = 30
# With so many of them, the rest of what is listed waits.
UNREAD_LIMIT = 500
PROBLEMS = (GitError, OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError)


def say(level: int, words: str) -> None:
    """Write to the journal, which takes the number for the message's level."""
    print(f"<{level}>{words}", file=sys.stderr, flush=True)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Sign an event: HMAC-SHA256 over the time, a dot and the body as it is sent."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def poll(settings: Settings, told: dict[str, str] | None = None, fetched: set[str] | None = None) -> int:
    """Put events of new commits into the spool, of each repository no more than a batch.

    What is new is listed on the disk before the repository counts as looked at, and leaves the list when its events are
    on the disk. Whatever ends in between is done again, and an event is there once, by its commit.

    Args:
        settings: of the vault.
        told: what was said last of a repository that can't be read, by its name; it is not said again and again.
        fetched: repositories elsewhere whose copies are up to date, which somebody else sees to. Without it they are
            fetched here.

    Returns:
        How many events were written.
    """
    written = 0
    told = {} if told is None else told
    for one in settings.repositories:
        try:
            written += _poll_one(settings, one, fetched)
        except PROBLEMS as error:
            if told.get(one["name"]) != str(error):
                say(4, f"{one['name']}: {error}")
            told[one["name"]] = str(error)
        else:
            told.pop(one["name"], None)
    return written


def watch(settings: Settings, pause: Callable[[float], object] = time.sleep) -> None:
    """Look for commits and send them, without an end.

    That happens at once where a repository of this host, or the copy of another, has changed, and after each interval
    for what waits. The service may be killed at any time: what was begun is begun again.
    """
    settings.spool.mkdir(parents=True, exist_ok=True)
    folders = [_folder(settings, one) for one in settings.repositories]
    told: dict[str, str] = {}
    away: dict[str, str] = {}
    fetched: set[str] = set()
    stop = threading.Event()
    for one in settings.repositories:
        if one.get("url"):
            # One that hangs keeps nobody waiting but itself.
            threading.Thread(target=_follow, args=(settings, one, fetched, away, stop), daemon=True).start()
    published: dict[str, str] | None = None
    try:
        while True:
            # Read before the look: a commit that is made meanwhile is another one.
            before = repositories.marks(folders)
            written = poll(settings, told, fetched)
            taken = send(settings, BATCH)
            problems = {**told, **away}
            if problems != published:
                # The service tells it to Prometheus. On a full disk it is told the next time.
                with contextlib.suppress(OSError):
                    write_whole(settings.state / "unreadable.json", json.dumps(problems))
                    published = problems
            if written >= BATCH or taken >= BATCH:
                continue
            until = time.monotonic() + settings.interval
            while time.monotonic() < until and repositories.marks(folders) == before:
                pause(LOOK_SECONDS)
    finally:
        stop.set()


def _follow(
    settings: Settings, one: dict[str, Any], fetched: set[str], away: dict[str, str], stop: threading.Event
) -> None:
    """Keep the copy of a repository elsewhere up to date, until told to stop."""
    name = one["name"]
    while True:
        try:
            repositories.fetch(_folder(settings, one), one["url"])
        except PROBLEMS as error:
            if away.get(name) != str(error):
                say(4, f"{name}: {error}")
            away[name] = str(error)
        else:
            away.pop(name, None)
            fetched.add(name)
        if stop.wait(settings.interval):
            return


def _folder(settings: Settings, one: dict[str, Any]) -> Path:
    return Path(one["path"]) if one.get("path") else settings.state / "copies" / f"{one['name']}.git"


def _poll_one(settings: Settings, one: dict[str, Any], fetched: set[str] | None) -> int:
    seen_file = settings.state / "seen" / f"{one['name']}.json"
    seen = json.loads(seen_file.read_text(encoding="utf-8")) if seen_file.is_file() else None
    folder = _folder(settings, one)
    if one.get("url") and fetched is None:
        repositories.fetch(folder, one["url"])
    # A copy that is being made has no branches yet, or not all; taken for the past, all of it would be new later.
    if not one.get("url") or fetched is None or one["name"] in fetched:
        if one.get("path"):
            _apart(settings, folder)
        now = repositories.branches(folder, one.get("branches") or [])
        if seen is None or seen["branches"] != now:
            seen = _list_new(settings, one, seen, now)
            _remember(seen_file, seen)
    return _tell_some(settings, one, seen, seen_file) if seen else 0


def _apart(settings: Settings, folder: Path) -> None:
    """Refuse a vault inside a watched repository: once it is committed, each note would become a note.

    Raises:
        GitError: one lies in the other, after every symbolic link was followed.
    """
    real, vault = folder.resolve(), settings.vault.resolve()
    if real.is_relative_to(vault) or vault.is_relative_to(real):
        raise GitError(f"the repository {real} and the vault {vault} lie in each other: its notes would become notes")


def _list_new(
    settings: Settings, one: dict[str, Any], seen: dict[str, Any] | None, now: dict[str, str]
) -> dict[str, Any]:
    """List what is new in a file of its own, one commit and its branch a line.

    Returns:
        What is to be remembered: ``branches``, ``recent``, ``lists`` (name of each such file and how far in it we are,
        the newest first) and ``unread`` (commits that Git could not read).
    """
    folder = _folder(settings, one)
    if seen and "lists" not in seen and "HEAD" in now:
        # An older version did not look at commits without a branch: they are the past.
        seen = {**seen, "branches": {**seen["branches"], "HEAD": now["HEAD"]}}
    place = _lists(settings, one) / f"{time.time_ns():020d}"
    count = 0
    with whole(place) as file:
        for commit, branch in repositories.new_commits(folder, seen, now, int(one.get("history") or 0)):
            file.write(f"{commit} {branch}\n".encode("utf-8", "surrogateescape"))
            count += 1
    if count > BATCH:
        say(5, f"{one['name']}: {count} new commits, of which {BATCH} at a time are told")
    before = seen or {}
    # Where all branches are gone for a moment, as when it is cloned anew, the past is known by what was there before.
    recent = [*repositories.recent(folder, now), *before.get("recent", [])]
    return {
        "branches": now,
        "recent": list(dict.fromkeys(recent))[: 2 * repositories.RECENT],
        "lists": [[place.name, 0]] * bool(count) + before.get("lists", []),
        "unread": before.get("unread", []),
    }


def _lists(settings: Settings, one: dict[str, Any]) -> Path:
    return settings.state / "lists" / str(one["name"])


def _remember(seen_file: Path, seen: dict[str, Any]) -> None:
    write_whole(seen_file, json.dumps(seen))


def _tell_some(settings: Settings, one: dict[str, Any], seen: dict[str, Any], seen_file: Path) -> int:
    """Write events of the next commits that are listed, and of those that could not be read before.

    Returns:
        How many were written.
    """
    now = time.time()
    lists, unread = list(seen.get("lists", [])), seen.get("unread", [])
    due = [entry for entry in unread if entry[3] <= now][:BATCH]
    if not lists and not due:
        _clear(_lists(settings, one), [])
        return 0
    # The names of events are those of the commits: written a second time, one is there once. They sort as they came.
    waiting = {path.stem.rpartition("-")[2]: path for path in settings.spool.glob("*.json")}
    if len(waiting) >= SPOOL_LIMIT:
        return 0
    left = [entry for entry in unread if entry not in due]
    todo = [(commit, branch, tries) for commit, branch, tries, _ in due]
    while lists and len(todo) < BATCH and len(unread) < UNREAD_LIMIT:
        name, at = lists[0]
        wanted = BATCH - len(todo)
        rows, at = _next_rows(_lists(settings, one) / name, at, wanted)
        todo += [(commit, branch, 0) for commit, branch in rows]
        lists[:1] = [[name, at]] if len(rows) == wanted else []
    written = 0
    for number, (commit, branch, tries) in enumerate(todo):
        try:
            told = repositories.event(_folder(settings, one), one, commit, branch)
        except (GitError, subprocess.SubprocessError) as error:
            # One commit keeps no other waiting. It may be readable later, as when a disk comes back.
            if tries + 1 < UNREAD_TRIES:
                left.append([commit, branch, tries + 1, now + UNREAD_PAUSE_SECONDS * 2**tries])
                continue
            say(4, f"{one['name']}: {commit} can't be read: {error}")
            told = repositories.unreadable(one, commit, branch, str(error))
        path = waiting.get(commit) or settings.spool / f"{time.time_ns():020d}-{number:06d}-{commit}.json"
        write_whole(path, json.dumps(told, ensure_ascii=True, sort_keys=True))
        written += 1
    _remember(seen_file, {**seen, "lists": lists, "unread": left})
    _clear(_lists(settings, one), [name for name, _ in lists])
    if written:
        say(6, f"{one['name']}: {written} new commits")
    return written


def _next_rows(place: Path, at: int, wanted: int) -> tuple[list[tuple[str, str]], int]:
    """Read the next commits of a list, so many at most.

    Returns:
        Commit and branch of each, and where the next one begins.
    """
    rows: list[tuple[str, str]] = []
    if not place.is_file():
        say(4, f"{place} is not there any more: what it listed is not told")
        return [], at
    with place.open("rb") as file:
        file.seek(at)
        while len(rows) < wanted and (row := file.readline()):
            commit, _, branch = row.decode("utf-8", "surrogateescape").rstrip("\n").partition(" ")
            rows.append((commit, branch))
        return rows, file.tell()


def _clear(folder: Path, keep: list[str]) -> None:
    """Remove lists that are done, or that a power cut left before they counted."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name not in keep:
                path.unlink()


class NotTaken(Exception):
    """n8n did not take an event; it stays in the spool."""

    def __init__(self, problem: str, *, unwritten: bool = False) -> None:
        super().__init__(problem)
        # The vault's service was asked, and could not write this note; it may well write another.
        self.unwritten = unwritten


def send(settings: Settings, limit: int = sys.maxsize) -> int:
    """Send what waits in the spool, the oldest first, and stop at the first that is not taken.

    A note that can't be written, as where a link leads out of the vault, keeps only its own repository waiting.

    Args:
        settings: of the vault.
        limit: how many are sent at most.

    Returns:
        How many were taken.
    """
    taken = 0
    held: set[str] = set()
    for path in sorted(settings.spool.glob("*.json")):
        if taken >= limit:
            break
        body = path.read_bytes()
        repository = _part(body, "repository")
        if repository in held:
            continue
        try:
            answer = _post(settings, body)
        except NotTaken as error:
            if not held:
                say(4, f"{len(list(settings.spool.glob('*.json')))} events wait: {error}")
            if not error.unwritten:
                break
            held.add(repository)
            continue
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
        if _part(told, "status") == "rejected":
            return "rejected"
        unwritten = error.code == 507 and _part(told, "status") == "error"
        raise NotTaken(f"{settings.webhook_url} answers {error.code}", unwritten=unwritten) from error
    except (OSError, ValueError) as error:
        raise NotTaken(f"{settings.webhook_url}: {getattr(error, 'reason', error)}") from error
    status = _part(told, "status")
    if status not in ("new", "known", "rejected"):
        raise NotTaken(f"{settings.webhook_url} does not say that the note is written")
    return status


def _part(told: bytes, name: str) -> str:
    """Give a text of a JSON object; an empty one where there is none."""
    try:
        document = json.loads(told)
    except ValueError:
        return ""
    return str(document.get(name, "")) if isinstance(document, dict) else ""
