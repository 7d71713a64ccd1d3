"""What several unit tests need."""

import socket
import threading
from collections.abc import Iterator

import pytest
from hub_server import Hub
from model_folders import FILES, REPOSITORY


@pytest.fixture
def ssh_port() -> Iterator[int]:
    """A server that says what an SSH server says."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        # A later test forks, which wants no other thread about.
        thread.join(timeout=5)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({REPOSITORY: dict(FILES)}) as server:
        yield server
