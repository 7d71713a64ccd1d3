"""The vault's keeper: takes events, hands out work for the model, completes notes, sums up days.

A note is written plain as soon as its event comes; the model's answer is added when there is one. Which commits have
a note is kept in a small database, so each has exactly one. What the owner changed or deleted is left alone.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from . import mlflow, model, notes
from .events import say
from .files import TEMPORARY, write_whole
from .redaction import redact
from .settings import COMMIT, REPOSITORY, Settings

SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, repository TEXT NOT NULL, day TEXT NOT NULL, at INTEGER NOT NULL,
  path TEXT NOT NULL, state TEXT NOT NULL, event TEXT NOT NULL, answer TEXT NOT NULL DEFAULT '{}',
  written TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0,
  lease TEXT NOT NULL DEFAULT '', leased_until REAL NOT NULL DEFAULT 0, taken REAL NOT NULL, completed REAL
);
CREATE INDEX IF NOT EXISTS by_state ON notes (state, not_before);
CREATE INDEX IF NOT EXISTS by_path ON notes (path);
CREATE INDEX IF NOT EXISTS by_day ON notes (kind, day);
CREATE TABLE IF NOT EXISTS made (path TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS uncommitted (number INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT UNIQUE NOT NULL);
"""
# What later versions added.
COLUMNS = {"tried": "REAL NOT NULL DEFAULT 0", "problem": "TEXT NOT NULL DEFAULT ''"}
SYNCHRONOUS = "FULL"
"""A note that was taken is remembered after a power cut too."""
GIT_BEGAN = 1112911993
ATTEMPTS = 8
# How often a request is halved.
HALVED = 4
MODEL_PAUSE_SECONDS = 20
LEASE_SPARE_SECONDS = 15
# What the model could not do in time is tried again after so long, then twice as long, up to an hour.
SLOW_PAUSE_SECONDS = 60
SLOW_PAUSE_LIMIT = 3600
TOO_SLOW = "it did not answer in time"
# A commit that is older than this when it is taken is history: it waits until the new ones are done.
HISTORY_SECONDS = 86_400
OUTCOMES = ("done", "slow", "wrong", "away")
# How far back days without commits are looked at for runs.
DAYS_BACK = 31
RELATED = 5
# A commit of which there are more links to the newest.
RUNS = 50
LOOKED_BACK = 300


class Rejected(ValueError):
    """An event that can't become a note, however often it is sent."""


