# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation that the modules share which ask a host for its GPUs."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  backend:
    description:
      - Who is asked for GPUs. V(auto) takes NVML, else C(nvidia-smi), and the device tree on a Jetson.
      - The others are asked alone, to compare them or to leave a faulty one out.
    type: str
    choices: [auto, nvml, nvidia-smi, jetson]
    default: auto
  nvidia_smi:
    description: The program, a name that is looked up in the path or an absolute path.
    type: str
    default: nvidia-smi
  nvml_library:
    description: The library, a name that the loader finds or an absolute path.
    type: str
    default: libnvidia-ml.so.1
  timeout:
    description: Seconds that each program or library may take; one that takes longer counts as unknown.
    type: int
    default: 30
  root:
    description:
      - Folder under which the files of the system are read, so that a recorded machine can be replayed.
      - With another folder than V(/) only a library and a program with absolute paths are used, and the kernel's log
        is the file C(var/log/kernel.log) there.
    type: path
    default: /
"""
