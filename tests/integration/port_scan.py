"""Tells which TCP ports of some addresses accept a connection, for who runs it: python3 port_scan.py ADDRESS...

Standard library alone, since it runs on hosts and in containers. Prints JSON: open ports by address.
"""

import asyncio
import json
import resource
import socket
import sys

# A firewall that drops says nothing, and whoever listens on this network answers within a fraction of this.
TIMEOUT_S = 0.7
AT_A_TIME = 6000


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


limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, AT_A_TIME + 100), limit))
print(json.dumps({address: asyncio.run(scan(address)) for address in sys.argv[1:]}))
