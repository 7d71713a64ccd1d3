"""The claims of the plan: what was documented, what is expected, and which measurement answers it.

The file is checked as a whole before anything is made of it; every mistake is one sentence that names the claim, the
key, its value and what is allowed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

SCHEMA = 1
RATIO_UNIT = "x"


class Kind(NamedTuple):
    """A kind of metric, told by how its name ends."""

    ending: str
    unit: str
    better: Literal["higher", "lower"]


# The longest ending comes first. A metric's name says its unit, so that no number is ever without one.
KINDS = (
    Kind("tokens_per_second", "tok/s", "higher"),
    Kind("requests_per_second", "req/s", "higher"),
    Kind("events_per_second", "events/s", "higher"),
    Kind("gbit_per_second", "Gbit/s", "higher"),
    Kind("gb_per_second", "GB/s", "higher"),
    Kind("mb_per_second", "MB/s", "higher"),
    Kind("_seconds", "s", "lower"),
    Kind("_watts", "W", "lower"),
    Kind("_ms", "ms", "lower"),
)


def kind_of(metric: str) -> Kind | None:
    return next((kind for kind in KINDS if metric.endswith(kind.ending)), None)


class ClaimsError(Exception):
    """What is wrong with the claims, one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError("it is no number above 0")
    return float(value)


class Range(_Strict):
    """Both ends belong to it; one figure is a range of one."""

    low: float
    high: float

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            value = {"low": value, "high": value}
        unknown = sorted(str(key) for key in value if key not in ("low", "high"))
        if unknown:
            raise ValueError(f"it has the unknown key {unknown[0]!r}")
        for end in ("low", "high"):
            if end not in value:
                raise ValueError(f"its {end} end is missing")
        ends = {end: _positive(value[end]) for end in ("low", "high")}
        if ends["low"] > ends["high"]:
            raise ValueError("its low end is above its high end")
        return ends


def _text(value: str) -> str:
    text = " ".join(value.split())
    if not text:
        raise ValueError("it is empty")
    return text


