"""The report of week 1: whole, honest about the lab, the same bytes for the same findings."""

import json
import re
import stat
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from typer.testing import CliRunner

from ai_idp.benchmarks import plots, report
from ai_idp.benchmarks.findings_file import Findings, Verdict, read_findings
from ai_idp.benchmarks.plots import DASH, Measured, Span
from ai_idp.cli import app
from ai_idp.errors import FrontError

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "benchmark_findings" / "constructed-week1.json"
CSS = Path(report.__file__).parent / "templates" / "report.css"
VOID = {"meta", "br", "link", "img", "input"}


@pytest.fixture
def data() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(GOLDEN.read_text())
    return read


@pytest.fixture(scope="module")
def view() -> report.View:
    return report.make_view(read_findings(GOLDEN))


@pytest.fixture(scope="module")
def page(view: report.View) -> str:
    return report.render_html(view)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    (tmp_path / "benchmarks").mkdir()
    few = json.loads(GOLDEN.read_text())
    few["findings"], few["measurements"], few["history"] = few["findings"][:2], few["measurements"][:2], []
    (tmp_path / "benchmarks" / report.FINDINGS).write_text(json.dumps(few))
    monkeypatch.setenv("AI_IDP_HOME", str(tmp_path))
    return tmp_path


def view_of(data: dict[str, Any]) -> report.View:
    return report.make_view(Findings.model_validate(data))


def entries(view: report.View) -> dict[tuple[str, str], report.Entry]:
    return {(claim.id, entry.finding.host): entry for claim in view.claims for entry in claim.entries}


