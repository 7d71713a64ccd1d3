"""`ai-idp report`: draws the report of a week from its findings, and opens it when asked to."""

from __future__ import annotations

import webbrowser

from rich.console import Console

from ai_idp.benchmarks.findings_file import WEEK
from ai_idp.benchmarks.report import write_report
from ai_idp.errors import FrontError
from ai_idp.progress import write_line
from ai_idp.project import Project

FOLDER = "benchmarks"


def make_report(project: Project, console: Console, *, week: int, show: bool) -> None:
    """Writes the report, says where it is and what it comes to. FrontError if there is nothing to draw from."""
    if week != WEEK:
        raise FrontError(f"--week {week}: there is a report of week {WEEK} only")
    written = write_report(project.root / FOLDER)
    for path, changed in written.files.items():
        write_line(console, f"{project.shown(path)}: {'written' if changed else 'unchanged'}")
    counts = [f"{count} {words.word.lower()}" for _, words, count in written.view.counts if count]
    write_line(console, f"{written.view.total} verdicts: {', '.join(counts) or 'none'}", "bold")
    if written.view.lab:
        scope = "These figures are" if written.view.lab == "all" else "Some of these figures are"
        write_line(console, f"{scope} of the lab: they can neither confirm nor refute the plan.", "yellow")
    if show:
        page = next(iter(written.files))
        if not webbrowser.open(page.as_uri()):
            raise FrontError(f"no browser could be started here: open {project.shown(page)} yourself")
