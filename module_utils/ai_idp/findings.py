"""Joins claims and measurements to findings: one row per claim and host, with a verdict and where it came from.

Pure: documents and text in, documents and text out. The same input gives the same bytes, so nothing here looks at a
clock.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.ai_idp import roofline, sample_statistics, verdict
from ansible.module_utils.ai_idp.documents import from_json, printable
from ansible.module_utils.ai_idp.fit_input import BANDWIDTH_BY_NAME
from ansible.module_utils.ai_idp.sample_statistics import Interval, StatisticsError

SCHEMA = 1
COLUMNS = (
    "claim_id",
    "description",
    "host",
    "environment",
    "documented",
    "expected_low",
    "expected_high",
    "unit",
    "measured_mean",
    "ci95_low",
    "ci95_high",
    "n",
    "verdict",
    "reason",
    "method",
    "build",
    "model",
    "hardware_fingerprint",
    "measured_at",
)
OK, FAILED, SKIPPED, PLANNED = "ok", "failed", "skipped", "planned"
KEPT_HISTORY = 50
# Draws of all resamples together, so that a long measurement does not take a minute to judge.
DRAWS = 2_000_000
PERCENTILE = re.compile(r"^(?P<what>.+)_p(?P<percent>\d{1,2})_(?P<unit>[a-z]+)$")
# Where a tool runs and what it is called; a history compares what was asked of it across all of them.
SETTINGS = ("docker_options", "image", "image_program", "model_path", "peer_address", "port", "tokenizer", "url")
# A card at its power limit is as fast as it is sold; it is shown, but excuses nothing.
POWER_LIMIT = re.compile(r"throttled:\s*sw_power_cap\b(?!\s*,)", re.IGNORECASE)
# A card's name goes on with these when it is another card: an RTX 5070 is no RTX 5070 Ti, nor a laptop's.
VARIANT = r"(?!\w)(?!\s+(?:ti|super|laptop|max-q|d)\b)"

Document = dict[str, Any]


class FindingsError(ValueError):
    """What was handed in can't be used, with a sentence that says why."""


@dataclass
class Inputs:
    """Everything findings are made from; claims as claims.yml has them, checked."""

    environment: str
    claims: list[Document]
    hosts: list[Document]
    results: list[Document] = field(default_factory=list)
    derived: list[Document] = field(default_factory=list)
    previous: Document | None = None
    history: list[Document] = field(default_factory=list)


@dataclass
class Measured:
    """What a measurement says about a claim on a host; empty where there is none."""

    mean: float | None = None
    interval: Interval | None = None
    samples: list[float] = field(default_factory=list)
    missing: str = ""
    disturbed: str = ""


# --- results ----------------------------------------------------------------------------------------


def usable(result: Any) -> str:
    """Why a result can't be used at all; empty when it can."""
    if not isinstance(result, dict):
        return f"a result is {str(result)[:60]!r} and no mapping"
    for key in ("id", "host", "status"):
        if not isinstance(result.get(key), str) or not result[key]:
            return f"a result has no {key} (id {result.get('id')!r}, host {result.get('host')!r})"
    if result.get("schema") != SCHEMA:
        return f"the result {result['id']} of {result['host']} has the schema {result.get('schema')!r}, not {SCHEMA}"
    if result["status"] not in (OK, FAILED, SKIPPED):
        return f"the result {result['id']} of {result['host']} has the status {result['status']!r}"
    runs = result.get("runs") or []
    parts = [result.get("parameters"), result.get("hardware")]
    listed = isinstance(runs, list) and all(isinstance(run, dict) for run in runs)
    parts += [run.get(key) for run in runs for key in ("metrics", "samples")] if listed else []
    hardware = result.get("hardware")
    lists = [result.get("devices"), hardware.get("gpus") if isinstance(hardware, dict) else None]
    if not listed or not all(part is None or isinstance(part, list) for part in lists):
        parts.append(False)
    if not all(part is None or isinstance(part, dict) for part in parts):
        return f"the result {result['id']} of {result['host']} has runs, parameters or hardware of another form"
    return ""


