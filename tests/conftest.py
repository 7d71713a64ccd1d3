"""Makes the project's modules importable the way Ansible imports them on a target."""

import sys
from pathlib import Path

import ansible.module_utils

ROOT = Path(__file__).resolve().parent.parent

# Ansible merges ./module_utils into ansible.module_utils when it ships a module; tests do the same.
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
sys.path.insert(0, str(ROOT / "library"))
sys.path.insert(0, str(ROOT / "filter_plugins"))
sys.path.insert(0, str(ROOT / "callback_plugins"))
sys.path.insert(0, str(ROOT / "tools"))
