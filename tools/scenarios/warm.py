"""Starts molecule, ansible-playbook and pytest without importing them anew each time.

A scenario starts ansible-playbook six times and more; each start costs more than a second of processor time before the
first play. Here one process imports the three programs once. In front of PATH lie clients with the programs' names:
what they are asked to do, a child forked from the warm process does, with their arguments, environment, folder and
files. Whoever starts a program sees no difference, and without this folder in PATH the programs themselves run.
"""

import atexit
import gc
import importlib
import marshal
import os
import runpy
import selectors
import shlex
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("ansible-playbook", "molecule", "pytest")
# Read by Ansible when it needs them; all others when it is imported.
READ_LATE = frozenset(
    {"ANSIBLE_CACHE_PLUGIN", "ANSIBLE_CACHE_PLUGIN_CONNECTION", "ANSIBLE_NOCOLOR", "ANSIBLE_SSH_CONTROL_PATH_DIR"}
)
# Molecule asks for it before each playbook, with other settings than the playbook's.
VERSION = ["--version"]
# What the commands import first of all. Testinfra is missing: pytest wants to import its plugins itself.
PRELOADED = (
    "molecule.shell",
    "molecule.driver.delegated",
    "molecule.provisioner.ansible",
    "molecule.verifier.testinfra",
    "_pytest.assertion.rewrite",
    "_pytest.terminal",
    "pytest",
    "httpx",
    "yaml",
)
ANSIBLE = (
    "ansible.cli.playbook",
    "ansible.executor.playbook_executor",
    "ansible.executor.task_queue_manager",
    "ansible.executor.module_common",
    "ansible.plugins.strategy.linear",
    "ansible.plugins.callback.default",
    "ansible.plugins.cache.jsonfile",
)
# Without the site module, so that asking costs little. marshal is safe here: both ends are this program.
CLIENT = """#!{python} -IS
import marshal, os, socket, struct, sys
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
request = marshal.dumps([[{program!r}, *sys.argv[1:]], os.getcwd(), dict(os.environ)])
socket.send_fds(server, [struct.pack("I", len(request))], [0, 1, 2])
server.sendall(request)
answer = server.recv(4)
sys.exit(struct.unpack("I", answer)[0] if len(answer) == 4 else 70)
"""


@dataclass(frozen=True)
class Request:
    """A command that somebody started."""

    argv: list[str]
    folder: str
    environment: dict[str, str]
    files: list[int] = field(default_factory=list)


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings in an environment that Ansible reads when it is imported.

    Args:
        environment: The variables that a command was started with.

    Returns:
        Ansible's own variables among them, those excepted that are read later.
    """
    return {name: value for name, value in environment.items() if name.startswith("ANSIBLE_") and name not in READ_LATE}


def write_clients(folder: Path, path: Path) -> None:
    """Write the clients that stand for the programs.

    Args:
        folder: Where they are written; it goes in front of PATH.
        path: The socket of the warm process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        file = folder / program
        file.write_text(CLIENT.format(python=sys.executable, socket=str(path), program=program), encoding="utf-8")
        file.chmod(0o755)


def receive(connection: socket.socket) -> Request:
    """Read what a client asks for.

    Args:
        connection: The client's connection.

    Returns:
        The command, with the client's own standard files.
    """
    head, files, _, _ = socket.recv_fds(connection, 4, 3)
    length = struct.unpack("I", head)[0]
    body = bytearray()
    while len(body) < length:
        if not (part := connection.recv(length - len(body))):
            raise ConnectionError("the client left before it had said what to do")
        body += part
    argv, folder, environment = marshal.loads(body)  # noqa: S302
    return Request(argv, folder, environment, files)


