"""GPUs are told from what else a PCI bus holds, and wrong settings are named."""

import pytest
from nvidia_container_toolkit import nvidia_container_toolkit_gpus, nvidia_container_toolkit_problems

URLS = {"nvidia_container_toolkit_key_url": "https://nvidia.github.io/libnvidia-container/gpgkey"}


def test_a_gpu_is_a_display_controller_of_nvidia() -> None:
    bus = "/sys/bus/pci/devices"
    files = [f"{bus}/0000:41:00.0/class", f"{bus}/0000:41:00.0/vendor", f"{bus}/0000:01:00.0/vendor"]
    # The card's sound device is of NVIDIA too; the graphics of AMD is a display controller.
    files += [f"{bus}/0000:01:00.1/vendor", f"{bus}/0000:0f:00.0/class", f"{bus}/0000:01:00.0/class"]
    assert nvidia_container_toolkit_gpus([*files, "/proc/driver/nvidia/version"]) == ["0000:01:00.0", "0000:41:00.0"]
    assert nvidia_container_toolkit_gpus([]) == []


@pytest.mark.parametrize("version", ["1.18.0", "1.20.0", "2.0.0"])
def test_versions_that_describe_gpus_anew_pass(version: str) -> None:
    assert nvidia_container_toolkit_problems(version, URLS) == []


@pytest.mark.parametrize("version", ["1.17.9", "1.18", "latest", ""])
def test_other_versions_are_named(version: str) -> None:
    (problem,) = nvidia_container_toolkit_problems(version, URLS)
    assert problem.startswith(f"nvidia_container_toolkit_version: '{version}' is no version")


@pytest.mark.parametrize("url", ["ftp://host/path", "https://host", "https://host/path/", ""])
def test_what_is_no_url_is_named(url: str) -> None:
    (problem,) = nvidia_container_toolkit_problems("1.20.0", {"nvidia_container_toolkit_key_url": url})
    assert problem == f"nvidia_container_toolkit_key_url: '{url}' is no URL (http or https, no slash at the end)"
