"""Makes a signed apt repository like apt.grafana.com in /srv/vendor, with packages that hold a stand-in for Grafana."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path("/srv/vendor")
UNIT = """[Unit]
Description=Stand-in for Grafana

[Service]
User=grafana
Group=grafana
Environment=FAKE_VERSION={version}
RuntimeDirectory=grafana
ExecStart=/usr/sbin/grafana server

[Install]
WantedBy=multi-user.target
"""
POSTINST = """#!/bin/sh
set -e
id grafana >/dev/null 2>&1 || useradd --system --user-group --no-create-home --shell /bin/false grafana
install -d -o grafana -g grafana -m 0750 /var/lib/grafana /var/log/grafana
[ ! -d /run/systemd/system ] || systemctl daemon-reload
"""


def package(version: str) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary)
        tree.chmod(0o755)
        control = (
            f"Package: grafana\nVersion: {version}\nArchitecture: all\nMaintainer: Molecule <molecule@example.com>\n"
            "Depends: python3, python3-yaml, passwd\nDescription: made for a test\n"
        )
        files = {
            "DEBIAN/control": (control, 0o644),
            "DEBIAN/postinst": (POSTINST, 0o755),
            "usr/sbin/grafana": (Path("/srv/grafana.py").read_text(), 0o755),
            "usr/lib/systemd/system/grafana-server.service": (UNIT.format(version=version), 0o644),
        }
        for name, (content, mode) in files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            path.chmod(mode)
        deb = ROOT / "pool" / f"grafana_{version}_all.deb"
        deb.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(tree), str(deb)], check=True)
    content = deb.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{control}Filename: pool/{deb.name}\nSize: {len(content)}\nSHA256: {digest}\n"


def main() -> None:
    packages = "\n".join(package(version) for version in ("13.2.2", "13.2.3")).encode()
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    index = ROOT / "dists" / "stable" / "main" / f"binary-{machine}" / "Packages"
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_bytes(packages)
    release = (
        f"Origin: Grafana\nSuite: stable\nCodename: stable\nArchitectures: {machine} all\nComponents: main\n"
        "Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
        f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-{machine}/Packages\n"
    )
    os.environ["GNUPGHOME"] = tempfile.mkdtemp()
    gpg = ["gpg", "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "molecule@example.com"], check=True)
    subprocess.run([*gpg, "--armor", "--output", ROOT / "gpg-full.key", "--export"], check=True)
    target = ROOT / "dists" / "stable" / "InRelease"
    subprocess.run([*gpg, "--clearsign", "--output", target], input=release.encode(), check=True)


main()
