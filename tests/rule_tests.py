"""Renders the alert rules and their promtool test cases, for the unit tests and for the scenario of the role."""

from pathlib import Path
from typing import Any

import jinja2
import yaml

ROOT = Path(__file__).resolve().parent.parent
ROLE = ROOT / "roles" / "prometheus"
CASES = ROOT / "tests" / "rules"
RULES = ("recording", "gpu", "inference", "knowledge", "platform")
# Those whose absence the cases of ScrapeMissing are about.
JOBS = [{"name": name, "targets": [{"host": "server", "address": "s:1"}]} for name in ("node", "vllm")]


def rendered_rules() -> dict[str, str]:
    """Give each rule file as the role writes it with its default limits."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        # The brackets that each template's first line names to Ansible; Prometheus' own templates keep theirs.
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
    )
    variables = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    variables["prometheus_scrape_jobs"] = JOBS
    texts = {name: (ROLE / "templates" / "rules" / f"{name}.yml.j2").read_text(encoding="utf-8") for name in RULES}
    return {
        f"{name}.yml": environment.from_string(text.partition("\n")[2]).render(variables)
        for name, text in texts.items()
    }


def alerts() -> dict[str, dict[str, Any]]:
    """Give each alert rule by its name."""
    groups = [group for text in rendered_rules().values() for group in yaml.safe_load(text)["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def cases() -> dict[str, dict[str, Any]]:
    """Give each file of test cases as promtool takes it: with the rules' own descriptions and runbooks expected."""
    known = alerts()
    files = {}
    for path in sorted(CASES.glob("*.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for case in document["tests"]:
            for test in case.get("alert_rule_test", []):
                annotations = known[test["alertname"]]["annotations"]
                for expected in test["exp_alerts"]:
                    expected["exp_annotations"] = {**annotations, **expected["exp_annotations"]}
        files[f"{path.stem}_test.yml"] = document
    return files


def write(folder: Path) -> list[Path]:
    """Write rules and test cases into one folder.

    Returns:
        The files of test cases, for ``promtool test rules``.
    """
    for name, text in rendered_rules().items():
        (folder / name).write_text(text, encoding="utf-8")
    written = []
    for name, document in cases().items():
        written.append(folder / name)
        written[-1].write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    return written
