"""Runs a tool several times, each in a process of its own, and keeps what it said with the conditions of each run.

A finished measurement is a JSON file whose key says what was measured with what on what; the same key is not measured
again. A measurement that fails leaves the last finished one alone. One that is done in rounds, which alternate with
those of other measurements, is kept beside it until its last round.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from ansible.module_utils.ai_idp.benchmark_errors import CannotMeasure, MeasurementError
from ansible.module_utils.ai_idp.benchmark_parsed import Parsed
from ansible.module_utils.ai_idp.benchmark_tools import OUTPUT_DIR, SEED, TOOLS, WORK_DIR, Parameters, Tool
from ansible.module_utils.ai_idp.documents import from_json, mapping_of
from ansible.module_utils.ai_idp.files import hash_file, write_atomically
from ansible.module_utils.ai_idp.gpu_common import read_line, read_text
from ansible.module_utils.ai_idp.gpu_nvml import THROTTLE_REASONS
from ansible.module_utils.ai_idp.http_exchange import NoAnswer, direct, exchange
from ansible.module_utils.ai_idp.messages import shorten
from ansible.module_utils.ai_idp.model_manifest import read_manifest
from ansible.module_utils.ai_idp.programs import run
from ansible.module_utils.ai_idp.sample_statistics import can_be_figure, is_finite

SCHEMA = 1
OK, STARTED, FAILED, SKIPPED, PLANNED = "ok", "started", "failed", "skipped", "planned"
WORK_PREFIX = ".ai-idp-benchmark-"
# Parameters that say how much is measured, not what: a result of more of it answers the same question better.
AMOUNTS = ("num_prompts", "seconds", "requests", "size_mib")
# A round that comes later than this finds a machine that is cold again.
WARM_SECONDS = 1800.0
# After Ctrl-C the module on the host may still end the process that it measures.
LOCK_PATIENCE = 60.0
BUSY_CPU_SHARE, BUSY_GPU_PERCENT = 0.5, 10.0
# The load average still holds the run before; what runs now is told by how the CPUs spend a moment in which this
# program sleeps.
CPU_WINDOW_SECONDS = 0.3
# Clocks that a user has set are no throttling.
_CHOSEN = {"applications_clocks_setting", "sync_boost", "display_clocks_setting"}
_GPU_FIELDS = ("index", "utilization.gpu", "clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")
_VALID_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass
class Wanted:
    """What is to be measured."""

    id: str
    tool: str
    parameters: Parameters
    results_dir: str
    runs: int = 5
    warmup_runs: int = 1
    timeout: float = 300.0
    # The runs are spread over so many calls, of which this is one.
    rounds: int = 1
    round: int = 1
    host: str = ""
    environment: str = ""
    build: str | None = None
    model: str | None = None
    model_hash: str | None = None
    # A file or folder whose hash is the model's.
    model_path: str | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    hardware_fingerprint: str = ""
    # Environment variables of the processes, never shown.
    secrets: dict[str, str] = field(default_factory=dict)
    expected_seconds: float | None = None
    requires_gpu: bool = False
    # Why it can't be measured, where the caller knows it.
    unavailable: str = ""
    again: bool = False

    def runs_until_now(self) -> int:
        """How many runs there are after this round."""
        return -(-self.runs * self.round // self.rounds)

    def problem(self) -> str:
        """What is wrong with it, or an empty text."""
        if not _VALID_ID.fullmatch(self.id):
            return f"id is {self.id!r}; it names a file: lower-case letters, digits, dots, dashes and underscores."
        if self.tool not in TOOLS:
            return f"tool is {self.tool!r}; known are {', '.join(sorted(TOOLS))}."
        if self.runs < 2:
            return f"runs is {self.runs}; an interval needs at least 2 independent runs."
        if self.warmup_runs < 0:
            return f"warmup_runs is {self.warmup_runs}; it is 0 or more."
        if not 1 <= self.round <= self.rounds:
            return f"round is {self.round}; it is between 1 and rounds, which is {self.rounds}."
        if self.timeout <= 0:
            return f"timeout is {self.timeout:g}; it is a number of seconds above 0."
        missing = [name for name in TOOLS[self.tool].required if not self.parameters.get(name)]
        if missing:
            return f"parameters of {self.id} lack {', '.join(missing)}, which {self.tool} needs."
        return ""


# --- processes ------------------------------------------------------------------------------------------

# Docker's code when the container never ran, which a busy daemon gives now and then: nothing was measured yet.
CONTAINER_NOT_STARTED = 125
CONTAINER_STARTS = 3


@dataclass
class Output:
    """What a program said; ``rc`` is None when its time was over."""

    rc: int | None
    stdout: str
    stderr: str


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and everything that it started: first asked, then killed."""
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    # Children may outlive a parent that ended at once.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def execute(
    argv: list[str],
    timeout: float,
    more: dict[str, str] | None = None,
    folder: str | None = None,
    merge_errors: bool = False,
) -> Output:
    """Runs a program in a session of its own, so that all of it can be ended."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT if merge_errors else err,
                env={**os.environ, "LC_ALL": "C", **(more or {})},
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise CannotMeasure(f"{argv[0]} can't be started: {error.strerror or error}") from None
        code: int | None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Also when this program is ended: nothing goes on producing load.
            _end(process)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(16 << 20).decode("utf-8", "replace"))
        return Output(code, texts[0], texts[1])


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return shorten(lines[-1], 200) if lines else ""


def failure_of(tool: Tool, output: Output, timeout: float) -> str:
    """Why a process that did not end with code 0 did not; empty when it did."""
    program = tool.command[0]
    if output.rc is None:
        return f"{program} did not end within {timeout:g} s and was stopped"
    if output.rc < 0:
        name = signal.Signals(-output.rc).name
        hint = "; the kernel does that when memory runs out" if name == "SIGKILL" else ""
        return f"{program} was ended by {name}{hint}"
    if output.rc:
        said = tool.explain(output.stdout) or last_line(output.stderr) or last_line(output.stdout)
        return f"{program} ended with code {output.rc}: {said or 'it said nothing'}"
    return ""


# --- what is there --------------------------------------------------------------------------------------


def docker_kill(output_dir: str) -> None:
    """Ends the container whose id docker wrote into the output folder: it does not end with the docker command."""
    identity = read_line(os.path.join(output_dir, "cid"))
    docker = shutil.which("docker")
    if identity and docker:
        execute([docker, "kill", identity], 30.0)


def resolve_command(tool: Tool, parameters: Parameters) -> list[str]:
    """The command with its program found: ``command`` wins, then the program in the path, then ``image``."""
    given = parameters.get("command")
    command = [str(word) for word in given or tool.command]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/bin", "/usr/sbin", "/sbin"])
    found = shutil.which(command[0], path=path)
    if found:
        # By its short name it stays readable, and the same on hosts that keep it elsewhere.
        return command if shutil.which(command[0]) else [found, *command[1:]]
    if not given and tool.container and parameters.get("image"):
        if not shutil.which("docker"):
            raise CannotMeasure(f"{command[0]} is not in the path, and Docker, which would run it, isn't either")
        return list(tool.container(parameters))
    where = "there" if os.sep in command[0] else "in the path"
    hint = f": install the package {tool.package}" if tool.package else ""
    raise CannotMeasure(f"{command[0]} is not {where}{hint}")


def probe_build(tool: Tool, command: list[str], output_dir: str) -> str | None:
    """The tool's version; None where it does not tell."""
    if not tool.version_options or not tool.version_pattern:
        return None
    argv = [word.replace(OUTPUT_DIR, output_dir) for word in [*command, *tool.version_options]]
    output = execute(argv, 60.0)
    if output.rc is None:
        docker_kill(output_dir)
    match = re.search(tool.version_pattern, output.stdout + output.stderr) if output.rc is not None else None
    if match:
        return f"{tool.command[0]} {match.group(1)}"
    # One that does not know the option is known by its bytes.
    program = shutil.which(command[0])
    return f"{tool.command[0]} sha256:{hash_file(program).sha256[:16]}" if program and command[0] != "docker" else None


