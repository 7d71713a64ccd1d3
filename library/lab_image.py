#!/usr/bin/python
# Copyright: (c) 2026, The AI-IDP authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: an image of the lab, built when what it is made of changed."""

DOCUMENTATION = r"""
module: lab_image
short_description: Build an image of the lab and put it into the lab's registry under a production name
description:
  - Builds an image with the C(docker) command and tags it by the hash of what it is made of, that is the files of
    its context, its base image and its build arguments. An image whose tag is there already is not built again. The
    tag C(current) names the one that is wanted now.
  - Its base is a Debian image, pulled where a registry answers and made with C(mmdebstrap) where none does. Without
    O(context) it provides that base alone.
  - Several may run side by side. What two of them need is made by one while the other waits, also when an
    interrupted run has left one behind.
options:
  name:
    description: Name of the image below the repository C(ai-idp-lab).
    type: str
    required: true
  context:
    description: Folder with the Dockerfile.
    type: path
  suite:
    description: Debian suite of the base image, for example C(trixie), which is handed to the Dockerfile as the build
      argument E(BASE).
    type: str
    required: true
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
    description: Reference under which the image is put into a registry, registry and tag included. Its layers go
      there as they are, for packing them takes longer than building them.
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
- name: The llama.cpp image is there and in the lab's registry
  lab_image:
    name: llama-cpp
    context: lab/images/llama_cpp
    suite: sid
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
  description: Where the base image came from.
  type: str
  returned: when the base was made by this call
  sample: mmdebstrap
"""

import contextlib
import fcntl
import fnmatch
import glob
import os
import shutil
import subprocess
import tempfile

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json
from ansible.module_utils.ai_idp.lab_image import content_hash, context_files, split_reference
from ansible.module_utils.ai_idp.messages import shorten
from ansible.module_utils.ai_idp.registry_upload import Repository, UploadError, upload_saved
from ansible.module_utils.basic import AnsibleModule

BUILD_TIMEOUT = 3600
PULL_TIMEOUT = 120


class EngineError(Exception):
    """Docker does not tell what it is asked."""


class LabImage:
    """Builds and pushes one image by the ``docker`` command."""

    def __init__(self, module):
        self.module = module
        self.log = os.path.join(module.params["log_dir"], "{}.log".format(module.params["name"]))

    @contextlib.contextmanager
    def alone(self, name):
        """Wait until no other call makes what is called so, and let none begin it before the end of this one."""
        if self.module.check_mode:
            yield
            return
        with open(os.path.join(self.module.params["log_dir"], f"{name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def inspect(self, reference):
        """Return what the engine knows of an image, or None."""
        rc, out, _err = self.module.run_command(["docker", "image", "inspect", reference])
        if rc != 0:
            return None
        try:
            known = from_json(out)[0]
            return {"Id": str(known["Id"]), **known}
        except WRONG_SHAPE as error:
            raise EngineError(
                f"docker tells of {reference} in another form than is known: {shorten(out, 120)}"
            ) from error

    def run_logged(self, argv, purpose, timeout=BUILD_TIMEOUT, cwd=None):
        """Run a long command with its output in the log file; fail with the log's end."""
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
        reference = f"ai-idp-lab/base:{suite}"
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

    def build(self, base_name):
        """Build the image unless its tag is there; return its reference and whether it was built."""
        params = self.module.params
        # In check mode there may be none.
        base = self.inspect(base_name)
        files = self.files()
        tag = content_hash(files, base["Id"] if base else "", {})
        reference = "ai-idp-lab/{}:{}".format(params["name"], tag)
        there = self.inspect(reference)
        if self.module.check_mode:
            return reference, not there
        if not there:
            self.build_context(files, base_name, reference)
        current = "ai-idp-lab/{}:current".format(params["name"])
        self.run_logged(["docker", "tag", reference, current], "naming the image")
        return reference, not there

    def build_context(self, files, base_name, reference):
        """Build an image from a folder in which all of its files are together."""
        with tempfile.TemporaryDirectory() as folder:
            # Both folders are always there, so that a Dockerfile can COPY them without asking.
            for always in ("ca-certificates", "wheels"):
                os.makedirs(os.path.join(folder, always))
            for name, path in files.items():
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                shutil.copy(path, os.path.join(folder, name))
            argv = ["docker", "build", "--tag", reference, "--label", "ai-idp.lab=image"]
            argv += ["--build-arg", f"BASE={base_name}"]
            self.run_logged([*argv, "."], "building the image {}".format(self.module.params["name"]), cwd=folder)

    def push(self, image, reference):
        """Put the image into the registry unless it is there already; return whether it was put there."""
        registry, name, tag = split_reference(reference)
        repository = Repository(registry, name)
        known = self.inspect(image)
        if known and repository.has_image(tag, known["Id"]):
            return False
        if self.module.check_mode:
            return True
        if known is None:
            raise UploadError(f"docker has no image {image} any more: run this again")
        with (
            open(self.log, "ab") as log,
            subprocess.Popen(
                ["docker", "save", image], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            ) as saving,
        ):
            upload_saved(saving.stdout, repository, tag, known["Id"])
        return True


def main():
    """Wire the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "context": {"type": "path"},
            "suite": {"type": "str", "required": True},
            "ca_certificates": {"type": "path"},
            "wheels": {"type": "list", "elements": "str", "default": []},
            "wheel_folders": {"type": "list", "elements": "str", "default": []},
            "push": {"type": "str"},
            "log_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    lab_image = LabImage(module)
    pushed = False
    try:
        with lab_image.alone("base-{}".format(params["suite"])):
            image, built, source = lab_image.base(params["suite"])
        if params["context"]:
            with lab_image.alone(params["name"]):
                image, built = lab_image.build(image)
                if params["push"]:
                    pushed = True if module.check_mode and built else lab_image.push(image, params["push"])
    except OSError as error:
        module.fail_json(msg="the image {} can not be built: {}".format(params["name"], error))
    except EngineError as error:
        module.fail_json(msg="the image {} can not be built: {}".format(params["name"], error))
    except UploadError as error:
        module.fail_json(msg="the image {} is built, but {}".format(params["name"], error))
    module.exit_json(changed=built or pushed, image=image, built=built, pushed=pushed, source=source)


if __name__ == "__main__":
    main()
