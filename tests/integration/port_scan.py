"""Tells which ports of an address answer who runs it, as a JSON list.

    python3 port_scan.py tcp ADDRESS            every port that accepts a connection
    python3 port_scan.py udp ADDRESS PORT...    of these ports and fifty well-known ones those that a datagram reaches

Standard library alone, since it runs on hosts and in containers.
"""

import asyncio
import json
import resource
import socket
import sys

# A firewall that drops says nothing, and whoever listens on this network answers within a fraction of this.
TIMEOUT_S = 0.7
AT_A_TIME = 6000
# Names, time, mail, files, printers, telephones, tunnels, discovery: what machines mostly have open.
WELL_KNOWN = (
    7, 9, 13, 17, 19, 37, 49, 53, 67, 68, 69, 80, 88, 111, 123, 135, 137, 138, 161, 162, 177, 389, 427, 443, 445, 464,
    500, 514, 520, 546, 547, 623, 631, 853, 1194, 1434, 1701, 1812, 1900, 2049, 3478, 4500, 4789, 5060, 5353, 5355,
    8472, 11211, 27015, 51820,
)  # fmt: skip


async def accepts(address: str, port: int, free: asyncio.Semaphore) -> bool:
    """Whether a port accepts a connection."""
    async with free:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except (OSError, TimeoutError):
            return False
        finally:
            connection.close()
        return True


async def scan(address: str) -> list[int]:
    """Every port of an address that accepts."""
    free = asyncio.Semaphore(AT_A_TIME)
    ports = range(1, 65536)
    found = await asyncio.gather(*(accepts(address, port, free) for port in ports))
    likely = [port for port, accepted in zip(ports, found, strict=True) if accepted]
    # A machine that is busy may have missed the time: what platforms have most is asked once more by itself.
    again = [port for port in (22, 80, 443, 8000, 8010, 8080, 8090, 9100, 9400, 50052) if port not in likely]
    late = [port for port in again if await accepts(address, port, free)]
    return sorted([*likely, *late])


async def is_reached(address: str, port: int) -> bool:
    """Whether a datagram reaches a port: somebody answers, or the machine says that nobody is there.

    A firewall that drops says neither. A machine says at most six times at once that nobody is there, so of many ports
    that datagrams reach only some are found, and of a few all.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.connect((address, port))
        for _ in range(2):
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await loop.sock_sendall(one, b"\0")
                    await loop.sock_recv(one, 1)
            except ConnectionRefusedError:
                return True
            except (OSError, TimeoutError):
                continue
            return True
    return False


async def scan_datagrams(address: str, ports: list[int]) -> list[int]:
    """Those of the ports that a datagram reaches."""
    found = await asyncio.gather(*(is_reached(address, port) for port in ports))
    return [port for port, reached in zip(ports, found, strict=True) if reached]


def main() -> None:
    """Scan what the command line says."""
    protocol, address, *more = sys.argv[1:]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, AT_A_TIME + 100), limit))
    if protocol == "tcp":
        found = asyncio.run(scan(address))
    else:
        found = asyncio.run(scan_datagrams(address, sorted({*WELL_KNOWN, *map(int, more)})))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