def probe_endpoint(url: str, key: str | None, path: str | None) -> str | None:
    """The build of a server, by what it tells of itself; raises MeasurementError when nothing answers.

    vLLM tells it at ``/version``, llama.cpp's server at ``/props``, Triton at ``/v2``.
    """
    base = url.rstrip("/")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    for candidate in (path,) if path else ("/version", "/v2", "/props"):
        place = base + str(candidate)
        try:
            answer = exchange(
                lambda place=place: direct().open(urllib.request.Request(place, headers=headers), timeout=10),
                1 << 20,
            )
        except NoAnswer as error:
            raise MeasurementError(f"{base} does not answer: {error}") from None
        if answer.status >= 400:
            continue
        try:
            told = from_json(answer.text)
        except ValueError:
            continue
        if not isinstance(told, dict):
            continue
        if told.get("build_info"):
            return f"llama.cpp {told['build_info']}"
        if told.get("version"):
            return f"{told.get('name') or 'vllm'} {told['version']}"
    return None


def model_hash(path: str, cache_path: str, keep: bool = True) -> str:
    """sha256 of a model's file, or of the names and hashes of a folder's files.

    Hashes of files whose size, time and inode are those of the last time are taken from the cache, which is brought up
    to date where it is to be kept.
    """
    try:
        cache = mapping_of(from_json(read_text(cache_path) or "{}"))
    except ValueError:
        cache = {}
    if os.path.isdir(path):
        files = sorted(
            os.path.join(folder, name)
            for folder, folders, names in os.walk(path)
            if not os.path.basename(folder).startswith(".")
            for name in names
            if not name.startswith(".")
        )
    else:
        files = [path]
    hashes, fresh = {}, {}
    try:
        for name in files:
            status = os.stat(name)
            mark = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
            known = mapping_of(cache.get(name))
            same = known.get("mark") == mark and isinstance(known.get("sha256"), str)
            hashes[name] = known["sha256"] if same else hash_file(name).sha256
            fresh[name] = {"mark": mark, "sha256": hashes[name]}
    except OSError as error:
        raise CannotMeasure(f"the model {path} can't be read: {error.strerror or error}") from None
    if not hashes:
        raise CannotMeasure(f"the model {path} is an empty folder")
    if keep and {**cache, **fresh} != cache:
        # Without the cache only time is lost.
        with contextlib.suppress(OSError):
            write_json(cache_path, {**cache, **fresh})
    if os.path.isdir(path):
        lines = "".join(f"{os.path.relpath(name, path)}\0{digest}\n" for name, digest in sorted(hashes.items()))
        return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    return f"sha256:{hashes[path]}"


