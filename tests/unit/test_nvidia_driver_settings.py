"""What nvidia_driver refuses before it looks at the host."""

import pytest
from nvidia_driver import nvidia_driver_problems

GOOD = {
    "nvidia_driver_branch": "580",
    "nvidia_driver_version": "580.126.09",
    "nvidia_driver_kernel_flavour": "generic-hwe-24.04",
    "nvidia_driver_cuda_toolkit_version": "13.0.2",
    "nvidia_driver_cudnn_version": "9.20.0.48",
    "nvidia_driver_repository_url": "https://developer.download.nvidia.com/compute/cuda/repos",
}


def test_good_settings_pass() -> None:
    assert nvidia_driver_problems(GOOD, "Ubuntu", 600) == []
    assert (
        nvidia_driver_problems({**GOOD, "nvidia_driver_version": "", "nvidia_driver_kernel_flavour": ""}, "Debian", 60)
        == []
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nvidia_driver_branch", "580-open"),
        ("nvidia_driver_version", "580.126.09-0ubuntu1"),
        ("nvidia_driver_kernel_flavour", "Generic kernel"),
        ("nvidia_driver_cuda_toolkit_version", "13.0"),
        ("nvidia_driver_cudnn_version", "9"),
        ("nvidia_driver_repository_url", "https://developer.download.nvidia.com/repos/"),
    ],
)
def test_each_wrong_setting_has_its_sentence(name: str, value: str) -> None:
    (problem,) = nvidia_driver_problems({**GOOD, name: value}, "Debian", 600)
    assert problem.startswith(f"{name}: '{value}' is no ")


def test_another_distribution_and_a_short_reboot_are_named() -> None:
    assert nvidia_driver_problems(GOOD, "Fedora", 30) == [
        "the host runs Fedora, not Debian or Ubuntu",
        "nvidia_driver_reboot_timeout: '30' is less than the 60 seconds that a reboot takes at least",
    ]
