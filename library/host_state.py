#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: Brings accounts, packages, files and systemd units of a host into the wanted state in one step
description:
  - What a role puts on a host, as one list. One call compares all of it and changes only what differs, in this order -
    packages, accounts, units and paths that are to be gone, directories, files, links, what is to be purged, units.
  - A file is rendered on the controller (O(files[].template)), may be checked by a program first, and is put in place
    whole or not at all.
  - Accounts and packages are made by C(ansible.builtin.user) and C(ansible.builtin.apt), which are called only where
    one is missing. A package's service is not started by its installation.
  - systemd is told to read its files again only where a unit here has a newer file than systemd holds, because that can
    cut running containers off their GPU.
  - Where a unit's file or a drop-in of it is among O(files), a drop-in that anybody else has put under
    C(/etc/systemd/system/NAME.d) is moved to C(DROP-IN.aside), which systemd does not read, and the unit is restarted.
    Those under C(/run) and C(/usr/lib) are let be.
  - A restart or reload that a change asks for is written down under C(/var/lib/ai-idp/due) before the change and struck
    out after it, so that a run which ends in between leaves it to the next one. It is moot once anybody else has
    started the unit anew.
options:
  accounts:
    description: Local accounts that must be there, and groups that they must be in.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the account.
        type: str
        required: true
      system:
        description: Whether it is made as a system account without a home directory.
        type: bool
        default: false
      home:
        description: Its home directory, when it is made.
        type: path
      shell:
        description: Its shell.
        type: str
      groups:
        description: Groups that it must be in besides its own; others stay. A package of this task may bring them.
        type: list
        elements: str
        default: []
      named_by:
        description: Name of the setting that the account comes from. One that is missing is not made then, and the
          task fails with that name.
        type: str
        default: ""
  packages:
    description: Packages of the distribution that must be installed, as V(NAME) in any version, or as V(NAME=VERSION).
    type: list
    elements: str
    default: []
  recommended_packages:
    description: Whether packages that the packages only recommend come with them.
    type: bool
    default: false
  directories:
    description: Directories. A link to one counts as one, and parents that are missing become its like.
    type: list
    elements: dict
    default: []
    suboptions: &place
      path:
        description: Absolute path.
        type: path
        required: true
      owner:
        description: Account that it belongs to.
        type: str
        default: root
      group:
        description: Group that it belongs to.
        type: str
        default: root
      mode:
        description: Permissions as octal digits; V(0755) for directories and V(0644) for files when not set.
        type: str
      state:
        description: V(absent) removes it, a directory with what is in it.
        type: str
        choices: [present, absent]
        default: present
      once:
        description: Whether owner and mode of a directory, or a file's text, count only while there is none, because
          it is another's too.
        type: bool
        default: false
  files:
    description: Files with their text. Each has one of O(files[].content), O(files[].template) and O(files[].source).
    type: list
    elements: dict
    default: []
    suboptions:
      <<: *place
      content:
        description: The text itself.
        type: str
      template:
        description: A template among the role's C(templates/), rendered on the controller.
        type: str
      template_vars:
        description: Variables for this template alone.
        type: dict
      source:
        description: A file among the role's C(files/), or an absolute path on the controller.
        type: str
      validate:
        description: Command line of a program that must accept the new file; C(%s) stands for its path.
        type: str
        default: ""
      secret:
        description: Whether its text is never shown.
        type: bool
        default: false
      backup:
        description: Whether what was there before is kept as C(PATH.before).
        type: bool
        default: false
  links:
    description: Symbolic links.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path of the link.
        type: path
        required: true
      target:
        description: What it points to.
        type: str
        required: true
  purge:
    description: Directories in which files that match a pattern and are not among O(files) and O(links) are removed.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The directory. Directories in it stay.
        type: path
        required: true
      patterns:
        description: Names of files, with C(*) and C(?).
        type: list
        elements: str
        default: ["*"]
  absent:
    description: Paths that are to be gone, directories with what is in them.
    type: list
    elements: path
    default: []
  units:
    description: Units of systemd, in the order in which they are to be set.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name with its suffix, such as C(prometheus.service).
        type: str
        required: true
      state:
        description:
          - V(started) and V(stopped) say whether it runs, V(unchanged) leaves that.
          - V(oneshot) is for one that does its work and ends. It is run to its end whenever O(units[].restarted_by) or
            O(units[].restart) says so, and left alone otherwise.
          - V(absent) stops and disables it before its file goes; one that systemd does not know is absent.
        type: str
        choices: [started, stopped, unchanged, oneshot, absent]
        default: started
      enabled:
        description: Whether it starts at boot. Leaves that as it is when not set.
        type: bool
      needs:
        description: File without which the unit is left as it is, such as settings that a later task puts there.
        type: path
      restarted_by:
        description: Paths among the files and links of this task, and names of its packages; when one of them changes,
          a running unit is restarted. V(*) stands for all paths.
        type: list
        elements: str
        default: []
      reloaded_by:
        description: The same for a reload, which a restart makes unnecessary.
        type: list
        elements: str
        default: []
      drop_ins:
        description: Names of drop-ins of others that stay, with C(*) and C(?).
        type: list
        elements: str
        default: [owner-*.conf]
      restart:
        description: Whether it must be restarted for a reason of the caller's.
        type: bool
        default: false
      reload:
        description: Whether it must be reloaded for a reason of the caller's.
        type: bool
        default: false
      health_url:
        description: Address on the host that tells whether the program works.
        type: str
        default: ""
      health_status:
        description: Status codes by which it says so.
        type: list
        elements: int
        default: [200]
      health_seconds:
        description: Seconds that it may take until it does.
        type: float
        default: 30
      health_file:
        description: File that the program, or what a timer starts, writes now and again.
        type: path
      health_file_seconds:
        description: How old that file may be.
        type: float
        default: 60
  in_force:
    description: Firewall and clock that the host is to have. They are compared after all else, and what is not as
      declared is told (RV(problems)) and not mended.
    type: dict
    suboptions:
      fingerprint:
        description: Text in the comment of the declared nftables table C(inet ai_idp), which is compared with the
          kernel's rule by rule. Empty where the firewall is off.
        type: str
        default: ""
      firewall_file:
        description: File of the declared table.
        type: path
        required: true
      firewall_unit:
        description: Unit that loads it.
        type: str
        required: true
      time_unit:
        description: Unit that keeps the clock right. Empty where nobody is to ask; a container's clock is its host's.
        type: str
        default: ""
      wait_seconds:
        description: How long to wait until all is as declared.
        type: float
        default: 0
      fail_on_problems:
        description: Whether to fail where something is not as declared.
        type: bool
        default: false