def model_problem(path: str) -> str:
    """Which file of a model is not as the model store left it; empty where all are, or where no store looks after it.

    A damaged model would be measured as another one, and once more when it is repaired.
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    for entry in read_manifest(folder).get("files", []):
        name = os.path.join(folder, entry["path"])
        if os.path.isdir(path) or name == path:
            try:
                status = os.stat(name)
            except OSError as error:
                return f"{name} of the model can't be read: {error.strerror or error}"
            if (status.st_size, status.st_mtime_ns) != (entry["size_bytes"], entry["mtime_ns"]):
                return f"{name} is not as it was downloaded: week 2 makes it anew"
    return ""


# --- conditions of a run --------------------------------------------------------------------------------


def cpu_times(text: str | None) -> tuple[int, int] | None:
    """Ticks in which the CPUs worked for anybody, and all ticks, from /proc/stat."""
    match = re.match(r"cpu +([\d ]+)", text or "")
    if not match:
        return None
    ticks = [int(word) for word in match.group(1).split()][:8]
    # The fourth and fifth are idle and waiting for disks.
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def cpu_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if not before or not after or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def _mean_frequency_mhz() -> float | None:
    paths = glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    values = [int(line) for line in map(read_line, paths) if line and line.isdigit()]
    return round(sum(values) / len(values) / 1000, 1) if values else None


def _throttle_count() -> int | None:
    paths = glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")
    values = [int(line) for line in map(read_line, paths) if line and line.isdigit()]
    return sum(values) if values else None


def cpu_conditions() -> dict[str, Any]:
    before = cpu_times(read_text("/proc/stat"))
    time.sleep(CPU_WINDOW_SECONDS)
    busy = cpu_share(before, cpu_times(read_text("/proc/stat")))
    try:
        load: float | None = round(os.getloadavg()[0], 2)
    except OSError:
        load = None
    return {
        "load_before": load,
        "cpu_count": os.cpu_count(),
        "cpu_busy_before": None if busy is None else round(busy, 3),
        "cpu_mhz_before": _mean_frequency_mhz(),
    }


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def parse_gpu_samples(text: str) -> list[dict[str, Any]]:
    """One row for each GPU from lines of nvidia-smi, several for each: the middle clock, the highest of the others."""
    rows: dict[int, list[list[str]]] = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",")]
        # The last line may be cut off.
        if len(words) == len(_GPU_FIELDS) + 1 and words[0].isdigit():
            rows.setdefault(int(words[0]), []).append(words)
    found = []
    for index, samples in sorted(rows.items()):
        columns = [
            [value for value in map(_number, column) if value is not None] for column in zip(*samples, strict=True)
        ]
        reasons = 0
        for sample in samples:
            try:
                reasons |= int(sample[-1], 16)
            except ValueError:
                continue
        middle = [sorted(column)[len(column) // 2] if column else None for column in columns]
        highest = [max(column) if column else None for column in columns]
        found.append(
            {
                "index": index,
                "utilization_percent": highest[1],
                "clock_sm_mhz": middle[2],
                "clock_memory_mhz": middle[3],
                "power_draw_watts": highest[4],
                "temperature_celsius": highest[5],
                "throttle_reasons": [name for bit, name in THROTTLE_REASONS.items() if reasons & bit],
            }
        )
    return found


def _whole(path: str) -> int | None:
    line = read_line(path) or ""
    return int(line) if line.lstrip("-").isdigit() else None


def board_now(root: str = "/sys/class") -> dict[str, float]:
    """The hottest sensor of CPU and board in °C, and what a Jetson takes in all in W; what nobody tells is left out.

    A Jetson's power monitor is an INA3221, whose channel VDD_IN is the whole board: Linux' Documentation/hwmon/ina3221
    gives its files in mV and mA.
    """
    found: dict[str, float] = {}
    sensors = glob.glob(f"{root}/thermal/thermal_zone*/temp")
    for folder in glob.glob(f"{root}/hwmon/hwmon*"):
        if read_line(f"{folder}/name") in ("k10temp", "coretemp"):
            sensors += glob.glob(f"{folder}/temp*_input")
        for label in glob.glob(f"{folder}/in[123]_label"):
            if read_line(label) != "VDD_IN":
                continue
            channel = os.path.basename(label)[2]
            millivolts, milliamperes = _whole(f"{folder}/in{channel}_input"), _whole(f"{folder}/curr{channel}_input")
            if millivolts is not None and milliamperes is not None:
                found["power_draw_watts"] = round(millivolts * milliamperes / 1e6, 2)
    temperatures = [value for value in map(_whole, sensors) if value is not None and value > 0]
    if temperatures:
        found["temperature_celsius"] = max(temperatures) / 1000
    return found


class BoardWatch:
    """The board's sensors during a run: the highest of each."""

    def __init__(self, now: Callable[[], dict[str, float]] = board_now, seconds: float = 0.5) -> None:
        self._now = now
        self._seconds = seconds
        self._highest: dict[str, float] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def _look(self) -> None:
        while True:
            for name, value in self._now().items():
                self._highest[name] = max(value, self._highest.get(name, value))
            if self._over.wait(self._seconds):
                return

    def start(self) -> None:
        # A virtual machine has no sensors.
        if self._now():
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()

    def stop(self) -> dict[str, float]:
        self._over.set()
        if self._thread:
            self._thread.join(5.0)
        return self._highest


