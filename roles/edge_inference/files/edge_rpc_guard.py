#!/usr/bin/python3
"""What ggml-rpc-server does not do for itself. Made by Ansible (role edge_inference); changes by hand are lost.

    edge_rpc_guard.py prepare CACHE MIN_FREE_MIB    before the start: no half-written tensor is kept
    edge_rpc_guard.py watch PID ADDRESS PORT        after the start: a peer that is gone is noticed
    edge_rpc_guard.py ended CACHE                   after the end

A cached tensor is loaded by its name without a look at its content, so a file that was cut off by a crash or a full
disk would silently become wrong weights. And the server answers one peer at a time and waits for it without end:
where a link is cut, nobody could connect again. Its listening socket is told to probe the peer; Linux hands that on to
each connection that is accepted. The data itself takes no detour.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import sys
import time
from pathlib import Path

IN_USE = ".in-use"
# A tensor is written in one go; the longest takes seconds.
FRESH_SECONDS = 60
IDLE_SECONDS, BETWEEN_SECONDS, PROBES = 10, 5, 3
START_SECONDS = 60.0
SYS_PIDFD_GETFD = 438
LISTEN = "0A"


def tensors(cache):
    """Return the files of the cached tensors."""
    folder = cache / "rpc"
    return list(folder.iterdir()) if folder.is_dir() else []


def drop(files, why):
    """Remove files and say so."""
    for file in files:
        file.unlink()
    if files:
        print(f"{len(files)} cached tensors were dropped: {why}", flush=True)


def prepare(cache, min_free_mib):
    """Keep the cache only where it is whole and the disk has room."""
    mark = cache / IN_USE
    if mark.exists():
        drop(tensors(cache), "the host went down while the server ran, so the last of them may be cut off")
    if shutil.disk_usage(cache).free < min_free_mib << 20:
        drop(tensors(cache), f"less than {min_free_mib} MiB of the disk are free")
    mark.touch()


def ended(cache):
    """Drop what the server may have been writing when it ended."""
    young = [file for file in tensors(cache) if file.stat().st_mtime > time.time() - FRESH_SECONDS]
    drop(young, "the server ended while it may have been writing them")
    (cache / IN_USE).unlink(missing_ok=True)


def listening_inode(text, address, port):
    """Return the inode of the socket that listens there, from the text of /proc/net/tcp; None where none does."""
    wanted = f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
    for line in text.splitlines()[1:]:
        columns = line.split()
        if len(columns) > 9 and columns[1] == wanted and columns[3] == LISTEN:
            return columns[9]
    return None


def descriptor_of(pid, inode):
    """Return the number of the process' descriptor of this socket; None where it has none."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed meanwhile.
        with contextlib.suppress(OSError):
            if str(entry.readlink()) == f"socket:[{inode}]":
                return int(entry.name)
    return None


def borrow(pid, number):
    """Return a descriptor of the same socket."""
    process = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        found = libc.syscall(SYS_PIDFD_GETFD, process, number, 0)
        if found < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return found
    finally:
        os.close(process)


def probe_peers(listener):
    """Have connections that this socket accepts end when their peer is gone for half a minute."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, BETWEEN_SECONDS)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


def watch(pid, address, port):
    """Wait until the server listens, and have it probe its peers."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            inode = listening_inode(Path(f"/proc/{pid}/net/tcp").read_text("ascii"), address, port)
            number = descriptor_of(pid, inode) if inode else None
        except (FileNotFoundError, ProcessLookupError):
            sys.exit(f"the RPC server ended before it listened on {address}:{port}: see the lines above")
        if number is not None:
            with socket.socket(fileno=borrow(pid, number)) as listener:
                probe_peers(listener)
            print(f"listens on {address}:{port}; a peer that is gone is noticed within 25 seconds", flush=True)
            return
        time.sleep(0.1)
    sys.exit(f"the RPC server does not listen on {address}:{port} after {START_SECONDS:.0f} seconds")


def main():
    """Run one of the three steps."""
    step, *rest = sys.argv[1:]
    if step == "prepare":
        prepare(Path(rest[0]), int(rest[1]))
    elif step == "watch":
        watch(int(rest[0]), rest[1], int(rest[2]))
    else:
        ended(Path(rest[0]))


if __name__ == "__main__":
    main()
