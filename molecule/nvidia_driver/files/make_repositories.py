"""Makes apt repositories of empty packages with the names and dependencies that Ubuntu's and NVIDIA's have.

They lie in /srv/packages: ``ubuntu`` (what a release has), ``ubuntu-updates`` (what comes later), both for
``[trusted=yes]``, and ``repos/debian13/x86_64``, signed as NVIDIA's is. Left out: what the drivers need of the
distribution, and dkms, which would compile for minutes.
"""

import gzip
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path("/srv/packages")
SMI = """#!/bin/sh
# Says what was captured on a real GPU, with this version; like the real one, not with a module of another version.
loaded=$(cat /var/tmp/machine/sys/module/nvidia/version 2>/dev/null)
[ "$loaded" = "{version}" ] || {{ echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18; }}
[ "$*" = "-q -x" ] || exit 2
sed "s#<driver_version>.*<#<driver_version>{version}<#" /var/tmp/machine/nvidia-smi.xml
"""
# The recorded machine's libraries, by whose names their version is told.
LIBRARY = "/var/tmp/machine/usr/lib/x86_64-linux-gnu/libnvidia-ml.so."
INITRAMFS = """#!/bin/sh
echo "$*" >> /var/tmp/machine/initramfs.log
"""


def package(
    folder: str, name: str, version: str, depends: str = "", files: dict[str, str] | None = None, **fields: str
) -> None:
    target = ROOT / folder
    target.mkdir(parents=True, exist_ok=True)
    control = {
        "Package": name,
        "Version": version,
        "Architecture": "amd64",
        "Maintainer": "Molecule <molecule@example.com>",
        "Description": "made for a test",
        "Depends": depends,
        **{field.replace("_", "-"): value for field, value in fields.items()},
    }
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary)
        tree.chmod(0o755)
        (tree / "DEBIAN").mkdir()
        text = "".join(f"{field}: {value}\n" for field, value in control.items() if value)
        (tree / "DEBIAN" / "control").write_text(text)
        for path, content in (files or {}).items():
            file = tree / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            file.chmod(0o755)
        command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(tree)]
        subprocess.run([*command, str(target / f"{name}_{version}.deb")], check=True, stdout=subprocess.DEVNULL)


def ubuntu(folder: str, version: str, kernel: str) -> None:
    """One branch of Ubuntu's driver and the kernel that its prebuilt modules are for."""
    full = f"{version}-0ubuntu0.24.04.1"
    common = f"nvidia-kernel-common-580 (<= {version}-1), nvidia-kernel-common-580 (>= {version})"
    compute = f"libnvidia-compute-580 (= {full}), nvidia-kernel-common-580 (= {full})"
    abi = kernel.rpartition(".")[0]
    package(folder, "libnvidia-compute-580", full, files={LIBRARY + version: ""})
    package(folder, "nvidia-kernel-common-580", full)
    package(folder, "nvidia-compute-utils-580", full, f"libnvidia-compute-580 (>= {full})")
    package(folder, "nvidia-utils-580", full, f"libnvidia-compute-580 (= {full})",
            {"/usr/bin/nvidia-smi": SMI.format(version=version)})  # fmt: skip
    package(folder, "nvidia-headless-no-dkms-580-open", full, f"{compute}, nvidia-compute-utils-580 (= {full})")
    package(folder, "nvidia-dkms-580-open", full, common, Provides="nvidia-dkms-kernel")
    package(folder, f"linux-image-{abi}-generic", kernel)
    package(folder, f"linux-modules-nvidia-580-open-{abi}-generic", kernel,
            f"linux-image-{abi}-generic, {common}")  # fmt: skip
    package(folder, "linux-modules-nvidia-580-open-generic", kernel,
            f"linux-modules-nvidia-580-open-{abi}-generic (= {kernel}), nvidia-kernel-common-580 (>= {version})",
            Provides=f"nvidia-dkms-580-open (= {full}), nvidia-prebuilt-kernel")  # fmt: skip
    package(folder, "linux-image-generic", kernel, f"linux-image-{abi}-generic")
    package(folder, "linux-headers-generic", kernel)


def nvidia(folder: str, version: str) -> None:
    """One version of NVIDIA's driver for Debian, whose packages carry no branch in their names."""
    full = f"{version}-1"
    package(folder, "libcuda1", full)
    package(folder, "libnvidia-ml1", full, files={LIBRARY + version: ""})
    package(folder, "nvidia-driver-cuda", full, f"libcuda1 (= {full}), libnvidia-ml1 (= {full})",
            {"/usr/bin/nvidia-smi": SMI.format(version=version)}, Conflicts="nvidia-smi")  # fmt: skip
    package(folder, "nvidia-kernel-support", full)
    package(folder, "nvidia-kernel-open-dkms", full, f"nvidia-kernel-support (>= {version})")


def toolkit(folder: str, version: str) -> None:
    package(folder, "cuda-nvcc-13-0", version)
    package(folder, "cuda-toolkit-13-0", f"{version}-1", f"cuda-nvcc-13-0 (>= {version})")


def cudnn(folder: str, version: str) -> None:
    full = f"{version}-1"
    package(folder, "libcudnn9-cuda-13", full)
    package(folder, "libcudnn9-headers-cuda-13", full)
    package(folder, "libcudnn9-dev-cuda-13", full,
            f"libcudnn9-cuda-13 (= {full}), libcudnn9-headers-cuda-13 (= {full})")  # fmt: skip


def index(folder: str) -> bytes:
    """Writes what apt reads of a flat repository and returns the file that is to be signed."""
    target = ROOT / folder
    entries = []
    for deb in sorted(target.glob("*.deb")):
        fields = subprocess.run(["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True).stdout
        content = deb.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        entries.append(f"{fields}Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {digest}\n")
    packages = "\n".join(entries).encode()
    release = "Origin: NVIDIA\nSuite: stable\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
    for name, content in (("Packages", packages), ("Packages.gz", gzip.compress(packages))):
        (target / name).write_bytes(content)
        release += f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
    return release.encode()


def sign(folder: str, release: bytes) -> None:
    target = ROOT / folder
    os.environ["GNUPGHOME"] = tempfile.mkdtemp()
    gpg = ["gpg", "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "molecule@example.com"], check=True)
    subprocess.run([*gpg, "--armor", "--output", target / "8793F200.pub", "--export"], check=True)
    subprocess.run([*gpg, "--clearsign", "--output", target / "InRelease"], input=release, check=True)


def main() -> None:
    ubuntu("ubuntu", "580.95.05", "6.8.0-100.100")
    package("ubuntu", "initramfs-tools", "99", files={"/usr/sbin/update-initramfs": INITRAMFS})
    index("ubuntu")
    ubuntu("ubuntu-updates", "580.126.09", "6.8.0-124.124")
    index("ubuntu-updates")
    vendor = "repos/debian13/x86_64"
    for version in ("580.95.05", "580.126.09", "610.43.02"):
        nvidia(vendor, version)
    for version in ("13.0.2", "13.0.3"):
        toolkit(vendor, version)
    for version in ("9.20.0.48", "9.21.0.82"):
        cudnn(vendor, version)
    sign(vendor, index(vendor))


main()
