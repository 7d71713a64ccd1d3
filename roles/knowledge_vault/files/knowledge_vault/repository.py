"""What is new in a Git repository, and what one commit says, within a budget and without secrets."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .redaction import is_secret_file, redact

MESSAGE_LIMIT = 8_000
FILES_LIMIT = 200
DIFF_LIMIT = 16_000
READ_LIMIT = 1_000_000
RECENT = 200
TIMEOUT_SECONDS = 120


class GitError(Exception):
    """Git said no, or nothing in time."""


def git(folder: Path, *arguments: str, limit: int = READ_LIMIT) -> tuple[bytes, bool]:
    """Run git, read no more than a limit of what it says.

    Returns:
        Its output, and whether it was cut off.

    Raises:
        GitError: it failed or took too long.
    """
    # A repository's own settings may name programs; none of them is needed to read it.
    command = [
        "git", "-c", f"safe.directory={folder}", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false",
        "-c", "core.quotePath=false", "-c", "i18n.logOutputEncoding=UTF-8", "-c", "log.showSignature=false",
        "-c", "gc.auto=0", "-c", "protocol.ext.allow=never",
        f"--git-dir={folder if (folder / 'HEAD').is_file() else folder / '.git'}", *arguments,
    ]  # fmt: skip
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "KNOWLEDGE_VAULT_"))},
        "LC_ALL": "C.UTF-8",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=10",
    }
    with tempfile.TemporaryFile() as said, subprocess.Popen(
        ["timeout", str(TIMEOUT_SECONDS), *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout
        output = process.stdout.read(limit + 1)
        if len(output) > limit:
            process.terminate()
            return output[:limit], True
        if process.wait():
            said.seek(0)
            raise GitError(said.read(2000).decode(errors="replace").strip() or f"git ended with {process.returncode}")
    return output, False


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
        own = folder if (folder / "HEAD").is_file() else folder / ".git"
        branches_folders = [Path(place) for place, _, _ in os.walk(own / "refs" / "heads")]
        for place in (own / "logs" / "HEAD", own / "packed-refs", own / "reftable", *sorted(branches_folders)):
            try:
                found.append(place.stat().st_mtime_ns)
            except OSError:
                found.append(0)
    return found


def text(data: bytes) -> str:
    """Decode what Git stores, whatever its encoding may have been."""
    return data.decode("utf-8", errors="replace")


def fetch(folder: Path, url: str) -> None:
    """Bring a copy of a remote repository up to date.

    Raises:
        GitError: it can't be reached.
    """
    if not (folder / "HEAD").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "--quiet", "--bare", str(folder)], check=True, capture_output=True, timeout=30)
    git(folder, "fetch", "--quiet", "--prune", "--no-tags", "--no-auto-maintenance", url, "+refs/heads/*:refs/heads/*")


def branches(folder: Path, wanted: list[str]) -> dict[str, str]:
    """Give each branch's newest commit; all branches where none is named."""
    output, _ = git(folder, "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads")
    pairs = [line.split(" ", 1) for line in text(output).splitlines()]
    return {name: commit for commit, name in pairs if not wanted or name in wanted}


def recent(folder: Path, now: dict[str, str]) -> list[str]:
    """List the newest commits, to know the past by them when the branches' own ends are thrown away."""
    if not now:
        return []
    output, _ = git(folder, "rev-list", f"--max-count={RECENT}", "--topo-order", *sorted(set(now.values())))
    return text(output).split()