def latest(results: list[Document]) -> dict[tuple[str, str], Document]:
    """By host and id; of several that with the last date."""
    found: dict[tuple[str, str], Document] = {}
    for result in results:
        place = (result["host"], result["id"])
        if place not in found or text(result, "measured_at") >= text(found[place], "measured_at"):
            found[place] = result
    return found


def text(result: Document, key: str) -> str:
    value = result.get(key)
    return value if isinstance(value, str) else ""


def metric_values(result: Document, metric: str) -> list[Any]:
    """One value per run; a run without the metric gives None."""
    runs: list[Document] = result.get("runs") or []
    return [(run.get("metrics") or {}).get(metric) for run in runs]


def request_samples(result: Document, name: str) -> list[list[float]]:
    """Each run's requests; empty unless every run has some and all are numbers."""
    found = []
    for run in result.get("runs") or []:
        values = (run.get("samples") or {}).get(name)
        try:
            found.append(sample_statistics.numbers(values or []))
        except (StatisticsError, TypeError):
            return []
    return found


def measure(result: Document, metric: str) -> Measured:
    """The metric's mean, interval and samples, or why there are none."""
    values = metric_values(result, metric)
    if not values or all(value is None for value in values):
        others = sorted({name for run in result.get("runs") or [] for name in run.get("metrics") or {}})
        return Measured(
            missing=f"the measurement gives no {metric}" + (f" (it has {', '.join(others)})" * bool(others))
        )
    try:
        summary = sample_statistics.summarize(values)
        interval = summary.interval
        match = PERCENTILE.match(metric)
        requests = request_samples(result, f"{match['what']}_{match['unit']}") if match else []
        if match and requests:
            draws = max(400, min(sample_statistics.RESAMPLES, DRAWS // sum(len(run) for run in requests)))
            interval = sample_statistics.percentile_interval(values, requests, float(match["percent"]), resamples=draws)
    except (StatisticsError, OverflowError) as error:
        return Measured(missing=f"the result is invalid: {metric}: {error}")
    return Measured(summary.mean, interval, [float(value) for value in values])


def flags_of(result: Document) -> list[str]:
    flags = result.get("flags")
    return [str(flag) for flag in flags] if isinstance(flags, list) else []


def flagged(flags: list[str], *kinds: str) -> str:
    """The flags of these kinds (the word before the colon) as one text; a flag of every run is named once."""
    found = [flag for flag in flags if flag.split(":")[0].strip().lower() in kinds and not POWER_LIMIT.match(flag)]
    return "; ".join(found[:2]) + (f"; and {len(found) - 2} more" if len(found) > 2 else "")


def disturbance(flags: list[str]) -> str:
    """Why the machine may be better than its figures, from the flags that say so."""
    found = flagged(flags, "busy", "throttled")
    return f"the machine was not at rest ({found})" if found else ""


def invalidity(flags: list[str]) -> str:
    """Why the figures are not those of the thing itself: ``cached`` read the memory in place of the disk."""
    return flagged(flags, "invalid", "cached")


# --- subjects ---------------------------------------------------------------------------------------


def named(wanted: str, name: str) -> bool:
    """Whether a device's full name is that of the wanted one: ``RTX 5070 Ti``, ``9900X``."""
    return bool(re.search(rf"(?<!\w){re.escape(wanted)}{VARIANT}", name, re.IGNORECASE))


def environment_text(environment: str) -> str:
    return {"lab": "in the lab", "production": "on the production machines"}.get(environment, f"in {environment}")


def either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def subject_text(subject: Document) -> str:
    parts = []
    if subject.get("model"):
        parts.append(either(list(subject["model"])))
    devices = [str(subject[key]) for key in ("gpu", "cpu") if subject.get(key)]
    if devices:
        article = "an" if devices[0].startswith("RTX") else "a"
        parts.append(("on " if parts else "") + f"{article} {' and '.join(devices)}")
    if subject.get("environment"):
        where = environment_text(subject["environment"])
        parts.append(where if parts else where.split(" ", 1)[1])
    return " ".join(parts)


def other_subject(subject: Document, result: Document) -> str:
    """The sentence about a measurement of something else; empty when it is what the claim is about."""
    hardware: Document = result.get("hardware") or {}
    gpus = [str(gpu) for gpu in hardware.get("gpus") or []]
    cpu, model = str(hardware.get("cpu") or ""), text(result, "model")
    # What the tool said that it ran on; a host with a GPU may have been measured on its CPU.
    devices = [str(device) for device in result.get("devices") or []]
    if devices:
        used = [gpu for gpu in gpus if any(named(gpu, device) or named(device, gpu) for device in devices)]
        cpu = "" if used else cpu
        gpus = used
    same = (
        (not subject.get("gpu") or any(named(subject["gpu"], gpu) for gpu in gpus))
        and (not subject.get("cpu") or named(subject["cpu"], cpu))
        and (not subject.get("model") or model.lower() in [name.lower() for name in subject["model"]])
        and (not subject.get("environment") or text(result, "environment") == subject["environment"])
    )
    if same:
        return ""
    device = ", ".join(gpus) or "the CPU"
    if subject.get("cpu") and not subject.get("gpu"):
        device = cpu or ", ".join(gpus) or "an unknown CPU"
    what = f"{model} on {device}" if model else device
    where = environment_text(text(result, "environment"))
    return f"measured something else: {what} {where}; the claim is about {subject_text(subject)}"


def used_gpu(result: Document) -> str:
    """The GPU that it ran on, by what the tool or the endpoint said; empty for a CPU and where nobody said."""
    if str((result.get("parameters") or {}).get("device") or "").lower() == "gpu":
        return "the GPU"
    gpus = [str(gpu) for gpu in (result.get("hardware") or {}).get("gpus") or []]
    devices = [str(device) for device in result.get("devices") or []]
    return next((gpu for gpu in gpus if any(named(gpu, device) or named(device, gpu) for device in devices)), "")


# --- what arithmetic allows -------------------------------------------------------------------------


def derive(entry: Document, host_bandwidth: float | None) -> tuple[verdict.Limit | None, str, str]:
    """The limit from an answer of model_fit, with the model and the GPU that it is about.

    ``host_bandwidth`` was measured on the host, bytes per second. FindingsError where the answer has no figures.
    """
    claim = entry.get("claim_id")
    fit = entry.get("fit")
    if not isinstance(fit, dict) or not isinstance(fit.get("services"), list) or not fit["services"]:
        raise FindingsError(f"derived, claim {claim}: fit is no answer of model_fit. Hand in its registered result.")
    services = [row for row in fit["services"] if entry.get("service") in (None, row.get("name"))]
    if not services:
        raise FindingsError(f"derived, claim {claim}: service is {entry['service']!r}, which the answer does not have.")
    service = services[0]
    model = str(service.get("model") or "the model")
    weights = (service.get("breakdown") or {}).get("weights")
    if not weights:
        return None, model, ""
    on_gpu = service.get("device") == "gpu"
    gpus = [row for row in fit.get("gpus") or [] if on_gpu and service.get("name") in (row.get("services") or [])]
    gpu = gpus[0] if gpus else {}
    gpu_name = str(gpu.get("name") or "")
    sheet = next((rate for part, rate in BANDWIDTH_BY_NAME.items() if part in gpu_name), 0)
    given = entry.get("host_bandwidth_bytes_per_second")
    try:
        ceiling = roofline.hybrid_ceiling(
            weights_bytes=int(weights),
            gpu_budget=int(gpu.get("budget_bytes") or 0),
            gpu_bandwidth=int(entry.get("gpu_bandwidth_bytes_per_second") or sheet),
            host_bandwidth=int(host_bandwidth or given or 0),
            host_budget=(fit.get("host") or {}).get("budget_bytes"),
            kv_bytes_per_token=int(entry.get("kv_bytes_per_token") or 0),
            context_tokens=int(entry.get("context_length") or 0),
            name=model,
            gpu_name=f"the {gpu_name}" if gpu_name else "the GPU",
        )
    except (TypeError, ValueError) as error:
        raise FindingsError(
            f"derived, claim {claim}: {error}. Set gpu_bandwidth_bytes_per_second and host_bandwidth_bytes_per_second."
        ) from error
    basis = "derived from the documented hardware: " if entry.get("documented_hardware") else "derived: "
    return verdict.Limit(ceiling.tokens_per_second, basis + ceiling.reason), model, gpu_name


# --- one finding ------------------------------------------------------------------------------------


class Joiner:
    """Makes the findings of all claims and hosts."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.warnings: list[str] = []
        self.hosts = {host["host"]: host for host in inputs.hosts}
        self.measurements = self._measurements()
        self.by_place = latest(self.measurements)
        self.history = extend_history(inputs.history, self.measurements)

    def _measurements(self) -> list[Document]:
        """The results handed in, and those of earlier runs that this one did not repeat (``--limit``)."""
        fresh = []
        for result in self.inputs.results:
            if isinstance(result, dict) and result.get("status") == PLANNED:
                # Of a run in check mode, which measures nothing.
                continue
            why = usable(result)
            if why:
                self.warnings.append(f"{why}; it is left out")
            elif result["host"] not in self.hosts:
                self.warnings.append(f"the result {result['id']} is of {result['host']}, no host of this run; left out")
            else:
                fresh.append(result)
        found = latest(fresh)
        previous = self.inputs.previous or {}
        if previous.get("environment") == self.inputs.environment:
            for result in previous.get("measurements") or []:
                if not usable(result) and result["host"] in self.hosts:
                    found.setdefault((result["host"], result["id"]), result)
        order = {name: place for place, name in enumerate(self.hosts)}
        return [found[place] for place in sorted(found, key=lambda place: (order[place[0]], place[1]))]

    def rows(self) -> list[Document]:
        found = []
        for claim in self.inputs.claims:
            group = claim["group"]
            hosts = [name for name, host in self.hosts.items() if group == "all" or group in (host.get("groups") or [])]
            found += [self.finding(claim, name) for name in hosts]
            if not hosts:
                found.append(self.finding(claim, ""))
        return found

    def derived_before(self, claim: Document, host: str) -> Document | None:
        """What an earlier run derived for a host whose hardware this one has not read (``--limit``)."""
        previous = self.inputs.previous or {}
        here = not host or self.hosts[host].get("hardware_fingerprint") or self.entry(claim, host)
        if here or claim["method"] != "derived" or previous.get("environment") != self.inputs.environment:
            return None
        rows = previous.get("findings") or []
        return next((row for row in rows if (row["claim_id"], row["host"]) == (claim["id"], host)), None)

    def finding(self, claim: Document, host: str) -> Document:
        before = self.derived_before(claim, host)
        if before:
            return before
        promise = promise_of(claim)
        result = self.by_place.get((host, claim.get("measurement") or ""))
        measured = self.evidence(claim, host, result)
        limit, derived_model, derived_hash = self.limit(claim, host, result)
        judgement = verdict.judge(
            promise, verdict.Evidence(measured.interval, measured.missing, limit, measured.disturbed)
        )
        base = self.baseline(claim, host)
        row: Document = {
            "claim_id": claim["id"],
            "description": claim["description"],
            "host": host,
            "environment": (text(result, "environment") if result else "") or self.inputs.environment,
            "documented": verdict.range_text(promise.documented_low, promise.documented_high),
            "expected_low": promise.expected_low,
            "expected_high": promise.expected_high,
            "unit": promise.unit,
            "measured_mean": rounded(measured.mean),
            "ci95_low": rounded(measured.interval.low if measured.interval else None),
            "ci95_high": rounded(measured.interval.high if measured.interval else None),
            "n": len(measured.samples),
            "verdict": judgement.verdict,
            "reason": judgement.reason,
            "method": (text(result, "method") if result else "") or claim["how"],
            "build": both(result, base, "build"),
            "model": both(result, base, "model") or derived_model,
            "hardware_fingerprint": (text(result, "hardware_fingerprint") if result else "") or derived_hash,
            "measured_at": text(result, "measured_at") if result and measured.samples else "",
            "metric": claim["metric"],
            "better": promise.better,
            "documented_low": promise.documented_low,
            "documented_high": promise.documented_high,
            "samples": [rounded(value) for value in measured.samples],
            "flags": (flags_of(result) if result else []) + (flags_of(base) if base else []),
            "measurement": claim.get("measurement"),
            "group": claim["group"],
            "source": claim["source"],
            "note": claim.get("note"),
            "baseline": claim["baseline"] if claim.get("baseline") else None,
            "limit": {"value": rounded(limit.value), "reason": limit.reason} if limit else None,
            "comparison": self.comparison(claim, result) if not measured.missing else None,
        }
        return row

    def baseline(self, claim: Document, host: str) -> Document | None:
        wanted = claim.get("baseline")
        return self.by_place.get((host, wanted["measurement"])) if wanted else None

    def evidence(self, claim: Document, host: str, result: Document | None) -> Measured:
        if not host:
            return Measured(missing=f"the group {claim['group']} has no hosts")
        if claim["method"] == "derived":
            return Measured(missing=self.not_derived(claim, host))
        absent = self.absence(claim, host, result, claim["measurement"])
        if absent or result is None:
            return Measured(missing=absent)
        measured = self.ratio(claim, host, result) if claim["method"] == "ratio" else measure(result, claim["metric"])
        measured.disturbed = disturbance(flags_of(result))
        # The figures are shown in any case; what forbids a verdict on them comes with the most telling reason first.
        measured.missing = (
            self.staleness(host, result)
            or other_subject(claim["subject"], result)
            or invalidity(flags_of(result))
            or measured.missing
        )
        return measured

    def absence(self, claim: Document, host: str, result: Document | None, wanted: str) -> str:
        if result is None:
            later = f"; week {claim['week']} measures it" if claim.get("week", 1) > 1 else ""
            if claim.get("needs_week"):
                later = f"; week {claim['needs_week']} deploys what it measures: run week 1 again after it"
            return f"the measurement {wanted} has no result on {host}{later}"
        if result["status"] != OK:
            done = "failed" if result["status"] == FAILED else "was skipped"
            return f"the measurement {wanted} {done}: {text(result, 'reason') or 'no reason was given'}"
        return ""

    def staleness(self, host: str, result: Document) -> str:
        now, then = self.hosts[host].get("hardware_fingerprint"), text(result, "hardware_fingerprint")
        if not now or not then or now == then:
            return ""
        return stale_reason(then, now)

    def ratio(self, claim: Document, host: str, result: Document) -> Measured:
        wanted = claim["baseline"]
        base = self.baseline(claim, host)
        absent = self.absence(claim, host, base, wanted["measurement"])
        if absent or base is None:
            return Measured(missing=f"the baseline is missing ({wanted['name']}): {absent}")
        # Only a name tells what a baseline is meant to be.
        gpu = used_gpu(base) if re.search(r"\bCPU\b", wanted["name"]) else ""
        if gpu:
            return Measured(missing=f"the baseline is to be {wanted['name']}, but it ran on {gpu}")
        over = measure(result, claim["metric"])
        under = measure(base, wanted.get("metric") or claim["metric"])
        missing = over.missing or (f"the baseline ({wanted['name']}): {under.missing}" if under.missing else "")
        if missing:
            return Measured(missing=missing)
        if text(base, "hardware_fingerprint") != text(result, "hardware_fingerprint"):
            return Measured(missing="the measurement and its baseline are of different hardware; measure both again")
        try:
            ratio = sample_statistics.ratio_interval(over.samples, under.samples)
        except StatisticsError as error:
            return Measured(missing=f"the ratio can't be formed: {error}")
        interval = None
        if ratio.ci95_low is not None and ratio.ci95_high is not None:
            interval = Interval(ratio.ci95_low, ratio.ci95_high)
        divisor = sample_statistics.geometric_mean(under.samples)
        found = Measured(ratio.ratio, interval, [value / divisor for value in over.samples])
        disturbed = disturbance(flags_of(base))
        if disturbed:
            found.missing = f"the baseline makes the ratio look better than it is: {disturbed}; measure again"
        return found

    # What arithmetic allows

    def entry(self, claim: Document, host: str) -> Document | None:
        entries = [row for row in self.inputs.derived if row.get("claim_id") == claim["id"]]
        return next((row for row in entries if row.get("host") in (None, "", host)), None)

    def limit(self, claim: Document, host: str, result: Document | None) -> tuple[verdict.Limit | None, str, str]:
        """The limit that holds for this claim, and for a derived one the model and fingerprint of the row."""
        entry = self.entry(claim, host) if host else None
        if entry is None:
            return None, "", ""
        documented = bool(entry.get("documented_hardware"))
        limit, model, gpu = derive(entry, None if documented else self.memory_bandwidth(host))
        if claim["method"] == "derived":
            fingerprint = "" if documented else str(self.hosts[host].get("hardware_fingerprint") or "")
            return (limit if self.is_about(claim, model, gpu) else None), model, fingerprint
        # The roofline of one sequence of one model: several requests at once may go beyond it.
        if result is not None:
            concurrency = (result.get("parameters") or {}).get("concurrency")
            if text(result, "model").lower() != model.lower() or concurrency not in (None, 1):
                return None, "", ""
        elif not self.is_about(claim, model, gpu):
            return None, "", ""
        return limit, "", ""

    def is_about(self, claim: Document, model: str, gpu: str) -> bool:
        subject = claim["subject"]
        about_gpu = not subject.get("gpu") or named(subject["gpu"], gpu)
        return about_gpu and (not subject.get("model") or model.lower() in [name.lower() for name in subject["model"]])

    def not_derived(self, claim: Document, host: str) -> str:
        """Why a derived claim has no verdict, should its limit not make it impossible."""
        entry = self.entry(claim, host)
        if entry is None:
            return f"nothing was derived for {host}: model_fit was not asked about this claim"
        limit, model, gpu = derive(entry, None if entry.get("documented_hardware") else self.memory_bandwidth(host))
        if not self.is_about(claim, model, gpu):
            return (
                f"derived for something else: {model} on {gpu or 'a host without a GPU'}; the claim is about "
                f"{subject_text(claim['subject'])}" + (f" ({limit.reason})" if limit else "")
            )
        if limit is None:
            return f"nothing can be derived: model_fit has no figures of {model}"
        return f"arithmetic does not rule it out ({limit.reason}), and nothing was measured"

    def memory_bandwidth(self, host: str) -> float | None:
        """Measured at rest, in bytes per second: the interval's upper end, in favour of the claim."""
        result = self.by_place.get((host, "memory-bandwidth"))
        if result is None or result["status"] != OK or self.staleness(host, result):
            return None
        # Of a machine that was not at rest it is too low, and a claim would be impossible that is not.
        if disturbance(flags_of(result)) or invalidity(flags_of(result)):
            return None
        found = measure(result, "memory_bandwidth_gb_per_second")
        best = found.interval.high if found.interval else found.mean
        return best * roofline.GB if best else None

    # What was before

    def comparison(self, claim: Document, result: Document | None) -> Document | None:
        """Welch's comparison with the last run before of the same thing on the same hardware."""
        if result is None or claim["method"] != "measured":
            return None
        now = history_line(result)
        same = [line for line in self.history if comparable(line, now) and line["measured_at"] < now["measured_at"]]
        if not same or not now["metrics"].get(claim["metric"]):
            return None
        before = max(same, key=lambda line: str(line["measured_at"]))
        values = (before.get("metrics") or {}).get(claim["metric"]) or []
        try:
            found = sample_statistics.welch(now["metrics"][claim["metric"]], values, claim["better"] == verdict.HIGHER)
        except (StatisticsError, OverflowError):
            return None
        return {
            "outcome": found.outcome,
            "difference": rounded(found.difference),
            "ci95_low": rounded(found.ci95_low),
            "ci95_high": rounded(found.ci95_high),
            "measured_at": before["measured_at"],
            "build": before.get("build"),
            "n": len(values),
        }


def promise_of(claim: Document) -> verdict.Promise:
    documented, expected = claim.get("documented") or {}, claim.get("expected") or {}
    return verdict.Promise(
        better=claim["better"],
        unit=claim["unit"],
        documented_low=documented.get("low"),
        documented_high=documented.get("high"),
        expected_low=expected.get("low"),
        expected_high=expected.get("high"),
    )


def both(result: Document | None, base: Document | None, key: str) -> str:
    """Of a ratio what either side is; once where it is the same."""
    found = [text(one, key) for one in (result, base) if one is not None]
    return " / ".join(dict.fromkeys(value for value in found if value))


def rounded(value: float | None) -> float | None:
    """Six digits: more than any measurement here has, and the same text everywhere."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def stale_reason(then: str, now: str = "", changes: list[str] | None = None) -> str:
    reason = f"stale: measured on other hardware (fingerprint {then[:12]}"
    reason += f", the host now has {now[:12]})" if now else ")"
    if changes:
        reason += ": " + " ".join(changes)
    return reason.rstrip(".") + ". Run week 1 again"


# --- history ----------------------------------------------------------------------------------------


def history_line(result: Document) -> Document:
    """What is kept of a finished measurement for good: every run's figures, without single requests."""
    names = sorted({name for run in result.get("runs") or [] for name in run.get("metrics") or {}})
    metrics = {}
    for name in names:
        try:
            metrics[name] = sample_statistics.numbers(metric_values(result, name))
        except StatisticsError:
            continue
    return {
        "schema": SCHEMA,
        "host": result["host"],
        "environment": text(result, "environment"),
        "id": result["id"],
        "measured_at": text(result, "measured_at"),
        "hardware_fingerprint": text(result, "hardware_fingerprint"),
        "tool": text(result, "tool"),
        "build": text(result, "build"),
        "model": text(result, "model"),
        "model_hash": text(result, "model_hash"),
        "parameters": {key: value for key, value in (result.get("parameters") or {}).items() if key not in SETTINGS},
        "flags": flags_of(result),
        "metrics": metrics,
    }


def place_of(line: Document) -> tuple[str, str, str]:
    return str(line.get("host")), str(line.get("id")), str(line.get("measured_at"))


def comparable(one: Document, other: Document) -> bool:
    """Of the same measurement of the same thing; the build may differ, which is what a history is for."""
    keys = ("host", "environment", "id", "hardware_fingerprint", "model", "model_hash", "parameters")
    return all(one.get(key) == other.get(key) for key in keys)


def is_line(entry: Any) -> bool:
    """Whether it is a line of the history, of which everything can be read that is read."""
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), str) for key in ("host", "id", "measured_at"))
        and isinstance(entry.get("metrics") or {}, dict)
        and all(isinstance(values, list) for values in (entry.get("metrics") or {}).values())
    )


