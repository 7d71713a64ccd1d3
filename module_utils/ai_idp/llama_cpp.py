# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What llama.cpp is built from and how, and what its build and its programs say. Pure: nothing is run here."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

PROGRAMS = ("llama-server", "llama-bench", "ggml-rpc-server", "llama-cli", "llama-quantize")
"""Targets of llama.cpp that can be asked for; a target's program has its name."""

RPC_FIXED = 8492
"""First build without CVE-2026-34159 (GHSA-j8rj-fmpv-wcxw): whoever reached RPC's port could run code."""

RDMA_BROKEN = 8841
RDMA_FIXED = 11865
"""Builds from the former to before the latter have CVE-2026-118375, which is in RPC's RDMA transport."""

OWN_OPTIONS = frozenset(
    {
        "BUILD_SHARED_LIBS",
        "CMAKE_BUILD_TYPE",
        "CMAKE_BUILD_WITH_INSTALL_RPATH",
        "CMAKE_CUDA_ARCHITECTURES",
        "CMAKE_CUDA_COMPILER",
        "CMAKE_INSTALL_RPATH",
        "GGML_BACKEND_DL",
        "GGML_CUDA",
        "GGML_NATIVE",
        "GGML_RPC",
        "GGML_RPC_RDMA",
        "LLAMA_BUILD_COMMIT",
        "LLAMA_BUILD_NUMBER",
        "LLAMA_BUILD_SERVER",
        "LLAMA_BUILD_TOOLS",
        "LLAMA_BUILD_UI",
        "LLAMA_USE_PREBUILT_UI",
    }
)
"""CMake options that are decided here, by settings of their own or because everything else relies on them."""

_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_CHECKSUM = re.compile(r"^sha256:[0-9a-f]{64}$")
_ARCHITECTURE = re.compile(r"^[1-9][0-9]{1,2}[af]?$")
_OPTION = re.compile(r"^[A-Z][A-Z0-9_]*$")
_STEP = re.compile(r"^\[(\d+)/(\d+)\]", re.MULTILINE)
# Since build 11000 or so, and before.
_VERSIONS = (
    re.compile(r"^version: \S+ \(build (\d+), commit ([^)\s]+)\)", re.MULTILINE),
    re.compile(r"^version: (\d+) \(([^)\s]+)\)", re.MULTILINE),
)
_RPC_IN = b"ggml_backend_rpc_add_server"
_RDMA_IN = re.compile(rb"libibverbs\.so|ibv_(?:reg_mr|open_device|get_device_list|create_qp)")
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)
_MEMORY_FULL = re.compile(
    r"Killed signal terminated program|fatal error: .*[Cc]annot allocate memory|[Vv]irtual memory exhausted"
    r"|std::bad_alloc|out of memory allocating|Killed\s*$",
    re.MULTILINE,
)
_ERROR = re.compile(r"(?:^FAILED: |\berror: |CMake Error|fatal error)")


