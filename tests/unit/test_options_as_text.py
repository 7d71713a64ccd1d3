"""An option means the same when it is given as text, as ``-e name=false`` does.

Text is true in Python and in Jinja, ``"false"`` too, and ``"10" * 2`` is ``"1010"``. An argument spec checks an option
and converts nothing for the role's own expressions. So they convert where they use one, and every expression of the
project is parsed here to see that they do.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml
from jinja2 import nodes
from jinja_expressions import ROOT, Expression, all_expressions, of_template, of_yaml, option_type

# Jinja's parser says so of regular expressions, which roles write as they are.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")

SPECS = sorted((ROOT / "roles").glob("*/meta/argument_specs.yml"))
NUMBERS = ("int", "float")
# What makes a value of its type from text. Where a number's text is wanted, text is as good.
CONVERTED = {"bool": {"bool"}, "int": {"int", "float", "string"}, "float": {"int", "float", "string"}}
# Options of modules that take text for what it says.
TAKEN = {"bool": {"bool"}, "int": {*NUMBERS, "str"}, "float": {*NUMBERS, "str"}}


def spec_types(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, option in options.items():
        yield name, option.get("type", "str")


def nested(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The options below options, such as those of a list's entries."""
    for option in options.values():
        below = option.get("options", {})
        yield from spec_types(below)
        yield from nested(below)


def platform_booleans(expressions: list[Expression]) -> set[str]:
    """Variables of no role that have ``true`` or ``false`` as their default in an expression or in a play."""
    found = set()
    for expression in expressions:
        for node in expression.tree.find_all(nodes.Filter):
            if node.name in ("default", "d") and isinstance(node.node, nodes.Name):
                found |= {node.node.name for value in node.args[:1] if _is_boolean(value)}
    for path in (ROOT / "playbooks").rglob("*.yml"):
        for part in yaml.safe_load(path.read_text(encoding="utf-8")):
            values = part.get("vars", {}) if isinstance(part, dict) else {}
            found |= {name for name, value in values.items() if isinstance(value, bool)}
    return {name for name in found if not name.startswith("__")}


def _is_boolean(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, bool)


class Options:
    """What is known of the options: ``types`` of variables, and the names of booleans below them."""

    def __init__(self, types: dict[str, str], nested_booleans: set[str]) -> None:
        self.types = types
        self.nested_booleans = nested_booleans

    def named(self, node: nodes.Node) -> tuple[str, str]:
        """The option that a node reads, and its type; two empty texts for anything else.

        A variable may be read by its name or as another host's, ``hostvars[host].name``. Numbers below an option come
        from YAML or JSON with their types, so of what is below only booleans count, which YAML writes in many ways.
        """
        if isinstance(node, nodes.Name):
            name = node.name if node.ctx == "load" else ""
        elif isinstance(node, nodes.Getattr):
            name = node.attr
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            name = str(node.arg.value)
        else:
            return "", ""
        if name in self.nested_booleans and not isinstance(node, nodes.Name):
            return name, "bool"
        return (name, self.types[name]) if name in self.types else ("", "")

    def faults(self, expression: Expression) -> Iterator[str]:
        """A sentence for each use of an option in which text would mean something else."""
        above = {id(child): node for node in _all(expression.tree) for child in node.iter_child_nodes()}
        for node in _all(expression.tree):
            name, wanted = self.named(node)
            if wanted and not self._means_the_same(node, wanted, expression, above):
                file, _, line = expression.where.rpartition(":")
                yield f"{file}:{int(line) + node.lineno - 1}: {name} is used without | {wanted}"
            if isinstance(node, nodes.Filter) and node.name in ("selectattr", "rejectattr") and len(node.args) == 1:
                attribute = node.args[0]
                if isinstance(attribute, nodes.Const) and attribute.value in self.nested_booleans:
                    yield f"{expression.where}: {node.name}('{attribute.value}') takes text for true"

    def _means_the_same(
        self, node: nodes.Node, wanted: str, expression: Expression, above: dict[int, nodes.Node]
    ) -> bool:
        parent = above[id(node)]
        while isinstance(parent, nodes.Filter) and parent.node is node and parent.name in ("default", "d"):
            node, parent = parent, above[id(parent)]
        if isinstance(parent, nodes.Filter) and parent.node is node:
            return parent.name in CONVERTED[wanted]
        if isinstance(parent, nodes.Test):
            return parent.name in ("defined", "undefined")
        if isinstance(parent, nodes.Concat):
            return wanted in NUMBERS
        if not isinstance(parent, nodes.Output):
            return False
        if not expression.is_single:
            return wanted in NUMBERS
        # A variable that is an option itself is looked at where it is used.
        taken = expression.goes_to
        return taken in TAKEN[wanted] or self.types.get(taken.removeprefix("$")) == wanted


