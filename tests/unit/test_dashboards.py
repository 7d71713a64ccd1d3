"""The dashboards: what is committed is what the description makes, Grafana's schema knows it, and nothing is broken."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboards import BOARDS
from dashboards.parts import DATASOURCE_UID, TAG, Board
from dashboards.queries import BUILT_IN, LABEL_VALUES, VARIABLE, Server, asked_by, resolve, substitute
from grafana import dashboard_errors
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, RowPanel
from grafana_foundation_sdk.models.prometheus import Dataquery

ROLE = Path(__file__).resolve().parents[2] / "roles" / "grafana"
NAMES = [board.name for board in BOARDS]
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}


def committed(board: Board) -> str:
    return (ROLE / "files" / "dashboards" / f"{board.name}.json").read_text(encoding="utf-8")


@pytest.fixture(params=BOARDS, ids=NAMES)
def board(request: pytest.FixtureRequest) -> Board:
    return request.param


@pytest.fixture
def dashboard(board: Board) -> dict[str, Any]:
    return json.loads(board.render())


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_committed_file_is_what_the_description_makes(board: Board) -> None:
    assert committed(board) == board.render(), "run make dashboards"


def test_no_file_is_left_over() -> None:
    assert sorted(path.stem for path in (ROLE / "files" / "dashboards").iterdir()) == sorted(NAMES)


def test_role_knows_every_dashboard() -> None:
    spec = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    option = spec["argument_specs"]["main"]["options"]["grafana_dashboards"]
    assert sorted(option["choices"]) == sorted(option["default"]) == sorted(NAMES)


def test_role_and_dashboards_mean_the_same_datasource() -> None:
    assert (
        yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))["__grafana_datasource_uid"]
        == DATASOURCE_UID
    )


def test_role_finds_nothing_wrong(board: Board) -> None:
    assert dashboard_errors(committed(board), board.name, DATASOURCE_UID) == []


def test_schema_of_grafana_reads_and_writes_it_unchanged(board: Board) -> None:
    """What the SDK does not know of a dashboard, panel or query would be lost on the way."""
    register_default_plugins()
    document = json.loads(committed(board))
    model = Dashboard.from_json(document)
    again = {"id": None} | json.loads(json.dumps(model, cls=JSONEncoder))
    assert again == document
    for panel in model.panels or []:
        assert isinstance(panel, RowPanel | Panel)
        if isinstance(panel, Panel):
            assert all(isinstance(target, Dataquery) for target in panel.targets or [])


def test_uids_are_unique() -> None:
    assert len({board.uid for board in BOARDS}) == len(BOARDS)


def test_dashboard_is_found_by_its_tag_and_can_not_be_changed_by_hand(dashboard: dict[str, Any]) -> None:
    assert TAG in dashboard["tags"]
    assert dashboard["editable"] is False


def test_units_are_units_of_grafana(dashboard: dict[str, Any]) -> None:
    for panel in panels_of(dashboard):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]


def test_rows_are_filled_to_their_end(dashboard: dict[str, Any]) -> None:
    """Panels of one line have one height and leave no hole."""
    lines: dict[int, list[dict[str, int]]] = {}
    for panel in dashboard["panels"]:
        lines.setdefault(panel["gridPos"]["y"], []).append(panel["gridPos"])
    for places in lines.values():
        assert sum(place["w"] for place in places) == 24, places
        assert len({place["h"] for place in places}) == 1, places


def test_titles_of_panels_are_unique(dashboard: dict[str, Any]) -> None:
    """By title and row, so that a message about a panel leads to it."""
    row, seen = "", set()
    for panel in dashboard["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        assert (row, panel["title"]) not in seen
        seen.add((row, panel["title"]))


def test_queries_use_variables_that_exist(dashboard: dict[str, Any]) -> None:
    known = {variable["name"] for variable in dashboard.get("templating", {}).get("list", [])} | set(BUILT_IN)
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            used = {match["braced"] or match["plain"] for match in VARIABLE.finditer(target["expr"])}
            assert used <= known, target["expr"]


def test_every_variable_is_used(dashboard: dict[str, Any]) -> None:
    text = json.dumps([dashboard["panels"], [one["query"] for one in dashboard.get("templating", {}).get("list", [])]])
    for variable in dashboard.get("templating", {}).get("list", []):
        assert f"${variable['name']}" in text


def test_rates_follow_the_scrape_interval(dashboard: dict[str, Any]) -> None:
    """A fixed window is too short for one Prometheus and too coarse for another."""
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            assert set(re.findall(r"\[([^\]]*)\]", target["expr"])) - {"45"} <= {"$__rate_interval", "$__range"}


def test_zero_is_only_claimed_where_it_is_the_truth(dashboard: dict[str, Any]) -> None:
    """`or vector(0)` behind a value that is missing would show an idle machine where nothing was measured."""
    counted = re.compile(r"^\(?(count|sum)\b")
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            if "or vector(0)" in target["expr"]:
                assert counted.match(target["expr"]), target["expr"]


def test_latencies_say_why_they_have_no_value(dashboard: dict[str, Any]) -> None:
    for panel in panels_of(dashboard):
        if any("histogram_quantile" in target["expr"] for target in panel["targets"]):
            assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]


def test_replayed_values_are_labelled() -> None:
    gpu = json.loads(next(board for board in BOARDS if board.name == "gpu").render())
    assert any('replay="true"' in mark["expr"] for mark in gpu["annotations"]["list"])
    first = panels_of(gpu)[0]
    assert 'replay="true"' in first["targets"][0]["expr"]
    assert "REPLAYED" in json.dumps(first["fieldConfig"]["defaults"]["mappings"])


def test_exceptions_have_a_reason_and_a_query(board: Board) -> None:
    asked = {expr for expr, _ in asked_by(json.loads(board.render()), BUILT_IN)}
    for expr, reason in board.hardware_only().items():
        assert expr in asked
        assert len(reason) > 10


def valid() -> dict[str, Any]:
    return json.loads(BOARDS[1].render())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it.update(id=7), "id must be null"),
        (lambda it: it.pop("uid"), "uid is missing"),
        (lambda it: it.update(__inputs=[]), "not filled in by provisioning"),
        (lambda it: it.update(panels=[]), "it has no panels"),
        (lambda it: it["panels"][2].update(id=it["panels"][1]["id"]), "two panels have the same id"),
        (lambda it: it["panels"][1].pop("description"), "description is missing"),
        (lambda it: it["panels"][1]["fieldConfig"]["defaults"].pop("unit"), "unit is missing"),
        (lambda it: it["panels"][1].update(targets=[]), "it asks nothing"),
        (lambda it: it["panels"][1]["targets"][0].update(expr=" "), "a query is empty"),
        (lambda it: it["panels"][1]["targets"][0].pop("refId"), "refId"),
        (
            lambda it: it["panels"][1]["targets"][0].update(datasource={"uid": "${DS_PROMETHEUS}"}),
            "its datasource must be ai-idp-prometheus, not ${DS_PROMETHEUS}",
        ),
        (lambda it: it["panels"][2]["gridPos"].update(it["panels"][1]["gridPos"]), "overlap"),
        (lambda it: it["panels"][1]["gridPos"].update(w=25), "wider than the 24 columns"),
    ],
)
def test_role_refuses_a_broken_dashboard(change: Any, message: str) -> None:
    broken = valid()
    change(broken)
    errors = dashboard_errors(json.dumps(broken), "broken.json", DATASOURCE_UID)
    assert any(message in error for error in errors), errors
    assert all(error.startswith("broken.json: ") for error in errors)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_role_refuses_what_is_no_dashboard(text: str) -> None:
    assert len(dashboard_errors(text, "broken.json", DATASOURCE_UID)) == 1


def test_variables_are_put_in_as_grafana_does() -> None:
    values = {"host": "(a|b)", "__rate_interval": "60s"}
    assert substitute('rate(x{host=~"$host"}[$__rate_interval])', values) == 'rate(x{host=~"(a|b)"}[60s])'
    assert substitute('x{host=~"${host}"}', values) == 'x{host=~"(a|b)"}'
    # "$1" belongs to label_replace.
    assert substitute('label_replace(x, "a", "$1", "b", "(.+)")', values).count("$1") == 1


class FakeServer(Server):
    """Prometheus with label values of its own."""

    def label_values(self, selector: str, label: str, now: float) -> list[str]:
        return {"host": ["schlimers-server", "b.c"], "gpu": []}[label]


def test_values_of_variables_are_escaped_and_an_empty_menu_is_told() -> None:
    dashboard = {
        "templating": {"list": [{"name": "host", "query": {"query": "label_values(up, host)"}}]},
    }
    server = FakeServer(client=None)  # type: ignore[arg-type]
    assert resolve(dashboard, server, 0)["host"] == r"(schlimers\\-server|b\\.c)"
    dashboard["templating"]["list"].append({"name": "gpu", "query": {"query": "label_values(up, gpu)"}})
    with pytest.raises(ValueError, match="finds nothing"):
        resolve(dashboard, server, 0)


def test_menus_are_queries_that_the_tests_can_ask(dashboard: dict[str, Any]) -> None:
    for variable in dashboard.get("templating", {}).get("list", []):
        assert LABEL_VALUES.match(variable["query"]["query"])
        assert variable["definition"] == variable["query"]["query"]
