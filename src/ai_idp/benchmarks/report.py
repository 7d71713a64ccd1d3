"""The report of week 1: one HTML page and one Markdown file, drawn from the findings and from nothing else.

Equal findings give equal bytes: there is no date of making and no chance in it, so a second run changes nothing.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ai_idp.benchmarks import plots
from ai_idp.benchmarks.findings_file import (
    WEEK,
    BoardConditions,
    Finding,
    Findings,
    Hardware,
    Measurement,
    Verdict,
    read_findings,
)
from ai_idp.benchmarks.plots import DASH, HistoryPoint, Measured, Span, interval_texts, number, span_text
from ai_idp.errors import FrontError

FINDINGS = "week1_findings.json"
HTML = "week1_report.html"
MARKDOWN = "week1_report.md"
# What may be varied on the horizontal axis of a plot, by the parameter's name.
CONTEXT_PARAMETERS = ("depth", "context_tokens", "context_length", "input_tokens")
CONCURRENCY_PARAMETER = "concurrency"
# How much work is sent grows with the concurrency; it does not make two measurements different things.
AMOUNT_PARAMETERS = frozenset({"num_prompts", "requests", "seconds", "timeout_seconds", "request_timeout", "seed"})


@dataclass(frozen=True)
class Words:
    """How a verdict is written: a word, a sign beside it, and the rule in a sentence."""

    word: str
    sign: str
    rule: str


WORDS: dict[Verdict, Words] = {
    Verdict.IMPOSSIBLE: Words(
        "Impossible",
        "⊘",
        "Derived, not measured: memory or the roofline's ceiling forbids even the low end of what was documented.",
    ),
    Verdict.NOT_MEASURED: Words(
        "Not measured",
        DASH,
        "There is no result, no interval (fewer than two runs), it measured another subject than the claim's, or the "
        "interval is better than physics allows. Also a bad result of a busy or throttled machine, which may be better "
        "than it looked. The reason says which.",
    ),
    Verdict.CONFIRMED: Words(
        "Confirmed", "✓", "The whole 95 % interval is at or better than the low end of what was documented."
    ),
    Verdict.WITHIN_EXPECTED: Words(
        "Within expected",
        "●",
        "The whole interval is at or better than the low end of what was expected after correction. "
        "A claim for which no figure was promised is here too; the reason says so.",
    ),
    Verdict.MEETS_80_PERCENT: Words(
        "Meets 80 %",
        "◐",
        "The whole interval is at or better than 80 % of the expected low end "
        "(where less is better: at or under the expected high end divided by 0.8).",
    ),
    Verdict.REFUTED: Words(
        "Refuted",
        "✗",
        "The whole interval is worse than the documented range, and worse than 80 % of what was expected where "
        "something was.",
    ),
    Verdict.BELOW: Words(
        "Below",
        "▼",
        "Anything else: the interval straddles one of these lines, or nothing was documented that it could refute. "
        "The reason names which.",
    ),
}


# What the templates are given


@dataclass(frozen=True)
class Entry:
    """A claim on one host, in words and plots."""

    finding: Finding
    words: Words
    documented: str
    expected: str
    measured: str
    interval: str
    glance: str
    strip: str
    facts: list[tuple[str, str]]
    conditions: list[tuple[str, str]]
    flags: list[str]
    comparison: str

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return self.finding.verdict

    @property
    def lab(self) -> bool:
        """Whether it was measured in the lab."""
        return self.finding.environment == "lab"


@dataclass(frozen=True)
class Claim:
    """A claim with everything found about it."""

    id: str
    anchor: str
    description: str
    entries: list[Entry]


@dataclass(frozen=True)
class Machine:
    """A host that was measured on."""

    name: str
    lab: bool
    cpu: str
    gpus: str
    memory: str
    fingerprints: list[str]


@dataclass(frozen=True)
class Plot:
    """A plot with its heading and the figures in it."""

    title: str
    detail: str
    svg: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    lab: bool
    note: str = ""


@dataclass(frozen=True)
class View:
    """Everything that the page shows."""

    environment: str
    lab: Literal["", "all", "some"]
    period: str
    counts: list[tuple[Verdict, Words, int]]
    total: int
    uncounted: int
    claims: list[Claim]
    machines: list[Machine]
    sweeps: list[tuple[str, list[Plot]]]
    figures: list[tuple[str, ...]]
    conditions: list[tuple[str, ...]]
    not_run: list[tuple[str, str, str, str]]
    history: list[Plot]
    rules: list[tuple[Verdict, Words]] = field(default_factory=lambda: list(WORDS.items()))


FIGURES_HEADER = ("Measurement", "Figure", "Mean", "Runs from to", "n", "Host", "Model")
CONDITIONS_HEADER = ("Measurement", "Host", "Runs", "Load before", "SM clock", "Power", "Temperature", "Flags")

HEADERS = {"figures": FIGURES_HEADER, "conditions": CONDITIONS_HEADER}

_METRIC_UNITS = (
    ("_gb_per_second", "GB/s"),
    ("_gbit_per_second", "Gbit/s"),
    ("_mb_per_second", "MB/s"),
    ("_tokens_per_second", "tok/s"),
    ("requests_per_second", "requests/s"),
    ("events_per_second", "events/s"),
    ("_ms", "ms"),
    ("_seconds", "s"),
)
_METRIC_WORDS = {
    "ttft": "TTFT",
    "itl": "ITL",
    "rtt": "round trip",
    "rpc": "RPC",
    "cpu": "CPU",
    "p50": "p50",
    "p95": "p95",
}


RUN_FLAG = re.compile(r"(?P<what>.*) (?P<when>before|during|in) run (?P<run>\d+)")


def gathered(flags: list[str]) -> list[str]:
    """Flags that differ in their run and in a number only as one: ``busy: load 1.1 to 1.8 ... before runs 1, 2, 4``."""
    groups: dict[str, list[re.Match[str]]] = {}
    found: list[str] = []
    for flag in dict.fromkeys(flags):
        match = RUN_FLAG.fullmatch(flag)
        if match is None:
            found.append(flag)
            continue
        groups.setdefault(re.sub(r"[\d.]+", "#", f"{match['what']} {match['when']}"), []).append(match)
    for matches in groups.values():
        if len(matches) == 1:
            found.append(matches[0].group())
            continue
        numbers = zip(*(re.findall(r"[\d.]+", match["what"]) for match in matches), strict=True)
        ranges = [sorted(set(column), key=float) for column in numbers]
        texts = iter([column[0] if len(column) == 1 else f"{column[0]} to {column[-1]}" for column in ranges])
        what = re.sub(r"[\d.]+", lambda _, texts=texts: next(texts), matches[0]["what"])
        found.append(f"{what} {matches[0]['when']} runs {', '.join(match['run'] for match in matches)}")
    return found


def metric_unit(metric: str) -> str:
    """The unit that a metric's name ends with."""
    return next((unit for ending, unit in _METRIC_UNITS if metric.endswith(ending)), "")


