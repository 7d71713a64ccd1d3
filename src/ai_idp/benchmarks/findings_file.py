"""The findings file as the report reads it: claims judged, the measurements behind them, and their history."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ai_idp.errors import FrontError, from_json, printable, why_unread

WEEK = 1
# What is larger was never measured, and no plot could show it.
LARGEST = 1e150


class Verdict(StrEnum):
    """What became of a claim, from best to worst; the last says that nobody knows."""

    CONFIRMED = "confirmed"
    WITHIN_EXPECTED = "within_expected"
    MEETS_80_PERCENT = "meets_80_percent"
    BELOW = "below"
    REFUTED = "refuted"
    IMPOSSIBLE = "impossible"
    NOT_MEASURED = "not_measured"


def _blank_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _none_is_blank(value: Any) -> Any:
    return "" if value is None else value


def _none_is_empty(value: Any) -> Any:
    return [] if value is None else value


def _known_only(value: Any) -> Any:
    """A list without what nobody could read, which JSON has as null."""
    return [one for one in value if one is not None] if isinstance(value, list) else _none_is_empty(value)


_Finite = Annotated[float, Field(allow_inf_nan=False)]
Figure = Annotated[_Finite | None, BeforeValidator(_blank_is_none)]
Text = Annotated[str, BeforeValidator(_none_is_blank)]
Figures = Annotated[list[_Finite], BeforeValidator(_known_only)]
Texts = Annotated[list[str], BeforeValidator(_none_is_empty)]


class _Model(BaseModel):
    """What others write may hold more than the report reads."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Comparison(_Model):
    """How a measurement compares with the one before it on the same hardware."""

    outcome: Text = ""
    difference: Figure = None
    ci95_low: Figure = None
    ci95_high: Figure = None
    measured_at: Text = ""
    build: Text = ""


class Limit(_Model):
    """What arithmetic allows at best, in the claim's unit."""

    value: Figure = None
    reason: Text = ""


class Baseline(_Model):
    """What a ratio is formed against."""

    name: Text = ""
    measurement: Text = ""


class Finding(_Model):
    """One claim on one host, judged."""

    claim_id: str
    description: str
    host: Text = ""
    environment: Text = ""
    documented: Text = ""
    documented_low: Figure = None
    documented_high: Figure = None
    expected_low: Figure = None
    expected_high: Figure = None
    unit: Text = ""
    metric: Text = ""
    better: Literal["higher", "lower"] = "higher"
    measured_mean: Figure = None
    ci95_low: Figure = None
    ci95_high: Figure = None
    n: Annotated[int, BeforeValidator(lambda value: value or 0), Field(ge=0)] = 0
    verdict: Verdict
    reason: Text = ""
    method: Text = ""
    build: Text = ""
    model: Text = ""
    hardware_fingerprint: Text = ""
    measured_at: Text = ""
    samples: Figures = []
    flags: Texts = []
    measurement: Text = ""
    source: Text = ""
    note: Text = ""
    baseline: Baseline | None = None
    limit: Limit | None = None
    comparison: Comparison | None = None

    @property
    def counts(self) -> bool:
        """Whether what was measured counts towards the claim."""
        return self.measured_mean is not None and self.verdict is not Verdict.NOT_MEASURED

    @property
    def stale(self) -> bool:
        """Whether the figures are of hardware that is no longer there."""
        return self.reason.startswith("stale")


class BoardConditions(_Model):
    """How CPU and board were during a run."""

    power_draw_watts: Figure = None
    temperature_celsius: Figure = None


class GpuConditions(BoardConditions):
    """How a GPU was during a run."""

    clock_sm_mhz: Figure = None
    throttle_reasons: Texts = []


class Conditions(_Model):
    """How the machine was during a run."""

    load_before: Figure = None
    cpu_count: Figure = None
    board: BoardConditions = BoardConditions()
    gpus: Annotated[list[GpuConditions], BeforeValidator(_none_is_empty)] = []


class Run(_Model):
    """One process that measured."""

    metrics: dict[str, Figure] = {}
    samples: dict[str, Figures] = {}
    conditions: Conditions = Conditions()


class Hardware(_Model):
    """What a host is made of."""

    cpu: Text = ""
    gpus: Texts = []
    memory_bytes: Figure = None


class Measurement(_Model):
    """A finished (or failed, or skipped) measurement."""

    id: str
    host: Text = ""
    environment: Text = ""
    status: Literal["ok", "failed", "skipped"] = "ok"
    reason: Text = ""
    tool: Text = ""
    method: Text = ""
    parameters: dict[str, Any] = {}
    build: Text = ""
    model: Text = ""
    hardware_fingerprint: Text = ""
    hardware: Hardware = Hardware()
    runs: Annotated[list[Run], BeforeValidator(_none_is_empty)] = []
    flags: Texts = []
    measured_at: Text = ""

    def values(self, metric: str) -> tuple[float, ...]:
        """A metric's figure of each run that has one."""
        found = (run.metrics.get(metric) for run in self.runs)
        return tuple(value for value in found if value is not None)

    def requests(self, metric: str) -> tuple[float, ...]:
        """The single requests' figures behind a percentile metric (`ttft_ms` behind `ttft_p50_ms`), of all runs."""
        name = re.sub(r"_p\d+_", "_", metric)
        return () if name == metric else tuple(value for run in self.runs for value in run.samples.get(name, []))


class PastMeasurement(_Model):
    """A line of the history: either whole runs, or figures by metric."""

    host: Text = ""
    environment: Text = ""
    id: str
    measured_at: Text = ""
    hardware_fingerprint: Text = ""
    build: Text = ""
    model: Text = ""
    runs: Annotated[list[Run], BeforeValidator(_none_is_empty)] = []
    metrics: dict[str, Any] = {}

    def values(self, metric: str) -> tuple[float, ...]:
        """A metric's figure of each run, or its mean where only that was kept."""
        if self.runs:
            found: Iterable[Any] = (run.metrics.get(metric) for run in self.runs)
        else:
            kept = self.metrics.get(metric)
            if isinstance(kept, dict):
                kept = kept.get("values") or kept.get("samples") or kept.get("mean")
            found = kept if isinstance(kept, list) else [kept]
        return tuple(float(value) for value in found if isinstance(value, int | float))


class Findings(_Model):
    """The findings file."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    environment: Text = ""
    findings: list[Finding]
    measurements: Annotated[list[Measurement], BeforeValidator(_none_is_empty)] = []
    history: Annotated[list[PastMeasurement], BeforeValidator(_none_is_empty)] = []


def numbers_of(value: Any) -> Iterator[float]:
    """All numbers in a document."""
    if isinstance(value, int | float):
        yield value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inside:
        yield from numbers_of(part)


def read_findings(path: Path) -> Findings:
    """The findings file, checked. FrontError, naming the file and what is wrong in it, if it can't be used."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FrontError(f"{path} is not there: `ai-idp run week{WEEK}` measures and writes it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FrontError(f"{path} can't be read: {why_unread(error)}") from error
    try:
        content = from_json(text)
    except ValueError as error:
        raise FrontError(f"{path} is not JSON ({error}): run `ai-idp run week{WEEK}` again") from error
    try:
        found = Findings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top"
        raise FrontError(
            printable(f"{path} makes no sense at {place}: {first['msg']}; run `ai-idp run week{WEEK}` again")
        ) from error
    # JSON as Python reads it knows NaN and numbers without end.
    if not all(abs(number) <= LARGEST for number in numbers_of(content)):
        raise FrontError(f"{path} holds a number that no measurement gives: run `ai-idp run week{WEEK}` again")
    return found
