"""Every Jinja expression of the project's YAML and templates, parsed, with the place that it stands in."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import yaml
from ansible.parsing.plugin_docs import read_docstring
from ansible.playbook.block import Block
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from jinja2 import Environment, nodes

ROOT = Path(__file__).resolve().parents[2]
# What Ansible takes for an expression as it is, without braces around it.
CONDITIONS = {"when", "that", "until", "changed_when", "failed_when", "break_when"}
KEYWORDS = {*Task.fattributes, *Block.fattributes, *Play.fattributes, "hosts"}
BLOCKS = {"block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"}
# The folders whose files hold variables, and nothing that is run.
VARIABLES = {"defaults", "vars", "group_vars", "host_vars", "inventory"}
EXTENSIONS = ["jinja2.ext.do", "jinja2.ext.loopcontrols"]


@dataclass(frozen=True)
class Expression:
    """A string or a file with Jinja in it.

    Attributes:
        where: file, from the project's root, and line.
        tree: what Jinja's parser makes of it. A condition is parsed as if it stood in braces.
        goes_to: type of the module's option that it is the value of; for a variable's value, the variable's name after
            a ``$``; empty for everything else.
    """

    where: str
    tree: nodes.Template
    goes_to: str = ""

    @property
    def is_single(self) -> bool:
        """Nothing but one expression in braces, so that Ansible hands over its value, not a text made of it."""
        body = self.tree.body
        return len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1


@cache
def options_of(module: str) -> dict[str, Any]:
    """What a module's documentation says of its own options; those that it shares with others are not told.

    Args:
        module: its name, with its collection where it is not the project's own.
    """
    own = [ROOT / folder / f"{module}.py" for folder in ("library", "action_plugins")]
    path = next((path for path in own if path.is_file()), None)
    if path is None:
        namespace, _, rest = module.partition(".")
        collection, _, name = rest.partition(".")
        package = f"ansible_collections.{namespace}.{collection}.plugins.modules.{name}"
        spec = find_spec(f"ansible.modules.{name}" if (namespace, collection) == ("ansible", "builtin") else package)
        assert spec is not None, f"there is no module {module}"
        assert spec.origin is not None
        path = Path(spec.origin)
    documentation = read_docstring(str(path))["doc"]
    return (documentation or {}).get("options") or {}


def option_type(module: str, path: tuple[str, ...]) -> str:
    """The type of an argument, or an empty text where the module's documentation tells none.

    Args:
        module: name of the module.
        path: keys that lead to the argument; an entry of a list is ``[]``.
    """
    found: dict[str, Any] = {"suboptions": options_of(module), "type": "dict"}
    for key in path:
        if key == "[]":
            found = {**found, "type": found.get("elements", "")}
        else:
            options: dict[str, Any] = found.get("suboptions") or {}
            named = (option for name, option in options.items() if key in (name, *option.get("aliases", [])))
            found = next(named, {"type": ""})
    return str(found.get("type", "str"))


def goes_to(path: tuple[str, ...], holds_variables: bool) -> str:
    """What ``Expression.goes_to`` says, by the keys that lead to a value in a YAML file."""
    if holds_variables:
        return f"${path[0]}" if len(path) == 1 else ""
    steps = [number for number, key in enumerate(path) if key not in BLOCKS and key != "[]"]
    if not steps:
        return ""
    key, rest = path[steps[0]], path[steps[0] + 1 :]
    if key in ("vars", "ansible.builtin.set_fact"):
        return f"${rest[0]}" if len(rest) == 1 else ""
    return "" if key in KEYWORDS else option_type(key, rest)


def _strings(node: yaml.Node, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[yaml.ScalarNode, Any]]:
    """Each string below a node with the keys that lead to it; what an alias repeats comes once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _strings(value, (*path, str(key.value)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _strings(value, (*path, "[]"), seen)
    elif isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        yield node, path


def of_yaml(text: str, file: str, holds_variables: bool = False) -> Iterator[Expression]:
    """The expressions of a YAML file.

    Args:
        text: the file.
        file: its name, for the place.
        holds_variables: it holds variables, not plays or tasks.
    """
    environment, seen = Environment(extensions=EXTENSIONS), set[int]()
    for document in yaml.compose_all(text, Loader=yaml.CSafeLoader):
        for node, path in _strings(document, (), seen) if document else ():
            names = [key for key in path if key != "[]"]
            condition = not holds_variables and bool(names) and names[-1] in CONDITIONS
            if condition or "{{" in node.value or "{%" in node.value:
                tree = environment.parse("{{ " + node.value + " }}" if condition else node.value)
                line = node.start_mark.line + 1
                yield Expression(f"{file}:{line}", tree, "" if condition else goes_to(path, holds_variables))


def of_template(text: str, file: str) -> Expression:
    """A template, with the delimiters that its first line may name."""
    head, _, body = text.partition("\n") if text.startswith("#jinja2:") else ("", "", text)
    named = dict(re.findall(r"(\w+_(?:start|end)_string): *'([^']+)'", head))
    environment = cast(Any, Environment)(extensions=EXTENSIONS, **named)
    return Expression(f"{file}:{2 if head else 1}", environment.parse(body))


def all_expressions() -> Iterator[Expression]:
    """Those of roles, playbooks, inventories and the lab."""
    for folder in ("roles", "playbooks", "inventory", "lab"):
        for path in sorted((ROOT / folder).rglob("*")):
            file = str(path.relative_to(ROOT))
            below = path.relative_to(ROOT).parts[:-1]
            if path.is_symlink() or not path.is_file() or {"files", "state", "images"} & {*below}:
                continue
            if "templates" in below or path.suffix == ".j2":
                yield of_template(path.read_text(encoding="utf-8"), file)
            elif path.suffix == ".yml" and path.name not in ("secrets.yml", "argument_specs.yml"):
                holds_variables = bool(VARIABLES & {*below}) or path.name == "settings.yml"
                yield from of_yaml(path.read_text(encoding="utf-8"), file, holds_variables)