@dataclass(frozen=True)
class Settings:
    """What is to be built. ``commit`` may be empty for an archive, whose checksum then says what it is.

    ``architectures`` are CUDA's compute capabilities without the dot; none on the CPU. ``machine`` is the processor's
    architecture as ``uname`` names it.
    """

    build: int
    commit: str = ""
    source_url: str = ""
    source_checksum: str = ""
    git_repository: str = ""
    git_tag: str = ""
    backend: str = "cpu"
    architectures: tuple[str, ...] = ()
    cuda_compiler: str = ""
    native: bool = False
    programs: tuple[str, ...] = ("llama-server", "llama-bench", "ggml-rpc-server")
    cmake_options: dict[str, str] = field(default_factory=dict)
    machine: str = ""

    @property
    def source(self) -> str:
        """What the source is, wherever it is fetched from."""
        return self.source_checksum if self.source_url else f"git:{self.commit}"

    @property
    def built_commit(self) -> str:
        """What the programs say as their commit."""
        if self.commit:
            return self.commit[:9]
        return f"archive-{self.source_checksum.removeprefix('sha256:')[:12]}"

    @property
    def architecture(self) -> str:
        return ";".join(self.architectures) if self.backend == "cuda" else self.machine

    @property
    def _cuda_libraries(self) -> list[str]:
        """Where programs find CUDA's libraries should the system's linker not know. Beside it lie stubs, which must
        never be found, so CMake is not left to choose.
        """
        if self.backend != "cuda":
            return []
        return [os.path.join(os.path.dirname(os.path.dirname(self.cuda_compiler)), "lib64")]

    @property
    def flags(self) -> tuple[str, ...]:
        """CMake's arguments beside the folders."""
        wanted = {
            "CMAKE_BUILD_TYPE": "Release",
            # Programs find the libraries beside them, in whichever folder both end up.
            "BUILD_SHARED_LIBS": "ON",
            "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
            "CMAKE_INSTALL_RPATH": ";".join(["$ORIGIN", *self._cuda_libraries]),
            "GGML_RPC": "ON",
            # Left alone, it switches itself on where libibverbs is found.
            "GGML_RPC_RDMA": "OFF",
            "GGML_NATIVE": on_off(self.native),
            "GGML_CCACHE": "OFF",
            "GGML_CUDA": on_off(self.backend == "cuda"),
            "LLAMA_BUILD_TESTS": "OFF",
            "LLAMA_BUILD_EXAMPLES": "OFF",
            "LLAMA_BUILD_APP": "OFF",
            # Without both, the build downloads a web page.
            "LLAMA_BUILD_UI": "OFF",
            "LLAMA_USE_PREBUILT_UI": "OFF",
            "LLAMA_OPENSSL": "OFF",
            "LLAMA_BUILD_NUMBER": str(self.build),
            "LLAMA_BUILD_COMMIT": self.built_commit,
        }
        if self.backend == "cuda":
            wanted["CMAKE_CUDA_ARCHITECTURES"] = ";".join(self.architectures)
            wanted["CMAKE_CUDA_COMPILER"] = self.cuda_compiler
            # For several GPUs in one host only, and found by chance.
            wanted["GGML_CUDA_NCCL"] = "OFF"
        wanted.update(self.cmake_options)
        return tuple(f"-D{name}={value}" for name, value in wanted.items())

    @property
    def name(self) -> str:
        """Name of the release; another one when anything of it differs."""
        told = json.dumps([self.source, self.machine, sorted(self.programs), sorted(self.flags)])
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        backend = "cuda" + "-".join(self.architectures) if self.backend == "cuda" else "cpu"
        return f"b{self.build}-{backend}-{digest}"

    def record(self) -> dict[str, object]:
        """What the release says about itself in ``release.json``."""
        return {
            "name": self.name,
            "build": self.build,
            "commit": self.commit or self.built_commit,
            "backend": self.backend,
            "architecture": self.architecture,
            "rpc": True,
            "rdma": False,
            "source": self.source,
            "programs": sorted(self.programs),
            "flags": list(self.flags),
        }


def on_off(value: bool) -> str:
    """CMake's word for a truth value."""
    return "ON" if value else "OFF"


def option_value(value: object) -> str:
    """A CMake option as Ansible hands it over: YAML's truth values are CMake's."""
    return on_off(value) if isinstance(value, bool) else str(value)


def problems_of(settings: Settings, allow_older: bool) -> list[str]:
    """What can't be built as it is set, each with what to do; the names are those of the role's variables."""
    return [
        *_build_problems(settings.build, allow_older),
        *_source_problems(settings),
        *_backend_problems(settings),
        *_option_problems(settings),
    ]


