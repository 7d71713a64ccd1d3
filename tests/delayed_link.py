"""A link between two network namespaces whose delay can be set, for kernels that have no netem.

    delayed_link.py PID_A ADDRESS_A PID_B ADDRESS_B

Makes a TUN interface ``link0`` in the network namespace of each process and carries their packets between them. What
B sends arrives later by the milliseconds that the last line on standard input says; what A sends is not held up. That
is what ``tc qdisc add dev link0 root netem delay MS`` on B does, by the same rule: from when a packet is sent until it
is handed on. Both ends are the kernel's own TCP. It labels itself as what it is: a stand-in for netem.

Needs root and /dev/net/tun, nothing but the standard library.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
INTERFACE, MTU = "link0", 9000
# The kernel wakes a process late by some tens of microseconds, which a packet would arrive later: as long as packets
# come, this one stays awake.
AWAKE_NS = 20_000_000


def make_end(pid: int, address: str) -> int:
    """A TUN interface in the namespace of the process; it goes away with the descriptor."""
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:  # noqa: PTH123 (pathlib opens nothing better)
        os.setns(namespace.fileno(), os.CLONE_NEWNET)
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH", INTERFACE.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "address", "add", f"{address}/30", "dev", INTERFACE], check=True)
    subprocess.run(["ip", "link", "set", INTERFACE, "mtu", str(MTU), "txqueuelen", "10000", "up"], check=True)
    return handle


def read_packet(handle: int) -> bytes:
    try:
        return os.read(handle, 65536)
    except BlockingIOError:
        return b""


def write_packet(handle: int, packet: bytes) -> None:
    try:
        os.write(handle, packet)
    except OSError as error:
        # A packet that finds no room is lost, as on any link.
        print(f"lost a packet: {error}", file=sys.stderr, flush=True)


def carry(a: int, b: int) -> None:
    delay = 0
    waiting: deque[tuple[int, bytes]] = deque()
    seen = 0
    while True:
        awake = bool(waiting) or time.perf_counter_ns() - seen < AWAKE_NS
        ready, _, _ = select.select([0, a, b], [], [], 0 if awake else None)
        if ready:
            seen = time.perf_counter_ns()
        if 0 in ready:
            line = os.read(0, 100)
            if not line:
                return
            delay = int(float(line) * 1e6)
            print(f"delay {delay / 1e6:g} ms", flush=True)
        if b in ready:
            while packet := read_packet(b):
                waiting.append((time.perf_counter_ns() + delay, packet))
                if len(waiting) > 50_000:
                    break
        if a in ready and (packet := read_packet(a)):
            write_packet(b, packet)
        while waiting and waiting[0][0] <= time.perf_counter_ns():
            write_packet(a, waiting.popleft()[1])


def main() -> None:
    a = make_end(int(sys.argv[1]), sys.argv[2])
    b = make_end(int(sys.argv[3]), sys.argv[4])
    print("ready", flush=True)
    carry(a, b)


if __name__ == "__main__":
    main()
