"""What is new in a Git repository, and what one commit says, within a budget and without secrets."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .redaction import is_secret_file, redact

MESSAGE_LIMIT = 8_000
FILES_LIMIT = 200
DIFF_LIMIT = 16_000
READ_LIMIT = 1_000_000
# All branches of a large project, and a commit with a signature and the tags that it merged.
REFS_LIMIT = 40_000_000
COMMIT_LIMIT = 256_000
RECENT = 200
TIMEOUT_SECONDS = 120
# Nobody waits for a copy but its own commits; a first one may be large and the line slow.
FETCH_SECONDS = 6 * 3600
SSH_OPTIONS = (
    "-oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=15 -oServerAliveCountMax=4"
    # The owner's home can't be written from here, so no socket can be made there.
    " -oControlMaster=no -oControlPath=none"
)
# What an old commit may say of its text; others are read as UTF-8.
_ENCODING = re.compile(r"(?i)(?:iso|latin|windows|cp|koi8|euc|shift|sjis|gb|big5|utf-?(?:8|16|32)|tis|ks)[\w.-]{0,20}")
_TIME = re.compile(rb"(\d{1,12})(?: [+-]\d{1,6})?\s*$")


class GitError(Exception):
    """Git said no, or nothing in time."""


def _is(what: Callable[[], bool]) -> bool:
    """Ask something of a path; where we may not look, it is not so."""
    try:
        return what()
    except OSError:
        return False


def git_dir(folder: Path) -> Path:
    """Tell where Git keeps a repository, which may have a work tree or be bare. Nobody is asked, and nothing raises.

    A linked work tree and a submodule have a file that names the place.
    """
    inner = folder / ".git"
    if _is(inner.is_file):
        try:
            told = inner.read_bytes()[:4096].decode(errors="surrogateescape").partition("\0")[0]
        except OSError:
            told = ""
        if told.startswith("gitdir: "):
            return folder / told.removeprefix("gitdir: ").rstrip("\r\n")
    # A work tree may well have a file of the name HEAD among its own.
    bare = not _is(inner.is_dir) and _is((folder / "HEAD").is_file) and _is((folder / "objects").is_dir)
    return folder if bare else inner


def _common_dir(own: Path) -> Path:
    # Of a linked work tree: its branches are with those of the repository.
    try:
        told = (own / "commondir").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return own
    return own / told.partition("\0")[0].rstrip("\r\n")


def _command(folder: Path, arguments: tuple[str, ...], seconds: int) -> list[str]:
    # A repository's own settings may name programs; none of them is needed to read it.
    return [
        "timeout", str(seconds),
        "git", "-c", f"safe.directory={folder}", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false",
        "-c", "core.quotePath=false", "-c", "i18n.logOutputEncoding=UTF-8", "-c", "log.showSignature=false",
        "-c", "gc.auto=0", "-c", "protocol.ext.allow=never", "-c", "http.lowSpeedLimit=1",
        "-c", "http.lowSpeedTime=600",
        f"--git-dir={git_dir(folder)}", *arguments,
    ]  # fmt: skip


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "KNOWLEDGE_VAULT_"))},
        "LC_ALL": "C.UTF-8",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        # What a partial copy lacks is not fetched for a note.
        "GIT_NO_LAZY_FETCH": "1",
        **more,
    }


def git(
    folder: Path,
    *arguments: str,
    limit: int = READ_LIMIT,
    given: str = "",
    seconds: int = TIMEOUT_SECONDS,
    environment: dict[str, str] | None = None,
) -> tuple[bytes, bool]:
    """Run git, read no more than a limit of what it says.

    Args:
        folder: the repository.
        arguments: of git.
        limit: how many bytes are read.
        given: what it reads.
        seconds: how long it may take.
        environment: more variables, or others.

    Returns:
        Its output, and whether it was cut off.

    Raises:
        GitError: it failed or took too long.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as read:
        read.write(given.encode())
        read.seek(0)
        with subprocess.Popen(
            _command(folder, arguments, seconds),
            stdin=read, stdout=subprocess.PIPE, stderr=said, env=_environment(environment or {}),
        ) as process:  # fmt: skip
            assert process.stdout
            output = process.stdout.read(limit + 1)
            if len(output) > limit:
                process.terminate()
                return output[:limit], True
        _judge(process, said)
    return output, False


