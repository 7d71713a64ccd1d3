"""The alert rules: each is tested both ways, explained, and means what its test cases say."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import rule_tests

ALERTS = rule_tests.alerts()
MANUAL = (rule_tests.ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")


def cases_of(alert: str) -> list[list[dict[str, Any]]]:
    """What each test case of an alert expects of it."""
    return [
        test["exp_alerts"]
        for document in rule_tests.cases().values()
        for case in document["tests"]
        for test in case.get("alert_rule_test", [])
        if test["alertname"] == alert
    ]


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_is_tested_firing_and_not_firing(alert: str) -> None:
    expected = cases_of(alert)
    assert any(expected), f"no case in tests/rules lets {alert} fire"
    assert not all(expected), f"no case in tests/rules keeps {alert} from firing"


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_says_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    # The label that differs stands in the summary; the test cases take the rest as it is.
    assert "{{" not in annotations["description"] + annotations["runbook"]
    assert annotations["runbook"] == f"docs/monitoring.md#{alert.lower()}"
    assert re.search(rf"^### {alert}$", MANUAL, flags=re.MULTILINE), f"docs/monitoring.md has no section {alert}"


def test_the_manual_explains_no_alert_that_is_not_there() -> None:
    explained = MANUAL[MANUAL.index("\n## Alerts") :]
    assert set(re.findall(r"^### (\w+)$", explained, flags=re.MULTILINE)) == set(ALERTS)


def test_every_limit_is_used() -> None:
    templates = "".join(
        path.read_text(encoding="utf-8") for path in (rule_tests.ROLE / "templates" / "rules").iterdir()
    )
    defaults = yaml.safe_load((rule_tests.ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    limits = {name for name in defaults if name.startswith("prometheus_alert_")}
    assert limits == set(re.findall(r"prometheus_alert_\w+", templates))


def test_a_number_that_promtool_would_read_otherwise_is_in_no_case() -> None:
    """``0x40`` is hexadecimal there and makes one sample; forty zeros are written 0+0x40."""
    for path in rule_tests.CASES.glob("*.yml"):
        assert not re.search(r"(?<![\d.+])0x\d", path.read_text(encoding="utf-8")), path.name


def test_recorded_names_are_used_only_where_they_are_recorded() -> None:
    documents = {name: yaml.safe_load(text) for name, text in rule_tests.rendered_rules().items()}
    rules = [rule for document in documents.values() for group in document["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    used = {
        name for rule in rules for name in re.findall(r"\b(?:gpu|engine|baseline|host|gateway):\w+:\w+", rule["expr"])
    }
    assert used <= recorded


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here; the scenario of the role prometheus runs the same cases"
)
def test_rules_do_what_their_cases_say(tmp_path: Path) -> None:
    files = rule_tests.write(tmp_path)
    rules = [f"{name}.yml" for name in rule_tests.RULES]
    for arguments in (["check", "rules", *rules], ["test", "rules", *[file.name for file in files]]):
        done = subprocess.run(
            ["promtool", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