def _all(tree: nodes.Node) -> Iterator[nodes.Node]:
    yield tree
    yield from tree.find_all(nodes.Node)


@cache
def everything() -> tuple[Options, list[Expression]]:
    """All options and all expressions of the project."""
    expressions = list(all_expressions())
    types = dict.fromkeys(platform_booleans(expressions), "bool")
    booleans = set()
    for path in SPECS:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
        types |= {name: kind for name, kind in spec_types(options) if kind in CONVERTED}
        booleans |= {name for name, kind in nested(options) if kind == "bool"}
    return Options(types, booleans), expressions


def test_every_option_is_converted_where_it_is_used() -> None:
    options, expressions = everything()
    faults = [fault for expression in expressions for fault in options.faults(expression)]
    assert not faults, "\n".join(faults)


def test_options_of_roles_and_of_the_platform_are_known() -> None:
    options, expressions = everything()
    assert {"rotate_keys", "lab_install", "lab_build", "lab_remove_images"} <= {*options.types}
    assert options.types["ai_idp_readiness_required"] == options.types["inference_stack_vllm_enabled"] == "bool"
    assert {"strip_path", "honor_labels", "gated"} <= options.nested_booleans
    files = {expression.where.rpartition(":")[0] for expression in expressions}
    assert {
        "inventory/wiring.yml",
        "lab/tasks/prerequisites.yml",
        "playbooks/tasks/measure_link.yml",
        "roles/inference_stack/templates/compose.yml.j2",
        "roles/jetson_platform/tasks/stats.yml",
        "roles/prometheus/templates/rules/gpu.yml.j2",
    } <= files


READERS = {"get", "pop", "setdefault"}


def python_faults(source: str, booleans: set[str]) -> Iterator[int]:
    """The line of each place where Python reads a boolean option and does not hand it to ``boolean`` at once."""
    tree = ast.parse(source)
    converted = {
        id(call.args[0])
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "boolean" and call.args
    }
    for node in ast.walk(tree):
        read: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            read = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READERS:
            read = node.args[0] if node.args else None
        if isinstance(read, ast.Constant) and read.value in booleans and id(node) not in converted:
            yield node.lineno


def test_filters_and_actions_convert_what_they_read_of_options() -> None:
    """A role's expression hands over whole lists of dictionaries, so their booleans reach Python as they were given."""
    options, _ = everything()
    booleans = options.nested_booleans | {name for name, kind in options.types.items() if kind == "bool"}
    faults = [
        f"{path.relative_to(ROOT)}:{line}: a boolean option is read without boolean(...)"
        for folder in ("filter_plugins", "action_plugins")
        for path in sorted((ROOT / folder).glob("*.py"))
        for line in python_faults(path.read_text(encoding="utf-8"), booleans)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("if entry.get('active'): pass", [1]),
        ("if entry['active'] is True: pass", [1]),
        ("x = bool(\n    entry.get('active', False))", [2]),
        ("x = boolean(entry.get('other') or entry['active'])", [1]),
        ("x = boolean(entry.get('active', False), strict=False)", []),
        ("x = boolean(entry['active'])", []),
        ("x = {'active': True}", []),
        ("entry['active'] = True", []),
        ("x = entry.get(active)", []),
    ],
)
def test_python_that_takes_text_for_true_is_found(source: str, lines: list[int]) -> None:
    assert [*python_faults(source, {"active"})] == lines


TOY = Options({"toy_on": "bool", "toy_other": "bool", "toy_size": "int"}, {"active"})


