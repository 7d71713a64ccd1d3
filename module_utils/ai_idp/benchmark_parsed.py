"""What a tool's output says, in the words of the project's results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Parsed:
    """One run of one tool."""

    # One number for each metric; the unit is the end of its name.
    metrics: dict[str, float]
    # Several numbers of one run, such as one for each request.
    samples: dict[str, list[float]] = field(default_factory=dict)
    build: str | None = None
    model: str | None = None
    # What it ran on, where the tool tells: names of devices.
    devices: list[str] = field(default_factory=list)
    # More that the tool tells of what was measured.
    subject: dict[str, Any] = field(default_factory=dict)