def _rows(folder: Path, *arguments: str, given: str) -> Iterator[str]:
    """Run git and give each line that it says as it comes, however many there are.

    Raises:
        GitError: it failed or took too long; the lines before are not all.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as read:
        read.write(given.encode())
        read.seek(0)
        with subprocess.Popen(
            _command(folder, arguments, TIMEOUT_SECONDS),
            stdin=read, stdout=subprocess.PIPE, stderr=said, env=_environment({}),
        ) as process:  # fmt: skip
            assert process.stdout
            try:
                for row in process.stdout:
                    yield text(row).rstrip("\n")
            finally:
                # Only where nobody wants the rest, it still runs here.
                process.stdout.close()
        _judge(process, said)


def _judge(process: subprocess.Popen[bytes], said: Any) -> None:
    if process.returncode:
        said.seek(0)
        words = said.read(2000).decode(errors="replace").strip()
        took = "git took too long" if process.returncode == 124 else f"git ended with {process.returncode}"
        raise GitError(words or took)


def marks(folders: list[Path]) -> list[int]:
    """Tell by numbers whether a branch of a repository may have moved; Git is not started for it.

    Each commit and push writes the log of HEAD, or renames a file into a folder of branches, or writes the list of
    packed ones. Where a repository is kept in another way, the numbers stay the same.

    Args:
        folders: repositories on this host, with a work tree or bare.

    Returns:
        when each of these places was changed, in nanoseconds; 0 for one that is not there.
    """
    found = []
    for folder in folders:
        own = git_dir(folder)
        common = _common_dir(own)
        branches_folders = [Path(place) for place, _, _ in os.walk(common / "refs" / "heads")]
        for place in (
            own / "logs" / "HEAD",
            own / "HEAD",
            common / "packed-refs",
            common / "reftable",
            *sorted(branches_folders),
        ):
            try:
                found.append(place.stat().st_mtime_ns)
            except OSError:
                found.append(0)
    return found


def text(data: bytes) -> str:
    """Decode what Git stores, whatever its encoding may have been."""
    return data.decode("utf-8", errors="replace")


def _ssh(folder: Path) -> dict[str, str]:
    """Say how SSH is started: as the owner said in Git's settings, and so that it never asks and always ends."""
    try:
        own = text(git(folder, "config", "--get", "core.sshCommand")[0]).strip()
    except GitError:
        own = ""
    program = re.match(r"(?:\S*/)?ssh(?=\s|$)", own or "ssh")
    if not program:
        # Another program, or a script of the owner's: nobody knows what it takes.
        return {}
    return {"GIT_SSH_COMMAND": f"{program[0]} {SSH_OPTIONS}{own[program.end() :]}"}


def fetch(folder: Path, url: str) -> None:
    """Bring a copy of a remote repository up to date, which may take hours the first time.

    Raises:
        GitError: it can't be reached.
    """
    if not (folder / "HEAD").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "--quiet", "--bare", str(folder)], check=True, capture_output=True, timeout=30)
    git(
        folder, "fetch", "--quiet", "--prune", "--no-tags", "--no-auto-maintenance", url, "+refs/heads/*:refs/heads/*",
        seconds=FETCH_SECONDS, environment=_ssh(folder),
    )  # fmt: skip


