"""What can be wrong with a GPU and what to do about it, by where the host runs.

``docs/gpu-troubleshooting.md`` says the same: a test holds each remedy against the page.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible.module_utils.ai_idp.gpu_environment import DOCKER, LXC, VM


@dataclass(frozen=True)
class Problem:
    """``remedy`` holds everywhere, ``by_environment`` takes its place where the host runs elsewhere."""

    title: str
    remedy: str
    by_environment: dict[str, str] = field(default_factory=dict)

    def remedy_in(self, kind: str) -> str:
        return self.by_environment.get(kind, self.remedy)


PROBLEMS: dict[str, Problem] = {
    "no_card": Problem(
        "No NVIDIA GPU is on the PCI bus",
        "Check the card's seat and power cables and that the slot is enabled in the firmware, then `lspci -d 10de:`.",
        {
            VM: "Pass the card through: with the VM stopped, `qm set VMID -hostpci0 0000:01:00,pcie=1` on the Proxmox "
            "host (machine type q35, IOMMU on), then start the VM.",
            LXC: "The container sees the host's bus: look for the card on the host with `lspci -d 10de:`.",
            DOCKER: "The container sees the host's bus: look for the card on the host with `lspci -d 10de:`.",
        },
    ),
    "no_driver": Problem(
        "There is a card and no driver",
        "Install the driver, from 580 on for CUDA 13, with the open kernel modules for Blackwell: the packages "
        "`nvidia-driver-580-open` and `linux-modules-nvidia-580-open-generic` on Ubuntu.",
        {
            LXC: "Install the driver's libraries without kernel modules (`--no-kernel-modules` of the vendor's "
            "installer), in exactly the version that the host has loaded (`cat /proc/driver/nvidia/version`).",
            DOCKER: "Start the container with the GPU (`--gpus all`, or `--device nvidia.com/gpu=all` by CDI): the "
            "NVIDIA container toolkit brings the host's libraries in.",
        },
    ),
    "module_not_loaded": Problem(
        "The driver is installed, its kernel module is not loaded",
        "See `modprobe nvidia` and `dkms status`: after a kernel update the module for the new kernel "
        "(`uname -r`) may be missing; install it and restart.",
        {
            LXC: "The module belongs to the host: load it there (`modprobe nvidia`) and make it load at boot.",
            DOCKER: "The module belongs to the host: load it there (`modprobe nvidia`).",
        },
    ),
    "secure_boot": Problem(
        "Secure Boot refuses the kernel module",
        "Install modules that the distribution signed (`linux-modules-nvidia-580-open-generic` on Ubuntu), or enrol "
        "the key that signed yours with `mokutil --import` and restart; `mokutil --sb-state` shows the state.",
        {
            VM: "Install modules that the distribution signed, enrol the key with `mokutil --import`, or switch Secure "
            "Boot off in the VM's own firmware.",
            LXC: "The module belongs to the host: sign it there, or use modules that its distribution signed.",
            DOCKER: "The module belongs to the host: sign it there, or use modules that its distribution signed.",
        },
    ),
    "nouveau": Problem(
        "nouveau holds the card",
        "Write `blacklist nouveau` and `options nouveau modeset=0` into a file under /etc/modprobe.d, run "
        "`update-initramfs -u` and restart.",
        {
            LXC: "nouveau runs on the host: blacklist it there, run `update-initramfs -u` and restart the host.",
            DOCKER: "nouveau runs on the host: blacklist it there, run `update-initramfs -u` and restart the host.",
        },
    ),
    "vfio": Problem(
        "The card is reserved for a virtual machine",
        "vfio-pci holds the card for a VM: use it in that VM, or remove its id from vfio-pci's options under "
        "/etc/modprobe.d, run `update-initramfs -u` and restart.",
        {
            LXC: "vfio-pci holds the card on the host for a VM: a card is either passed to one VM or shared with "
            "containers, not both.",
        },
    ),
    "version_mismatch": Problem(
        "Kernel module and libraries are of different versions",
        "Restart the host, or stop everything that uses the GPU and load the nvidia modules again "
        "(`rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia`, then `modprobe nvidia`).",
        {
            LXC: "Install the libraries in the container in exactly the version that the host has loaded "
            "(`cat /proc/driver/nvidia/version`): a driver update on the host is always two updates.",
            DOCKER: "Restart the container after the host's driver has been updated: the libraries are brought in when "
            "it starts.",
        },
    ),
    "no_devices": Problem(
        "The driver is loaded and finds no GPU",
        "See `journalctl -k` for lines with NVRM: a card may need the open kernel modules (Blackwell), more address "
        "space (Above 4G Decoding in the firmware) or power.",
        {
            VM: "See `journalctl -k` for lines with NVRM: the card may need the open kernel modules (Blackwell), the "
            "VM the machine type q35 with OVMF, or the host a restart when a former VM left the card unusable.",
        },
    ),
    "open_modules": Problem(
        "The card needs the open kernel modules",
        "Install the open flavour in the same version (`nvidia-driver-580-open` on Ubuntu, `nvidia-open` from the "
        "vendor's repository) in place of the proprietary one and restart.",
        {LXC: "The module belongs to the host: install the open flavour in the same version there."},
    ),
    "fell_off_bus": Problem(
        "A GPU has fallen off the bus",
        "Restart the host; when it comes back, look at power supply and cables, the card's seat, temperature and the "
        "firmware's PCIe power saving (ASPM), and try a lower power limit.",
        {
            VM: "Stop the VM and start it again from the host (a restart inside does not reset the card); if the card "
            "is still away, restart the host and check the card's power, seat and temperature.",
            LXC: "Restart the host, not the container; then check the card's power, seat and temperature.",
            DOCKER: "Restart the host, not the container; then check the card's power, seat and temperature.",
        },
    ),
    "hangs": Problem(
        "The driver does not answer",
        "Look for Xid errors in `journalctl -k` and restart the host: a call that hangs in the kernel can't be ended.",
    ),
    "device_nodes": Problem(
        "The device nodes are missing or blocked",
        "Run `nvidia-modprobe -c 0 -u` as root, and keep nvidia-persistenced running so that they are there after a "
        "restart.",
        {
            LXC: "Give the container the nodes (Proxmox 8.2 and later: `pct set CTID -dev0 /dev/nvidia0 -dev1 "
            "/dev/nvidiactl -dev2 /dev/nvidia-uvm`, or Device Passthrough in its resources) and restart it.",
            DOCKER: "Start the container with the GPU (`--gpus all`, or `--device nvidia.com/gpu=all` by CDI); if it "
            "had it before, restart it: `systemctl daemon-reload` on the host takes device nodes away.",
        },
    ),
    "container_lost_gpu": Problem(
        "A running container has lost its GPU",
        "Restart the container. To keep it from happening after `systemctl daemon-reload`: name the devices in the "
        "container's settings or use CDI, and run `nvidia-ctk system create-dev-char-symlinks --create-all`.",
    ),
    "container_without_gpu": Problem(
        "A container was started without the GPU",
        "Install the NVIDIA container toolkit, configure Docker with `nvidia-ctk runtime configure --runtime=docker`, "
        "restart Docker, and start the container with the GPU (`--gpus all`, or `deploy.resources` in compose).",
    ),
    "container_not_running": Problem(
        "The container does not run",
        "Start the container and look at its logs with `docker logs`.",
    ),
    "xid_errors": Problem(
        "The driver has logged Xid errors",
        "Read the lines with `journalctl -k --grep Xid` and look the numbers up in NVIDIA's Xid catalogue: 79 is a GPU "
        "that is gone, 48, 63, 64, 94 and 95 are memory, 119 and 120 the GPU's own firmware, 13 and 31 are mostly the "
        "program's.",
    ),
    "throttling": Problem(
        "Something lowers the clocks",
        "sw_power_cap is the power limit (`nvidia-smi -q -d POWER`); thermal reasons are cooling and dust; "
        "hw_power_brake_slowdown and hw_slowdown are the power supply or its cables.",
    ),
    "too_hot": Problem(
        "A GPU is too hot",
        "Check fans, dust and the air's way through the case, or lower the power limit (`nvidia-smi -pl WATTS`).",
    ),
    "power_limit_low": Problem(
        "The power limit is too low",
        "Set it with `nvidia-smi -pl WATTS` in a unit that runs at boot; it is lost at every restart.",
        {LXC: "Set it on the host with `nvidia-smi -pl WATTS`; a container may not."},
    ),
    "pcie_slow": Problem(
        "The PCIe link is slower than required",
        "Check the slot (the first one of most boards has 16 lanes of the CPU), riser cables and the firmware's "
        "bifurcation; some cards lower the link when idle, so ask again under load.",
    ),
    "driver_old": Problem(
        "The driver is too old",
        "Install a newer driver branch and restart.",
        {LXC: "Install a newer driver on the host and the same version in the container."},
    ),
    "card_insufficient": Problem(
        "The card is not enough",
        "Use another card, or choose a model and engine that this one serves.",
    ),
    "too_few_gpus": Problem(
        "There are fewer GPUs than required",
        "Compare `nvidia-smi -L` with `lspci -d 10de:`: a card that only the second shows has a driver problem, one "
        "that neither shows is not connected or not passed through.",
    ),
}
