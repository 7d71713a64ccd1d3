#!/usr/bin/python
# Copyright: (c) 2026, The AI-IDP authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: an image of the lab, built when what it is made of changed."""

DOCUMENTATION = r"""
module: lab_image
short_description: Build an image of the lab and push it under a production name
description:
  - Builds an image with the C(docker) command and tags it by the hash of what it is made of, that is the files of
    its context, its base image and its build arguments. An image whose tag is there already is not built again.
  - Without O(context) it provides a Debian base image, pulled where a registry answers and made with
    C(mmdebstrap) where none does.
options:
  name:
    description: Name of the image below the repository C(ai-idp-lab).
    type: str
    required: true
  context:
    description: Folder with the Dockerfile.
    type: path
  suite:
    description: Debian suite of the base image, for example C(trixie). Only without O(context).
    type: str
  base:
    description: Image that is handed to the Dockerfile as the build argument E(BASE).
    type: str
  ca_certificates:
    description: Folder whose C(*.crt) files are put into C(ca-certificates/) of the context, so that package
      clients inside the build trust what this machine trusts.
    type: path
  wheels:
    description: File name patterns of Python wheels that are put into C(wheels/) of the context where a folder of
      O(wheel_folders) holds them.
    type: list
    elements: str
    default: []
  wheel_folders:
    description: Folders of this machine with Python wheels, as C(pip --find-links) takes them.
    type: list
    elements: str
    default: []
  push:
    description: Reference under which the image is pushed, registry and tag included.
    type: str
  log_dir:
    description: Folder for the whole output of a build.
    type: path
    required: true
attributes:
  check_mode:
    description: Says whether the image would be built or pushed; does neither.
    support: full
  diff_mode:
    description: There is nothing to compare line by line.
    support: none
author: The AI-IDP authors
"""

EXAMPLES = r"""
- name: The base image is there
  lab_image:
    name: base-trixie
    suite: trixie
    log_dir: artifacts/lab
  register: base

- name: The llama.cpp image is there and in the lab's registry
  lab_image:
    name: llama-cpp
    context: lab/images/llama_cpp
    base: "{{ base.image }}"
    push: 127.0.0.1:15000/ghcr.io/ggml-org/llama.cpp:server-b11347
    log_dir: artifacts/lab
"""

RETURN = r"""
image:
  description: Reference of the image on this machine.
  type: str
  returned: always
  sample: ai-idp-lab/llama-cpp:0f3d5c2a9b1e4d77
built:
  description: Whether the image was built, pulled or made by this call.
  type: bool
  returned: always
pushed:
  description: Whether the image was pushed by this call.
  type: bool
  returned: always
source:
  description: Where a base image came from.
  type: str
  returned: with O(suite), when made by this call
  sample: mmdebstrap
"""

import fnmatch
import glob
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

from ansible.module_utils.ai_idp.lab_image import content_hash, context_files, split_reference
from ansible.module_utils.basic import AnsibleModule

BUILD_TIMEOUT = 3600
PULL_TIMEOUT = 120
MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)