def metric_words(metric: str) -> str:
    """A metric's name for people: `output_tokens_per_second` is "output tokens per second"."""
    plain = re.sub(r"_(ms|seconds)$", "", metric)
    plain = re.sub(r"_(gb|gbit|mb)_per_second$", "", plain)
    text = " ".join(_METRIC_WORDS.get(word, word) for word in plain.split("_"))
    return text[:1].upper() + text[1:]


def moment(text: str) -> datetime | None:
    """An ISO 8601 time in UTC, or None if it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _time(text: str) -> str:
    found = moment(text)
    return f"{found:%Y-%m-%d %H:%M} UTC" if found else text


def _period(times: Iterable[str]) -> str:
    known = sorted(found for found in map(moment, times) if found)
    if not known:
        return "nothing was measured"
    first, last = known[0], known[-1]
    if first.date() == last.date():
        same = f"{first:%H:%M}" == f"{last:%H:%M}"
        return f"{first:%Y-%m-%d %H:%M} UTC" if same else f"{first:%Y-%m-%d, %H:%M} to {last:%H:%M} UTC"
    return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"


def _short(fingerprint: str) -> str:
    return fingerprint.removeprefix("sha256:")[:8]


def _slug(*parts: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}".strip() if text else ""


def _range(values: Sequence[float], unit: str) -> str:
    """The smallest and largest of readings."""
    if not values:
        return ""
    low, high = number(min(values)), number(max(values))
    return _with_unit(low if low == high else f"{low}{DASH}{high}", unit)


def _conditions(measurement: Measurement) -> dict[str, str]:
    """The runs' conditions, each as the range of its readings; what nobody read is not there.

    Power and temperature are the GPU's, and those of the board where there is none that tells.
    """
    met = [run.conditions for run in measurement.runs]
    gpus = [gpu for one in met for gpu in one.gpus]
    told: Sequence[BoardConditions] = gpus or [one.board for one in met]
    loads = [one.load_before for one in met if one.load_before is not None]
    cpus = {int(one.cpu_count) for one in met if one.cpu_count is not None}
    found = {
        "load": _range(loads, f"on {max(cpus)} CPUs" if cpus else ""),
        "clock": _range([gpu.clock_sm_mhz for gpu in gpus if gpu.clock_sm_mhz is not None], "MHz"),
        "power": _range([one.power_draw_watts for one in told if one.power_draw_watts is not None], "W"),
        "temperature": _range([one.temperature_celsius for one in told if one.temperature_celsius is not None], "°C"),
    }
    return {name: text for name, text in found.items() if text}


def _throttled(measurement: Measurement) -> str:
    """Why the GPU held back in any run, or ""."""
    reasons = {reason for run in measurement.runs for gpu in run.conditions.gpus for reason in gpu.throttle_reasons}
    return ", ".join(sorted(reasons))


def _measured(finding: Finding) -> Measured | None:
    if finding.measured_mean is None:
        return None
    return Measured(finding.measured_mean, finding.ci95_low, finding.ci95_high, tuple(finding.samples))


def _comparison(finding: Finding) -> str:
    compared = finding.comparison
    if compared is None or not compared.outcome:
        return ""
    since = f"the run of {_time(compared.measured_at)}" if compared.measured_at else "the last run"
    if compared.build and compared.build != finding.build:
        since += f" ({compared.build})"
    text = f"{compared.outcome} than {since} on the same hardware"
    if compared.outcome == "inconclusive":
        text = f"no clear difference from {since} on the same hardware"
    if compared.difference is not None:
        mean, interval = interval_texts(compared.difference, compared.ci95_low, compared.ci95_high)
        text += f": {_with_unit(mean, finding.unit)}"
        text += f" (95 % interval {interval.replace(DASH, ' to ')})" if interval else ""
    return text.replace(" -", " \N{MINUS SIGN}").replace("(-", "(\N{MINUS SIGN}")


def _entry(claim_anchor: str, finding: Finding, measurement: Measurement | None) -> Entry:
    words = WORDS[finding.verdict]
    slug = _slug(claim_anchor, finding.host or "nowhere", finding.environment)
    measured = _measured(finding)
    documented = finding.documented or span_text(finding.documented_low, finding.documented_high)
    expected = span_text(finding.expected_low, finding.expected_high)
    mean, interval = "", ""
    if measured is not None:
        mean, interval = interval_texts(measured.mean, measured.low, measured.high)
    mean_text = _with_unit(mean, finding.unit)
    limit = finding.limit.value if finding.limit else None
    seen = (
        f"Documented: {_with_unit(documented, finding.unit) or 'no figure'}. "
        f"Expected: {_with_unit(expected, finding.unit) or 'no figure'}. "
        f"{f'At best possible: {number(limit)} {finding.unit}. ' if limit is not None else ''}"
        f"Measured: {mean_text or 'nothing'}"
        f"{f', 95 % interval {interval}' if interval else ''}"
        f"{'' if finding.counts or not mean else ', which does not count towards the claim'}. Verdict: {words.word}."
    )
    glance = plots.glance(
        f"g-{slug}",
        documented=Span(finding.documented_low, finding.documented_high),
        expected=Span(finding.expected_low, finding.expected_high),
        measured=measured,
        limit=limit,
        counts=finding.counts,
        verdict=finding.verdict,
        unit=finding.unit,
        better=finding.better,
        title=f"{finding.description}: documented, expected and measured",
        description=seen,
    )
    strip = ""
    if measured is not None and len(measured.runs) > 1:
        # A ratio has no requests of its own.
        requests = measurement.requests(finding.metric) if measurement and not finding.baseline else ()
        strip = plots.strip(
            f"s-{slug}",
            measured=measured,
            requests=requests,
            verdict=finding.verdict,
            unit=finding.unit,
            title=f"{finding.description}: every run",
            description=f"Runs: {', '.join(number(value) for value in measured.runs)} {finding.unit}."
            + (f" {_range(requests, finding.unit)} over {len(requests)} single requests." if requests else ""),
        )
    facts = [
        ("Method", finding.method),
        ("Against", finding.baseline.name if finding.baseline else ""),
        ("Limit", finding.limit.reason if finding.limit else ""),
        ("Model", finding.model),
        ("Build", finding.build),
        ("Hardware", finding.hardware_fingerprint),
        ("Measured", _time(finding.measured_at)),
        ("Source", finding.source),
        ("Note", finding.note),
    ]
    conditions: list[tuple[str, str]] = []
    if measurement is not None:
        names = {
            "load": "Load before",
            "clock": "SM clock",
            "power": "Power",
            "temperature": "Temperature",
        }
        met = _conditions(measurement)
        conditions = [(label, met[name]) for name, label in names.items() if name in met]
        throttled = _throttled(measurement)
        if throttled:
            conditions.append(("Throttled by", throttled))
    return Entry(
        finding=finding,
        words=words,
        documented=_with_unit(documented, finding.unit),
        expected=_with_unit(expected, finding.unit),
        measured=mean_text,
        interval=interval,
        glance=glance,
        strip=strip,
        facts=[(name, text) for name, text in facts if text],
        conditions=conditions,
        flags=gathered(finding.flags),
        comparison=_comparison(finding),
    )


def _claims(findings: Findings) -> list[Claim]:
    by_place = {(one.host, one.id, one.environment): one for one in findings.measurements}
    grouped: dict[str, list[Finding]] = {}
    for finding in findings.findings:
        grouped.setdefault(finding.claim_id, []).append(finding)
    claims: list[Claim] = []
    for claim_id, members in grouped.items():
        anchor = f"claim-{_slug(claim_id)}"
        entries = [_entry(anchor, one, by_place.get((one.host, one.measurement, one.environment))) for one in members]
        claims.append(Claim(claim_id, anchor, members[0].description, entries))
    return claims


def _machines(findings: Findings) -> list[Machine]:
    """The hosts in the order of the findings. One name may stand for a machine and for its double in the lab."""
    places = [(one.host, one.environment) for one in findings.findings if one.host]
    places += [(one.host, one.environment) for one in findings.measurements if one.host]
    machines = []
    for host, environment in dict.fromkeys(places):
        seen = [one for one in findings.measurements if (one.host, one.environment) == (host, environment)]
        # The last measurement tells what the machine is now.
        latest = max(seen, key=lambda one: one.measured_at).hardware if seen else Hardware()
        machines.append(
            Machine(
                name=host,
                lab=environment == "lab",
                cpu=latest.cpu,
                gpus=", ".join(latest.gpus) or ("no GPU" if latest.cpu else ""),
                memory=f"{latest.memory_bytes / 2**30:.0f} GiB" if latest.memory_bytes else "",
                fingerprints=list(dict.fromkeys(one.hardware_fingerprint for one in seen if one.hardware_fingerprint)),
            )
        )
    return machines


def _varied(parameters: dict[str, Any], names: Sequence[str]) -> tuple[str, float] | None:
    """The first of the names among the parameters, with its figure."""
    for name in names:
        value = parameters.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return name, float(value)
    return None


def _sweeps(findings: Findings, names: Sequence[str], x_label: str) -> list[Plot]:
    """Plots of tokens per second against a parameter, wherever only that parameter differs between measurements."""
    series: dict[tuple[str, ...], tuple[Measurement, dict[float, tuple[float, ...]]]] = {}
    for one in findings.measurements:
        # llama-bench measures without a context before it unless told.
        parameters = {"depth": 0, **one.parameters} if one.tool == "llama_bench" else one.parameters
        varied = _varied(parameters, names)
        if one.status != "ok" or varied is None:
            continue
        name, place = varied
        rest = {key: value for key, value in parameters.items() if key != name and key not in AMOUNT_PARAMETERS}
        others = json.dumps(rest, sort_keys=True, default=str)
        metrics = dict.fromkeys(metric for run in one.runs for metric in run.metrics)
        for metric in metrics:
            if not metric.endswith("tokens_per_second") or metric.startswith("total_"):
                continue
            key: tuple[str, ...] = (
                one.host,
                one.environment,
                one.tool,
                one.model,
                one.build,
                one.hardware_fingerprint,
                others,
                metric,
            )
            values = one.values(metric)
            if values:
                series.setdefault(key, (one, {}))[1][place] = values
    found: list[Plot] = []
    for key, (one, points) in series.items():
        if len(points) < 2:
            continue
        metric = key[-1]
        ordered = sorted(points.items())
        title = f"{metric_words(metric)}: {one.model or one.tool}"
        rows = [
            (f"{place:g}", number(sum(runs) / len(runs)), _range(runs, ""), str(len(runs))) for place, runs in ordered
        ]
        svg = plots.sweep(
            f"w-{_slug(x_label, one.host, one.environment, one.tool, one.model, metric, str(len(found)))}",
            ordered,
            x_label=x_label,
            unit=metric_unit(metric),
            title=f"{title} on {one.host} against {x_label}",
            description="; ".join(f"{row[0]}: {row[1]} {metric_unit(metric)} over {row[3]} runs" for row in rows),
        )
        found.append(
            Plot(
                title=title,
                detail=f"{one.host} · {one.build}".strip(" ·"),
                svg=svg,
                header=(x_label.capitalize(), f"Mean, {metric_unit(metric)}", "Runs from to", "n"),
                rows=rows,
                lab=one.environment == "lab",
            )
        )
    return found


def _history(findings: Findings) -> list[Plot]:
    """A plot for each measurement that answers a claim and was finished at least twice."""
    wanted: dict[tuple[str, str, str, str], Finding] = {}
    for finding in findings.findings:
        if finding.measurement and finding.metric:
            key = (finding.host, finding.measurement, finding.metric, finding.environment)
            # A ratio is answered by the same measurement, but compares nothing.
            if key not in wanted or (finding.comparison and not wanted[key].comparison):
                wanted[key] = finding
    found: list[Plot] = []
    for (host, identity, metric, environment), finding in wanted.items():
        past = sorted(
            (
                one
                for one in findings.history
                if (one.host, one.id) == (host, identity)
                and one.environment in ("", environment)
                and one.values(metric)
            ),
            key=lambda one: one.measured_at,
        )
        if len(past) < 2:
            continue
        unit = metric_unit(metric) or finding.unit
        points = [
            HistoryPoint(_day(one.measured_at), one.hardware_fingerprint or "unknown", one.values(metric))
            for one in past
        ]
        rows = [
            (
                _time(one.measured_at),
                _short(one.hardware_fingerprint) or "unknown",
                one.build,
                one.model,
                number(sum(values) / len(values)),
                _range(values, ""),
                str(len(values)),
            )
            for one, values in ((one, one.values(metric)) for one in past)
        ]
        kinds = len({point.fingerprint for point in points})
        svg = plots.history(
            f"h-{_slug(host, identity, metric, environment)}",
            points,
            unit=unit,
            name_fingerprint=_short,
            title=f"{metric_words(metric)} of {identity} on {host} over time",
            description="; ".join(f"{row[0]}, hardware {row[1]}: {row[4]} {unit} over {row[6]} runs" for row in rows),
        )
        compared = _comparison(finding)
        found.append(
            Plot(
                title=f"{metric_words(metric)}: {identity}",
                detail=f"{host} · {'one set of hardware' if kinds == 1 else f'{kinds} sets of hardware'}",
                svg=svg,
                header=("Measured", "Hardware", "Build", "Model", f"Mean, {unit}", "Runs from to", "n"),
                rows=rows,
                lab=environment == "lab",
                note=f"Now {compared}." if compared else "",
            )
        )
    return found


def _day(text: str) -> str:
    found = moment(text)
    return f"{found:%m-%d}" if found else text[:10]


def _condition_rows(findings: Findings) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in findings.measurements:
        if one.status != "ok":
            continue
        met = _conditions(one)
        rows.append(
            (
                one.id,
                one.host + (" (lab)" if one.environment == "lab" else ""),
                str(len(one.runs)),
                *(met.get(name, DASH) for name in ("load", "clock", "power", "temperature")),
                "; ".join(one.flags) or "none",
            )
        )
    return rows


def _figures(findings: Findings) -> list[tuple[str, ...]]:
    """Every figure of every finished measurement, whether a claim asks for it or not."""
    rows: list[tuple[str, ...]] = []
    for one in findings.measurements:
        for metric in sorted({name for run in one.runs for name in run.metrics} if one.status == "ok" else ()):
            values = one.values(metric)
            if values:
                host = one.host + (" (lab)" if one.environment == "lab" else "")
                mean = _with_unit(number(sum(values) / len(values)), metric_unit(metric))
                rows.append((one.id, metric_words(metric), mean, _range(values, ""), str(len(values)), host, one.model))
    return rows


def make_view(findings: Findings) -> View:
    """Everything that the page shows, from the findings."""
    environments = {finding.environment for finding in findings.findings if finding.host}
    environments |= {one.environment for one in findings.measurements}
    environments.discard("")
    environments = environments or {findings.environment}
    lab: Literal["", "all", "some"] = ""
    if "lab" in environments:
        lab = "all" if environments == {"lab"} else "some"
    counted = Counter(finding.verdict for finding in findings.findings)
    sweeps = [
        ("Against concurrency", _sweeps(findings, [CONCURRENCY_PARAMETER], "requests at once")),
        ("Against context", _sweeps(findings, CONTEXT_PARAMETERS, "tokens of context")),
    ]
    return View(
        environment=findings.environment,
        lab=lab,
        period=_period(
            [*(one.measured_at for one in findings.measurements if one.status == "ok")]
            or [finding.measured_at for finding in findings.findings]
        ),
        counts=[(verdict, WORDS[verdict], counted[verdict]) for verdict in Verdict],
        total=len(findings.findings),
        uncounted=sum(one.measured_mean is not None and not one.counts for one in findings.findings),
        claims=_claims(findings),
        machines=_machines(findings),
        sweeps=[(name, drawn) for name, drawn in sweeps if drawn],
        figures=_figures(findings),
        conditions=_condition_rows(findings),
        not_run=[(one.id, one.host, one.status, one.reason) for one in findings.measurements if one.status != "ok"],
        history=_history(findings),
    )


def _cell(value: object) -> str:
    """Text for a Markdown table or line: nothing in it can end a cell or begin markup."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    return environment


def render_html(view: View) -> str:
    """The page: one file with everything in it."""
    template = _environment().get_template("report.html.j2")
    return template.render(view=view, week=WEEK, headers=HEADERS)


def render_markdown(view: View) -> str:
    """The same in Markdown, with tables in place of plots."""
    template = _environment().get_template("report.md.j2")
    text = template.render(view=view, week=WEEK, headers=HEADERS)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def write_if_changed(path: Path, text: str) -> bool:
    """Whether the file had to be written. It is whole at every moment, the old one or the new one."""
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return False
    except OSError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        # A report is for everybody; mkstemp makes files for their owner alone.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


@dataclass(frozen=True)
class Written:
    """What a report came to."""

    view: View
    files: dict[Path, bool]


def write_report(folder: Path) -> Written:
    """Reads the findings in `folder` and writes the two reports beside them. FrontError if there are none."""
    view = make_view(read_findings(folder / FINDINGS))
    texts = {folder / HTML: render_html(view), folder / MARKDOWN: render_markdown(view)}
    try:
        return Written(view, {path: write_if_changed(path, text) for path, text in texts.items()})
    except OSError as error:
        raise FrontError(f"the report can't be written: {error}") from error
