"""A real CUDA allocation, by ctypes on the driver's library: what a GPU gives is known only when it is asked.

Free memory is no promise. On a Jetson NvMap may refuse blocks long before memory is full (L4T 36.4.7), on any host a
driver may be broken in ways that no version number tells. Names and numbers are those of ``cuda.h``; no CUDA toolkit
and no Python package are needed.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

from ansible.module_utils.ai_idp.forked import ForkError, in_child
from ansible.module_utils.ai_idp.gpu_jetson import meminfo_bytes
from ansible.module_utils.ai_idp.messages import human_bytes

LIBRARIES = ("libcuda.so.1", "/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
NOT_LOADED = "library"
OUT_OF_MEMORY = 2
PATTERN = 0xA5
# Where the largest block lies is told this exactly.
STEP_BYTES = 16 << 20


class CudaError(Exception):
    """A call that did not succeed."""

    def __init__(self, function: str, code: int, name: str) -> None:
        super().__init__(f"{function}: {name} ({code})")
        self.function, self.code, self.name = function, code, name


class Cuda:
    """The driver's functions; every call but those that end something raises CudaError."""

    def __init__(self, library: Any) -> None:
        self.library = library

    def name_of(self, code: int) -> str:
        text = ctypes.c_char_p()
        with contextlib.suppress(AttributeError):
            self.library.cuGetErrorName(code, ctypes.byref(text))
        return text.value.decode() if text.value else f"code {code}"

    def call(self, function: str, *arguments: Any) -> None:
        try:
            code = getattr(self.library, function)(*arguments)
        except AttributeError:
            raise CudaError(function, -1, "the library has no such function") from None
        if code:
            raise CudaError(function, code, self.name_of(code))

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and all of them."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> ctypes.c_uint64:
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def free(self, pointer: ctypes.c_uint64) -> None:
        with contextlib.suppress(CudaError):
            self.call("cuMemFree_v2", pointer)

    def is_usable(self, pointer: ctypes.c_uint64, size: int) -> bool:
        """The block holds what is written into its first and its last byte."""
        self.call("cuMemsetD8_v2", pointer, ctypes.c_ubyte(PATTERN), ctypes.c_size_t(size))
        for offset in (0, size - 1):
            byte = ctypes.c_ubyte()
            self.call(
                "cuMemcpyDtoH_v2", ctypes.byref(byte), ctypes.c_uint64(pointer.value + offset), ctypes.c_size_t(1)
            )
            if byte.value != PATTERN:
                return False
        return True


def largest_block(cuda: Cuda, most: int) -> int:
    """Bytes of the largest block below ``most`` that can be had now, to ``STEP_BYTES``."""
    low, high = 0, most
    while high - low > STEP_BYTES:
        middle = (low + high) // 2
        try:
            cuda.free(cuda.allocate(middle))
            low = middle
        except CudaError:
            high = middle
    return low


def _try_blocks(cuda: Cuda, blocks: list[int], answer: dict[str, Any]) -> None:
    held: list[ctypes.c_uint64] = []
    try:
        for size in blocks:
            pointer = cuda.allocate(size)
            held.append(pointer)
            answer["allocated_bytes"] += size
            answer["verified"] = cuda.is_usable(pointer, size)
            if not answer["verified"]:
                answer["error"] = ["memory", None, f"a block of {human_bytes(size)} does not hold what is written"]
                return
    except CudaError as error:
        answer["error"] = [error.function, error.code, error.name]
        answer["refused_bytes"] = blocks[len(held)] if error.function == "cuMemAlloc_v2" else None
    finally:
        for pointer in held:
            cuda.free(pointer)
    if answer["refused_bytes"]:
        answer["largest_block_bytes"] = largest_block(cuda, answer["refused_bytes"])


def empty_answer() -> dict[str, Any]:
    return {
        "error": None,
        "device": None,
        "cuda_version": None,
        "free_bytes": None,
        "total_bytes": None,
        "allocated_bytes": 0,
        "refused_bytes": None,
        "largest_block_bytes": None,
        "verified": None,
    }


def collect(library: Any, index: int, blocks: list[int]) -> dict[str, Any]:
    """Holds all blocks on one GPU at once, writes to them, and gives them back."""
    cuda, answer = Cuda(library), empty_answer()
    device, context = ctypes.c_int(), ctypes.c_void_p()
    try:
        cuda.call("cuInit", 0)
        version = ctypes.c_int()
        cuda.call("cuDriverGetVersion", ctypes.byref(version))
        answer["cuda_version"] = f"{version.value // 1000}.{version.value % 1000 // 10}"
        cuda.call("cuDeviceGet", ctypes.byref(device), index)
        name = ctypes.create_string_buffer(256)
        cuda.call("cuDeviceGetName", name, len(name), device)
        answer["device"] = name.value.decode(errors="replace")
        cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        cuda.call("cuCtxSetCurrent", context)
        answer["free_bytes"], answer["total_bytes"] = cuda.memory()
        _try_blocks(cuda, blocks, answer)
    except CudaError as error:
        answer["error"] = [error.function, error.code, error.name]
    return answer


def load_and_collect(paths: tuple[str, ...], index: int, blocks: list[int]) -> dict[str, Any]:
    failures = []
    for path in paths:
        try:
            return collect(ctypes.CDLL(path), index, blocks)
        except OSError as error:
            failures.append(str(error))
    return {**empty_answer(), "error": [NOT_LOADED, None, failures[0]]}


def ask(paths: tuple[str, ...], index: int, blocks: list[int], timeout: float) -> dict[str, Any]:
    """``collect`` in a child process, which takes its CUDA context with it when it ends."""
    try:
        return in_child(lambda: load_and_collect(paths, index, blocks), timeout)
    except ForkError as error:
        return {**empty_answer(), "error": [error.kind, None, f"CUDA gave {error}"]}


def room(meminfo: str | None, shared: bool, wanted: int, keep_free: int) -> str:
    """Why the attempt is not made; empty where it may be.

    Where GPU and host have one memory, an attempt that takes the last of it could make the kernel end a program.
    """
    if not shared:
        return ""
    available = meminfo_bytes(meminfo or "").get("MemAvailable")
    if available is None:
        return "The host does not tell how much memory is available, so no block was asked for."
    if available < wanted + keep_free:
        return (
            f"{human_bytes(available)} of memory are available, too few to try {human_bytes(wanted)} and leave "
            f"{human_bytes(keep_free)} to the running programs."
        )
    return ""


def judge(answer: dict[str, Any]) -> tuple[str, str]:
    """Status and the sentence that says it."""
    error = answer["error"]
    if error is None:
        return OK, f"{answer['device']} gave {human_bytes(answer['allocated_bytes'])}, and they hold what is written."
    where, code, text = error
    if where == NOT_LOADED:
        return FAIL, f"CUDA does not work: its driver library can't be loaded ({text})."
    if answer["refused_bytes"]:
        return FAIL, (
            f"{answer['device']} refused a block of {human_bytes(answer['refused_bytes'])} ({text}) though "
            f"{human_bytes(answer['free_bytes'] or 0)} are said to be free; the largest block that it gives is "
            f"{human_bytes(answer['largest_block_bytes'] or 0)}."
        )
    return FAIL, f"CUDA does not work: {where}{'' if code is None else f' ({code})'}: {text}."
