"""The trees and settings that are held against each other."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# The last tree before tasks were made fewer; the budgets are shares of what it takes.
BEFORE_COMMIT = "b87f8de"

# Settings that Ansible needs to find the project at all. Everything else in ansible.cfg is what the bench measures.
PATH_SETTINGS = (
    ("defaults", "inventory"),
    ("defaults", "roles_path"),
    ("defaults", "library"),
    ("defaults", "module_utils"),
    ("defaults", "action_plugins"),
    ("defaults", "filter_plugins"),
    ("defaults", "lookup_plugins"),
    ("defaults", "test_plugins"),
    ("defaults", "vars_plugins"),
    ("defaults", "doc_fragment_plugins"),
    ("defaults", "collections_path"),
)
# Which files beside an inventory are none: without it Ansible reads keys as if they were hosts.
OTHER_SETTINGS = (("inventory", "ignore_patterns"),)

# The former tree gets a lab of its own beside this one: the two deploy different things, and each would change the
# other's. So its network, containers, images and registry have other names there.
OWN_LAB = (("ai-idp-lab", "ai-idp-old"), ("10.77.0.", "10.78.0."), ("127.0.0.1:15000", "127.0.0.1:15010"))
# What shows that a lab was made.
LAB_THERE = "inventory/lab/state/known_hosts"


class SideError(Exception):
    """A side can't be measured; the message says why."""


@dataclass(frozen=True)
class Side:
    """A tree with settings: where it is, its ansible.cfg, and the callback plugins that it has by itself."""

    name: str
    tree: Path
    config: Path

    @property
    def callbacks(self) -> list[Path]:
        """Folders that the settings name; the bench adds its own, and the variable for that replaces the setting."""
        return [self.config.parent / folder for folder in _settings(self.config, "callback_plugins")]

    @property
    def keeps_facts(self) -> bool:
        """Facts are kept from one run to the next."""
        return bool(_settings(self.config, "fact_caching"))

    @property
    def playbooks(self) -> list[str]:
        """The playbooks that can be timed: the whole site, and each week."""
        weeks = sorted(path.stem for path in (self.tree / "playbooks").glob("week*.yml"))
        return ["site", *weeks]


def _settings(config: Path, name: str) -> list[str]:
    """The parts of a setting of [defaults]; none where it is not set."""
    return [
        part for part in _read(config.read_text(encoding="utf-8")).get("defaults", name, fallback="").split(":") if part
    ]


def _read(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def stock_settings(text: str, tree: Path) -> str:
    """An ansible.cfg with the paths of another and Ansible's own defaults for all else.

    Args:
        text: The project's ansible.cfg.
        tree: Where it lies; its relative paths become absolute.
    """
    given = _read(text)
    lines: list[str] = []
    for section, wanted in (("defaults", PATH_SETTINGS), ("inventory", OTHER_SETTINGS)):
        lines.append(f"[{section}]")
        for where, name in wanted:
            value = given.get(where, name, fallback="")
            if value and where == "defaults":
                value = ":".join(str(tree / part) for part in value.split(":"))
            if value:
                lines.append(f"{name} = {value}")
    return "\n".join(lines) + "\n"


def stock_side(this: Side, folder: Path) -> Side:
    """This tree with Ansible's stock settings, which are written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "ansible.cfg"
    config.write_text(stock_settings(this.config.read_text(encoding="utf-8"), this.tree), encoding="utf-8")
    return Side("stock", this.tree, config)


def before_side(root: Path, folder: Path, commit: str = BEFORE_COMMIT) -> Side:
    """The former tree in a checkout of its own, set up for a lab of its own.

    Raises:
        SideError: Git has no such commit, or is not there.
    """
    if not (folder / ".git").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
    _check_out(folder, commit)
    return Side("before", folder, folder / "ansible.cfg")


def take_over(root: Path, side: Side) -> None:
    """Bring the commit of this tree into the checkout of the former one, set up for the same lab; its state stays.

    Raises:
        SideError: Git can't do it.
    """
    _git(side.tree, "fetch", "--quiet", str(root), "HEAD")
    _check_out(side.tree, "FETCH_HEAD")


def _check_out(folder: Path, commit: str) -> None:
    _git(folder, "checkout", "--quiet", "--force", "--detach", commit)
    for name in _git(folder, "ls-files").splitlines():
        _give_own_lab(folder / name)


def _give_own_lab(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        return
    text = before = path.read_bytes()
    for here, there in OWN_LAB:
        text = text.replace(here.encode(), there.encode())
    if text != before:
        path.write_bytes(text)


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SideError(f"git can't be run in {folder}: {error.strerror}") from error
    if done.returncode != 0:
        raise SideError(f"git {arguments[0]}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return done.stdout.strip()


def commit_of(root: Path) -> str:
    """The commit of a tree, with a mark where files differ from it. SideError where Git can't tell."""
    changed = _git(root, "status", "--porcelain")
    return _git(root, "rev-parse", "HEAD") + ("+changes" if changed else "")