class LabImage:
    """Builds and pushes one image by the ``docker`` command."""

    def __init__(self, module):
        self.module = module
        self.log = os.path.join(module.params["log_dir"], "{}.log".format(module.params["name"]))

    def inspect(self, reference):
        """Return what the engine knows of an image, or None."""
        rc, out, _err = self.module.run_command(["docker", "image", "inspect", reference])
        return json.loads(out)[0] if rc == 0 else None

    def run_logged(self, argv, purpose, timeout=BUILD_TIMEOUT, cwd=None):
        """Run a long command with its output in the log file; fail with the log's end."""
        os.makedirs(os.path.dirname(self.log), exist_ok=True)
        with open(self.log, "ab") as log:
            try:
                done = subprocess.run(
                    argv,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    timeout=timeout,
                    cwd=cwd,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                self.module.fail_json(
                    msg=f"{purpose} took longer than {timeout} s and was stopped; its log is {self.log}"
                )
        if done.returncode != 0:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                tail = "".join(log.readlines()[-40:])
            self.module.fail_json(
                msg=f"{purpose} failed (exit {done.returncode}). The whole log is {self.log}; it ends with:\n{tail}"
            )

    def base(self, suite):
        """Provide a Debian base image; return its reference, whether it was made, and where from."""
        reference = "ai-idp-lab/{}:{}".format(self.module.params["name"], suite)
        if self.inspect(reference):
            return reference, False, None
        if self.module.check_mode:
            return reference, True, None
        upstream = f"debian:{suite}-slim"
        try:
            rc = subprocess.run(
                ["docker", "pull", "-q", upstream], capture_output=True, timeout=PULL_TIMEOUT, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            rc = 1
        if rc == 0:
            self.run_logged(["docker", "tag", upstream, reference], "naming the pulled base image")
            return reference, True, upstream
        with tempfile.TemporaryDirectory() as folder:
            archive = os.path.join(folder, "root.tar")
            self.run_logged(
                # An archive of unstable may be signed for a day that is over; its signature still counts.
                ["mmdebstrap", "--variant=minbase", "--include=ca-certificates",
                 "--aptopt=Acquire::Check-Valid-Until \"false\"", suite, archive],
                f"making a Debian {suite} base with mmdebstrap (no image registry answered)",
            )  # fmt: skip
            self.run_logged(["docker", "import", archive, reference], f"importing the Debian {suite} base")
        return reference, True, "mmdebstrap"

    def files(self):
        """Map each path of the assembled build context to the file on this machine."""
        params = self.module.params
        found = {name: os.path.join(params["context"], name) for name in context_files(params["context"])}
        if params["ca_certificates"]:
            for path in glob.glob(os.path.join(params["ca_certificates"], "*.crt")):
                found[f"ca-certificates/{os.path.basename(path)}"] = path
        for folder in params["wheel_folders"]:
            for name in os.listdir(folder) if os.path.isdir(folder) else []:
                if any(fnmatch.fnmatch(name, pattern) for pattern in params["wheels"]):
                    found[f"wheels/{name}"] = os.path.join(folder, name)
        return found

    def build(self):
        """Build the image unless its tag is there; return its reference and whether it was built."""
        params = self.module.params
        base = self.inspect(params["base"]) if params["base"] else None
        if params["base"] and not base and not self.module.check_mode:
            self.module.fail_json(msg="the base image {} is not on this machine".format(params["base"]))
        files = self.files()
        tag = content_hash(files, base["Id"] if base else "", {})
        reference = "ai-idp-lab/{}:{}".format(params["name"], tag)
        if self.inspect(reference):
            return reference, False
        if self.module.check_mode:
            return reference, True
        with tempfile.TemporaryDirectory() as folder:
            # Both folders are always there, so that a Dockerfile can COPY them without asking.
            for always in ("ca-certificates", "wheels"):
                os.makedirs(os.path.join(folder, always))
            for name, path in files.items():
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                shutil.copy(path, os.path.join(folder, name))
            argv = ["docker", "build", "--tag", reference, "--label", "ai-idp.lab=image"]
            if params["base"]:
                argv += ["--build-arg", "BASE={}".format(params["base"])]
            self.run_logged([*argv, "."], "building the image {}".format(params["name"]), cwd=folder)
        return reference, True

    def registry_digest(self, reference):
        """Return the digest under which a registry holds a reference, or None."""
        registry, repository, tag = split_reference(reference)
        request = urllib.request.Request(
            f"http://{registry}/v2/{repository}/manifests/{tag}",
            method="HEAD",
            headers={"Accept": ", ".join(MANIFEST_TYPES)},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.headers.get("Docker-Content-Digest")
        except urllib.error.HTTPError:
            return None
        except OSError as error:
            self.module.fail_json(msg=f"the lab's registry {registry} does not answer: {error}")

    def push(self, image, reference):
        """Push the image unless the registry holds it already; return whether it was pushed."""
        known = (self.inspect(image) or {}).get("RepoDigests") or []
        digest = self.registry_digest(reference)
        if digest and "{}@{}".format(reference.rpartition(":")[0], digest) in known:
            return False
        if not self.module.check_mode:
            self.run_logged(["docker", "tag", image, reference], "naming the image for the registry")
            self.run_logged(["docker", "push", reference], f"pushing {reference}")
        return True


def main():
    """Wire the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "context": {"type": "path"},
            "suite": {"type": "str"},
            "base": {"type": "str"},
            "ca_certificates": {"type": "path"},
            "wheels": {"type": "list", "elements": "str", "default": []},
            "wheel_folders": {"type": "list", "elements": "str", "default": []},
            "push": {"type": "str"},
            "log_dir": {"type": "path", "required": True},
        },
        required_one_of=[("context", "suite")],
        mutually_exclusive=[("context", "suite")],
        supports_check_mode=True,
    )
    lab_image = LabImage(module)
    source = None
    if module.params["suite"]:
        image, built, source = lab_image.base(module.params["suite"])
    else:
        try:
            image, built = lab_image.build()
        except OSError as error:
            module.fail_json(msg="the image {} can not be built: {}".format(module.params["name"], error))
    pushed = bool(module.params["push"]) and (
        lab_image.push(image, module.params["push"]) if not (module.check_mode and built) else True
    )
    module.exit_json(changed=built or pushed, image=image, built=built, pushed=pushed, source=source)


if __name__ == "__main__":
    main()
