#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: jetson_power
short_description: Sets a Jetson's power mode and clocks
description:
  - Sets the power mode by its name, with C(nvpmodel), and holds the clocks at their highest or lets them follow the
    load, with C(jetson_clocks).
  - A mode that the board does not have is refused with those that it has, and nothing is changed.
  - Some modes take a restart of the board. Then RV(reboot_required) is true and the mode is the old one still; the
    module never restarts anything.
  - The mode outlives a restart, the clocks do not.
options:
  mode:
    description: Name of the mode, such as V(25W) or V(MAXN_SUPER). Empty keeps the mode.
    type: str
    default: ""
  clocks:
    description: V(maximum) holds them at the highest of the mode, V(dynamic) lets them follow the load.
    type: str
    choices: [keep, maximum, dynamic]
    default: keep
  variable:
    description: Under which name the user sets the mode, for messages.
    type: str
    default: mode
  store:
    description: File that keeps the clocks as they were before they were held, for V(dynamic).
    type: path
    default: /var/lib/ai-idp/jetson_clocks.conf
  nvpmodel:
    description: The program, a name that is looked up in the path or an absolute path.
    type: str
    default: nvpmodel
  jetson_clocks:
    description: The program, a name that is looked up in the path or an absolute path.
    type: str
    default: jetson_clocks
  root:
    description: Folder under which the files of the system are read, for tests.
    type: path
    default: /
  timeout:
    description: Seconds that a program may take.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: Says what would be set. Whether a mode takes a restart is known only when it is set.
  diff_mode:
    support: full
    description: Shows mode and clocks before and after.
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The board runs in its best mode
  jetson_power:
    mode: 25W
    clocks: maximum
    variable: jetson_platform_power_mode
  register: __power
"""

RETURN = r"""
reboot_required:
  description: The mode takes a restart of the board and was not set.
  returned: always
  type: bool
power_mode:
  description: The mode afterwards.
  returned: always
  type: str
  sample: 25W
clocks_locked:
  description: Whether the clocks are held at their highest afterwards; null when they can't be read.
  returned: always
  type: bool
steps:
  description: What was, or in check mode would be, changed.
  returned: always
  type: list
  elements: str
  sample: [power mode 15W to 25W]
mode_id:
  description: The number of the wanted mode on this board; null when none is wanted.
  returned: always
  type: int
"""

from typing import Any

from ansible.module_utils.ai_idp import jetson_power
from ansible.module_utils.ai_idp.jetson import State, find_mode, read_state
from ansible.module_utils.basic import AnsibleModule


def shown(mode: str | None, locked: bool | None) -> dict[str, Any]:
    return {"power_mode": mode, "clocks_locked": locked}


def of(state: State) -> dict[str, Any]:
    return shown(state.mode.name if state.mode else None, state.clocks_locked)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "mode": {"type": "str", "default": ""},
            "clocks": {"type": "str", "choices": ["keep", "maximum", "dynamic"], "default": "keep"},
            "variable": {"type": "str", "default": "mode"},
            "store": {"type": "path", "default": "/var/lib/ai-idp/jetson_clocks.conf"},
            "nvpmodel": {"type": "str", "default": "nvpmodel"},
            "jetson_clocks": {"type": "str", "default": "jetson_clocks"},
            "root": {"type": "path", "default": "/"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    root, timeout = options["root"], options["timeout"]
    programs = jetson_power.Programs(
        module.get_bin_path(options["nvpmodel"], opt_dirs=["/usr/sbin"]),
        module.get_bin_path(options["jetson_clocks"]),
        options["store"],
    )
    wish = jetson_power.Wish(options["mode"], options["clocks"], options["variable"])
    state = read_state(root, timeout, programs.nvpmodel)
    before, waits = of(state), False
    wanted = find_mode(wish.mode, state.modes) if wish.mode else None
    try:
        todo = jetson_power.plan(wish, state, programs)
        if module.check_mode:
            locked = (todo.lock or (bool(state.clocks_locked) and not todo.unlock)) if todo.steps else None
            after = shown(todo.target.name if todo.target else before["power_mode"], locked)
            after = after if todo.steps else before
        else:
            waits = jetson_power.carry_out(todo, root, timeout, programs)
            now = read_state(root, timeout, programs.nvpmodel)
            after, warning = of(now), jetson_power.free_clocks(todo, now)
            if warning:
                module.warn(warning)
    except jetson_power.PowerError as error:
        module.fail_json(msg=str(error), **before)
    module.exit_json(
        changed=after != before,
        reboot_required=waits,
        steps=todo.steps,
        mode_id=wanted.id if wanted else None,
        diff={"before": before, "after": after},
        **after,
    )


if __name__ == "__main__":
    main()
