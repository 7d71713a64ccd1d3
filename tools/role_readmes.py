"""Writes each role's README.md from its argument spec, so that the two can not part. ``--check`` only compares."""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"


def plain(text: str | list[str]) -> str:
    """Turn Ansible's markup into Markdown."""
    joined = " ".join(text) if isinstance(text, list) else text
    return re.sub(r"\b[CVOEMIBPRFL]\(([^)]*)\)", r"`\1`", joined).strip()


def readme(role: str, spec: dict[str, Any]) -> str:
    """Render one README.

    Args:
        role: the role's name.
        spec: its main entry point from ``meta/argument_specs.yml``.
    """
    paragraphs = spec["description"] if isinstance(spec["description"], list) else [spec["description"]]
    lines = [f"# {role}", "", plain(spec["short_description"]) + ".", ""]
    lines += [f"{plain(paragraph)}\n" for paragraph in paragraphs]
    lines += ["## Variables", "", "| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in spec.get("options", {}).items():
        default = "required" if option.get("required") else f"`{json.dumps(option.get('default'))}`"
        choices = f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if "choices" in option else ""
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        cells = [f"`{name}`", kind, default, plain(option["description"]) + choices]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    lines += ["", "Made from `meta/argument_specs.yml` by `make docs`.", ""]
    return "\n".join(lines)


def main() -> int:
    """Write or compare every README; return 1 where one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, and exit 1 where a README is out of date")
    check = parser.parse_args().check
    stale = []
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        role = path.parts[-3]
        text = readme(role, yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"])
        target = ROLES / role / "README.md"
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            stale.append(role)
            if not check:
                target.write_text(text, encoding="utf-8")
    if stale:
        print(f"{'out of date' if check else 'written'}: {', '.join(stale)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