def branches(folder: Path, wanted: list[str]) -> dict[str, str]:
    """Give each branch's newest commit; all branches where none is named.

    Where no branch is checked out, ``HEAD`` is one too. While Git rebases it is not: what it passes on the way is
    nobody's commit yet.
    """
    output, cut = git(
        folder, "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads", limit=REFS_LIMIT
    )
    if cut:
        raise GitError("it has more branches than can be read; name those that count (branches)")
    # Names may have any bytes, and what other programs take for the end of a line.
    rows = output.decode("utf-8", "surrogateescape").split("\n")
    pairs = [row.split(" ", 1) for row in rows if row]
    found = {name: commit for commit, name in pairs if not wanted or name in wanted}
    detached = _detached(git_dir(folder)) if not wanted or "HEAD" in wanted else ""
    return {"HEAD": detached, **found} if detached else found


def _detached(own: Path) -> str:
    if any(_is((own / name).exists) for name in ("rebase-merge", "rebase-apply")):
        return ""
    try:
        told = (own / "HEAD").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return told if re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", told) else ""


def recent(folder: Path, now: dict[str, str]) -> list[str]:
    """List the newest commits, to know the past by them when the branches' own ends are thrown away."""
    if not now:
        return []
    tips = "".join(f"{commit}\n" for commit in sorted(set(now.values())))
    output, _ = git(folder, "rev-list", f"--max-count={RECENT}", "--stdin", given=tips)
    return text(output).split()


def new_commits(
    folder: Path, seen: dict[str, Any] | None, now: dict[str, str], history: int = 0
) -> Iterator[tuple[str, str]]:
    """Give the commits that were not there the last time, the oldest first, as Git finds them.

    Git is started once, however many branches and commits there are, and nothing of them is kept here.

    Args:
        folder: the repository.
        seen: each branch's newest commit the last time (``branches``) and those before them (``recent``); nothing
            when the repository was never looked at.
        now: each branch's newest commit now.
        history: how many commits of the past count as new when the repository was never looked at.

    Yields:
        Commit and branch of each.

    Raises:
        GitError: it failed; what came before is not all.
    """
    known = {*seen["branches"].values(), *seen["recent"]} if seen else set()
    names: dict[str, str] = {}
    for branch, commit in now.items():
        if commit not in known:
            names.setdefault(commit, branch)
    if not names or (seen is None and not history):
        return
    given = "".join([*(f"{commit}\n" for commit in names), *(f"^{commit}\n" for commit in sorted(known))])
    bound = [f"--max-count={history}"] if seen is None else []
    # A branch that was written anew may have left its old commits to be thrown away: those are not missed.
    arguments = ["--topo-order", "--reverse", "--no-patch", "--ignore-missing", *bound, "--format=%H %S", "--stdin"]
    for row in _rows(folder, "log", *arguments, given=given):
        # The second is the end that Git came from.
        commit, _, end = row.partition(" ")
        yield commit, names.get(end, end)


def event(folder: Path, repository: dict[str, Any], commit: str, branch: str) -> dict[str, Any]:
    """Tell of one commit what a note needs, with secrets taken out.

    Raises:
        GitError: the commit can't be read.
    """
    output, cut = git(folder, "cat-file", "commit", commit, limit=COMMIT_LIMIT)
    # As it is kept: what Git makes of it leaves out the parents where a shallow copy ends.
    head, _, message = output.partition(b"\n\n")
    fields: dict[str, list[bytes]] = {}
    for row in head.split(b"\n"):
        name, _, value = row.partition(b" ")
        fields.setdefault(text(name), []).append(value)
    encoding = text(fields.get("encoding", [b""])[0])
    parents = [text(one) for one in fields.get("parent", [])]
    author = _decoded(fields.get("author", [b""])[0].partition(b"<")[0].strip(), encoding)
    at = _TIME.search(fields.get("committer", [b""])[0])
    files, total, added, removed, files_cut = _files(folder, commit, parents[:1])
    diff, diff_cut, hidden = _diff(folder, commit, parents[:1])
    clean_message, in_message = redact(_decoded(message[: MESSAGE_LIMIT * 8], encoding).strip())
    return {
        **_told(repository, commit, branch),
        "parents": parents,
        "author": author[:200],
        # Without one it is that of the taking.
        "time": int(at[1]) if at else 0,
        "message": clean_message[:MESSAGE_LIMIT],
        "message_cut": cut or len(message) > MESSAGE_LIMIT * 8 or len(clean_message) > MESSAGE_LIMIT,
        "files": files,
        "files_total": total,
        "files_cut": files_cut,
        "added": added,
        "removed": removed,
        "diff": diff,
        "diff_cut": diff_cut,
        "redacted": in_message + hidden,
    }


