"""Checks notes against what Obsidian expects: frontmatter, properties, tags, and links that resolve.

The rules are those of Obsidian's help pages "Properties", "Tags" and "Internal links". PyYAML reads YAML 1.1, Obsidian
1.2: a value has to be the same in both, so plain scalars are held to forms on which they agree.
"""

import datetime
import re
from pathlib import Path
from typing import Any

import yaml

LISTS = ("tags", "aliases", "cssclasses")
TAG = re.compile(r"[^\W\d_][\w/-]*")
LINK = re.compile(r"!?\[\[([^\[\]|#^]+)(?:[#^][^\[\]|]*)?(?:\|([^\[\]]*))?\]\]")
FENCE = re.compile(r"^(?P<ticks>`{3,})[^`]*$")


def split(text: str) -> tuple[str, str]:
    """Split a note into frontmatter and the rest, as Obsidian does: from line 1 to the next line of three dashes."""
    assert text.startswith("---\n"), "the frontmatter does not begin in line 1"
    head, end, rest = text[4:].partition("\n---\n")
    assert end, "the frontmatter does not end"
    return head, rest


def properties(text: str) -> dict[str, Any]:
    """Read the frontmatter of a note.

    Raises:
        AssertionError: Obsidian would not read it, or not all of it.
    """
    head, _ = split(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\r\t]", head), "control characters"
    names = [row.partition(":")[0] for row in head.splitlines() if not row.startswith("  - ")]
    assert len(names) == len(set(names)), "a property is there twice"
    found = yaml.safe_load(head)
    assert isinstance(found, dict), "the frontmatter is no mapping"
    for name, value in found.items():
        assert isinstance(name, str)
        assert name not in ("tag", "alias", "cssclass"), f"{name} is no property any more"
        if name in LISTS:
            assert isinstance(value, list), f"{name} is no list"
        for one in value if isinstance(value, list) else [value]:
            assert isinstance(one, (str, int, float, bool, datetime.date, type(None))), f"{name} is nested"
            if isinstance(one, str):
                assert "\n" not in one, f"{name} has more than one line"
    for row in head.splitlines():
        value = row.removeprefix("  - ") if row.startswith("  - ") else row.partition(": ")[2]
        quoted = re.fullmatch(r'"(?:[^"\\]|\\.)*"', value)
        assert quoted or "[[" not in value, f"a link is not quoted: {row}"
        plain = re.fullmatch(
            r"|\[\]|-?\d{1,15}|\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d)?|true|false|pending|done|failed", value
        )
        assert quoted or plain, f"a text is not quoted: {row}"
    tags = found.get("tags", [])
    for tag in tags:
        assert isinstance(tag, str), f"{tag!r} is no text"
        assert TAG.fullmatch(tag), f"'{tag}' is no tag"
    assert len({tag.casefold() for tag in tags}) == len(tags), "a tag is there twice"
    return found


def prose(text: str) -> str:
    """Give what is not in a code block; every block has to end."""
    kept, ticks = [], ""
    for row in split(text)[1].splitlines():
        fence = FENCE.match(row)
        if ticks:
            if row.strip("`") == "" and len(row) >= len(ticks):
                ticks = ""
        elif fence:
            ticks = fence["ticks"]
        else:
            kept.append(row)
    assert not ticks, "a code block does not end"
    return "\n".join(kept)


def links(text: str) -> list[str]:
    """List what a note links to, in its properties and in its text."""
    found = properties(text)
    values = [one for value in found.values() for one in (value if isinstance(value, list) else [value])]
    linked = [match[1] for one in values if isinstance(one, str) for match in LINK.finditer(one)]
    # A backslash before a bracket makes words of it.
    bare = prose(text).replace("\\\\", "").replace("\\[", "").replace("\\]", "")
    return linked + [match[1] for match in LINK.finditer(bare)]


def check_vault(vault: Path) -> dict[str, dict[str, Any]]:
    """Check every note of a vault.

    Returns:
        The properties of each, by its path.

    Raises:
        AssertionError: a note breaks a rule, or a link leads nowhere.
    """
    files = [
        path for path in vault.rglob("*") if path.is_file() and not path.relative_to(vault).parts[0].startswith(".")
    ]
    found = {}
    names = {str(path.relative_to(vault)).removesuffix(".md").casefold() for path in files}
    for path in files:
        relative = str(path.relative_to(vault))
        assert not re.search(r'[\\:*?"<>|#^\[\]\x00-\x1f]', relative), (
            f"{relative!r}: a name that Obsidian can't link to"
        )
        assert not path.name.startswith("."), f"{relative}: left over"
        assert len(path.name.encode()) <= 200, f"{relative}: a long name"
        if path.suffix != ".md" or relative.startswith("Templates/"):
            continue
        text = path.read_text(encoding="utf-8")
        try:
            found[relative] = properties(text)
            for target in links(text):
                assert target.casefold() in names, f"the link to {target} leads nowhere"
        except (AssertionError, yaml.YAMLError) as error:
            raise AssertionError(f"{relative}: {error}") from error
    return found