class Server:
    """The warm process: takes commands, forks a child for each, and tells how it ended."""

    def __init__(self, listener: socket.socket) -> None:
        self._settings: dict[str, str] | None = None
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def preload(self) -> None:
        """Import the programs; only the time that they need depends on it."""
        for name in PRELOADED:
            importlib.import_module(name)
        # It asks Ansible for its version and settings, by two programs.
        molecule_app = importlib.import_module("molecule.app")
        assert molecule_app.get_app(Path.cwd()).runtime.version
        gc.freeze()

    def serve(self) -> None:
        """Take commands for ever."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._take(self._listener.accept()[0])
                elif isinstance(key.fileobj, int):
                    self._ended(key.fileobj, *key.data)
                else:
                    # The client was killed, by a time limit for example. The child does not outlive it.
                    self._selector.unregister(key.fileobj)
                    os.killpg(key.data, signal.SIGKILL)

    def _take(self, connection: socket.socket) -> None:
        request = receive(connection)
        if self._settings is None and request.argv[0] == "ansible-playbook" and request.argv[1:] != VERSION:
            self._import_ansible(request)
        child = os.fork()
        if child == 0:
            self._listener.close()
            self._selector.close()
            connection.close()
            self._run(request)
        for file in request.files:
            os.close(file)
        self._selector.register(connection, selectors.EVENT_READ, child)
        self._selector.register(
            os.pidfd_open(child), selectors.EVENT_READ, (child, connection, shlex.join(request.argv))
        )

    def _ended(self, pidfd: int, child: int, connection: socket.socket, command: str) -> None:
        _, status, used = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        print(f"{used.ru_utime + used.ru_stime:7.2f} s of the processor, exit code {code}: {command}", flush=True)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        if connection in self._selector.get_map():
            self._selector.unregister(connection)
            connection.send(struct.pack("I", code if code >= 0 else 128 - code))
        connection.close()

    def _import_ansible(self, request: Request) -> None:
        """Import Ansible with the settings of the first command; they are every scenario's."""
        self._settings = settings(request.environment)
        os.environ.update(self._settings)
        for name in ANSIBLE:
            importlib.import_module(name)
        loader = importlib.import_module("ansible.plugins.loader")
        loader.init_plugin_loader()
        # Each command does the same once more, and is told that it is done already.
        warnings.filterwarnings("ignore", message="AnsibleCollectionFinder has already been configured")
        sys.path.insert(0, str(Path.cwd() / "callback_plugins"))
        importlib.import_module("warm_start").CallbackModule().v2_playbook_on_start(None)
        sys.path.pop(0)

    def _is_ready(self, request: Request) -> bool:
        """Tell whether Ansible is imported with the settings that a command was given; its version has none."""
        if self._settings is None or request.argv[1:] == VERSION:
            return self._settings is not None
        return settings(request.environment) == self._settings

    def _run(self, request: Request) -> None:
        """Become the program that was asked for; never returns."""
        # What the warm process would do at its end is not the child's to do.
        atexit._clear()
        os.setpgid(0, 0)
        for number, file in enumerate(request.files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(request.folder)
        os.environ.clear()
        os.environ.update(request.environment)
        program = request.argv[0]
        code: object = 70
        try:
            if program == "ansible-playbook" and not self._is_ready(request):
                os.execv(Path(sys.executable).parent / program, request.argv)  # noqa: S606
            sys.argv = [str(Path(sys.executable).parent / program), *request.argv[1:]]
            code = run_program(program)
        except SystemExit as end:
            code = end.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def run_program(program: str) -> object:
    """Run one of the programs in this process, as its own script does.

    Args:
        program: Its name; sys.argv has its arguments.

    Returns:
        Its exit code, where it does not raise SystemExit.
    """
    if program == "ansible-playbook":
        from ansible import constants
        from ansible.cli.playbook import main

        constants.CACHE_PLUGIN = os.environ.get("ANSIBLE_CACHE_PLUGIN", constants.CACHE_PLUGIN)
        return main()
    return runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    # Whoever starts it listens already: a client that comes early waits.
    warm = Server(socket.socket(fileno=int(sys.argv[1])))
    warm.preload()
    warm.serve()
