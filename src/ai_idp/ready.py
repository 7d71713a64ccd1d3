"""Is what the plan needs there? The hosts are asked by playbooks/ready.yml, which only reads; this shows the answer.

A row is "missing" too where a later week of the platform provides the thing; only what is `needed` counts.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.text import Text

from ai_idp.doctor import CheckRow, show_checks
from ai_idp.errors import FrontError, from_json, printable
from ai_idp.progress import PLAIN_WIDTH, STYLES
from ai_idp.project import Project
from ai_idp.runner import Outcome, run_playbook

PLAYBOOK = "ready"


class ReadyCheck(BaseModel):
    """One question and its answer; `needed` is false for what a later week provides or nothing depends on."""

    model_config = ConfigDict(frozen=True)

    name: str
    host: str
    status: Literal["ok", "missing", "unknown"]
    detail: str
    remedy: str
    needed: bool


class Readiness(BaseModel):
    """All answers; `ok` if everything needed is there, and known to be."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    checks: list[ReadyCheck]


def look(project: Project, inventory: str) -> Readiness:
    """Asks every host of an inventory. FrontError, with the reason, if nothing could be asked."""
    # What Ansible says is only of interest when it brings no report.
    said = Console(file=io.StringIO(), width=PLAIN_WIDTH)
    with tempfile.TemporaryDirectory(prefix="ai-idp-ready-") as folder:
        path = Path(folder) / "readiness.json"
        outcome = run_playbook(
            project,
            PLAYBOOK,
            inventory=inventory,
            console=said,
            variables=[f"ai_idp_readiness_file={path}", "ai_idp_readiness_required=false"],
        )
        if outcome.interrupted:
            raise KeyboardInterrupt
        if not path.is_file():
            raise FrontError(f"{inventory} could not be asked: {_reason(outcome)}")
        try:
            return Readiness.model_validate(from_json(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the top"
            why = printable(f"at {place}: {first['msg']}")
            raise FrontError(f"the report of playbooks/{PLAYBOOK}.yml makes no sense {why}") from error
        except (OSError, ValueError) as error:
            raise FrontError(f"the report of playbooks/{PLAYBOOK}.yml can't be read: {error}") from error


def _reason(outcome: Outcome) -> str:
    state = outcome.state
    if state.stats is not None and not state.stats["processed"]:
        return "its hosts.yml names no hosts"
    reasons = [failure.message for failure in state.failures] or state.complaints or ["Ansible gave no reason"]
    return f"{reasons[0].strip()} (Ansible's own output: {outcome.artifacts / 'stdout'})"


def show_readiness(console: Console, report: Readiness, inventory: str) -> None:
    """The report as a table; what is missing says what to do, and what nobody waits for is not shown in red."""
    rows = []
    for check in report.checks:
        detail = Text(check.detail)
        if check.remedy:
            detail.append(f"\n→ {'needed now: ' if check.needed else ''}{check.remedy}", "" if check.needed else "dim")
        style = None if check.needed or check.status == "ok" else "cyan"
        rows.append(CheckRow(check.name, check.host, check.status, detail, style))
    left = sum(check.needed and check.status != "ok" for check in report.checks)
    verdict = Text.assemble(("everything needed is there", STYLES["ok"]), "; what is not is for later or not asked for")
    if left:
        verdict = Text(f"{left} needed {'thing is' if left == 1 else 'things are'} not there", STYLES["missing"])
    show_checks(console, rows, Text.assemble(f"{inventory}: ", verdict))
