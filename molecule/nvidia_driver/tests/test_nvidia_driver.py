"""The newest driver that the distribution had is installed, held together with its kernel, and in use."""

import pytest

DRIVER = "580.95.05-0ubuntu0.24.04.1"
PACKAGES = {
    "nvidia-headless-no-dkms-580-open": DRIVER,
    "nvidia-utils-580": DRIVER,
    "libnvidia-compute-580": DRIVER,
    "linux-modules-nvidia-580-open-generic": "6.8.0-100.100",
}


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_installed(host, name):
    assert host.package(name).version == PACKAGES[name]


def test_nothing_is_compiled(host):
    assert not host.package("nvidia-dkms-580-open").is_installed


def test_driver_and_kernel_are_held_together(host):
    held = host.check_output("apt-mark showhold").split()
    assert {*PACKAGES, "linux-image-generic", "linux-headers-generic", "nvidia-kernel-common-580"} <= set(held)
    assert "linux-modules-nvidia-580-open-6.8.0-100-generic" in held
    assert "openssh-server" not in held


def test_nouveau_stays_out(host):
    assert "blacklist nouveau" in host.file("/etc/modprobe.d/nvidia-driver-nouveau.conf").content_string
    assert host.file("/var/tmp/machine/initramfs.log").content_string == "-u -k all\n", "made once, and only once"


def test_installed_driver_is_loaded(host):
    assert host.file("/var/tmp/machine/sys/module/nvidia/version").content_string.strip() == "580.95.05"
    assert "580.95.05" in host.check_output("nvidia-smi -q -x")


def test_vendor_repository_was_not_added(host):
    assert not host.file("/etc/apt/sources.list.d/nvidia-driver.sources").exists
