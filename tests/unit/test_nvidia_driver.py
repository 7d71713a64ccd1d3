"""nvidia_driver_plan: which driver is picked for which GPU, and what is refused. No hardware is needed for that."""

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import nvidia_driver
from ansible.module_utils.ai_idp.nvidia_driver import Gpu, Host, Package, Settings, generation_of, make_plan

RTX_5070_TI, H100, RTX_4090, RTX_3090, T4, GTX_1080, K80 = 0x2C05, 0x2330, 0x2684, 0x2204, 0x1EB8, 0x1B80, 0x102D
KERNEL = {"linux-image-generic": "6.8.0-100.100", "linux-image-6.8.0-100-generic": "6.8.0-100.100"}


def host(*devices: int, packages: dict[str, str] | None = None, **more: Any) -> Host:
    values: dict[str, Any] = {
        "distribution": "Ubuntu",
        "distribution_version": "24.04",
        "architecture": "x86_64",
        "kernel": "6.8.0-100-generic",
        "gpus": [Gpu(f"0000:0{number}:00.0", device) for number, device in enumerate(devices)],
        "packages": {name: Package(name, version) for name, version in {**KERNEL, **(packages or {})}.items()},
        **more,
    }
    return Host(**values)


def debian(*devices: int, **more: Any) -> Host:
    packages = {"linux-image-amd64": "6.12.57-1", "linux-image-6.12.57+deb13-amd64": "6.12.57-1"}
    return host(
        *devices, distribution="Debian", distribution_version="13.2", kernel="6.12.57+deb13-amd64",
        **{"packages": packages, **more},
    )  # fmt: skip


def errors(machine: Host, **settings: Any) -> str:
    return "\n".join(make_plan(machine, Settings(**settings))["errors"])


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (0x102D, "Kepler"),  # Tesla K80
        (0x1180, "Kepler"),  # GeForce GTX 680
        (0x1080, "older than Kepler"),  # GeForce GTX 580
        (0x13C0, "Maxwell"),  # GeForce GTX 980
        (0x17C2, "Maxwell"),  # GeForce GTX TITAN X
        (0x15F8, "Pascal"),  # Tesla P100
        (0x1B80, "Pascal"),  # GeForce GTX 1080
        (0x1DB1, "Volta"),  # Tesla V100
        (0x1EB8, "Turing"),  # Tesla T4
        (0x2182, "Turing"),  # GeForce GTX 1660 Ti
        (0x20B0, "Ampere"),  # A100
        (0x2204, "Ampere"),  # GeForce RTX 3090
        (0x2582, "Ampere"),  # GeForce RTX 3050
        (0x2330, "Hopper"),  # H100
        (0x2684, "Ada Lovelace"),  # GeForce RTX 4090
        (0x2901, "Blackwell"),  # B200
        (0x2C05, "Blackwell"),  # GeForce RTX 5070 Ti
        (0x2B85, "Blackwell"),  # GeForce RTX 5090
        (0x3340, "Blackwell or newer"),  # newer than the table
    ],
)
def test_generation(device: int, name: str) -> None:
    assert generation_of(device).name == name


