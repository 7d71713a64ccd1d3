"""What is known of the roles' variables: the defaults, and which names none of them has."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml


def unknown_variables(names: list[str], roles_dir: str) -> list[str]:
    """Name each variable that begins like a role's but is none of it.

    Args:
        names: names of variables that are set.
        roles_dir: folder of the roles; each role's ``meta/argument_specs.yml`` says what it knows.

    Returns:
        One sentence for each unknown variable, with the nearest known one.
    """
    known: dict[str, set[str]] = {}
    for path in Path(roles_dir).glob("*/meta/argument_specs.yml"):
        entry_points = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["argument_specs"].values()
        known[path.parts[-3]] = {name for entry_point in entry_points for name in entry_point.get("options", {})}
    problems = []
    for name in sorted(names):
        # The longest role name counts: a role may be called like the beginning of another.
        owners = sorted((role for role in known if name.startswith(f"{role}_")), key=len)
        if owners and name not in known[owners[-1]]:
            near = get_close_matches(name, known[owners[-1]], n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            problems.append(
                f"The variable {name} is set, but the role {owners[-1]} does not know it.{hint} "
                f"Correct or remove it; roles/{owners[-1]}/README.md lists what the role takes."
            )
    return problems


def role_defaults(role: str, roles_dir: str) -> dict[str, Any]:
    """Read the defaults of a role that a play does not run.

    Args:
        role: its name.
        roles_dir: folder of the roles.

    Returns:
        values by name, as they stand in ``defaults/main.yml``: an expression among them is not computed.
    """
    text = (Path(roles_dir) / role / "defaults" / "main.yml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    return values


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {"unknown_variables": unknown_variables, "role_defaults": role_defaults}