@pytest.mark.parametrize(
    "text",
    [
        "- {when: toy_on}",
        "- {when: not toy_on}",
        "- {when: toy_on | default(true)}",
        "- {when: [true, toy_on and 1 == 1]}",
        "- {when: toy_on == true}",
        "- {when: toy_on is truthy}",
        "- {when: 'hostvars[inventory_hostname].toy_on'}",
        "- {when: \"hostvars[0]['toy_on']\"}",
        "- {ansible.builtin.assert: {that: [toy_on]}}",
        "- {until: toy_on or false}",
        "- {ansible.builtin.debug: {msg: \"{{ 'a' if toy_on else 'b' }}\"}}",
        "- {ansible.builtin.debug: {msg: '{{ toy_on }}'}}",
        "- {ansible.builtin.debug: {msg: 'on: {{ toy_on }}'}}",
        "- {ansible.builtin.debug: {msg: '{{ 1 | toy_filter(toy_on) }}'}}",
        "- {ansible.builtin.debug: {msg: '{{ 1 | toy_filter(on=toy_on) }}'}}",
        "- {ansible.builtin.apt: {name: a, purge: '{{ toy_on or false }}'}}",
        "- {ansible.builtin.apt: {name: '{{ toy_on }}'}}",
        "- {vars: {other: '{{ toy_on }}'}}",
        "- {vars: {toy_other: {deeper: '{{ toy_on }}'}}}",
        "- {ansible.builtin.set_fact: {other: '{{ toy_on }}'}}",
        "- {block: [{when: item.active}]}",
        "- {loop: \"{{ all | selectattr('active') }}\"}",
        "- {when: toy_size > 0}",
        "- {when: toy_size}",
        "- {ansible.builtin.debug: {msg: '{{ toy_size * 2 }}'}}",
        "- {ansible.builtin.debug: {msg: '{{ toy_size or 4 }}'}}",
        "- {ansible.builtin.debug: {msg: '{{ 1 | toy_filter(toy_size) }}'}}",
        "- {vars: {other: '{{ toy_size }}'}}",
    ],
)
def test_what_takes_text_for_something_else_is_found(text: str) -> None:
    (expression,) = of_yaml(text, "toy.yml")
    assert len(list(TOY.faults(expression))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "- {when: toy_on | bool}",
        "- {when: not toy_on | default(true) | bool}",
        "- {when: toy_on is defined}",
        "- {ansible.builtin.apt: {name: a, purge: '{{ toy_on }}'}}",
        "- {block: [{ansible.builtin.apt: {name: a, purge: '{{ toy_on | default(false) }}'}}]}",
        "- {host_state: {units: [{name: a, enabled: '{{ toy_on }}'}]}}",
        "- {vars: {toy_other: '{{ toy_on }}'}}",
        "- {when: toy_size | int > 0}",
        "- {ansible.builtin.debug: {msg: 'on port {{ toy_size }}'}}",
        "- {ansible.builtin.debug: {msg: \"{{ 'on port ' ~ toy_size }}\"}}",
        "- {ansible.builtin.wait_for: {port: '{{ toy_size }}'}}",
        "- {block: [{when: item.active | bool}]}",
        "- {loop: '{% for toy_on in [1] %}{% endfor %}'}",
    ],
)
def test_what_means_the_same_is_let_through(text: str) -> None:
    (expression,) = of_yaml(text, "toy.yml")
    assert not list(TOY.faults(expression))


def test_a_template_is_read_with_its_own_delimiters_and_faults_have_their_line() -> None:
    head = "#jinja2: block_start_string: '[%', block_end_string: '%]'\n"
    expression = of_template(f"{head}# {{% if %}}\n[% if toy_on %]\n[% endif %]\n", "toy.j2")
    assert list(TOY.faults(expression)) == ["toy.j2:3: toy_on is used without | bool"]


@pytest.mark.parametrize(
    ("module", "path", "wanted"),
    [
        ("ansible.builtin.apt", ("purge",), "bool"),
        ("ansible.builtin.apt", ("pkg", "[]"), "str"),
        ("ansible.builtin.debug", ("no_such_option",), ""),
        ("community.crypto.acme_certificate", ("terms_agreed",), "bool"),
        ("host_state", ("units", "[]", "enabled"), "bool"),
        ("platform_secrets", ("rotate",), "bool"),
    ],
)
def test_types_of_arguments_are_those_of_the_modules(module: str, path: tuple[str, ...], wanted: str) -> None:
    assert option_type(module, path) == wanted