@pytest.mark.parametrize(
    ("machine", "settings", "packages"),
    [
        (
            host(RTX_5070_TI),
            {},
            ["nvidia-headless-no-dkms-580-open=580.*", "nvidia-utils-580=580.*",
             "linux-modules-nvidia-580-open-generic"],
        ),
        (
            host(RTX_5070_TI),
            {"edition": "server", "version": "580.126.09"},
            ["nvidia-headless-no-dkms-580-server-open=580.126.09-*", "nvidia-utils-580-server=580.126.09-*",
             "linux-modules-nvidia-580-server-open-generic"],
        ),
        (
            host(RTX_4090),
            {"edition": "desktop", "branch": "590"},
            ["nvidia-driver-590-open=590.*", "linux-modules-nvidia-590-open-generic"],
        ),
        # Before branch 560 the proprietary modules are what NVIDIA suggests, where a GPU has them.
        (
            host(RTX_3090),
            {"branch": "535"},
            ["nvidia-headless-no-dkms-535=535.*", "nvidia-utils-535=535.*", "linux-modules-nvidia-535-generic"],
        ),
        (
            host(GTX_1080),
            {"module_build": "dkms"},
            ["nvidia-headless-no-dkms-580=580.*", "nvidia-utils-580=580.*", "nvidia-dkms-580=580.*",
             "linux-headers-generic"],
        ),
        (
            host(H100),
            {"source": "nvidia"},
            ["libnvidia-compute-580=580.*", "nvidia-utils-580=580.*", "nvidia-dkms-580-open=580.*",
             "linux-headers-generic"],
        ),
        (
            host(H100),
            {"source": "nvidia", "branch": "610"},
            ["libnvidia-compute=610.*", "nvidia-dkms-open=610.*", "linux-headers-generic"],
        ),
        (
            debian(RTX_5070_TI),
            {},
            ["nvidia-driver-cuda=580.*", "nvidia-kernel-open-dkms=580.*", "linux-headers-amd64"],
        ),
        (
            debian(GTX_1080),
            {"source": "distribution", "branch": "550"},
            ["nvidia-kernel-dkms=550.*", "libcuda1=550.*", "nvidia-smi=550.*", "linux-headers-amd64"],
        ),
        (
            host(RTX_5070_TI, environment="lxc", loaded_version="580.95.05"),
            {},
            ["libnvidia-compute-580=580.95.05-*", "nvidia-utils-580=580.95.05-*"],
        ),
    ],
)  # fmt: skip
def test_packages(machine: Host, settings: dict[str, Any], packages: list[str]) -> None:
    plan = make_plan(machine, Settings(**settings))
    assert plan["errors"] == []
    assert plan["packages"] == packages
    assert plan["missing"] == packages


@pytest.mark.parametrize(
    ("machine", "settings", "message"),
    [
        (host(RTX_5070_TI), {"branch": "550"}, "'550' does not know 0000:00:00.0 (0x2c05, Blackwell); set 570"),
        (host(GTX_1080), {"branch": "590"}, "'590' has dropped 0000:00:00.0 (0x1b80, Pascal); the last"),
        (host(K80), {}, "the last branch for it is 470"),
        (host(RTX_5070_TI), {"modules": "proprietary"}, "'proprietary' has none for"),
        (host(GTX_1080), {"modules": "open"}, "'open' has none for"),
        (host(RTX_4090), {"modules": "proprietary", "branch": "620"}, "ended before branch 620"),
        (host(RTX_5070_TI, GTX_1080), {}, "no one driver serves both"),
        (debian(H100), {"module_build": "prebuilt"}, "come from Ubuntu only"),
        (debian(H100), {"edition": "server"}, "'server' is a series of Ubuntu's own"),
        (host(H100), {"version": "570.211.01"}, "is not of nvidia_driver_branch '580'"),
        (host(H100), {"branch": "570", "cuda_toolkit_version": "13.0.2"}, "too old for CUDA 13.0.2"),
        (host(H100, packages={"nvidia-utils-590": "590.48.01-0ubuntu1"}), {}, "'580' is older than the installed 590"),
        (
            host(H100, packages={"libnvidia-compute-580": "580.126.09-0ubuntu1"}),
            {"version": "580.95.05"},
            "'580.95.05' is older than the installed 580.126.09",
        ),
        (debian(H100, secure_boot=True), {}, "mokutil --import /var/lib/dkms/mok.pub"),
        (host(H100, secure_boot=True), {"module_build": "dkms"}, "update-secureboot-policy --new-key"),
        (host(H100, environment="lxc"), {}, "none is loaded there"),
        (host(H100, environment="lxc", loaded_version="570.211.01"), {}, "an LXC container must match it; set '570'"),
        (Host("Debian", "13.2", "x86_64", gpus=[Gpu("0000:01:00.0", H100)]), {}, "nvidia_driver_kernel_flavour: ''"),
    ],
)
def test_refused(machine: Host, settings: dict[str, Any], message: str) -> None:
    assert message in errors(machine, **settings)