class Outline(HTMLParser):
    """What a browser would make of the page: open elements, ids, headings, addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.headings: list[int] = []
        self.addresses: list[str] = []
        self.tags: Counter[str] = Counter()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            if name in ("href", "src", "xlink:href", "action"):
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    return parser


def test_the_page_stands_alone(page: str) -> None:
    seen = outline(page)
    assert seen.open == []
    assert all(address.startswith("#") for address in seen.addresses)
    assert {address[1:] for address in seen.addresses} <= set(seen.ids)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", page)
    assert seen.tags["script"] == 0


def test_the_page_is_well_formed_for_readers_of_the_screen(page: str) -> None:
    seen = outline(page)
    assert [name for name, times in seen.ids.items() if times > 1] == []
    assert seen.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(seen.headings, seen.headings[1:], strict=False))
    assert page.count('role="img"') == page.count("<svg") == page.count("<desc id=")
    assert len(re.findall(r"<table", page)) == len(re.findall(r'class="scroll" tabindex="0"', page))


def test_plots_take_their_colours_from_the_page(page: str) -> None:
    variables = set(re.findall(r"var\((--[a-z0-9-]+)\)", page))
    assert variables - {"--verdict"} <= set(re.findall(r"(--[a-z0-9-]+):", CSS.read_text()))
    assert not re.search(r"(?:fill|stroke|stop-color): ?#", page)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))


def test_every_verdict_is_a_word_with_its_count(page: str, data: dict[str, Any]) -> None:
    counted = Counter(row["verdict"] for row in data["findings"])
    assert set(counted) == set(Verdict)
    for verdict, words in report.WORDS.items():
        tile = re.search(rf'<li class="v-{verdict}"><strong>(\d+)</strong>.*?{words.word}</span>', page)
        assert tile is not None
        assert int(tile.group(1)) == counted[verdict]
        assert words.rule.replace("'", "&#39;") in page


def test_rules_are_told_in_the_order_in_which_they_are_tried() -> None:
    from ansible.module_utils.ai_idp import verdict

    assert {str(one) for one in Verdict} == set(verdict.VERDICTS)
    order = re.findall(r"^ *\d\. ``(\w+)``", verdict.judge.__doc__ or "", re.MULTILINE)
    assert [str(one) for one in report.WORDS] == order


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", blocks[scheme]))
    verdicts = [str(verdict).replace("_", "-") for verdict in Verdict]
    for verdict in verdicts:
        # The badge's word, the same colour as text on a card, and the flags' on theirs.
        assert _contrast(colours[verdict], colours["on-badge"]) >= 4.5, verdict
        assert _contrast(colours[verdict], colours["surface"]) >= 4.5, verdict
    for text in ("ink", "soft", "accent", "below"):
        for ground in ("page", "surface"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert _contrast(colours["ink"], colours["banner"]) >= 4.5
    for mark in ("documented", "accent"):
        assert _contrast(colours[mark], colours["surface"]) >= 3, mark


def test_figures_of_the_lab_are_called_so(data: dict[str, Any], page: str) -> None:
    assert "Some of these figures are of the lab" in page
    for part in ("findings", "measurements", "history"):
        data[part] = [row for row in data[part] if row["environment"] == "lab"]
    lab = view_of(data)
    assert lab.lab == "all"
    assert "These are figures of the lab" in report.render_html(lab)
    assert "They cannot say" in report.render_markdown(lab)
    assert "measured something else: tiny-llama" in report.render_html(lab).lower()


def test_without_the_lab_there_is_no_banner(data: dict[str, Any]) -> None:
    for part in ("findings", "measurements", "history"):
        data[part] = [row for row in data[part] if row["environment"] != "lab"][:2]
    view = view_of(data)
    assert view.lab == ""
    assert 'class="banner"' not in report.render_html(view)
    assert "(lab)" not in report.render_markdown(view)


def test_a_row_says_what_was_found(view: report.View) -> None:
    found = entries(view)
    vllm = found["vllm-throughput", "schlimers-server"]
    assert (vllm.documented, vllm.expected) == (f"140{DASH}170 tok/s", f"60{DASH}100 tok/s")
    assert (vllm.measured, vllm.interval) == ("82.3 tok/s", f"81.2{DASH}83.4")
    assert ("SM clock", f"2,827{DASH}2,842 MHz") in vllm.conditions
    other = found["vllm-throughput", "lab-gpu"]
    assert not other.finding.counts
    assert "(307)" in other.glance
    hybrid = found["llama-70b-hybrid", "schlimers-server"]
    assert "At best possible: 2.9 tok/s" in hybrid.glance
    assert "≤ 2.9</text>" in hybrid.glance
    assert ("Against", "llama.cpp on the CPU of the same host") in found["improvement-7x", "schlimers-server"].facts
    assert found["gateway-ttft", "xps15"].finding.stale
    assert found["triton-infer", "schlimers-server"].glance == ""
    assert found["model-store-read", "schlimers-server"].strip == ""
    requests = re.search(r"over (\d+) single requests", found["vllm-ttft", "schlimers-server"].strip)
    assert requests is not None
    assert requests.group(1) == "50"


def test_what_does_not_count_leaves_the_axis_to_the_claim(view: report.View) -> None:
    other = entries(view)["vllm-throughput", "lab-gpu"].glance
    ticks = [int(tick) for tick in re.findall(r">(\d+)</text>", other)]
    assert max(ticks) < 200


def test_curves_join_only_what_differs_in_one_thing(view: report.View, data: dict[str, Any]) -> None:
    curves = dict(view.sweeps)
    concurrency = {plot.detail: plot for plot in curves["Against concurrency"]}
    assert [row[0] for row in concurrency["schlimers-server · vllm 0.30.0"].rows] == ["1", "4", "8"]
    assert concurrency["lab-gpu · vllm 0.30.0 (CPU)"].lab
    # The one without a depth is the one at depth 0.
    context = curves["Against context"]
    assert [[row[0] for row in plot.rows] for plot in context] == [["0", "2048", "8192", "16384"]] * 2
    for one in data["measurements"]:
        if one["id"] == "vllm-c8":
            one["build"] = "vllm 0.31.0"
    data["findings"] = []
    changed = {plot.detail: plot for plot in dict(view_of(data).sweeps)["Against concurrency"]}
    assert [row[0] for row in changed["schlimers-server · vllm 0.30.0"].rows] == ["1", "4"]


def test_what_no_claim_asks_for_is_shown_too(view: report.View, page: str) -> None:
    assert ("vllm-c1", "TTFT p50", "13 ms", f"12.6{DASH}13.4", "5", "lab-gpu (lab)", "tiny-llama") in view.figures
    assert not [row for row in view.figures if row[0] == "triton-infer"]
    assert (
        "triton-infer",
        "schlimers-server",
        "failed",
        "the endpoint answered 503 to 3 of 200 requests",
    ) in view.not_run
    assert "<td>TTFT p50</td>" in page
    assert f"{view.uncounted} of those not measured have figures" in page


def test_history_is_compared_on_the_same_hardware_only(view: report.View) -> None:
    by_title = {plot.title: plot for plot in view.history}
    vllm = by_title["Output tokens per second: vllm-c1"]
    assert [row[1] for row in vllm.rows] == ["b81d0e6a"] * 2 + ["3fa1c07b"] * 2
    assert "2 sets of hardware" in vllm.detail
    # Two lines, and a dashed one between them: nothing joins what ran on different hardware.
    assert vllm.svg.count("stroke-dasharray") == 1
    note = by_title["Decode tokens per second: llama-bench-cpu"].note
    assert note.startswith(
        "Now worse than the run of 2026-11-14 10:05 UTC on the same hardware: \N{MINUS SIGN}0.41 tok/s"
    )


def test_history_may_hold_whole_measurements(data: dict[str, Any]) -> None:
    first = next(one for one in data["measurements"] if one["id"] == "network-latency")
    data["history"] = [{**first, "measured_at": "2026-10-01T00:00:00Z"}, first]
    data["findings"] = [row for row in data["findings"] if row["measurement"] == "network-latency"]
    data["measurements"] = []
    (drawn,) = view_of(data).history
    assert [row[4] for row in drawn.rows] == ["0.212", "0.212"]


def test_nothing_measured_is_a_report_too(page: str) -> None:
    view = view_of({"schema": 1, "environment": "lab", "findings": []})
    empty = report.render_html(view)
    assert "nothing was measured" in empty
    assert "No measurement was finished." in empty
    assert outline(empty).open == []
    assert "0 verdicts on 0 claims" in report.render_markdown(view)


def test_text_of_others_stays_text(data: dict[str, Any]) -> None:
    evil = '<script>alert("x")</script> | **bold** `code`\n# heading $x_1$'
    row = data["findings"][0]
    row.update(description=evil, reason=evil, unit="<b>$a^2$", host="<i>", method=evil, flags=[evil])
    data["measurements"][0].update(model=evil, build=evil)
    data["findings"], data["measurements"] = data["findings"][:1], data["measurements"][:3]
    view = view_of(data)
    page = report.render_html(view)
    seen = outline(page)
    assert seen.tags["script"] == seen.tags["b"] == seen.tags["i"] == 0
    assert seen.open == []
    assert "<b>$a^2$, more is better" in seen.texts
    text = report.render_markdown(view)
    assert "\n# heading" not in text
    assert "<script>" not in text.replace("\\<script", "")
    table = next(line for line in text.splitlines() if line.startswith("| \\<script"))
    assert len(re.findall(r"(?<!\\)\|", table)) == 9


def test_the_same_findings_give_the_same_bytes(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkout / "benchmarks"
    first = report.write_report(folder)
    assert set(first.files.values()) == {True}
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first.files}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in before)
    # What somebody has set for other plots changes nothing either.
    monkeypatch.setitem(matplotlib.rcParams, "xtick.direction", "in")
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "path")
    second = report.write_report(folder)
    assert set(second.files.values()) == {False}
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in second.files} == before
    assert sorted(path.name for path in folder.iterdir()) == [report.FINDINGS, report.HTML, report.MARKDOWN]


def test_an_interrupted_writing_leaves_the_old_report(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = checkout / "benchmarks" / report.HTML
    page.write_text("the old one")

    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.write_report(checkout / "benchmarks")
    assert page.read_text() == "the old one"
    assert sorted(path.name for path in page.parent.iterdir()) == [report.FINDINGS, report.HTML]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there: `ai-idp run week1` measures and writes it"),
        ("{", "is not JSON"),
        ('{"schema": 2, "findings": []}', "makes no sense at schema"),
        ('{"schema": 1}', "makes no sense at findings: Field required"),
        (
            '{"schema": 1, "findings": [{"claim_id": "a", "description": "b", "verdict": "maybe"}]}',
            "makes no sense at findings.0.verdict",
        ),
        (
            '{"schema": 1, "findings": [{"claim_id": "a", "description": "b", "verdict": "below", "ci95_low": NaN}]}',
            "makes no sense at findings.0.ci95_low",
        ),
    ],
)
def test_bad_findings_are_one_clear_line(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / report.FINDINGS
    if content is not None:
        path.write_text(content)
    with pytest.raises(FrontError, match=re.escape(said)) as caught:
        read_findings(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_command_draws_and_counts(checkout: Path) -> None:
    first = CliRunner().invoke(app, ["report"])
    assert first.exit_code == 0
    assert "benchmarks/week1_report.html: written" in first.stdout
    assert "2 verdicts: 1 within expected, 1 not measured" in first.stdout
    assert "Some of these figures are of the lab" in first.stdout
    assert "benchmarks/week1_report.md: unchanged" in CliRunner().invoke(app, ["report", "--week", "1"]).stdout


def test_the_command_opens_the_page(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def browser(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr("webbrowser.open", browser)
    assert CliRunner().invoke(app, ["report", "--open"]).exit_code == 0
    assert opened == [(checkout / "benchmarks" / report.HTML).as_uri()]
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    result = CliRunner().invoke(app, ["report", "--open"])
    assert result.exit_code == 2
    assert "open benchmarks/week1_report.html yourself" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--week", "2"], "there is a report of week 1 only"), ([], "week1_findings.json is not there")],
)
def test_the_command_says_what_is_missing(checkout: Path, arguments: list[str], said: str) -> None:
    (checkout / "benchmarks" / report.FINDINGS).unlink()
    result = CliRunner().invoke(app, ["report", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.4, "0.4"), (22, "22"), (89.6, "89.6"), (1234.4, "1,234"), (0.21249, "0.212"), (0.00012, "0.00012")],
)
def test_numbers_are_written_as_people_do(value: float, text: str) -> None:
    assert plots.number(value) == text


@pytest.mark.parametrize(
    ("mean", "low", "high", "texts"),
    [
        (82.3, 81.200059, 83.399941, ("82.3", f"81.2{DASH}83.4")),
        (307.12, 294.29, 319.95, ("307", f"294{DASH}320")),
        (0.212, 0.209224, 0.214776, ("0.2120", f"0.2092{DASH}0.2148")),
        (2.35, 2.35, 2.35, ("2.35", f"2.35{DASH}2.35")),
        (2913.4, None, None, ("2,913", "")),
    ],
)
def test_decimals_follow_the_interval(
    mean: float, low: float | None, high: float | None, texts: tuple[str, str]
) -> None:
    assert plots.interval_texts(mean, low, high) == texts


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (60, 100, f"60{DASH}100"),
        (22, 22, "22"),
        (60, None, "at least 60"),
        (None, 5, "at most 5"),
        (None, None, ""),
    ],
)
def test_ranges_in_words(low: float | None, high: float | None, text: str) -> None:
    assert plots.span_text(low, high) == text


@pytest.mark.parametrize(
    ("documented", "measured"),
    [
        (Span(0.4, 0.4), Measured(90, 88, 92, (89, 91))),
        (Span(None, None), Measured(0, 0, 0, (0, 0))),
        (Span(0, 0), None),
        (Span(10, None), Measured(-1, -2, 0, (-2, 0))),
        (Span(None, 1e-9), Measured(1e9, None, None, (1e9,))),
    ],
    ids=["log", "zeros", "zero documented", "negative", "far apart"],
)
def test_odd_figures_are_drawn(documented: Span, measured: Measured | None) -> None:
    svg = plots.glance(
        "x",
        documented=documented,
        expected=None,
        measured=measured,
        limit=5,
        counts=True,
        verdict="below",
        unit="ms",
        better="lower",
        title="t",
        description="d",
    )
    assert svg.startswith("<svg")
    assert "nan" not in svg
    assert ("log scale" in svg) == (documented.low == 0.4 or documented.high == 1e-9)


def test_flags_that_differ_in_their_run_are_one() -> None:
    busy = [f"busy: load {load} on 2 CPUs before run {run}" for run, load in ((1, 1.1), (2, 1.8), (4, 1.5))]
    assert report.gathered([*busy, "cached: the disk", "throttled: heat on GPU 0 during run 3"]) == [
        "cached: the disk",
        "busy: load 1.1 to 1.8 on 2 CPUs before runs 1, 2, 4",
        "throttled: heat on GPU 0 during run 3",
    ]
