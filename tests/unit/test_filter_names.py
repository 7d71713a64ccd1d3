"""Each filter and test that an expression names is there: Ansible says so only when it comes to the expression."""

import importlib
from typing import Any

import pytest
from ansible.plugins.loader import filter_loader, test_loader
from jinja2 import Environment, nodes
from jinja_expressions import ROOT, all_expressions

# Jinja's parser says so of regular expressions, which roles write as they are.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")


def has(loader: Any, name: str) -> bool:
    """Whether Ansible itself has a plugin."""
    try:
        return loader.get(name) is not None
    except KeyError:
        return False


def missing(kind: type[nodes.Filter | nodes.Test], known: set[str], loader: Any) -> set[str]:
    """Names without a plugin, each with where it stands. Collections are installed as they are locked."""
    return {
        f"{expression.where}: {found.name}"
        for expression in all_expressions()
        for found in expression.tree.find_all(kind)
        if found.name not in known and "." not in found.name and not has(loader, found.name)
    }


def test_each_filter_is_there() -> None:
    own = [
        importlib.import_module(path.stem).FilterModule().filters() for path in ROOT.glob("filter_plugins/[a-z]*.py")
    ]
    known = {*Environment().filters, *(name for names in own for name in names)}
    assert missing(nodes.Filter, known, filter_loader) == set()


def test_each_test_is_there() -> None:
    assert missing(nodes.Test, set(Environment().tests), test_loader) == set()