def unreadable(repository: dict[str, Any], commit: str, branch: str, problem: str) -> dict[str, Any]:
    """Tell what is known of a commit that Git could not read, however often it was asked."""
    message, hidden = redact(f"A commit that can't be read\n\n{problem}")
    return {
        **_told(repository, commit, branch),
        "parents": [],
        "author": "",
        "time": 0,
        "message": message[:MESSAGE_LIMIT],
        "message_cut": False,
        "files": [],
        "files_total": 0,
        "files_cut": True,
        "added": 0,
        "removed": 0,
        "diff": "",
        "diff_cut": True,
        "redacted": hidden,
    }


def _told(repository: dict[str, Any], commit: str, branch: str) -> dict[str, Any]:
    web = str(repository.get("web_url") or "").rstrip("/")
    return {
        "version": 1,
        "repository": repository["name"],
        "commit": commit,
        "branch": text(branch.encode("utf-8", "surrogateescape")),
        "web_url": f"{web}/commit/{commit}" if web else "",
    }


def _decoded(data: bytes, encoding: str) -> str:
    if _ENCODING.fullmatch(encoding):
        with contextlib.suppress(LookupError, ValueError):
            return data.decode(encoding, errors="replace")
    return text(data)


def _range(commit: str, parent: list[str]) -> list[str]:
    # A merge is what it brought to its first parent.
    return [*parent, commit] if parent else ["--root", commit]


def _files(folder: Path, commit: str, parent: list[str]) -> tuple[list[dict[str, Any]], int, int, int, bool]:
    try:
        output, cut = git(
            folder, "diff-tree", "-r", "-z", "--no-commit-id", "--no-renames", "--numstat", *_range(commit, parent)
        )
    except GitError:
        # A shallow copy does not have the parent, a partial one not the content.
        return [], 0, 0, 0, True
    # What follows the last end of a row is nothing, or a row that was cut.
    rows = [row.split("\t", 2) for row in text(output).split("\0")[:-1] if row.count("\t") >= 2]
    # Binary files have no lines.
    counted = [(int(a) if a.isdigit() else 0, int(r) if r.isdigit() else 0, path) for a, r, path in rows]
    files = [{"path": redact(path[:500])[0], "added": a, "removed": r} for a, r, path in counted[:FILES_LIMIT]]
    return files, len(counted), sum(a for a, _, _ in counted), sum(r for _, r, _ in counted), cut


def _diff(folder: Path, commit: str, parent: list[str]) -> tuple[str, bool, int]:
    try:
        output, cut = git(
            folder, "diff-tree", "-r", "-p", "--no-commit-id", "--no-renames", "--no-color", "--no-ext-diff",
            "--no-textconv", "--unified=1", *_range(commit, parent), limit=DIFF_LIMIT * 4,
        )  # fmt: skip
    except GitError:
        return "", True, 0
    lines: list[str] = []
    hidden, secret = 0, False
    for line in text(output).split("\n"):
        if line.startswith("diff --git "):
            secret = any(is_secret_file(part.strip('"')) for part in line.split(" ")[2:])
            lines.append(line)
            if secret:
                hidden += 1
                lines.append("(what is in this file is not shown)")
        elif not secret and not line.startswith(("index ", "old mode ", "similarity ")):
            lines.append(line)
    # A secret that the limit cut in two is not known as one any more: its line goes.
    if cut and lines:
        lines.pop()
    clean, count = redact("\n".join(lines))
    clean = "\n".join(line[:500] for line in clean.split("\n"))
    return clean[:DIFF_LIMIT], cut or len(clean) > DIFF_LIMIT, hidden + count