def new_commits(
    folder: Path, seen: dict[str, Any] | None, now: dict[str, str], history: int = 0
) -> list[tuple[str, str]]:
    """List the commits that were not there the last time, the oldest first.

    Args:
        folder: the repository.
        seen: each branch's newest commit the last time (``branches``) and those before them (``recent``); nothing
            when the repository was never looked at.
        now: each branch's newest commit now.
        history: how many commits of the past count as new when the repository was never looked at.

    Returns:
        Commit and branch of each.
    """
    first = seen is None
    before: dict[str, str] = seen["branches"] if seen else {}
    known = [commit for commit in set(before.values()) if exists(folder, commit)]
    if seen and len(known) < len(set(before.values())):
        # A branch that was written anew may have left its old commits to be thrown away.
        known += [commit for commit in seen["recent"] if exists(folder, commit)]
    found: list[tuple[str, str]] = []
    for branch, commit in now.items() if history or not first else ():
        if before.get(branch) == commit:
            continue
        bound = [f"--max-count={history}"] if first else []
        output, _ = git(folder, "rev-list", "--topo-order", *bound, commit, "--not", *known, limit=READ_LIMIT * 40)
        found += [(line, branch) for line in reversed(text(output).split())]
        known.append(commit)
    return found[-history:] if first else found


def exists(folder: Path, commit: str) -> bool:
    """Tell whether a commit is in the repository."""
    try:
        git(folder, "cat-file", "-e", f"{commit}^{{commit}}")
    except GitError:
        return False
    return True


def event(folder: Path, repository: dict[str, Any], commit: str, branch: str) -> dict[str, Any]:
    """Tell of one commit what a note needs, with secrets taken out.

    Raises:
        GitError: the commit can't be read.
    """
    form = "--format=%P%x00%an%x00%ct%x00%B"
    output, cut = git(folder, "log", "-1", "--no-patch", form, commit, limit=MESSAGE_LIMIT * 8)
    parents, author, at, message = text(output).split("\0", 3)
    first = parents.split()[:1]
    files, total, added, removed = _files(folder, commit, first)
    diff, diff_cut, hidden = _diff(folder, commit, first)
    clean_message, in_message = redact(message.strip())
    web = str(repository.get("web_url") or "").rstrip("/")
    return {
        "version": 1,
        "repository": repository["name"],
        "commit": commit,
        "parents": parents.split(),
        "branch": branch,
        "author": author[:200],
        "time": int(at),
        "message": clean_message[:MESSAGE_LIMIT],
        "message_cut": cut or len(clean_message) > MESSAGE_LIMIT,
        "files": files,
        "files_total": total,
        "added": added,
        "removed": removed,
        "diff": diff,
        "diff_cut": diff_cut,
        "redacted": in_message + hidden,
        "web_url": f"{web}/commit/{commit}" if web else "",
    }


def _range(commit: str, parent: list[str]) -> list[str]:
    # A merge is what it brought to its first parent.
    return [*parent, commit] if parent else ["--root", commit]


def _files(folder: Path, commit: str, parent: list[str]) -> tuple[list[dict[str, Any]], int, int, int]:
    try:
        output, _ = git(
            folder, "diff-tree", "-r", "-z", "--no-commit-id", "--no-renames", "--numstat", *_range(commit, parent)
        )
    except GitError:
        # A shallow copy does not have the parent.
        return [], 0, 0, 0
    rows = [row.split("\t", 2) for row in text(output).split("\0") if row.count("\t") >= 2]
    # Binary files have no lines.
    counted = [(int(a) if a.isdigit() else 0, int(r) if r.isdigit() else 0, path) for a, r, path in rows]
    files = [{"path": redact(path[:500])[0], "added": a, "removed": r} for a, r, path in counted[:FILES_LIMIT]]
    return files, len(counted), sum(a for a, _, _ in counted), sum(r for _, r, _ in counted)


def _diff(folder: Path, commit: str, parent: list[str]) -> tuple[str, bool, int]:
    try:
        output, cut = git(
            folder, "diff-tree", "-r", "-p", "--no-commit-id", "--no-renames", "--no-color", "--no-ext-diff",
            "--no-textconv", "--unified=1", *_range(commit, parent), limit=DIFF_LIMIT * 4,
        )  # fmt: skip
    except GitError:
        return "", False, 0
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