class GpuWatch:
    """GPUs before and during a run, by one nvidia-smi that repeats itself; nothing where there is none."""

    def __init__(self, nvidia_smi: str | None) -> None:
        self._program = nvidia_smi
        self._query: list[str] = []
        if nvidia_smi:
            # The first name is that of drivers from 535 on.
            for name in ("clocks_event_reasons.active", "clocks_throttle_reasons.active"):
                query = f"--query-gpu={','.join((*_GPU_FIELDS, name))}"
                if run([nvidia_smi, query, "--format=csv,noheader,nounits"], 10.0).rc == 0:
                    self._query = [nvidia_smi, query, "--format=csv,noheader,nounits"]
                    break
        self._process: subprocess.Popen[bytes] | None = None
        self._handle = -1

    def now(self) -> list[dict[str, Any]]:
        if not self._query:
            return []
        answer = run(self._query, 10.0)
        return parse_gpu_samples(answer.output) if answer.rc == 0 else []

    def start(self) -> None:
        if not self._query:
            return
        self._handle, path = tempfile.mkstemp()
        os.unlink(path)
        self._process = subprocess.Popen(
            [*self._query, "--loop-ms=250"],
            stdin=subprocess.DEVNULL,
            stdout=self._handle,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> list[dict[str, Any]]:
        if not self._process:
            return []
        _end(self._process)
        self._process = None
        with open(self._handle, "rb") as stream:
            stream.seek(0)
            return parse_gpu_samples(stream.read(16 << 20).decode("utf-8", "replace"))


def flags_of(number: int, conditions: dict[str, Any], gpus_before: list[dict[str, Any]]) -> list[str]:
    """Sentences for what makes a run one of a busy or throttled machine."""
    flags = []
    busy, count = conditions.get("cpu_busy_before"), conditions.get("cpu_count")
    if busy is not None and count and busy > BUSY_CPU_SHARE:
        flags.append(f"busy: load {busy * count:.1f} on {count} CPUs before run {number}")
    for gpu in gpus_before:
        used = gpu["utilization_percent"]
        if used is not None and used > BUSY_GPU_PERCENT:
            flags.append(f"busy: GPU {gpu['index']} was {used:.0f} % in use before run {number}")
    for gpu in conditions.get("gpus") or []:
        reasons = [reason for reason in gpu.get("throttle_reasons") or [] if reason not in _CHOSEN]
        if reasons:
            flags.append(f"throttled: {', '.join(reasons)} on GPU {gpu['index']} during run {number}")
    if conditions.get("cpu_throttle_events"):
        flags.append(f"throttled: the CPU became too hot during run {number}")
    return flags


# --- results --------------------------------------------------------------------------------------------


def now_text() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_json(path: str, value: Any) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())
    except OSError:
        # On a full disk the half of a file takes the room that the next one needs.
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.new")
        raise


