#!/bin/sh
# Makes the container a place where systemd and a nested Docker daemon can work without --privileged, then
# becomes systemd.
set -eu

# Docker mounts these read-only. systemd needs its own cgroup subtree writable (the cgroup namespace is private);
# Docker inside sets sysctls of its bridge.
awk '$2 ~ "^/sys/fs/cgroup" || $2 == "/proc/sys" {print $2}' /proc/mounts | while read -r mount; do
  mount -o remount,rw,bind "$mount"
done

# Host keys are made once for each container, never baked into the image.
ssh-keygen -A >/dev/null

# The lab's public key is mounted; sshd wants its own copy with strict ownership.
install -m 0600 -o ubuntu -g ubuntu /etc/lab/authorized_keys /home/ubuntu/.ssh/authorized_keys

exec /lib/systemd/systemd
