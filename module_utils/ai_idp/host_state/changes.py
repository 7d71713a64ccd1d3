# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was changed, or would be in check mode, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field


class StateError(Exception):
    """The wanted state can't be reached; the message says of what, why, and what to do."""


@dataclass
class Change:
    """One thing that was changed: its kind (file, directory, unit, ...), its name and in what way."""

    kind: str
    name: str
    how: str


@dataclass
class Journal:
    """Collects changes and what ``--diff`` shows of them."""

    changes: list[Change] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    def add(self, kind: str, name: str, how: str, before: str | None = None, after: str | None = None) -> None:
        """Note a change. Without ``before`` and ``after`` the diff says the change in words."""
        self.changes.append(Change(kind, name, how))
        if before is None and after is None:
            self.diff.append({"prepared": f"{kind} {name}: {how}\n"})
        else:
            self.diff.append(
                {
                    "before": before or "",
                    "after": after or "",
                    "before_header": f"{name} (before)",
                    "after_header": f"{name} (after)",
                }
            )

    def names(self, *kinds: str) -> set[str]:
        """Names of what was changed, of these kinds."""
        return {change.name for change in self.changes if change.kind in kinds}