Text = Annotated[str, AfterValidator(_text)]
Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class Subject(_Strict):
    """What a claim is about; a measurement of something else can't confirm or refute it."""

    gpu: Text | None = None
    cpu: Text | None = None
    model: tuple[Text, ...] = ()
    environment: Text | None = None

    @field_validator("model", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Baseline(_Strict):
    """What a ratio is a ratio to, on the same host."""

    measurement: Id
    metric: Text | None = None
    name: Text


# What is allowed, for the sentence about a value that is not. Keys that are not here take text.
ALLOWED = {
    "id": "small letters, digits, dots, dashes and underscores, such as vllm-throughput",
    "documented": "a number above 0, or a mapping of low and high with low not above high",
    "expected": "a number above 0, or a mapping of low and high with low not above high",
    "metric": "a name that ends with its unit: " + ", ".join(kind.ending.lstrip("_") for kind in KINDS),
    "better": "higher or lower",
    "method": "measured, ratio or derived",
    "measurement": "the id of the measurement that answers the claim, such as vllm-c1",
    "week": "a whole number from 1 to 6, the week that measures it",
    "needs_week": "a whole number from 1 to 6, the week that deploys what is measured",
    "subject": "a mapping with any of gpu, cpu, model and environment",
    "subject.model": "a model's name or a list of names",
    "baseline": "a mapping of measurement, name and, where it differs, metric",
    "baseline.measurement": "the id of a measurement, such as llama-cpp-server-c1",
}


class Claim(_Strict):
    """One claim. ``documented`` and ``expected`` are the owner's figures or absent; none is ever filled in."""

    id: Id
    description: Text
    source: Text
    documented: Range | None = None
    expected: Range | None = None
    unit: Text
    metric: Text
    better: Literal["higher", "lower"]
    group: Text
    method: Literal["measured", "ratio", "derived"] = "measured"
    measurement: Id | None = None
    baseline: Baseline | None = None
    subject: Subject = Subject()
    week: Annotated[int, Field(strict=True, ge=1, le=6)] = 1
    needs_week: Annotated[int, Field(strict=True, ge=1, le=6)] | None = None
    how: Text
    note: Text | None = None

    def problems(self) -> list[str]:
        """What no key says alone: the unit and the direction of a metric, and what a method needs."""
        found = []
        kind = kind_of(self.metric)
        if kind is None:
            found.append(f"metric is {self.metric!r}; allowed is {ALLOWED['metric']}. Name the metric with its unit.")
        else:
            better = "higher" if self.method == "ratio" else kind.better
            unit = RATIO_UNIT if self.method == "ratio" else kind.unit
            if self.unit != unit:
                what = f"a ratio of {self.metric}" if self.method == "ratio" else f"the metric {self.metric}"
                found.append(f"unit is {self.unit!r}; allowed is {unit!r}, the unit of {what}.")
            if self.better != better and not (self.method == "ratio" and kind.better == "lower"):
                found.append(f"better is {self.better!r}; allowed is {better!r} for the metric {self.metric}.")
        if self.method == "ratio":
            if self.baseline is None:
                found.append("baseline is missing; a ratio needs one. Name what the measurement is compared with.")
            else:
                other = kind_of(self.baseline.metric or self.metric)
                if kind is not None and (other is None or other.unit != kind.unit):
                    found.append(
                        f"baseline.metric is {self.baseline.metric!r}; allowed is a metric in {kind.unit}, "
                        f"the unit of {self.metric}."
                    )
                same = (self.baseline.measurement, self.baseline.metric or self.metric)
                if same == (self.measurement, self.metric):
                    found.append(f"baseline.measurement is {same[0]!r}, the measurement itself; name another one.")
        elif self.baseline is not None:
            found.append(f"baseline is set, but method is {self.method!r}; set method to ratio or leave baseline out.")
        if self.method == "derived":
            if self.measurement is not None:
                found.append(
                    f"measurement is {self.measurement!r}, but a derived claim has none; leave it out or set method "
                    "to measured."
                )
            if self.documented is None:
                found.append("documented is missing; a derived claim needs the figure that arithmetic is to judge.")
        elif self.measurement is None:
            found.append(f"measurement is missing; allowed is {ALLOWED['measurement']}.")
        return found


def _value_text(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _sentence(error: dict[str, Any]) -> str:
    """One pydantic error in the project's words."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    top = path[0] if path else ""
    allowed = ALLOWED.get(".".join(part for part in path if not part.isdigit())) or ALLOWED.get(top) or "a text"
    if error["type"] == "missing":
        return f"{key} is missing; allowed is {allowed}."
    if error["type"] == "extra_forbidden":
        known = sorted(Claim.model_fields)
        if top == "subject":
            known = sorted(Subject.model_fields)
        elif top == "baseline":
            known = sorted(Baseline.model_fields)
        return f"{key} is no key of a claim; allowed are {', '.join(known)}. Correct its name or leave it out."
    sentence = f"{key} is {_value_text(error['input'])}; allowed is {allowed}."
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
        sentence = f"{key} is {_value_text(error['input'])}: {reason}. Allowed is {allowed}."
    return sentence


def parse_claims(entries: Any, source: str) -> tuple[list[Claim], list[str]]:
    """Claims from a list, and what is wrong with the others."""
    if not isinstance(entries, list):
        return [], [f"{source}: claims is {_value_text(entries)}; allowed is a list of claims."]
    claims: list[Claim] = []
    problems: list[str] = []
    for place, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            problems.append(f"{source}: claim {place} is {_value_text(entry)}; allowed is a mapping of keys.")
            continue
        name = entry.get("id")
        head = f"{source}: claim {name}: " if isinstance(name, str) and name else f"{source}: claim {place}: "
        try:
            claim = Claim.model_validate({str(key): value for key, value in entry.items()})
        except ValidationError as error:
            problems += [head + _sentence(dict(one)) for one in error.errors()]
            continue
        problems += [head + sentence for sentence in claim.problems()]
        claims.append(claim)
    return claims, problems


class _UniqueKeys(yaml.SafeLoader):
    """YAML takes the last of two equal keys in silence; here that is an error."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            continue
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=deep)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _read(path: Path) -> list[Any]:
    """The list of claims in the file, as YAML gives it. ClaimsError with one sentence."""
    try:
        loader = _UniqueKeys(path.read_text(encoding="utf-8"))
        try:
            document = loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        raise ClaimsError(
            [f"{path}: the claims can't be read: {error.strerror}. Name a file that is there."]
        ) from error
    except UnicodeDecodeError as error:
        raise ClaimsError([f"{path}: the file is not UTF-8 text (byte {error.start})."]) from error
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ClaimsError([f"{path}: this is no YAML{where}: {error.problem}."]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A date or a number that is none is a ValueError.
        raise ClaimsError([f"{path}: this is no YAML: {error}."]) from error
    if not isinstance(document, dict) or "claims" not in document:
        raise ClaimsError([f"{path}: there is no list 'claims'. Begin the file with 'schema: {SCHEMA}' and 'claims:'."])
    unknown = sorted(str(key) for key in document if key not in ("schema", "claims"))
    if unknown:
        raise ClaimsError([f"{path}: {unknown[0]} is no key of the file; allowed are claims and schema."])
    if document.get("schema") != SCHEMA:
        raise ClaimsError([f"{path}: schema is {document.get('schema')!r}; allowed is {SCHEMA}."])
    entries = document["claims"]
    if not isinstance(entries, list) or not entries:
        raise ClaimsError([f"{path}: claims is {_value_text(entries)}; allowed is a list with at least one claim."])
    return entries


def load_claims(path: Path, extra: Any = ()) -> list[Claim]:
    """The claims of the file and the user's own, in that order. ClaimsError names every mistake of all of them."""
    claims, problems = parse_claims(_read(path), str(path))
    more, wrong = parse_claims(list(extra) if isinstance(extra, tuple) else extra, "the extra claims")
    problems += wrong
    seen: set[str] = set()
    for claim in claims + more:
        if claim.id in seen:
            problems.append(f"claim {claim.id}: id is {claim.id!r} for two claims; give each its own.")
        seen.add(claim.id)
    if problems:
        raise ClaimsError(problems)
    return claims + more
