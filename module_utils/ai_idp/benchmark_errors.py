"""What the measuring tools have in common when they fail."""

from __future__ import annotations


class MeasurementError(Exception):
    """A tool gave no result, or one that must not be used; the text is one sentence for the user."""


class CannotMeasure(MeasurementError):
    """Something that the measurement needs is not here, so it is skipped."""
