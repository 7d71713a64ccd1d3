# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documents that somebody else wrote, which may be cut off, of another shape, or none at all."""

from __future__ import annotations

import json
from typing import Any

WRONG_SHAPE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of reading on in a document that has not the shape it should have: null in place of a list, a text in
place of a number, a number that no float holds."""


def from_json(text: str | bytes) -> Any:
    """What a text says as JSON.

    Raises:
        ValueError: it is none. That of the standard library raises something else for one that is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def mapping_of(value: Any) -> dict[str, Any]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def mappings_of(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none where it is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def why_unread(error: Exception) -> str:
    """Why a text file could not be read, in words that quote nothing of it."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 text (byte {error.start})"
    return "it has another form"


def printable(text: str) -> str:
    """Text that can be written as UTF-8: half a character, as JSON can hold it, becomes ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")
