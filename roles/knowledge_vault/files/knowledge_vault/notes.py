"""How notes look: names, frontmatter and text, whatever a commit or a model says.

What people wrote in a commit stands in code blocks, where nothing is a link, a tag, a query or a script. What a model
wrote is escaped for Markdown. Neither has a say in where a note lies.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from pathlib import PurePosixPath
from typing import Any

COMMITS, DAILY, REPOSITORIES = "Commits", "Daily", "Repositories"
BEGIN, END = "%% ai-idp: begin %%", "%% ai-idp: end %%"
TITLE_LIMIT = 80
SHOWN_FILES = 100


def _visible(char: str) -> bool:
    category, code = unicodedata.category(char), ord(char)
    # The joiner makes one emoji of several. Other format characters turn text around or hide it.
    return char == "\u200d" or not (
        category in ("Cc", "Cf", "Cs") or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    )


def line(text: str, limit: int = 400) -> str:
    """Make one line of a text, without control characters."""
    words = " ".join(unicodedata.normalize("NFC", text).split())
    clean = "".join(char for char in words if _visible(char)).strip()
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"


def lines(text: str) -> str:
    """Keep the lines of a text and lose its control characters."""
    rows = unicodedata.normalize("NFC", text).expandtabs(4).splitlines()
    return "\n".join("".join(char for char in row if _visible(char)).rstrip() for row in rows).strip("\n")


def escaped(text: str, limit: int = 400) -> str:
    """Make one line of a text that Markdown, Obsidian and its plugins take for nothing but words."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$%^=!&])", r"\\\1", line(text, limit)).replace("://", ":\\//")


def label(text: str, limit: int = TITLE_LIMIT) -> str:
    """Make one line that may stand inside a link or a property: no brackets, bars, tags."""
    return line(re.sub(r"[\[\]|#^`%<>\\]+", " ", text), limit)


def fence(text: str) -> str:
    """Put a text into a code block that nothing in it can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}text\n{text}\n{ticks}"


def slug(text: str) -> str:
    """Make the readable end of a file's name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:50].strip("-") or "commit"


def subject(message: str) -> str:
    """Give the first line of a commit's message."""
    return label(next((row for row in message.splitlines() if label(row)), "")) or "Commit without a message"


def local(at: int, form: str) -> str:
    """Write a time in the zone of the vault."""
    return time.strftime(form, time.localtime(at))


def note_path(event: dict[str, Any], at: int, digits: int = 12) -> str:
    """Tell where the note of a commit lies in the vault, by so many digits of its id."""
    day, month = local(at, "%Y-%m-%d"), local(at, "%Y-%m")
    name = f"{day} {event['commit'][:digits]} {slug(subject(event['message']))}.md"
    return str(PurePosixPath(COMMITS, event["repository"], month, name))


def link(path: str, shown: str = "") -> str:
    """Link to a note by its path, which no other note can have."""
    target = path.removesuffix(".md")
    return f"[[{target}|{label(shown) or PurePosixPath(target).name}]]"


def frontmatter(properties: dict[str, Any]) -> str:
    """Write properties as Obsidian reads them.

    A text is written as JSON, which is YAML in double quotes: nothing in it can end the value or the frontmatter.
    """
    rows = ["---"]
    for name, value in properties.items():
        if isinstance(value, list):
            rows.append(f"{name}:" if value else f"{name}: []")
            rows += [f"  - {_scalar(item)}" for item in value]
        else:
            # Obsidian takes what looks like a date for one, so only dates are written bare.
            rows.append(f"{name}: {value if name in ('date', 'created') else _scalar(value)}")
    return "\n".join([*rows, "---", ""])


def _scalar(value: Any) -> str:
    return str(value) if isinstance(value, int) else json.dumps(line(value, 1000), ensure_ascii=False)


def commit_note(
    event: dict[str, Any], at: int, state: str, answer: dict[str, Any], related: list[str], model: str
) -> str:
    """Write the note of a commit.

    Args:
        event: what the sender told of it, and the ``runs`` of MLflow that say that they are of it.
        at: when it was made, in seconds since 1970.
        state: ``pending``, ``done`` or ``failed``.
        answer: title, summary and tags of the model; empty as long as it gave none.
        related: links to notes that have to do with it.
        model: name of the model.
    """
    own = subject(event["message"])
    title = label(answer.get("title", "")) or own
    day = local(at, "%Y-%m-%d")
    properties: dict[str, Any] = {
        "title": title,
        "aliases": [title],
        "tags": answer.get("tags", []),
        "date": day,
        "created": local(at, "%Y-%m-%dT%H:%M:%S"),
        "repository": link(f"{REPOSITORIES}/{event['repository']}.md"),
        "day": link(f"{DAILY}/{day}.md"),
        "related": related,
        "commit": event["commit"],
        "branch": label(event["branch"], 200),
        "author": label(event["author"]) or "unknown",
        "files": event["files_total"],
        "added": event["added"],
        "removed": event["removed"],
        "ai": state,
    }
    if event["web_url"]:
        properties["url"] = event["web_url"]
    if state == "done":
        properties["model"] = model
    if event["redacted"]:
        properties["secrets_removed"] = event["redacted"]
    parts = [f"# {escaped(title, TITLE_LIMIT)}"]
    if answer.get("summary"):
        parts.append(f"> [!summary] Written by {escaped(model, 100)}\n> {escaped(answer['summary'], 800)}")
    if state == "failed":
        why = escaped(event.get("given_up", ""), 300)
        parts.append(f"> [!warning] Not completed by {escaped(model, 100)}\n> {why}")
    message = lines(event["message"]) or own
    parts.append(f"## Message\n\n{fence(message)}" + ("\n\nThe message is longer." if event["message_cut"] else ""))
    if event["files"]:
        shown = [f"+{one['added']} -{one['removed']}  {line(one['path'], 200)}" for one in event["files"][:SHOWN_FILES]]
        if event["files_total"] > len(shown):
            shown.append(f"and {event['files_total'] - len(shown)} more")
        parts.append("## Files\n\n" + fence("\n".join(shown)))
    # What older versions took says nothing of it.
    if event.get("files_cut"):
        parts.append("There are more files, or other ones: Git could not tell all of them.")
    if event.get("runs"):
        parts.append("## Runs\n\n" + "\n".join(_run(one) for one in event["runs"]))
    if related:
        parts.append("## Related\n\n" + "\n".join(f"- {one}" for one in related))
    return frontmatter(properties) + "\n" + "\n\n".join(parts) + "\n"