attributes:
  check_mode:
    support: full
    description: On a bare host too. What depends on an account or a package that is still missing is told as a change.
      A file is validated where its program is installed and nothing before it would change, since the program may read
      that.
  diff_mode:
    support: full
    description: Shows what changes in each file, of secret files only that they change, and each other change in words.
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: install | Put the exporter in place
  host_state:
    accounts: [{name: toy-exporter, system: true, shell: /usr/sbin/nologin}]
    packages: [toy-exporter]
    directories: [{path: /etc/toy}]
    files:
      - {path: /etc/toy/toy.yml, template: toy.yml.j2, validate: toy check %s}
      - {path: /etc/toy/password, content: "{{ toy_password }}", mode: "0600", secret: true}
      - {path: /etc/systemd/system/toy.service, template: toy.service.j2}
    purge: [{path: /etc/toy, patterns: ["*.yml"]}]
    units:
      - name: toy.service
        enabled: true
        restarted_by: [/etc/systemd/system/toy.service]
        reloaded_by: [/etc/toy/toy.yml]
        health_url: http://127.0.0.1:9999/healthy
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  returned: success
  type: list
  elements: dict
  sample: [{"kind": "file", "name": "/etc/toy/toy.yml", "how": "changed"}]
changed_paths:
  description: Paths that were changed, or would be.
  returned: success
  type: list
  elements: str
  sample: [/etc/toy/toy.yml]