def _build_problems(build: int, allow_older: bool) -> list[str]:
    said = f"llama_cpp_build: {build}"
    if build < 1:
        return [
            f"{said} is no build number: set it to the number in upstream's tag (bNNNNN), {RDMA_FIXED} or later, "
            "with the source that belongs to it (llama_cpp_source_git, or llama_cpp_source_url and its checksum)."
        ]
    if build < RPC_FIXED:
        return [
            f"{said} is older than {RPC_FIXED}, the first build without CVE-2026-34159 (whoever reaches RPC's port "
            f"can run code): choose {RDMA_FIXED} or later."
        ]
    if build < RDMA_FIXED and not allow_older:
        return [
            f"{said} is older than {RDMA_FIXED}, the first build without CVE-2026-118375 (RPC's RDMA transport, "
            f"builds {RDMA_BROKEN} to {RDMA_FIXED - 1}): choose {RDMA_FIXED} or later. RDMA is never built in here, so "
            "a lab that can't have a later one may set llama_cpp_allow_older_build: true."
        ]
    return []


def _source_problems(settings: Settings) -> list[str]:
    problems = []
    git = bool(settings.git_repository or settings.git_tag)
    if bool(settings.source_url) == git:
        problems.append(
            f"llama_cpp_source_url: '{settings.source_url}' and llama_cpp_source_git: '{settings.git_repository} "
            f"{settings.git_tag}': exactly one of them says where the source comes from; set one and leave the other "
            "empty."
        )
    if settings.source_url and not re.match(r"^(https?|file)://\S+$", settings.source_url):
        problems.append(
            f"llama_cpp_source_url: '{settings.source_url}' is no URL: write http://, https:// or file:// and the path "
            "of a .tar.gz archive."
        )
    if settings.source_url and not _CHECKSUM.match(settings.source_checksum):
        problems.append(
            f"llama_cpp_source_checksum: '{settings.source_checksum}' is no checksum of the archive: write sha256: and "
            "the 64 digits that sha256sum prints for a copy that you trust."
        )
    if git and not settings.source_url:
        if not re.match(r"^(https?|ssh|git|file)://\S+$|^/\S+$", settings.git_repository):
            problems.append(
                f"llama_cpp_source_git.repository: '{settings.git_repository}' is no URL of a Git repository: write "
                "one such as https://github.com/ggml-org/llama.cpp.git."
            )
        if settings.git_tag != f"b{settings.build}":
            problems.append(
                f"llama_cpp_source_git.tag: '{settings.git_tag}' is not the tag of llama_cpp_build {settings.build}: "
                f"write b{settings.build}, or set llama_cpp_build to the number in the tag."
            )
        if not settings.commit:
            problems.append(
                "llama_cpp_source_git.commit: '' is no full commit: tags can be moved, so write the 40 digits that "
                f"git ls-remote shows for the tag {settings.git_tag or 'bNNNNN'}."
            )
    if settings.commit and not _COMMIT.match(settings.commit):
        where = "llama_cpp_source_git.commit" if git else "llama_cpp_source_commit"
        problems.append(f"{where}: '{settings.commit}' is no full commit: write its 40 digits in small letters.")
    return problems


def _backend_problems(settings: Settings) -> list[str]:
    if settings.backend != "cuda":
        return []
    if not settings.architectures:
        return [
            "llama_cpp_cuda_architectures: [] and no GPU told its compute capability: write it without the dot, such "
            "as ['87'] for a Jetson Orin or ['120'] for an RTX 50, or set llama_cpp_backend: cpu."
        ]
    return [
        f"llama_cpp_cuda_architectures: '{name}' is no architecture: write the compute capability without the dot, "
        "such as '87', '90' or '120'."
        for name in settings.architectures
        if not _ARCHITECTURE.match(name)
    ]