def _run(run: dict[str, str]) -> str:
    """Link to a run of MLflow in a row of a list."""
    of = f", of {run['note']}" if run.get("note") else ""
    shown = f"{escaped(run['status'], 40)}, {escaped(run['experiment'], 100)}"
    return f"- [{escaped(run['name'], 100)}](<{run['url']}>) ({shown}){of}"


def daily_stub(day: str) -> str:
    """Write a day's note as it is before its summary; what is below the marks is the owner's."""
    properties = {"title": day, "tags": [], "date": day}
    return f"{frontmatter(properties)}\n# {day}\n\n{BEGIN}\n{END}\n\n## Notes\n"


def repository_stub(name: str, url: str) -> str:
    """Write a repository's note; commits link to it, so its backlinks are the list of them."""
    properties: dict[str, Any] = {"title": name, "tags": []}
    if url:
        properties["url"] = url
    return f"{frontmatter(properties)}\n# {escaped(name)}\n\nIts commits link here: see the backlinks.\n"


def daily_block(
    commits: list[dict[str, Any]], runs: list[dict[str, str]], problem: str, summary: str, model: str
) -> str:
    """Write what a day's note says between its marks.

    Args:
        commits: path, title, repository and state of each note of the day.
        runs: name, experiment, status and address of each MLflow run of the day, and a link to its commit's note where
            there is one.
        problem: why the runs are not known; empty when they are.
        summary: the model's summary; empty as long as it gave none.
        model: name of the model.
    """
    parts = []
    if summary:
        parts.append(f"> [!summary] Written by {escaped(model, 100)}\n> {escaped(summary, 1000)}")
    names = sorted({one["repository"] for one in commits})
    parts.append(f"{len(commits)} commits in {len(names)} repositories." if commits else "No commits.")
    for name in names:
        rows = [f"- {link(one['path'], one['title'])}" for one in commits if one["repository"] == name]
        parts.append(f"### {link(f'{REPOSITORIES}/{name}.md', name)}\n\n" + "\n".join(rows))
    if runs:
        parts.append("### Experiments\n\n" + "\n".join(_run(run) for run in runs))
    elif problem:
        parts.append(f"### Experiments\n\nMLflow was not asked with success: {escaped(problem, 200)}")
    return "\n\n".join(parts)


def with_block(text: str, block: str, *, append: bool) -> str | None:
    """Replace what is between the marks.

    Returns:
        The new text, or nothing where the owner took the marks away; then the note is the owner's alone.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if begin and end:
        return f"{head}{BEGIN}\n{block}\n{END}{tail}"
    return f"{text.rstrip()}\n\n{BEGIN}\n{block}\n{END}\n" if append and not begin else None


def layout(tags: tuple[dict[str, str], ...]) -> dict[str, str]:
    """Write what a new vault begins with: start page, templates, settings of Obsidian; each by its path."""
    vocabulary = [f"- `{tag['name']}`: {line(tag.get('meaning') or '')}".rstrip(": ") for tag in tags]
    home = (
        "# Home\n\nEach commit in a watched repository becomes a note here, with a summary and tags of the platform's"
        " own model.\n\n"
        f"- `{COMMITS}`: one note for each commit, by repository and month\n"
        f"- `{DAILY}`: one note for each day; its summary stands between two marks, the rest is yours\n"
        f"- `{REPOSITORIES}`: one note for each repository; its backlinks are its commits\n"
        "- `Templates`: for notes of your own\n\n"
        "A note that you change or delete is left alone from then on. `ai: pending` marks notes that the model has not"
        " seen yet.\n\nThe tags are these: [[Tags|Tags]].\n"
    )
    own = "# {{title}}\n\n"
    return {
        "Home.md": frontmatter({"title": "Home", "tags": []}) + "\n" + home,
        "Tags.md": frontmatter({"title": "Tags", "tags": []}) + "\n# Tags\n\n" + "\n".join(vocabulary) + "\n",
        "Templates/Daily.md": f"---\ntags: []\ndate: {{{{date:YYYY-MM-DD}}}}\n---\n\n{own}{BEGIN}\n{END}\n\n## Notes\n",
        "Templates/Note.md": f"---\ntags: []\ndate: {{{{date:YYYY-MM-DD}}}}\n---\n\n{own}",
        ".obsidian/app.json": json.dumps({"alwaysUpdateLinks": True, "newLinkFormat": "absolute"}, indent=2) + "\n",
        ".obsidian/daily-notes.json": json.dumps(
            {"folder": DAILY, "format": "YYYY-MM-DD", "template": "Templates/Daily"}, indent=2
        )
        + "\n",
        ".obsidian/templates.json": json.dumps({"folder": "Templates"}, indent=2) + "\n",
    }