def test_what_would_be_refused_otherwise() -> None:
    newer = host(H100, packages={"libnvidia-compute-580": "580.126.09-0ubuntu1"})
    assert errors(newer, version="580.95.05", allow_downgrade=True) == ""
    assert errors(debian(H100, secure_boot=True, mok_enrolled=True)) == ""
    assert errors(host(H100, secure_boot=True)) == "", "prebuilt modules are signed"


@pytest.mark.parametrize(
    ("machine", "mode"),
    [
        (host(), "none"),
        (host(RTX_5070_TI, jetson="NVIDIA Jetson Orin Nano"), "jetson"),
        (host(gpus=[Gpu("0000:01:00.0", RTX_5070_TI, "vfio-pci")]), "passthrough"),
        (host(RTX_5070_TI, environment="docker"), "docker"),
        (host(RTX_5070_TI, environment="wsl"), "wsl"),
    ],
)
def test_hosts_that_are_left_alone(machine: Host, mode: str) -> None:
    plan = make_plan(machine, Settings(branch="304"))
    assert plan["mode"] == mode
    assert plan["reason"]
    assert not plan["errors"] + plan["missing"] + plan["to_hold"]


def test_gpu_of_a_virtual_machine_does_not_count() -> None:
    machine = host(gpus=[Gpu("0000:01:00.0", K80, "vfio-pci"), Gpu("0000:02:00.0", H100)])
    assert errors(machine) == ""


def test_only_the_driver_and_its_kernel_are_held() -> None:
    packages = {
        "nvidia-utils-580": "580.126.09-0ubuntu1",
        "libnvidia-container1": "1.20.0-1",
        "nvidia-container-toolkit-base": "1.20.0-1",
        "nvidia-cuda-toolkit": "12.0.140",
        "linux-headers-generic": "6.8.0-100.100",
        "bash": "5.2",
    }
    plan = make_plan(host(H100, packages=packages), Settings())
    assert plan["to_hold"] == ["linux-headers-generic", "linux-image-generic", "nvidia-utils-580"]


def test_flavour_of_the_running_kernel_wins() -> None:
    packages = {"linux-image-lowlatency": "1", "linux-image-generic-hwe-24.04": "1", "linux-image-unsigned-foo": "1"}
    machine = host(H100, packages=packages)
    assert nvidia_driver.kernel_flavours(machine) == ["generic-hwe-24.04", "generic", "lowlatency"]
    virtual = Host("Ubuntu", "24.04", "x86_64", "6.8.0-100-generic", [Gpu("0", H100)],
                   packages={"linux-image-virtual": Package("linux-image-virtual", "1")})  # fmt: skip
    assert "linux-modules-nvidia-580-open-generic" in make_plan(virtual, Settings())["packages"]


@pytest.mark.parametrize(
    ("loaded", "nouveau", "reason"),
    [
        ("580.126.09", False, None),
        ("580.95.05", False, "580.95.05 loaded, and 580.126.09 is installed"),
        (None, False, "not loaded"),
        (None, True, "nouveau"),
    ],
)
def test_reboot_only_when_needed(loaded: str | None, nouveau: bool, reason: str | None) -> None:
    installed = {"libnvidia-compute-580": "580.126.09-0ubuntu1"}
    machine = host(H100, packages=installed, loaded_version=loaded, nouveau_loaded=nouveau)
    reasons = make_plan(machine, Settings())["reboot_reasons"]
    assert (reason is None and not reasons) or reason in reasons[0]


def test_kernel_that_prebuilt_modules_are_not_for() -> None:
    packages = {
        "linux-image-6.8.0-124-generic": "6.8.0-124.124",
        "linux-modules-nvidia-580-open-generic": "6.8.0-100.100",
        "linux-modules-nvidia-580-open-6.8.0-100-generic": "6.8.0-100.100",
    }
    plan = make_plan(host(H100, packages=packages), Settings())
    assert plan["kernel_without_modules"] == "6.8.0-124-generic"
    packages["linux-modules-nvidia-580-open-6.8.0-124-generic"] = "6.8.0-124.124"
    assert make_plan(host(H100, packages=packages), Settings())["kernel_without_modules"] is None


