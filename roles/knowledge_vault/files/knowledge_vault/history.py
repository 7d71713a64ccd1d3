"""Commits what was written into the vault's own Git, and nothing that the owner changed."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

from .events import say
from .vault import Keeper

PAUSE_SECONDS = 5
AT_ONCE = 500


def git(vault: Path, *arguments: str, given: bytes = b"") -> bytes:
    """Run git in the vault.

    Raises:
        OSError, subprocess.SubprocessError: it failed.
    """
    command = ["git", "-C", str(vault), "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", *arguments]
    name, mail = "AI-IDP", "ai-idp@localhost"
    own = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", name), ("EMAIL", mail))
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "KNOWLEDGE_VAULT_"))}
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        check=True,
        timeout=60,
        env={**environment, **own, "LC_ALL": "C.UTF-8"},
    )
    return done.stdout


def commit(keeper: Keeper) -> int:
    """Commit what is not committed yet.

    Returns:
        How many notes were looked at.

    Raises:
        OSError, subprocess.SubprocessError: it failed, as when the owner commits at the same time; the next time
            takes the same notes.
    """
    vault = keeper.settings.vault
    paths = keeper.uncommitted(AT_ONCE)
    # What the owner moved or deleted meanwhile is the owner's to commit.
    there = sorted(path for path in paths.values() if (vault / path).is_file())
    if there and not (vault / ".git").exists():
        git(vault, "init", "--quiet", "--initial-branch=main")
    there = _not_ignored(vault, there)
    if there:
        literal, from_input = "--literal-pathspecs", ("--pathspec-from-file=-", "--pathspec-file-nul")
        names = b"\0".join(path.encode() for path in there)
        git(vault, literal, "add", *from_input, given=names)
        if git(vault, literal, "diff", "--cached", "--name-only", "-z", "--", *there):
            message = f"{len(there)} notes" if len(there) > 1 else Path(there[0]).stem
            git(vault, literal, "commit", "--quiet", "--only", f"--message={message}", *from_input, given=names)
    keeper.committed(list(paths))
    return len(paths)


def _not_ignored(vault: Path, paths: list[str]) -> list[str]:
    """Leave out what the owner wants to keep out of Git (``.gitignore``); one such note would keep out all."""
    if not paths:
        return []
    names = b"".join(path.encode() + b"\0" for path in paths)
    try:
        told = git(vault, "check-ignore", "-z", "--stdin", given=names)
    except subprocess.CalledProcessError as error:
        # This is how it says that there is none.
        if error.returncode != 1:
            raise
        return paths
    ignored = set(told.decode().split("\0"))
    return [path for path in paths if path not in ignored]


def keep_committing(keeper: Keeper, stop: threading.Event) -> None:
    """Commit every few seconds until told to stop, and once more then."""
    problem = ""
    while True:
        last = stop.wait(PAUSE_SECONDS)
        try:
            commit(keeper)
            problem = ""
        except subprocess.CalledProcessError as error:
            told = error.stderr.decode(errors="replace").strip()[:300]
            if told != problem:
                say(4, f"the vault's Git: {told}")
            problem = told
        except (OSError, subprocess.SubprocessError) as error:
            say(4, f"the vault's Git: {error}")
        if last:
            return
