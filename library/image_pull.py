#!/usr/bin/python
# Copyright: (c) 2026, The AI-IDP authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: container images that are there, with the digests they have."""

DOCUMENTATION = r"""
module: image_pull
short_description: Have container images on the host and tell their digests
description:
  - Pulls what is missing with the C(docker) command, several images at once, and returns each image's digest, so that
    it can be recorded and enforced.
  - Nothing is removed and no container is touched, so a wrong tag changes nothing on the host.
options:
  images:
    description: The images.
    type: list
    elements: dict
    required: true
    suboptions:
      reference:
        description: Whole name, registry and tag included.
        type: str
        required: true
      digest:
        description: Digest that the image must have. Without it the tag's present one is taken.
        type: str
  registry:
    description: Registry that O(username) and O(password) are for.
    type: str
    default: nvcr.io
  username:
    description: User of the registry.
    type: str
  password:
    description: Password or API key of the registry. It is handed to C(docker) in a file that is removed afterwards.
    type: str
  timeout:
    description: Seconds that one pull may take.
    type: int
    default: 3600
attributes:
  check_mode:
    description: Tells which images would be pulled.
    support: full
  diff_mode:
    description: There is nothing to compare line by line.
    support: none
author: The AI-IDP authors
"""

EXAMPLES = r"""
- name: The images are there
  image_pull:
    images:
      - reference: ghcr.io/ggml-org/llama.cpp:server-b11347
"""

RETURN = r"""
images:
  description: The images in the order asked for.
  type: list
  elements: dict
  returned: always
  sample:
    - reference: ghcr.io/ggml-org/llama.cpp:server-b11347
      digest: null
      pulled: true
"""

import base64
import json
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json
from ansible.module_utils.basic import AnsibleModule


class PullError(Exception):
    """An image could not be had; the text says which and what to do."""


def pinned(reference, digest):
    """Name an image by tag and digest, or by its tag alone where no digest is known."""
    return f"{reference}@{digest}" if digest else reference


def digest_of(details, reference):
    """Find an image's digest in its repository.

    :param details: what ``docker image inspect`` tells of the image.
    :param reference: its name with a tag.
    :returns: ``sha256:...``, or None for an image that never was in a registry.
    """
    repository = reference.rpartition(":")[0].removeprefix("docker.io/")
    for entry in details.get("RepoDigests") or []:
        name, _at, digest = entry.partition("@")
        if name.removeprefix("docker.io/") == repository:
            return digest
    return None


def explain(reference, output):
    """Turn the client's error into one sentence with what to do."""
    last = output.strip().splitlines()[-1] if output.strip() else "no output"
    if "manifest unknown" in output or "not found" in output:
        advice = "The registry has no such tag or digest: correct the tag in playbooks/group_vars/all/versions.yml."
    elif "unauthorized" in output or "denied" in output:
        advice = "The registry refuses: add ngc_api_key to the secrets file for nvcr.io, or correct the name."
    else:
        advice = "Check that the host reaches the registry, then run again; nothing was changed."
    return f"The image {reference} can not be pulled: {last} {advice}"


class Images:
    """Images of the Docker engine on this host."""

    def __init__(self, timeout, config):
        self.docker = ["docker", "--config", config] if config else ["docker"]
        self.timeout = timeout

    def run(self, argv):
        """Run a ``docker`` command."""
        try:
            return subprocess.run(
                self.docker + argv,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self.timeout,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise PullError(f"docker can't be started: {error.strerror}. Run the role docker_engine first.") from error

    def inspect(self, reference, digest):
        """Return what the engine knows of an image, or None."""
        try:
            done = self.run(["image", "inspect", pinned(reference, digest)])
        except subprocess.TimeoutExpired as error:
            raise PullError(
                f"docker does not tell within {self.timeout} s whether it has the image {reference}: it hangs. "
                "Look into journalctl --unit docker, then run again."
            ) from error
        if done.returncode != 0:
            return None
        try:
            details = from_json(done.stdout)[0]
            # Of an image without a registry it is null.
            [entry.partition("@") for entry in details.get("RepoDigests") or []]
        except WRONG_SHAPE as error:
            raise PullError(
                f"docker tells of the image {reference} in another form than is known: is it Docker's own program?"
            ) from error
        return details

    def ensure(self, image, check_mode):
        """Have one image; return its reference, digest and whether it was pulled."""
        reference, digest = image["reference"], image.get("digest")
        details = self.inspect(reference, digest)
        missing = details is None
        if missing and not check_mode:
            try:
                done = self.run(["pull", "--quiet", pinned(reference, digest)])
            except subprocess.TimeoutExpired as error:
                raise PullError(
                    f"Pulling the image {reference} took longer than {self.timeout} s. "
                    "What was pulled so far is kept: run again."
                ) from error
            if done.returncode != 0:
                raise PullError(explain(pinned(reference, digest), done.stderr or done.stdout))
            details = self.inspect(reference, digest)
        return {
            "reference": reference,
            "digest": digest or (digest_of(details, reference) if details else None),
            "pulled": missing,
        }


def main():
    """Wire the module."""
    module = AnsibleModule(
        argument_spec={
            "images": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"reference": {"type": "str", "required": True}, "digest": {"type": "str"}},
            },
            "registry": {"type": "str", "default": "nvcr.io"},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not module.get_bin_path("docker"):
        if not module.check_mode:
            module.fail_json(msg="There is no docker command on this host: run the role docker_engine first.")
        module.exit_json(
            changed=True,
            images=[{"reference": i["reference"], "digest": i["digest"], "pulled": True} for i in params["images"]],
        )
    with tempfile.TemporaryDirectory() as folder:
        config = None
        if params["password"]:
            config = folder
            token = base64.b64encode(f"{params['username']}:{params['password']}".encode()).decode()
            with open(
                os.open(f"{folder}/config.json", os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8"
            ) as stream:
                json.dump({"auths": {params["registry"]: {"auth": token}}}, stream)
        images = Images(params["timeout"], config)
        try:
            with ThreadPoolExecutor(max_workers=4) as pool:
                found = list(pool.map(lambda image: images.ensure(image, module.check_mode), params["images"]))
        except PullError as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=any(image["pulled"] for image in found), images=found)


if __name__ == "__main__":
    main()