def parse_history(content: str) -> tuple[list[Document], list[str]]:
    """The lines, and those that are none (a disk that was full), which are kept as they are."""
    found, broken = [], []
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            entry = from_json(line)
        except ValueError:
            entry = None
        if is_line(entry):
            found.append(entry)
        else:
            broken.append(line)
    return found, broken


def extend_history(history: list[Document], measurements: list[Document]) -> list[Document]:
    """The history with what is new and finished behind it."""
    seen = {place_of(line) for line in history}
    found = list(history)
    new = [history_line(result) for result in measurements if result["status"] == OK and text(result, "measured_at")]
    for line in sorted(new, key=lambda line: (line["measured_at"], line["host"], line["id"])):
        if place_of(line) not in seen:
            seen.add(place_of(line))
            found.append(line)
    return found


def recent(history: list[Document], environment: str, hosts: list[str]) -> list[Document]:
    """What the report shows: the last lines of each measurement of these hosts."""
    kept: dict[tuple[str, str], list[Document]] = {}
    for line in history:
        if line.get("environment") == environment and line["host"] in hosts:
            kept.setdefault((line["host"], line["id"]), []).append(line)
    rows = [
        line
        for lines in kept.values()
        for line in sorted(lines, key=lambda line: str(line["measured_at"]))[-KEPT_HISTORY:]
    ]
    return sorted(rows, key=lambda line: (line["host"], line["id"], line["measured_at"]))