# What roles ask of the host before they work anything out.
FACTS = {
    "architecture": "x86_64",
    "default_ipv4": {"address": "192.168.1.11"},
    "distribution": "Debian",
    "distribution_version": "13",
    "processor_cores": 12,
    "processor_count": 1,
}


def worked_out(folder: Path, switched_off: bool | str) -> dict[str, str]:
    """What every role works out from its defaults when all its switches are off, by role and variable.

    Of a variable that needs what only a host tells, it is the error.
    """
    plays = []
    for path in sorted((ROOT / "roles").glob("*/vars/main.yml")):
        role = path.parents[1]
        own = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text(encoding="utf-8"))
        switches = {name: switched_off for name, value in defaults.items() if isinstance(value, bool)}
        show = {"msg": "{{ item }}: {{ lookup('ansible.builtin.vars', item) | to_json }}"}
        tasks: list[dict[str, Any]] = [
            *({"ansible.builtin.include_vars": str(role / part / "main.yml")} for part in ("defaults", "vars")),
            {"ansible.builtin.set_fact": {"switches": switches, **switches}},
            {"name": role.name, "ansible.builtin.debug": show, "loop": sorted(own), "ignore_errors": True},
        ]
        variables = {"ansible_facts": FACTS, "role_path": str(role)}
        plays.append({"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks})
    (folder / "play.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", folder / "play.yml"],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CACHE_PLUGIN": "memory",
            "ANSIBLE_CALLBACKS_ENABLED": "warm_start",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = [play["tasks"][-1] for play in json.loads(done.stdout[done.stdout.index("{") :])["plays"]]
    return {
        f"{task['task']['name']}.{result['item']}": result["msg"]
        for task in shown
        for result in task["hosts"]["localhost"]["results"]
    }


def test_roles_work_out_the_same_when_their_switches_are_text(tmp_path: Path) -> None:
    typed, text = worked_out(tmp_path, False), worked_out(tmp_path, "no")
    assert text == typed
    assert typed["edge_inference.__edge_inference_rpc_state"] == '__edge_inference_rpc_state: "absent"'
    # Most of them need nothing of a host, so that this is no comparison of errors.
    assert sum(value.startswith("__") for value in typed.values()) > len(typed) * 3 / 4


WEEKS = {
    2: ["engine_gate_key"],
    3: ["gateway_password", "grafana_admin_password"],
    4: ["engine_gate_key"],
    5: ["mlflow_admin_password", "n8n_owner_password", "knowledge_vault_service_token"],
}
# Nobody but the gate of their host has the engines' own keys, and data is encrypted with the others.
NEVER_REPLACED = [
    *("inference_stack_vllm_api_key", "inference_stack_llama_cpp_api_key", "edge_inference_api_key"),
    *("n8n_encryption_key", "backup_password"),
]


@pytest.mark.parametrize(("week", "keys"), WEEKS.items())
def test_keys_are_replaced_when_the_text_says_so_and_only_then(tmp_path: Path, week: int, keys: list[str]) -> None:
    """The weeks' own plays, with production's inventory. No host is asked: keys are made on the controller."""
    copytree(ROOT / "inventory" / "production", tmp_path / "inventory")
    file = tmp_path / "inventory" / "secrets.yml"
    before = {key: f"old-{key}" for of_week in (*WEEKS.values(), NEVER_REPLACED) for key in of_week}

    def after(text: str) -> dict[str, str]:
        file.write_text(yaml.safe_dump({**before, "ai_idp_gateway_key": "old"}))
        program = Path(sys.executable).with_name("ansible-playbook")
        only = ["--tags", "platform_secrets", "-e", f"rotate_keys={text}"]
        quiet = {"ANSIBLE_CACHE_PLUGIN": "memory", "ANSIBLE_GATHERING": "explicit", "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            [program, "-i", tmp_path / "inventory", "--connection", "local", f"playbooks/week{week}.yml", *only],
            cwd=ROOT,
            env={**os.environ, **quiet},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, str] = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {key: found[key] for key in before}

    assert after("false") == before
    assert {key for key, value in after("yes").items() if value != before[key]} == {*keys}
