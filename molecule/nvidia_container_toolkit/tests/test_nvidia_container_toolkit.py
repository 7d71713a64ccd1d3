"""A host without an NVIDIA GPU is left as it was. What the toolkit does with a GPU needs the hardware."""


def test_nothing_was_installed(host):
    assert not host.package("nvidia-container-toolkit-base").is_installed
    assert not host.exists("nvidia-ctk")


def test_no_repository_was_added(host):
    for path in (
        "/etc/apt/sources.list.d/nvidia-container-toolkit.sources",
        "/etc/apt/keyrings/nvidia-container-toolkit.asc",
        "/etc/apt/preferences.d/nvidia-container-toolkit",
        "/etc/udev/rules.d/71-nvidia-dev-char.rules",
    ):
        assert not host.file(path).exists, path