# --- documents --------------------------------------------------------------------------------------


def join(inputs: Inputs) -> tuple[Document, list[Document], list[str]]:
    """The findings' document, the history as it is to be kept, and warnings. FindingsError names what is wrong."""
    known = {claim["id"] for claim in inputs.claims}
    for entry in inputs.derived:
        if entry.get("claim_id") not in known:
            raise FindingsError(
                f"derived: claim_id is {entry.get('claim_id')!r}; allowed is the id of a claim: "
                f"{', '.join(sorted(known))}."
            )
    joiner = Joiner(inputs)
    document = {
        "schema": SCHEMA,
        "environment": inputs.environment,
        "findings": joiner.rows(),
        "measurements": joiner.measurements,
        "history": recent(joiner.history, inputs.environment, list(joiner.hosts)),
    }
    return document, joiner.history, joiner.warnings


def mark_stale(document: Document, host: str, fingerprint: str, changes: list[str]) -> int:
    """Takes the verdict from the host's findings of this hardware, in place; how many there were."""
    count = 0
    for row in document["findings"]:
        if row["host"] != host or row["hardware_fingerprint"] != fingerprint or row["reason"].startswith("stale:"):
            continue
        row["verdict"], row["reason"] = verdict.NOT_MEASURED, stale_reason(fingerprint, "", changes)
        count += 1
    return count