def test_modules_of_another_build_are_unwanted() -> None:
    packages = {
        "nvidia-dkms-580-open": "580.126.09-0ubuntu1",
        "linux-modules-nvidia-580-generic": "6.8.0-100.100",
        "linux-modules-nvidia-580-open-generic": "6.8.0-100.100",
        "linux-modules-nvidia-580-open-6.8.0-100-generic": "6.8.0-100.100",
    }
    plan = make_plan(host(H100, packages=packages), Settings())
    assert plan["unwanted"] == ["linux-modules-nvidia-580-generic", "nvidia-dkms-580-open"]


def test_pins_keep_sources_apart() -> None:
    toolkit = make_plan(host(H100), Settings(cuda_toolkit_version="13.0.2"))
    assert toolkit["pin"].index("origin {repository_host}") < toolkit["pin"].index("version 580.*")
    assert "Package: cuda-toolkit-13-0\nPin: version 13.0.2-1\n" in toolkit["pin"]
    assert "release o=Ubuntu" in make_plan(host(H100), Settings(source="nvidia"))["pin"]
    assert "Pin-Priority: 1001" in make_plan(host(H100), Settings(allow_downgrade=True))["pin"]


def test_secure_boot_is_read(tmp_path: Path) -> None:
    variables = tmp_path / "sys/firmware/efi/efivars"
    variables.mkdir(parents=True)
    shim = "605dab50-e046-4300-abb6-3dd810dd8b23"
    assert nvidia_driver.read_secure_boot(str(tmp_path)) == (False, False)
    (variables / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(b"\6\0\0\0\1")
    assert nvidia_driver.read_secure_boot(str(tmp_path)) == (True, False)
    key = tmp_path / "var/lib/dkms/mok.pub"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"certificate")
    (variables / f"MokListRT-{shim}").write_bytes(b"\6\0\0\0header other header certificate")
    assert nvidia_driver.read_secure_boot(str(tmp_path)) == (True, True)
    (variables / f"MokSBStateRT-{shim}").write_bytes(b"\6\0\0\0\1")
    assert nvidia_driver.read_secure_boot(str(tmp_path)) == (False, True)


def test_a_recorded_machine_is_read(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    for name, text in {"vendor": "0x10de", "class": "0x030000", "device": "0x2c05"}.items():
        (device / name).write_text(f"{text}\n")
    (device / "driver").symlink_to("/sys/bus/pci/drivers/nouveau")
    module = tmp_path / "sys/module/nvidia"
    module.mkdir(parents=True)
    (module / "version").write_text("580.95.05\n")
    machine = nvidia_driver.read_host(str(tmp_path), "Debian", "13.2", "x86_64", {})
    assert [str(gpu) for gpu in machine.gpus] == ["0000:01:00.0 (0x2c05, Blackwell)"]
    assert machine.gpus[0].driver == "nouveau"
    assert machine.loaded_version == "580.95.05"


def test_versions_of_packages() -> None:
    for version, wanted in {
        "580.126.09-0ubuntu0.24.04.1": "580.126.09",
        "1:580.95-1": "580.95",
        "580-2ubuntu1": None,
        "6.8.0-124.124": None,
    }.items():
        assert nvidia_driver.upstream_version(version) == wanted
    packages = nvidia_driver.parse_dpkg("hold installed a 1\ninstall config-files b 2\ninstall installed c 3\n")
    assert {name: package.held for name, package in packages.items()} == {"a": True, "c": False}


def test_every_message_names_its_variable() -> None:
    text = Path(nvidia_driver.__file__).read_text(encoding="utf-8")
    options = (Path(__file__).parents[2] / "roles/nvidia_driver/defaults/main.yml").read_text(encoding="utf-8")
    for name in set(re.findall(r"\bnvidia_driver_\w+", text)):
        assert f"\n{name}:" in options, name
