"""Brings MLflow's database to the schema of the image that is about to serve it, once for each image.

Runs in the container, before the server, which only makes tables that are missing and refuses a schema of before. What
a SQLite database was like is kept beside it where anything changes, since a migration is not undone when it fails.
"""

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

SQLITE = "sqlite:///"


def revision(file: Path) -> str:
    """The revision of a SQLite database's schema; empty where it tells none."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        try:
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return ""
    return str(found[0]) if found else ""


def keep_copy(file: Path) -> Path:
    """Copy a SQLite database as it is now, unless that was done before; returns where the copy lies."""
    kept = file.with_name(f"{file.name}.before-upgrade-of-{revision(file) or 'unknown'}")
    if not kept.exists():
        part = kept.with_name(f"{kept.name}.part")
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
        part.replace(kept)
    return kept


def bring_up_to_date(uri: str) -> None:
    """Have MLflow migrate a database."""
    # Takes seconds to load, and is seldom needed.
    from mlflow.db import commands

    file = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
    if file is None:
        commands(["upgrade", uri], standalone_mode=False)
    elif file.exists():
        before, kept = revision(file), keep_copy(file)
        commands(["upgrade", uri], standalone_mode=False)
        if revision(file) == before:
            kept.unlink()
        else:
            print(f"The database's schema was {before or 'unknown'} and is {revision(file)}; {kept} is as it was.")


def upgrade(image: str, uri: str, data: Path) -> None:
    """Migrate the database unless this image has done so before.

    Args:
        image: the image, with its digest.
        uri: address of the database. Its password is in no argument of a process.
        data: folder that keeps what was done.
    """
    note, done = data / "schema.upgraded", f"{image} {hashlib.sha256(uri.encode()).hexdigest()[:12]}"
    if note.exists() and note.read_text(encoding="utf-8") == done:
        return
    bring_up_to_date(uri)
    note.write_text(done, encoding="utf-8")


if __name__ == "__main__":
    upgrade(os.environ["AI_IDP_IMAGE"], os.environ["MLFLOW_BACKEND_STORE_URI"], Path("/data"))