def _option_problems(settings: Settings) -> list[str]:
    problems = []
    unknown = sorted(set(settings.programs) - set(PROGRAMS))
    if unknown or not settings.programs:
        problems.append(
            f"llama_cpp_programs: {', '.join(unknown) or 'none'} can't be built: choose from {', '.join(PROGRAMS)}."
        )
    elif not {"llama-server", "llama-bench"} & set(settings.programs):
        problems.append(
            f"llama_cpp_programs: {', '.join(settings.programs)} has neither llama-server nor llama-bench, and only "
            "they can be asked for their version: add one."
        )
    for name, value in settings.cmake_options.items():
        if name in OWN_OPTIONS:
            problems.append(f"llama_cpp_cmake_options: {name} is decided by the role itself: leave it out.")
        elif not _OPTION.match(name) or "\n" in value:
            problems.append(f"llama_cpp_cmake_options: '{name}' is no CMake option: write its name, such as GGML_LTO.")
    return problems


def jobs(processors: int, free_memory_bytes: int, memory_per_job_bytes: int) -> int:
    """How many compilers run at once: no more than processors, and no more than free memory holds; one at least."""
    return max(1, min(processors, free_memory_bytes // max(1, memory_per_job_bytes)))


def configure_arguments(settings: Settings, source: str, folder: str, cached: bool = False) -> list[str]:
    """The command that prepares the build; ``cached`` has ccache run the compilers."""
    languages = ["C", "CXX", *(["CUDA"] if settings.backend == "cuda" else [])] if cached else []
    launchers = [f"-DCMAKE_{language}_COMPILER_LAUNCHER=ccache" for language in languages]
    return ["cmake", "-G", "Ninja", "-S", source, "-B", folder, *settings.flags, *launchers]


def build_arguments(settings: Settings, folder: str, parallel: int) -> list[str]:
    """The command that builds the programs and nothing else."""
    return ["cmake", "--build", folder, "--parallel", str(parallel), "--target", *sorted(settings.programs)]


def progress_of(log: str) -> str:
    """How far a build is, from its log so far."""
    steps = _STEP.findall(log)
    if not steps:
        return "is being configured" if log.strip() else "starts"
    done, total = (int(number) for number in steps[-1])
    return f"{100 * done // max(1, total)} % (step {done} of {total})"


def cause_of(log: str, free_bytes: int) -> str:
    """Why a build failed: ``disk``, ``memory``, ``configure`` or ``build``."""
    # Whoever finds no room for what it writes often says something else.
    if _DISK_FULL.search(log) or free_bytes < 1 << 20:
        return "disk"
    if _MEMORY_FULL.search(log):
        return "memory"
    return "build" if _STEP.search(log) else "configure"


def tail_of(log: str, lines: int = 40) -> str:
    """The end of a log; when the first error stands before it, that error first."""
    every = log.rstrip("\n").split("\n")
    last = every[-lines:]
    before = every[: len(every) - len(last)]
    first = next((number for number, line in enumerate(before) if _ERROR.search(line)), None)
    if first is None or any(_ERROR.search(line) for line in last):
        return "\n".join(last)
    return "\n".join([*before[first : first + 10], "...", *last])


def version_of(output: str) -> tuple[int, str] | None:
    """Build number and commit that a program says, None when it says neither."""
    for pattern in _VERSIONS:
        found = pattern.search(output)
        if found:
            return int(found[1]), found[2]
    return None


def transports_of(files: Iterable[tuple[str, bytes]]) -> tuple[bool, bool]:
    """Whether RPC and whether RDMA is in these programs and libraries, given as (name, content).

    Other libraries name RPC's functions too, to ask for them: only RPC's own library counts.
    """
    rpc = rdma = False
    for name, content in files:
        rpc = rpc or (name.startswith("libggml-rpc.so") and _RPC_IN in content)
        rdma = rdma or _RDMA_IN.search(content) is not None
    return rpc, rdma


def source_folder(unpacked: str) -> str | None:
    """Where llama.cpp lies in an unpacked archive; some archives have it in a folder of their own."""
    level = [unpacked]
    for _ in range(3):
        for folder in level:
            if os.path.isfile(os.path.join(folder, "CMakeLists.txt")):
                return folder
        level = sorted(entry.path for folder in level for entry in os.scandir(folder) if entry.is_dir())
    return None