changed_units:
  description: Units that were changed, or would be.
  returned: success
  type: list
  elements: str
  sample: [toy.service]
due_units:
  description: Running units among those that are V(unchanged) which have to be restarted or reloaded.
  returned: success
  type: list
  elements: str
  sample: [docker.service]
missing_packages:
  description: Packages that were not installed before.
  returned: success
  type: list
  elements: str
  sample: [toy-exporter]
package_versions:
  description: Versions of the packages that are installed, by name.
  returned: success
  type: dict
  sample: {"toy-exporter": "1.7.0-1"}
missing_accounts:
  description: Accounts that were missing or not as wanted before.
  returned: success
  type: list
  elements: str
  sample: [toy-exporter]
container:
  description: Kind of container that the host is, or empty.
  returned: where O(in_force) is given
  type: str
  sample: docker
firewall:
  description: V(off) where none is wanted, V(declared), V(other) or V(missing).
  returned: where O(in_force) is given
  type: str
  sample: declared
problems:
  description: A sentence for each thing of O(in_force) that is not as declared.
  returned: where O(in_force) is given
  type: list
  elements: str
  sample: []
"""

import os
import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.ai_idp.host_baseline import Declared, look
from ansible.module_utils.ai_idp.host_state.base import Account, lacking, package_versions, unknown_accounts
from ansible.module_utils.ai_idp.host_state.changes import Journal, StateError
from ansible.module_utils.ai_idp.host_state.due import Due, Triggers
from ansible.module_utils.ai_idp.host_state.paths import Paths, Wanted, WantedFile
from ansible.module_utils.ai_idp.host_state.units import Units, WantedUnit, foreign_drop_ins
from ansible.module_utils.basic import AnsibleModule

PAUSE_SECONDS = 1.0
PLACE = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "once": {"type": "bool", "default": False},
}
ARGUMENTS: dict[str, Any] = {
    "accounts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "system": {"type": "bool", "default": False},
            "home": {"type": "path"},
            "shell": {"type": "str"},
            "groups": {"type": "list", "elements": "str", "default": []},
            "named_by": {"type": "str", "default": ""},
        },
    },
    "packages": {"type": "list", "elements": "str", "default": []},
    "recommended_packages": {"type": "bool", "default": False},
    "directories": {"type": "list", "elements": "dict", "default": [], "options": PLACE},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            **PLACE,
            "content": {"type": "str"},
            "template": {"type": "str"},
            "template_vars": {"type": "dict"},
            "source": {"type": "str"},
            "validate": {"type": "str", "default": ""},
            "secret": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
        },
    },
    "links": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "path", "required": True}, "target": {"type": "str", "required": True}},
    },
    "purge": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "patterns": {"type": "list", "elements": "str", "default": ["*"]},
        },
    },
    "absent": {"type": "list", "elements": "path", "default": []},
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["started", "stopped", "unchanged", "oneshot", "absent"],
                "default": "started",
            },
            "enabled": {"type": "bool"},
            "needs": {"type": "path"},
            "restarted_by": {"type": "list", "elements": "str", "default": []},
            "reloaded_by": {"type": "list", "elements": "str", "default": []},
            "drop_ins": {"type": "list", "elements": "str", "default": ["owner-*.conf"]},
            "restart": {"type": "bool", "default": False},
            "reload": {"type": "bool", "default": False},
            "health_url": {"type": "str", "default": ""},
            "health_status": {"type": "list", "elements": "int", "default": [200]},
            "health_seconds": {"type": "float", "default": 30.0},
            "health_file": {"type": "path"},
            "health_file_seconds": {"type": "float", "default": 60.0},
        },
    },
    "in_force": {
        "type": "dict",
        "options": {
            "fingerprint": {"type": "str", "default": ""},
            "firewall_file": {"type": "path", "required": True},
            "firewall_unit": {"type": "str", "required": True},
            "time_unit": {"type": "str", "default": ""},
            "wait_seconds": {"type": "float", "default": 0.0},
            "fail_on_problems": {"type": "bool", "default": False},
        },
    },
    # From the action plugin's second call: it has installed or made what was missing.
    "made": {"type": "bool", "default": False},
}


def absolute(path: str) -> str:
    """A path in its plain form, so that one path has one name.

    Raises:
        StateError: it is not absolute.
    """
    if not path.startswith("/"):
        raise StateError(f"The path '{path}' is not absolute: begin it with /.")
    return "/" + os.path.normpath(path).lstrip("/")


def place(entry: dict[str, Any], mode: str) -> dict[str, Any]:
    """The part of an entry that directories and files share.

    Raises:
        StateError: its mode is no octal number.
    """
    wanted = entry["mode"] or mode
    try:
        bits = int(wanted, 8)
    except ValueError:
        bits = -1
    if not 0 <= bits <= 0o7777:
        raise StateError(f"The mode '{wanted}' of {entry['path']} is none: write octal digits such as \"0644\".")
    return {"path": entry["path"], "owner": entry["owner"], "group": entry["group"], "mode": bits}


def wanted_file(entry: dict[str, Any]) -> WantedFile:
    """A file of the task; its text was put there by the action plugin."""
    more = {key: entry[key] for key in ("validate", "secret", "backup", "once")}
    return WantedFile(**place(entry, "0644"), content=entry["content"] or "", **more)


def takes_over(entry: dict[str, Any]) -> bool:
    """Whether a unit of the task is restarted or reloaded, here or by whoever asks whether that is due."""
    asked = entry["state"] == "unchanged" and bool(entry["restarted_by"] or entry["reloaded_by"])
    return entry["state"] in ("started", "oneshot") or asked


def triggers_of(entry: dict[str, Any]) -> Triggers:
    """What a unit of the task is restarted and reloaded by."""

    def names(given: list[str]) -> frozenset[str]:
        return frozenset(absolute(name) if name.startswith("/") else name for name in given)

    return Triggers(names(entry["restarted_by"]), names(entry["reloaded_by"]), entry["state"] == "oneshot")


def wanted_unit(entry: dict[str, Any], due: str) -> WantedUnit:
    """A unit of the task, to be restarted or reloaded where that is due."""
    return WantedUnit(
        name=entry["name"],
        running={"started": True, "stopped": False}.get(entry["state"]),
        oneshot=entry["state"] == "oneshot",
        enabled=entry["enabled"],
        restart=due == "restart",
        reload=due == "reload",
        health_url=entry["health_url"],
        health_status=tuple(entry["health_status"]),
        health_seconds=entry["health_seconds"],
        health_file=entry["health_file"],
        health_file_seconds=entry["health_file_seconds"],
    )


def set_state(given: dict[str, Any], journal: Journal, units: Units, due: Due) -> None:
    """Set everything but accounts and packages.

    Raises:
        StateError: one thing can't be set; what came before it is.
    """
    paths = Paths(journal, units.check, due.changes)
    given = {**given, "absent": [absolute(path) for path in given["absent"]]}
    for key in ("directories", "files", "links", "purge"):
        given[key] = [{**entry, "path": absolute(entry["path"])} for entry in given[key]]
    places = given["directories"] + given["files"]
    units.absent([unit["name"] for unit in given["units"] if unit["state"] == "absent"])
    for path in [*given["absent"], *(entry["path"] for entry in places if entry["state"] == "absent")]:
        paths.absent(path)
    for entry in given["directories"]:
        if entry["state"] == "present":
            paths.directory(Wanted(**place(entry, "0755")), entry["once"])
    present = [entry for entry in given["files"] if entry["state"] == "present"]
    for entry in present:
        paths.file(wanted_file(entry))
    for link in given["links"]:
        paths.link(link["path"], link["target"])
    keep = [entry["path"] for entry in present + given["links"]]
    keep += [f"{entry['path']}.before" for entry in present if entry["backup"]]
    for entry in given["purge"]:
        paths.purge(entry["path"], entry["patterns"], keep)
    wanted = [unit for unit in given["units"] if unit["state"] != "absent"]
    for unit in wanted:
        for path in foreign_drop_ins(unit["name"], [entry["path"] for entry in present], unit["drop_ins"]):
            due.note(unit["name"], "restart")
            paths.aside(path)
    units.apply(
        [
            wanted_unit(unit, due.verb(unit["name"]))
            for unit in wanted
            if unit["needs"] is None or os.path.exists(unit["needs"])
        ]
    )


def not_in_force(wanted: dict[str, Any]) -> dict[str, Any]:
    """What firewall and clock do, as the module returns it.

    Raises:
        StateError: the host can't tell, or something is not as declared where that is a failure.
    """
    declared = Declared(**{key: wanted[key] for key in ("fingerprint", "firewall_file", "firewall_unit", "time_unit")})
    until = time.monotonic() + wanted["wait_seconds"]
    found = look(declared)
    while found.problems and time.monotonic() < until:
        time.sleep(PAUSE_SECONDS)
        found = look(declared)
    if found.problems and wanted["fail_on_problems"]:
        raise StateError(f"This host is not as declared: {'; '.join(found.problems)}.")
    return {"container": found.container, "firewall": found.firewall, "problems": list(found.problems)}


class Module(AnsibleModule):
    """A module whose call is not written to the host's log, because the texts of files may hold secrets.

    AnsibleModule's own ``no_log`` does not do: what the task says of it, which is nothing, comes after and wins. As an
    option's it would make secrets of all texts, in the diff too.
    """

    def _log_invocation(self) -> None:
        """Write nothing."""


def main() -> None:
    module = Module(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    os.umask(0o022)
    journal = Journal()
    told: dict[str, Any] = {}
    try:
        # In check mode it may be one that an earlier role would make.
        named_by = {} if module.check_mode else {entry["name"]: entry["named_by"] for entry in given["accounts"]}
        for name in unknown_accounts([name for name, setting in named_by.items() if setting]):
            raise StateError(
                f"{named_by[name]} names {name}, which this host does not have. Make the account first, or take it "
                "out of the list."
            )
        versions = package_versions(given["packages"])
        packages = [name for name in given["packages"] if name not in versions]
        accounts = [
            entry["name"]
            for entry in given["accounts"]
            if lacking(Account(entry["name"], tuple(entry["groups"]), entry["shell"]))
        ]
        for name in accounts:
            journal.add("account", name, "made or corrected")
        for name in packages:
            journal.add("package", name, "installed")
        units = Units(journal, module.check_mode)
        triggers = {unit["name"]: triggers_of(unit) for unit in given["units"] if takes_over(unit)}
        due = Due(module.check_mode, triggers, units.show)
        units.done = due.done
        for unit in given["units"]:
            due.note(unit["name"], "restart" if unit["restart"] else "reload" if unit["reload"] else "")
        for name in packages:
            due.changes(name.partition("=")[0])
        # The action plugin has them made by the modules that know how, and calls again.
        if module.check_mode or given["made"] or not (packages or accounts):
            set_state(given, journal, units, due)
            told = not_in_force(given["in_force"]) if given["in_force"] else {}
    except (StateError, OSError) as error:
        module.fail_json(msg=str(error), changes=[asdict(change) for change in journal.changes])
    module.exit_json(
        changed=bool(journal.changes),
        changes=[asdict(change) for change in journal.changes],
        changed_paths=sorted(journal.names("file", "directory", "link", "path")),
        changed_units=sorted(journal.names("unit")),
        due_units=[unit["name"] for unit in given["units"] if unit["state"] == "unchanged" and due.verb(unit["name"])],
        missing_packages=packages,
        package_versions=versions,
        missing_accounts=accounts,
        diff=journal.diff,
        **told,
    )


if __name__ == "__main__":
    main()
