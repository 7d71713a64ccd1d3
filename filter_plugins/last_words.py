# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a program said last, as an error may show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def last_words(result: Mapping[str, Any], secrets: Iterable[str]) -> str:
    """Join what a command printed, without the secrets that may stand in it.

    Args:
        result: what ``command`` registered; ``stdout`` and ``stderr`` are missing where it was skipped.
        secrets: passwords and keys; empty ones are passed over.

    Returns:
        its output and then its errors, each secret replaced by three stars; ``nothing`` where it was silent.
    """
    parts = [str(result.get(name) or "").strip() for name in ("stdout", "stderr")]
    text = "\n".join(part for part in parts if part)
    # The longest first: one secret may be part of another.
    for secret in sorted({str(one) for one in secrets if one}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text or "nothing"


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Any]:
        """Name it."""
        return {"last_words": last_words}
