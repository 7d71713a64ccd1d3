#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_info
short_description: Tells whether a host has a PostgreSQL of somebody else
description:
  - Looks for the cluster C(main) that the distribution's package makes, and for the file by which the role postgresql
    knows its own. Nothing is changed.
options:
  cluster_dir:
    description: Folder of the cluster's settings.
    type: path
    required: true
  marker:
    description: The file that stands beside the data of a cluster of our own.
    type: path
    required: true
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: preflight | Look for a PostgreSQL of somebody else
  postgresql_info:
    cluster_dir: /etc/postgresql/17/main
    marker: /var/lib/postgresql/ai-idp-17-main
"""

RETURN = r"""
foreign:
  description: Whether there is a cluster, and it is not our own.
  returned: success
  type: bool
  sample: false
"""

import os

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cluster_dir": {"type": "path", "required": True},
            "marker": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    there, own = (os.path.exists(module.params[name]) for name in ("cluster_dir", "marker"))
    module.exit_json(changed=False, foreign=there and not own)


if __name__ == "__main__":
    main()