def os_error_text(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what


def read_result(path: str, status: str = OK) -> dict[str, Any] | None:
    """A measurement that is finished, or of another status; None where there is none that can be read."""
    try:
        result = from_json(read_text(path) or "")
    except ValueError:
        return None
    known = isinstance(result, dict) and result.get("schema") == SCHEMA and result.get("status") == status
    return result if known and well_formed(result) else None


def well_formed(result: dict[str, Any]) -> bool:
    """Whether what a result holds is of the kinds that are written; a file may have been damaged or edited."""
    kinds = {"runs": list, "command": list, "flags": list, "devices": list, "parameters": dict, "subject": dict}
    if not all(isinstance(result.get(name) or kind(), kind) for name, kind in kinds.items()):
        return False
    if not isinstance((result.get("subject") or {}).get("best") or {}, dict):
        return False
    texts = [*(result.get("command") or []), *(result.get("flags") or [])]
    runs, had = result.get("runs") or [], result.get("parameters") or {}
    amounts = [had.get(name) for name in AMOUNTS]
    amounts += [result.get("warmup_runs"), result.get("rounds")]
    return (
        all(isinstance(text, str) for text in texts)
        and all(amount is None or is_finite(amount) for amount in amounts)
        and all(isinstance(run, dict) and is_finite(run.get("seconds", 0)) for run in runs)
        and all(can_be_figure(value) for run in runs for value in _metrics_of(run))
    )


def _metrics_of(run: dict[str, Any]) -> list[Any]:
    """The figures of a run; one that is no number where there is something else in their place."""
    metrics = run.get("metrics", {})
    return list(metrics.values()) if isinstance(metrics, dict) else [None]


def key_of(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _lock(stream: TextIO, name: str, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                stream.seek(0)
                holder = stream.read(200).strip() or "another one"
                raise MeasurementError(
                    f"a measurement runs on this host already: {holder}; run this again when it has ended"
                ) from None
            time.sleep(0.2)
    stream.truncate(0)
    stream.write(f"{name} (process {os.getpid()})\n")
    stream.flush()


@contextlib.contextmanager
def only_one(results_dir: str, name: str, patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Two measurements at a time would measure each other. A run that was interrupted may still end its last one.

    What is written into the lock also shows, before load is sent, that there is room for a result.
    """
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(results_dir, exist_ok=True)
            # Not emptied by opening: it names the one that holds it.
            stream = stack.enter_context(open(os.path.join(results_dir, ".lock"), "a+", encoding="utf-8"))
            _lock(stream, name, patience)
        except OSError as error:
            raise MeasurementError(f"results can't be kept in {results_dir}: {error.strerror or error}") from None
        yield


class Measurement:
    """One measurement on this host: what is known of it, whether it is finished, and how to do it."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.tool = TOOLS[wanted.tool]
        self.path = os.path.join(wanted.results_dir, f"{wanted.id}.json")
        self.started_path = f"{self.path}.started"
        # A container ends its program a little earlier by itself, and says so.
        self.parameters = {"timeout_seconds": max(1, int(0.9 * wanted.timeout)), **wanted.parameters}
        self.flags: list[str] = []
        # Why nobody can look now at what was measured before; its result stands.
        self.out_of_sight = ""
        # What a server told of itself, where one is measured.
        self.server: str | None = None
        # Why no installation of anything would help.
        self.hopeless = wanted.unavailable
        if wanted.requires_gpu and not wanted.hardware.get("gpus"):
            self.hopeless = self.hopeless or "this host has no GPU that answers"
        # In the order of the contract, so that a person finds things.
        self.result: dict[str, Any] = {
            "schema": SCHEMA,
            "id": wanted.id,
            "key": None,
            "status": PLANNED,
            "reason": None,
            "host": wanted.host,
            "environment": wanted.environment,
            "tool": wanted.tool,
            "method": None,
            "command": [],
            "parameters": {name: value for name, value in wanted.parameters.items() if name != "command"},
            "build": wanted.build,
            "model": wanted.model,
            "model_hash": wanted.model_hash,
            "hardware_fingerprint": wanted.hardware_fingerprint,
            "hardware": wanted.hardware,
            "devices": [],
            "subject": {},
            "warmup_runs": wanted.warmup_runs,
            "rounds": wanted.rounds,
            "runs": [],
            "flags": self.flags,
            "measured_at": None,
        }

    @property
    def _spread(self) -> str:
        return f", in {self.wanted.rounds} rounds with the other measurements" if self.wanted.rounds > 1 else ""

    def _hide(self, text: str) -> str:
        for value in self.wanted.secrets.values():
            if value:
                text = text.replace(value, "***")
        return text

    def _prepare(self, touch: bool) -> None:
        """Everything that can be known before load is sent."""
        wanted, last = self.wanted, read_result(self.path)
        if self.hopeless:
            raise CannotMeasure(self.hopeless)
        self.parameters["command"] = resolve_command(self.tool, self.parameters)
        directory = self.parameters.get("directory")
        if directory:
            self._prepare_directory(str(directory), touch, last)
        if wanted.model_path:
            problem = model_problem(wanted.model_path)
            if problem:
                raise CannotMeasure(problem)
        # It takes minutes for large models, and a plan needs it only to compare it with that of a result.
        if wanted.model_path and not wanted.model_hash and (touch or last):
            cache = os.path.join(os.path.dirname(wanted.results_dir.rstrip("/")), "model_hashes.json")
            self.result["model_hash"] = model_hash(wanted.model_path, cache, touch)
        # The client's build is in the key, the server's is what a finding is about.
        with tempfile.TemporaryDirectory(prefix="ai-idp-benchmark-") as folder:
            client = probe_build(self.tool, self.parameters["command"], folder)
        if self.parameters.get("url"):
            key = next(iter(wanted.secrets.values()), None)
            self.server = probe_endpoint(str(self.parameters["url"]), key, self.parameters.get("version_path"))
        self.result["build"] = wanted.build or self.server or client
        argv = self.tool.argv(self.parameters)
        self.result["command"] = argv
        self.result["method"] = (
            f"{wanted.runs} processes after {wanted.warmup_runs} for warming up"
            f"{self._spread}; in each {self.tool.method(self.parameters)}."
        )
        # Amounts are compared one by one, since more is as good; see _finished.
        same = {name: 1 for name in AMOUNTS if name in self.parameters}
        self.result["key"] = key_of(
            {
                "schema": SCHEMA,
                "tool": wanted.tool,
                "command": self.tool.argv({**self.parameters, **same}),
                "files": self.tool.files(self.parameters),
                "builds": [wanted.build, self.server, client],
                # Only a server knows where it computes; no command tells.
                "device": self.parameters.get("device"),
                "model": [wanted.model, self.result["model_hash"]],
                "hardware_fingerprint": wanted.hardware_fingerprint,
            }
        )

    def _prepare_directory(self, directory: str, touch: bool, last: dict[str, Any] | None) -> None:
        if not os.path.isdir(directory):
            raise CannotMeasure(f"the folder {directory} is not there")
        needed = int(self.parameters.get("size_mib", 1024)) << 20
        free = shutil.disk_usage(directory).free
        # The disk of the models is never filled by measuring it.
        if free < 2 * needed + (1 << 30):
            raise CannotMeasure(
                f"{directory} has {free >> 20} MiB free, and a file of {needed >> 20} MiB would leave too little"
            )
        if "direct" not in self.parameters:
            # A plan writes nothing to the disk: there it is as it was the last time.
            self.parameters["direct"] = (
                reads_direct(directory) if touch else not last or "--direct=0" not in last.get("command", [])
            )
        if not self.parameters["direct"]:
            self.flags.append(f"cached: the file system of {directory} can't be read past the page cache")

    def plan(self) -> dict[str, Any]:
        """Whether there is something to do, and how long it takes."""
        last = read_result(self.path)
        seconds = self.wanted.expected_seconds
        if last and last.get("runs"):
            mean = sum(row.get("seconds", 0) for row in last["runs"]) / len(last["runs"])
            seconds = mean * (self.wanted.runs + self.wanted.warmup_runs)
        finished = self.out_of_sight or self._finished(last)
        return {"finished": last if finished else None, "expected_seconds": seconds}

    def _seems_same(self, last: dict[str, Any]) -> bool:
        """Whether a result is of what is asked for, by all that can be known without what is out of sight."""
        given = {name: getattr(self.wanted, name) for name in ("tool", "model", "model_hash", "build")}
        given["hardware_fingerprint"] = self.wanted.hardware_fingerprint
        command = [str(word) for word in self.parameters.get("command") or self.tool.command]
        had, asked = last.get("parameters") or {}, self.result["parameters"]
        return (
            all(last.get(name) == value for name, value in given.items() if value is not None)
            # Where a container runs the program, Docker's is the first word.
            and ("image" in asked or (last.get("command") or [])[: len(command)] == command)
            and all(had.get(name) == asked.get(name) for name in {*had, *asked} - {*AMOUNTS})
            and self._is_enough(last)
        )

    def _finished(self, last: dict[str, Any] | None) -> bool:
        """Whether it is of the same thing, and of no less than is asked for."""
        return bool(last and last.get("key") == self.result["key"]) and not self._started() and self._is_enough(last)

    def _is_enough(self, last: dict[str, Any]) -> bool:
        if self.wanted.again:
            return False
        had, asked = last.get("parameters") or {}, self.result["parameters"]
        pairs = [(had.get(name), asked.get(name)) for name in AMOUNTS]
        pairs += [(len(last.get("runs") or []), self.wanted.runs), (last.get("warmup_runs"), self.wanted.warmup_runs)]
        # What was spread over time holds more of how the machine changes.
        pairs.append(((last.get("rounds") or 1) > 1, self.wanted.rounds > 1))
        # One that is not given is the tool's own.
        return all(one == other or (one is not None and other is not None and one >= other) for one, other in pairs)

    def _started(self) -> dict[str, Any] | None:
        """What earlier rounds measured of the very same, also those of a run that was interrupted."""
        if self.wanted.rounds == 1 or self.wanted.again:
            return None
        last = read_result(self.started_path, STARTED)
        same = ("key", "parameters", "warmup_runs", "rounds")
        return last if last and all(last.get(name) == self.result[name] for name in same) else None

    def prepare(self, touch: bool = True) -> bool:
        """False when it can't be measured here; ``result`` then says why. Without ``touch`` nothing is written."""
        try:
            self._prepare(touch)
        except CannotMeasure as error:
            return self._can_not(SKIPPED, str(error))
        except MeasurementError as error:
            return self._can_not(FAILED, str(error))
        except OSError as error:
            return self._can_not(FAILED, f"it can't be prepared: {os_error_text(error)}")
        return True

    def _can_not(self, status: str, reason: str) -> bool:
        """An engine that is down or a model that was damaged is repaired by a later week, and measures as before."""
        last = None if self.hopeless else read_result(self.path)
        if last and self._seems_same(last):
            self.out_of_sight = self._hide(reason)
            return True
        return self._give_up(status, reason)

    def _give_up(self, status: str, reason: str) -> bool:
        self.result.update(status=status, reason=self._hide(reason), measured_at=None)
        return False

    def measure(self) -> dict[str, Any]:
        """All runs of this round; the result has status ok, started, failed or skipped.

        Only what is ok or started is kept on the disk, and what was started is gone when it is finished or fails.
        """
        try:
            with only_one(self.wanted.results_dir, self.wanted.id), self._work_dir() as work_dir:
                self._runs(work_dir)
            self.result.update(status=OK, reason=None, measured_at=now_text())
            if len(self.result["runs"]) < self.wanted.runs:
                self.result["status"] = STARTED
                write_json(self.started_path, self.result)
                return self.result
            write_json(self.path, self.result)
        except CannotMeasure as error:
            self._give_up(SKIPPED, str(error))
        except MeasurementError as error:
            self._give_up(FAILED, str(error))
        except OSError as error:
            # A disk that is full or read-only: for temporary files, or for the result.
            self._give_up(FAILED, f"a file can't be read or written: {os_error_text(error)}")
        with contextlib.suppress(OSError):
            os.unlink(self.started_path)
        return self.result

    @contextlib.contextmanager
    def _work_dir(self) -> Iterator[str]:
        """A folder on the disk that is measured, where one is."""
        directory = self.parameters.get("directory")
        if not directory:
            yield WORK_DIR
            return
        remove_leftovers(str(directory))
        try:
            folder = tempfile.TemporaryDirectory(prefix=WORK_PREFIX, dir=str(directory))
        except OSError as error:
            raise no_room(str(directory), error) from None
        with folder as work_dir:
            yield work_dir

    def _runs(self, work_dir: str) -> None:
        watch = GpuWatch(shutil.which("nvidia-smi"))
        wanted, started = self.wanted, self._started()
        warm = False
        if started:
            self.result["runs"] = started["runs"]
            self.flags.extend(started["flags"])
            warm = time.time() - os.stat(self.started_path).st_mtime < WARM_SECONDS
        done = len(self.result["runs"])
        numbers = [*([] if warm else range(1 - wanted.warmup_runs, 1)), *range(done + 1, wanted.runs_until_now() + 1)]
        for number in numbers:
            measured, parsed, flags = self._run(number, watch, work_dir)
            if number > 0:
                self.result["runs"].append(measured)
                self.flags.extend(flags)
                self._adopt(parsed)

    def _adopt(self, parsed: Parsed) -> None:
        self.result["build"] = self.wanted.build or self.server or parsed.build or self.result["build"]
        self.result["model"] = self.wanted.model or parsed.model
        self.result["devices"] = parsed.devices
        self.result["subject"] = parsed.subject

    def _run(self, number: int, watch: GpuWatch, work_dir: str) -> tuple[dict[str, Any], Parsed, list[str]]:
        wanted = self.wanted
        with tempfile.TemporaryDirectory(prefix="ai-idp-benchmark-") as output_dir:
            for name, text in self.tool.files(self.parameters).items():
                with open(os.path.join(output_dir, name), "w", encoding="utf-8") as stream:
                    stream.write(text)
            argv = list(self.result["command"])
            seed = str(int.from_bytes(os.urandom(4), "big") >> 1)
            for name, value in ((OUTPUT_DIR, output_dir), (WORK_DIR, work_dir), (SEED, seed)):
                argv = [word.replace(name, value) for word in argv]
            conditions = cpu_conditions()
            gpus_before = watch.now()
            throttles = _throttle_count()
            started_at, started = now_text(), time.monotonic()
            watch.start()
            board = BoardWatch()
            board.start()
            output: Output | None = None
            try:
                for _ in range(CONTAINER_STARTS):
                    started_at, started = now_text(), time.monotonic()
                    output = execute(argv, wanted.timeout, wanted.secrets, output_dir, self.tool.merge_errors)
                    if output.rc != CONTAINER_NOT_STARTED or "daemon" not in output.stderr:
                        break
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(os.path.join(output_dir, "cid"))
            finally:
                seconds = time.monotonic() - started
                conditions["gpus"] = watch.stop() or gpus_before
                conditions["board"] = board.stop()
                if output is None or output.rc is None:
                    docker_kill(output_dir)
            throttles_after = _throttle_count()
            if throttles is not None and throttles_after is not None:
                conditions["cpu_throttle_events"] = throttles_after - throttles
            which = f"run {number} of {wanted.runs}" if number > 0 else "the run for warming up"
            failure = failure_of(self.tool, output, wanted.timeout)
            if failure:
                raise MeasurementError(f"{which}: {failure}")
            try:
                parsed = self.tool.parse(output.stdout, output_dir)
                if wanted.requires_gpu and parsed.subject.get("backends") == "CPU":
                    raise CannotMeasure(f"{parsed.build} was built without a backend for GPUs")
            except CannotMeasure:
                raise
            except MeasurementError as error:
                raise MeasurementError(f"{which}: {error}") from None
        measured = {
            "started_at": started_at,
            "seconds": round(seconds, 3),
            "metrics": parsed.metrics,
            "samples": parsed.samples,
            "conditions": conditions,
        }
        return measured, parsed, flags_of(number, conditions, gpus_before)


def no_room(directory: str, error: OSError) -> CannotMeasure:
    return CannotMeasure(f"no file to measure with can be put into {directory}: {error.strerror or error}")


def reads_direct(directory: str) -> bool:
    """Whether files there can be read past the page cache."""
    try:
        handle, path = tempfile.mkstemp(prefix=WORK_PREFIX, dir=directory)
    except OSError as error:
        raise no_room(directory, error) from None
    os.close(handle)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    finally:
        os.unlink(path)
    return True


def remove_leftovers(directory: str) -> None:
    """What a measurement left that was killed before it could tidy up."""
    for path in glob.glob(os.path.join(glob.escape(directory), WORK_PREFIX + "*")):
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)


def hardware_of(profile: dict[str, Any]) -> dict[str, Any]:
    """What a result says of the machine, from the profile of the module hardware_profile."""
    memory = profile.get("memory") or {}
    return {
        "cpu": (profile.get("cpu") or {}).get("model"),
        "gpus": [gpu.get("name") for gpu in profile.get("gpus") or []],
        "memory_bytes": memory.get("total_bytes"),
    }


def wanted_from(options: dict[str, Any]) -> Wanted:
    names = set(asdict(Wanted("x", "x", {}, "x")))
    return Wanted(**{name: value for name, value in options.items() if name in names})
