"""What brings MLflow's database to the schema of a new image: once for each, and with a copy of what was there."""

import importlib.util
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "roles" / "mlflow" / "files" / "upgrade_schema.py"


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("upgrade_schema", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def database(file: Path, revision: str) -> None:
    with closing(sqlite3.connect(file)) as made, made:
        made.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num)")
        made.execute("DELETE FROM alembic_version")
        made.execute("INSERT INTO alembic_version VALUES (?)", [revision])


@pytest.fixture
def migrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The addresses that MLflow was asked to migrate; it takes ours to the revision ``new``."""
    asked: list[str] = []

    def commands(arguments: list[str], *, standalone_mode: bool) -> None:
        assert (arguments[0], standalone_mode) == ("upgrade", False)
        asked.append(arguments[1])
        if (tmp_path / "mlflow.db").exists():
            database(tmp_path / "mlflow.db", "new")

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(db=None))
    monkeypatch.setitem(sys.modules, "mlflow.db", SimpleNamespace(commands=commands))
    return asked


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_database_of_an_earlier_version_is_migrated_once_and_kept(
    program: ModuleType, migrated: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "mlflow.db"
    database(file, "old")
    uri = f"sqlite:///{file}"
    for _ in range(2):
        program.upgrade("mlflow:2@sha256:1", uri, tmp_path)
    assert migrated == [uri]
    assert names(tmp_path) == ["mlflow.db", "mlflow.db.before-upgrade-of-old", "schema.upgraded"]
    assert program.revision(tmp_path / "mlflow.db.before-upgrade-of-old") == "old"
    # Another image asks again. It has no newer schema, so nothing is kept.
    program.upgrade("mlflow:3@sha256:2", uri, tmp_path)
    assert migrated == [uri, uri]
    assert names(tmp_path) == ["mlflow.db", "mlflow.db.before-upgrade-of-old", "schema.upgraded"]


def test_without_a_database_the_server_makes_it(program: ModuleType, migrated: list[str], tmp_path: Path) -> None:
    program.upgrade("mlflow:2", f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    assert migrated == []
    assert names(tmp_path) == ["schema.upgraded"]


def test_another_database_of_the_same_image_is_migrated_too_and_its_password_is_nowhere(
    program: ModuleType, migrated: list[str], tmp_path: Path
) -> None:
    program.upgrade("mlflow:2", f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    uri = "postgresql+psycopg2://mlflow:hidden@database.lan/mlflow"
    program.upgrade("mlflow:2", uri, tmp_path)
    assert migrated == [uri]
    assert "hidden" not in (tmp_path / "schema.upgraded").read_text(encoding="utf-8")


def test_a_migration_that_fails_is_tried_again_and_its_first_copy_stays(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "mlflow.db"
    database(file, "old")

    def fails(_arguments: Any, **_more: Any) -> None:
        with closing(sqlite3.connect(file)) as half, half:
            half.execute("CREATE TABLE IF NOT EXISTS half_way (x)")
        raise RuntimeError("out of disk")

    migrate: Callable[..., None] = fails
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(db=None))
    monkeypatch.setitem(sys.modules, "mlflow.db", SimpleNamespace(commands=migrate))
    for _ in range(2):
        with pytest.raises(RuntimeError):
            program.upgrade("mlflow:2", f"sqlite:///{file}", tmp_path)
    assert names(tmp_path) == ["mlflow.db", "mlflow.db.before-upgrade-of-old"]
    with closing(sqlite3.connect(tmp_path / "mlflow.db.before-upgrade-of-old")) as kept:
        assert [name for (name,) in kept.execute("SELECT name FROM sqlite_master")] == ["alembic_version"]


def test_a_database_that_tells_no_revision_is_kept_too(
    program: ModuleType, migrated: list[str], tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as made, made:
        made.execute("CREATE TABLE experiments (x)")
    program.upgrade("mlflow:2", f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    assert "mlflow.db.before-upgrade-of-unknown" in names(tmp_path)
