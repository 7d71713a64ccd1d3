"""Digests of images, and what a failed pull tells."""

import image_pull
import pytest


@pytest.mark.parametrize(
    ("reference", "entry"),
    [
        ("10.77.0.5:5000/docker.io/vllm/vllm-openai:v1", "10.77.0.5:5000/docker.io/vllm/vllm-openai@sha256:1"),
        # Docker leaves its own registry's name out.
        ("docker.io/vllm/vllm-openai:v1", "vllm/vllm-openai@sha256:1"),
    ],
)
def test_the_digest_is_the_one_of_the_images_own_repository(reference: str, entry: str) -> None:
    details = {"RepoDigests": ["elsewhere/vllm-openai@sha256:0", entry]}
    assert image_pull.digest_of(details, reference) == "sha256:1"
    assert image_pull.digest_of({"RepoDigests": None}, reference) is None


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("Error response from daemon: manifest for x:1 not found: manifest unknown: manifest unknown", "no such tag"),
        ("Error response from daemon: unauthorized: authentication required", "ngc_api_key"),
        ("Error response from daemon: Get https://x/v2/: dial tcp: lookup x: no such host", "reaches the registry"),
        ("", "reaches the registry"),
    ],
)
def test_a_failed_pull_says_what_to_do(output: str, advice: str) -> None:
    message = image_pull.explain("x:1", output)
    assert message.startswith("The image x:1 can not be pulled")
    assert advice in message