class Keeper:
    """The vault and the memory of what is in it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.RLock()
        self.model_not_before = 0.0
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        settings.state.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(settings.state / "notes.sqlite", check_same_thread=False)
        self.database.row_factory = sqlite3.Row
        self.database.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        self.database.executescript(SCHEMA)
        there = {row["name"] for row in self.database.execute("PRAGMA table_info(notes)")}
        for name, kind in COLUMNS.items():
            if name not in there:
                self.database.execute(f"ALTER TABLE notes ADD COLUMN {name} {kind}")
        try:
            self._begin()
        except (OSError, ValueError, sqlite3.Error) as error:
            # On a full disk, say. Everything else says so by itself, and the next start does this again.
            say(4, f"the vault is not prepared: {error}")

    def _begin(self) -> None:
        # What a power cut left.
        for folder in (notes.COMMITS, notes.DAILY, notes.REPOSITORIES):
            for path in (self.settings.vault / folder).rglob(TEMPORARY):
                path.unlink()
        for folder in (".", "Templates", ".obsidian"):
            for path in (self.settings.vault / folder).glob(TEMPORARY):
                path.unlink()
        self._lay_out()
        with self.database:
            # It was started with other settings, perhaps those of a model that does better.
            self.database.execute(
                "UPDATE notes SET state = 'pending', attempts = 0, not_before = 0, tried = 0, problem = ''"
                " WHERE state IN ('failed', 'pending')"
            )

    def _lay_out(self) -> None:
        """Make a new vault what it begins with. What the owner deletes later is not made again; the tags are ours."""
        first = self._row("layout") is None
        for path, text in notes.layout(self.settings.tags).items():
            there = self._file(path)
            if (first and not there.exists()) or (
                path == "Tags.md" and (not there.is_file() or there.read_text(encoding="utf-8") != text)
            ):
                self._write(path, text)
                with self.database:
                    self.database.execute("INSERT OR REPLACE INTO uncommitted (path) VALUES (?)", (path,))
        if first:
            with self.database:
                self.database.execute(
                    "INSERT INTO notes (id, kind, repository, day, at, path, state, event, taken)"
                    " VALUES ('layout', 'layout', '', '', 0, '', 'done', '{}', ?)",
                    (time.time(),),
                )

    # --- events

    def take(self, event: dict[str, Any]) -> dict[str, Any]:
        """Write the plain note of a commit, once.

        Returns:
            ``status`` (``new`` or ``known``), ``commit``, ``note`` and ``work`` for the model, if there is some.

        Raises:
            Rejected: the event is not what a sender sends.
            OSError, sqlite3.Error: nothing was written; it can be sent again.
        """
        event = checked(event)
        with self.lock:
            row = self._row(event["commit"])
            if row and row["state"] != "writing":
                return {"status": "known", "commit": event["commit"], "note": row["path"], "work": self.work()}
            now = time.time()
            # Who commits can write any date; Git itself is from 2005.
            at = event["time"] if GIT_BEGAN <= event["time"] <= now + 86400 else int(now)
            if row:
                at = row["at"]
            path = notes.note_path(event, at)
            if self.database.execute(
                "SELECT 1 FROM notes WHERE path = ? AND id != ?", (path, event["commit"])
            ).fetchone():
                path = notes.note_path(event, at, 64)
            day = notes.local(at, "%Y-%m-%d")
            # Without a record, a file that is there is not ours to write: the memory was lost, or the owner made it.
            foreign = not row and self._file(path).exists()
            if not row:
                values = (event["commit"], "commit", event["repository"], day, at, path, json.dumps(event), now)
                with self.database:
                    self.database.execute(
                        "INSERT INTO notes (id, kind, repository, day, at, path, state, event, taken)"
                        " VALUES (?, ?, ?, ?, ?, ?, 'writing', ?, ?)",
                        values,
                    )
            self._ensure(f"{notes.REPOSITORIES}/{event['repository']}.md", notes.repository_stub(
                event["repository"], event["web_url"].removesuffix(f"/commit/{event['commit']}")))  # fmt: skip
            self._ensure(f"{notes.DAILY}/{day}.md", notes.daily_stub(day))
            if foreign:
                self._update(event["commit"], state="kept")
                return {"status": "known", "commit": event["commit"], "note": path, "work": self.work()}
            text = self._commit_text(event, at, "pending", {}, event["commit"])
            self._write(path, text)
            self._update(event["commit"], state="pending", written=_hash(text), path_to_commit=path)
            return {"status": "new", "commit": event["commit"], "note": path, "work": self.work()}

    # --- work for the model

    def work(self) -> dict[str, Any] | None:
        """Hand out the next note that the model may complete, to one worker and for a limited time.

        Returns:
            ``lease``, ``note`` and ``request``; nothing when there is none, or enough is in progress, or the model
            has just been found away.
        """
        now = time.time()
        with self.lock:
            if now < self.model_not_before:
                return None
            busy = self.database.execute("SELECT count(*) FROM notes WHERE leased_until > ?", (now,)).fetchone()[0]
            if busy >= self.settings.model_parallel:
                return None
            row = self.database.execute(
                "SELECT * FROM notes WHERE state = 'pending' AND not_before <= ? AND leased_until <= ?"
                # What was tried least comes first, then what was tried longest ago: no note keeps the others waiting,
                # whatever becomes of it.
                " ORDER BY attempts, tried, kind = 'commit' AND taken - at > ?, kind, taken LIMIT 1",
                (now, now, HISTORY_SECONDS),
            ).fetchone()
            if row is None:
                return None
            lease = secrets.token_hex(16)
            until = now + self.settings.model_timeout + LEASE_SPARE_SECONDS
            try:
                self._update(row["id"], lease=lease, leased_until=until, tried=now)
            except sqlite3.Error as error:
                say(4, f"no work is handed out: {error}")
                return None
            # A model with a small context refuses what is too long: each further try is half as long.
            budget = max(400, self.settings.prompt_budget >> min(row["attempts"], HALVED))
            event = json.loads(row["event"])
            if row["kind"] == "commit":
                facts = model.commit_facts(event, budget)
            else:
                facts = model.day_facts(row["day"], event["commits"], event["runs"], budget)
            request = model.request(row["kind"], facts, self.settings.model, self.settings.tags)
            return {"lease": lease, "note": row["path"], "request": request}

    def complete(self, lease: str, status: int | None, body: Any, problem: str) -> dict[str, Any]:
        """Complete a note with what the model said, or leave it for later.

        Args:
            lease: as it was handed out.
            status: HTTP status of the model's endpoint, if it answered.
            body: what it answered.
            problem: why it did not.

        Returns:
            ``status`` (``done``, ``pending``, ``failed``, ``kept`` or ``gone``) and the next ``work``.

        Raises:
            OSError, sqlite3.Error: the note could not be written; it is as it was.
        """
        with self.lock:
            row = self.database.execute("SELECT * FROM notes WHERE lease = ?", (lease,)).fetchone() if lease else None
            if row is None or row["state"] != "pending":
                return {"status": "gone", "work": self.work()}
            now = time.time()
            # n8n gives up after the same time. Whoever is away says so sooner, or whoever stands before it does.
            if status in (None, 408, 504) and now - row["tried"] >= self.settings.model_timeout:
                self.outcomes["slow"] += 1
                return {"status": self._slow(row, now), "work": self.work()}
            away = status is None or status in (401, 403, 404, 408, 425, 429) or status >= 500
            if away:
                self.outcomes["away"] += 1
                self.model_not_before = now + MODEL_PAUSE_SECONDS
                say(
                    4, f"{row['path']} stays plain for now: the model's endpoint {problem or f'answers {status}'}"[:500]
                )
                self._update(row["id"], lease="", leased_until=0)
                return {"status": "pending", "work": None}
            try:
                if not 200 <= (status or 0) < 300:
                    raise model.BadAnswer(f"the endpoint answers {status}")
                answer = model.answer(row["kind"], body, self.settings.tags)
            except model.BadAnswer as error:
                self.outcomes["wrong"] += 1
                result = self._bad(row, str(error), now, too_long=status in (400, 413))
            else:
                result = self._completed(row, answer, now)
                self.outcomes["done"] += 1
            return {"status": result, "work": self.work()}

    def _bad(self, row: sqlite3.Row, problem: str, now: float, *, too_long: bool) -> str:
        attempts = row["attempts"] + 1
        say(4, f"{row['path']}: {problem} (attempt {attempts} of {ATTEMPTS})")
        # The next request is half as long, so there is nothing to wait for.
        wait = 0 if too_long and attempts <= HALVED else 15 * 2**attempts
        return self._again_or_given_up(row, problem, now + wait)

    def _slow(self, row: sqlite3.Row, now: float) -> str:
        attempts = row["attempts"] + 1
        say(4, f"{row['path']} stays plain for now: the model did not answer in time ({attempts} of {ATTEMPTS})")
        wait = min(SLOW_PAUSE_LIMIT, SLOW_PAUSE_SECONDS * 2 ** (attempts - 1))
        return self._again_or_given_up(row, TOO_SLOW, now + wait)

    def _again_or_given_up(self, row: sqlite3.Row, problem: str, not_before: float) -> str:
        """Leave a note for later, or, after so many tries, leave it plain and say so in it."""
        attempts = row["attempts"] + 1
        if attempts < ATTEMPTS:
            self._update(row["id"], lease="", leased_until=0, attempts=attempts, not_before=not_before, problem=problem)
            return "pending"
        try:
            if row["kind"] == "commit" and self._is_ours(row):
                event = {**json.loads(row["event"]), "given_up": f"{problem} ({ATTEMPTS} tries)"}
                text = self._commit_text(event, row["at"], "failed", {}, row["id"])
                self._replace(row, text)
                self._update(row["id"], path_to_commit=row["path"], written=_hash(text))
        except OSError:
            self._update(row["id"], lease="", leased_until=0, not_before=not_before)
            raise
        self._update(row["id"], lease="", leased_until=0, attempts=attempts, state="failed", problem=problem)
        return "failed"

    def _try_the_slow_again(self) -> None:
        """Give what was too slow one more try a day: whoever was slow, or away in silence, may be well again."""
        with self.database:
            self.database.execute(
                "UPDATE notes SET state = 'pending', attempts = ?, not_before = 0"
                " WHERE state = 'failed' AND problem = ?",
                (ATTEMPTS - 1, TOO_SLOW),
            )

    def _completed(self, row: sqlite3.Row, answer: dict[str, Any], now: float) -> str:
        event = json.loads(row["event"])
        text: str | None = None
        try:
            if row["kind"] == "day":
                text = self._daily_text(row["path"], event, answer["summary"], append=False)
            elif self._is_ours(row):
                text = self._commit_text(event, row["at"], "done", answer, row["id"])
            if text is not None:
                self._replace(row, text)
        except OSError:
            self._update(row["id"], lease="", leased_until=0, not_before=now + 30)
            raise
        # The model has seen the diff; nobody needs it any more.
        event.pop("diff", None)
        changes: dict[str, Any] = {
            "lease": "",
            "leased_until": 0,
            "event": json.dumps(event),
            "answer": json.dumps(answer),
            "problem": "",
        }
        if text is None:
            self._update(row["id"], state="kept", **changes)
            return "kept"
        self._update(row["id"], state="done", written=_hash(text), completed=now, path_to_commit=row["path"], **changes)
        return "done"

    # --- days

    def sum_up(self, day: str = "") -> dict[str, Any]:
        """Write the summaries of all days that are over and have none, or that of one day.

        A day that got further commits after its summary is summed up again, and so is one whose runs MLflow could not
        tell then and tells now. A day without commits has a note where it has runs.
        """
        if day:
            time.strptime(day, "%Y-%m-%d")
            due: dict[str, bool] = {day: False}
            quiet: list[str] = []
        else:
            with self.lock:
                self._try_the_slow_again()
                due = self._due_days()
                quiet = self._quiet_days()
        done = []
        away = ""
        # In their order, so that what is known of the quiet ones has no gap.
        for one in sorted({*due, *quiet}):
            # MLflow may take its time; nobody else waits for it, and who is away is asked once.
            runs, problem = ([], away) if away else self._runs(one)
            away = away or problem
            # Its runs alone are missing, as they were: the note stays, with its summary.
            waits = problem and due.get(one, True)
            with self.lock:
                if not waits and (one in due or (runs and not self._row(f"day:{one}"))):
                    self._sum_up(one, runs, problem)
                    done.append(one)
                if one in quiet and not away:
                    self._looked_at(one)
        return {"days": done, "work": self.work()}

    def _due_days(self) -> dict[str, bool]:
        """Give the days that are over and not summed up as they are; of each, whether only its runs are missing."""
        known = self.database.execute(
            "SELECT day, sum(kind = 'commit') AS commits, max(CASE WHEN kind = 'day' THEN event END) AS event"
            " FROM notes WHERE kind = 'day' OR (kind = 'commit' AND state != 'writing') GROUP BY day"
        ).fetchall()
        days = {}
        for row in known:
            told = json.loads(row["event"] or "{}")
            counted = told.get("count") == row["commits"]
            if row["day"] < self._today() and (not counted or told.get("problem")):
                days[row["day"]] = counted
        return days

    def _quiet_days(self) -> list[str]:
        """Give the days that are over and not looked at for runs yet, the oldest first; the first time yesterday."""
        if not self.settings.mlflow.get("url"):
            return []
        looked = self._row("runs")
        noon = time.mktime((*time.strptime(self._today(), "%Y-%m-%d")[:3], 12, 0, 0, 0, 0, -1))
        days = [notes.local(int(noon) - back * 86_400, "%Y-%m-%d") for back in range(DAYS_BACK, 0, -1)]
        if looked is None:
            # From now on none is left out, also where MLflow is away the first time.
            self._looked_at(days[-2])
            return days[-1:]
        return [day for day in days if day > looked["day"]]

    def _looked_at(self, day: str) -> None:
        with self.database:
            self.database.execute(
                "INSERT OR REPLACE INTO notes (id, kind, repository, day, at, path, state, event, taken)"
                " VALUES ('runs', 'runs', '', ?, 0, '', 'done', '{}', ?)",
                (day, time.time()),
            )

    @staticmethod
    def _today() -> str:
        return notes.local(int(time.time()), "%Y-%m-%d")

    def _runs(self, day: str) -> tuple[list[dict[str, str]], str]:
        if not self.settings.mlflow.get("url"):
            return [], ""
        try:
            return mlflow.runs_of(day, self.settings.mlflow, self.settings.ca_file), ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = str(getattr(error, "reason", "") or error) or type(error).__name__
            say(4, f"runs of {day} are not known: {problem}")
            return [], problem

    def _sum_up(self, day: str, runs: list[dict[str, str]], problem: str) -> None:
        rows = self.database.execute(
            "SELECT * FROM notes WHERE kind = 'commit' AND day = ? AND state != 'writing' ORDER BY at, taken", (day,)
        ).fetchall()
        commits = [
            {"path": row["path"], "repository": row["repository"], "title": self._title(row)}
            for row in rows
            if self._file(row["path"]).is_file()
        ]
        runs = [self._with_commit(run) for run in runs]
        event = {"count": len(rows), "commits": commits, "runs": runs, "problem": problem}
        path = f"{notes.DAILY}/{day}.md"
        self._ensure(path, notes.daily_stub(day))
        before = self._row(f"day:{day}")
        text = self._daily_text(path, event, "", append=before is None)
        if text is not None:
            self._write(path, text)
        # There is nothing to say about a day without anything.
        state = "kept" if text is None else "pending" if commits or runs else "done"
        with self.database:
            self.database.execute(
                "INSERT OR REPLACE INTO notes (id, kind, repository, day, at, path, state, event, taken)"
                " VALUES (?, 'day', '', ?, 0, ?, ?, ?, ?)",
                (f"day:{day}", day, path, state, json.dumps(event), time.time()),
            )
            if text is not None:
                self.database.execute("INSERT OR REPLACE INTO uncommitted (path) VALUES (?)", (path,))

    def _with_commit(self, run: dict[str, str]) -> dict[str, str]:
        """Link a run and the note of the commit that it says it is of, each to the other."""
        row = self._row(run["commit"]) if COMMIT.fullmatch(run.get("commit", "")) else None
        if row is None or row["state"] == "writing" or not self._file(row["path"]).is_file():
            return run
        event = json.loads(row["event"])
        known = event.get("runs", [])
        if run not in known and self._is_ours(row):
            event["runs"] = [*(one for one in known if one["url"] != run["url"]), run][-RUNS:]
            told = {**event, "given_up": f"{row['problem']} ({ATTEMPTS} tries)"}
            text = self._commit_text(told, row["at"], row["state"], json.loads(row["answer"]), row["id"])
            self._replace(row, text)
            self._update(row["id"], event=json.dumps(event), written=_hash(text), path_to_commit=row["path"])
        return {**run, "note": notes.link(row["path"], self._title(row))}

    def _daily_text(self, path: str, event: dict[str, Any], summary: str, *, append: bool) -> str | None:
        try:
            text = self._file(path).read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            # Deleted, or not written by anybody who writes notes: both are the owner's.
            return None
        block = notes.daily_block(event["commits"], event["runs"], event["problem"], summary, self.settings.model)
        return notes.with_block(text, block, append=append)

    # --- notes

    def _commit_text(self, event: dict[str, Any], at: int, state: str, answer: dict[str, Any], commit: str) -> str:
        related = self._related(event, answer, commit)
        return notes.commit_note(event, at, state, answer, related, self.settings.model)

    def _related(self, event: dict[str, Any], answer: dict[str, Any], commit: str) -> list[str]:
        """Find earlier notes of the repository: the parents, then those that touch the same files or have its tags."""
        paths = {one["path"] for one in event["files"]}
        tags = set(answer.get("tags", []))
        rows = self.database.execute(
            "SELECT * FROM notes WHERE kind = 'commit' AND repository = ? AND id != ? AND state != 'writing'"
            " ORDER BY taken DESC LIMIT ?",
            (event["repository"], commit, LOOKED_BACK),
        ).fetchall()
        scored = []
        for age, row in enumerate(rows):
            other = json.loads(row["event"])
            score = 3.0 * len(paths & {one["path"] for one in other["files"]}) / max(1, len(paths))
            score += len(tags & set(json.loads(row["answer"]).get("tags", [])))
            score += 10 if row["id"] in event["parents"] else 0
            if score > 0:
                scored.append((-score, age, row))
        best = [row for _, _, row in sorted(scored, key=lambda one: one[:2])]
        there = [row for row in best[: RELATED * 3] if self._file(row["path"]).is_file()]
        return [notes.link(row["path"], self._title(row)) for row in there[:RELATED]]

    @staticmethod
    def _title(row: sqlite3.Row) -> str:
        return json.loads(row["answer"]).get("title") or notes.subject(json.loads(row["event"])["message"])

    def _replace(self, row: sqlite3.Row, text: str) -> None:
        """Write a note anew. That it is ours is known before and after, so a power cut makes it nobody else's."""
        there = self._file(row["path"]).read_text(encoding="utf-8")
        self._update(row["id"], written=f"{_hash(there)} {_hash(text)}")
        self._write(row["path"], text)

    def _is_ours(self, row: sqlite3.Row) -> bool:
        """Tell whether a note is still as it was written; the owner may have changed or deleted it."""
        try:
            return _hash(self._file(row["path"]).read_text(encoding="utf-8")) in row["written"].split(" ")
        except (OSError, UnicodeDecodeError):
            return False

    def _file(self, path: str) -> Path:
        return self.settings.vault / path

    def _write(self, path: str, text: str) -> None:
        write_whole(self._file(path), text, inside=self.settings.vault)

    def _ensure(self, path: str, text: str) -> None:
        """Make a note that others link to, once: where the owner deletes it, it stays deleted."""
        if self.database.execute("SELECT 1 FROM made WHERE path = ?", (path,)).fetchone():
            return
        new = not self._file(path).exists()
        if new:
            self._write(path, text)
        with self.database:
            self.database.execute("INSERT OR REPLACE INTO made (path) VALUES (?)", (path,))
            if new:
                self.database.execute("INSERT OR REPLACE INTO uncommitted (path) VALUES (?)", (path,))

    # --- memory

    def _row(self, identity: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.database.execute("SELECT * FROM notes WHERE id = ?", (identity,)).fetchone()
        return row

    def _update(self, identity: str, *, path_to_commit: str = "", **values: Any) -> None:
        with self.database:
            columns = ", ".join(f"{name} = ?" for name in values)
            self.database.execute(f"UPDATE notes SET {columns} WHERE id = ?", (*values.values(), identity))  # noqa: S608
            if path_to_commit:
                self.database.execute("INSERT OR REPLACE INTO uncommitted (path) VALUES (?)", (path_to_commit,))

    def counts(self) -> dict[str, int]:
        """Count the notes of commits by state."""
        with self.lock:
            rows = self.database.execute(
                "SELECT state, count(*) AS n FROM notes WHERE kind = 'commit' GROUP BY state"
            ).fetchall()
        return {
            **dict.fromkeys(("writing", "pending", "done", "kept", "failed"), 0),
            **{r["state"]: r["n"] for r in rows},
        }

    def uncommitted(self, limit: int) -> dict[int, str]:
        """Give the notes that the vault's Git does not have yet, each by the number of its writing."""
        with self.lock:
            rows = self.database.execute("SELECT number, path FROM uncommitted ORDER BY number LIMIT ?", (limit,))
            return {row["number"]: row["path"] for row in rows}

    def committed(self, numbers: list[int]) -> None:
        """Remember that the vault's Git has these; what was written again meanwhile has another number."""
        with self.lock, self.database:
            self.database.executemany("DELETE FROM uncommitted WHERE number = ?", [(number,) for number in numbers])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def checked(event: Any) -> dict[str, Any]:
    """Take from an event what a note needs, each thing of the type and size that it must have, without secrets.

    Raises:
        Rejected: it is no event.
    """
    if not isinstance(event, dict) or event.get("version") != 1:
        raise Rejected("not an event of version 1")
    repository, commit, at = event.get("repository"), event.get("commit"), event.get("time")
    if not isinstance(repository, str) or not REPOSITORY.fullmatch(repository):
        raise Rejected("the repository has no usable name")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise Rejected("the commit id is none")
    if not isinstance(at, int):
        raise Rejected("the time is no number")
    found = 0

    def text(value: Any, limit: int) -> str:
        nonlocal found
        clean, count = redact(value[: limit * 2] if isinstance(value, str) else "")
        found += count
        return clean[:limit]

    def number(value: Any) -> int:
        return value if isinstance(value, int) and 0 <= value < 2**53 else 0

    def entries(value: Any) -> list[Any]:
        return value if isinstance(value, list) else []

    url = event.get("web_url")
    clean = {
        "repository": repository,
        "commit": commit,
        "time": at,
        "parents": [one for one in entries(event.get("parents")) if isinstance(one, str) and COMMIT.fullmatch(one)][
            :16
        ],
        "branch": text(event.get("branch"), 200),
        "author": text(event.get("author"), 200),
        "message": text(event.get("message"), 10_000),
        "message_cut": bool(event.get("message_cut")),
        "files": [
            {
                "path": text(one.get("path"), 500),
                "added": number(one.get("added")),
                "removed": number(one.get("removed")),
            }
            for one in entries(event.get("files"))[:500]
            if isinstance(one, dict)
        ],
        "files_total": number(event.get("files_total")),
        "files_cut": bool(event.get("files_cut")),
        "added": number(event.get("added")),
        "removed": number(event.get("removed")),
        "diff": text(event.get("diff"), 20_000),
        "web_url": url if isinstance(url, str) and url.startswith(("https://", "http://")) and len(url) < 500 else "",
    }
    return {**clean, "redacted": found + number(event.get("redacted"))}
