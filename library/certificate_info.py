#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_info
short_description: Tells whether keys and certificates of a host are as they must be
description:
  - Looks at a server's key and certificate, at the private CA that signs them, or at both, in one call - that key and
    certificate belong together, names, usages, how long they hold, who signed them, owners and modes.
  - Reads with C(openssl) and changes nothing. Of a key only its public half is looked at.
options:
  server:
    description: What a server is to have.
    type: dict
    suboptions:
      key:
        description: Path of its key.
        type: path
        required: true
      certificate:
        description: Path of its certificate, with the chain behind it where there is one.
        type: path
        required: true
      ca:
        description: Path of the certificate that clients trust. Empty where the system's authorities are trusted.
        type: str
        default: ""
      names:
        description: DNS names that clients use.
        type: list
        elements: str
        default: []
      addresses:
        description: IP addresses that clients use.
        type: list
        elements: str
        default: []
      renew_days:
        description: A certificate with fewer days left ends soon.
        type: int
        default: 0
      private:
        description: Whether the private CA signs it. Then owners, modes, curve, names and usages must be exactly those
          that this project gives, and one that ends soon is a problem.
        type: bool
        default: false
      client:
        description: Whether a strict client's checks are made for each name and address.
        type: bool
        default: true
  authority:
    description: What a private CA is to have on this host.
    type: dict
    suboptions:
      key:
        description: Path of its key.
        type: path
        required: true
      certificate:
        description: Path of its certificate.
        type: path
        required: true
      issued:
        description: Path of the certificate that it has signed for the server.
        type: path
        required: true
      common_name:
        description: Its common name.
        type: str
        required: true
      organization:
        description: Its organization.
        type: str
        required: true
      renew_days:
        description: A certificate with fewer days left ends soon.
        type: int
        required: true
  packages:
    description: Packages that must be installed.
    type: list
    elements: str
    default: []
  fail_on_problems:
    description: Fail with the problems as the message. Without it the caller decides.
    type: bool
    default: false
  advice:
    description: A sentence that is said after the problems.
    type: str
    default: ""
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: verify | The certificate stands the checks of a strict client
  certificate_info:
    server:
      key: /etc/ai-idp/tls/server.key
      certificate: /etc/ai-idp/tls/server.crt
      ca: /etc/ai-idp/tls/ca.crt
      names: [gateway.lan]
      renew_days: 30
    fail_on_problems: true
  become: true
"""

RETURN = r"""
problems:
  description: What is wrong, a sentence each.
  returned: always
  type: list
  elements: str
  sample: ["/etc/ai-idp/tls/server.crt ends soon (Feb 24 21:52:35 2027 GMT)"]
ends:
  description: When the server's certificate ends; empty where there is none.
  returned: always
  type: str
  sample: Feb 24 21:52:35 2027 GMT
ends_soon:
  description: Whether the server's certificate has fewer days left than it should have.
  returned: always
  type: bool
certificate:
  description: Text of the server's certificate, or of what the CA has signed for it where only that was asked for.
  returned: always
  type: str
ca:
  description: Text of the certificate that clients trust; empty where there is none.
  returned: always
  type: str
"""

from ansible.module_utils.ai_idp.certificate_info import Authority, Inspector, Server, text_of
from ansible.module_utils.ai_idp.host_state.base import package_names
from ansible.module_utils.ai_idp.host_state.changes import StateError
from ansible.module_utils.basic import AnsibleModule

STRINGS = {"type": "list", "elements": "str", "default": []}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "server": {
                "type": "dict",
                "options": {
                    "key": {"type": "path", "required": True, "no_log": False},
                    "certificate": {"type": "path", "required": True},
                    "ca": {"type": "str", "default": ""},
                    "names": STRINGS,
                    "addresses": STRINGS,
                    "renew_days": {"type": "int", "default": 0},
                    "private": {"type": "bool", "default": False},
                    "client": {"type": "bool", "default": True},
                },
            },
            "authority": {
                "type": "dict",
                "options": {
                    "key": {"type": "path", "required": True, "no_log": False},
                    "certificate": {"type": "path", "required": True},
                    "issued": {"type": "path", "required": True},
                    "common_name": {"type": "str", "required": True},
                    "organization": {"type": "str", "required": True},
                    "renew_days": {"type": "int", "required": True},
                },
            },
            "packages": STRINGS,
            "fail_on_problems": {"type": "bool", "default": False},
            "advice": {"type": "str", "default": ""},
        },
        required_one_of=[("server", "authority")],
        supports_check_mode=True,
    )
    inspector = Inspector()
    try:
        there = package_names(module.params["packages"])
    except StateError as error:
        module.fail_json(msg=str(error))
    inspector.problems += [f"{name} is not installed" for name in module.params["packages"] if name not in there]
    certificate = ca = ""
    if module.params["authority"]:
        authority = Authority(**module.params["authority"])
        inspector.authority(authority)
        certificate, ca = text_of(authority.issued), text_of(authority.certificate)
    if module.params["server"]:
        given = module.params["server"]
        server = Server(**{**given, "names": tuple(given["names"]), "addresses": tuple(given["addresses"])})
        inspector.server(server)
        text = text_of(server.certificate)
        if module.params["authority"] and text and text != certificate:
            inspector.problems.append(f"{server.certificate} is not {authority.issued}, which the CA has signed")
        certificate, ca = text, text_of(server.ca) if server.ca else ""
    result = {"ends": inspector.ends, "ends_soon": inspector.ends_soon, "certificate": certificate, "ca": ca}
    problems = inspector.problems
    if problems and module.params["fail_on_problems"]:
        module.fail_json(msg=f"{'; '.join(problems)}. {module.params['advice']}".strip(), problems=problems, **result)
    module.exit_json(changed=False, problems=problems, **result)


if __name__ == "__main__":
    main()