def counts(document: Document) -> dict[str, int]:
    return {name: sum(row["verdict"] == name for row in document["findings"]) for name in verdict.VERDICTS}


def cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def csv_text(document: Document) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in document["findings"]:
        writer.writerow([cell(row[name]) for name in COLUMNS])
    return printable(stream.getvalue())


def finite(value: Any) -> Any:
    """JSON has no NaN: what a tool gave as one is null."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(document: Document) -> str:
    return printable(json.dumps(finite(document), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)) + "\n"


def history_text(history: list[Document], broken: list[str]) -> str:
    lines = [
        printable(json.dumps(finite(line), sort_keys=True, ensure_ascii=False, allow_nan=False)) for line in history
    ]
    return "".join(f"{line}\n" for line in broken + lines)


def mlflow_document(document: Document) -> Document:
    """One MLflow run per host, ready for its log_params, log_metrics and set_tags.

    A metric is named MEASUREMENT/METRIC and comes with _ci95_low, _ci95_high and _n; only finished measurements
    have any. The values are those of the runs by Student's t.
    """
    runs = []
    hosts = list(dict.fromkeys(row["host"] for row in document["findings"] if row["host"]))
    for host in hosts:
        params: dict[str, str] = {}
        metrics: dict[str, float] = {}
        tags = {"environment": document["environment"], "host": host, "week": "1"}
        for result in document["measurements"]:
            if result["host"] != host or result["status"] != OK:
                continue
            name = result["id"]
            tags["hardware_fingerprint"] = text(result, "hardware_fingerprint")
            for key in ("tool", "build", "model", "model_hash", "measured_at"):
                if text(result, key):
                    params[f"{name}/{key}"] = text(result, key)
            line = history_line(result)
            for key, value in sorted(line["parameters"].items()):
                # MLflow refuses values of more than 6,000 characters.
                params[f"{name}/{key}"] = (value if isinstance(value, str) else json.dumps(value))[:6000]
            for metric, values in line["metrics"].items():
                try:
                    summary = sample_statistics.summarize(values)
                except StatisticsError:
                    continue
                figures = {
                    "": summary.mean,
                    "_ci95_low": summary.ci95_low,
                    "_ci95_high": summary.ci95_high,
                    "_n": float(summary.n),
                }
                for suffix, figure in figures.items():
                    value = rounded(figure)
                    if value is not None:
                        metrics[f"{name}/{metric}{suffix}"] = value
        for row in document["findings"]:
            if row["host"] == host:
                tags[f"verdict/{row['claim_id']}"] = row["verdict"]
        run_name = f"week1-{document['environment']}-{host}"
        runs.append({"run_name": run_name, "params": params, "metrics": metrics, "tags": tags})
    return {"schema": SCHEMA, "experiment": "ai-idp week 1", "runs": runs}


def read_document(content: str) -> Document | None:
    """A findings document as this version writes it; None for anything else."""
    try:
        found = from_json(content)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not isinstance(found.get("environment"), str):
        return None
    for key in ("findings", "measurements", "history"):
        if not isinstance(found.get(key), list) or not all(isinstance(row, dict) for row in found[key]):
            return None
    if not all(set(COLUMNS) <= set(row) for row in found["findings"]):
        return None
    texts = [row[name] for row in found["findings"] for name in ("claim_id", "host", "verdict", "reason")]
    if not all(isinstance(value, str) for value in texts) or any(usable(row) for row in found["measurements"]):
        return None
    return found if all(is_line(line) for line in found["history"]) else None
