"""A service beside the GPUs and the other services of its host: what it can have, and whether that is enough."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

from ansible.module_utils.ai_idp import engine_memory, model_shape
from ansible.module_utils.ai_idp.engine_memory import Projection, project
from ansible.module_utils.ai_idp.fit_input import Gpu, Service
from ansible.module_utils.ai_idp.model_shape import ModelShape

FITS, DOES_NOT_FIT, UNKNOWN = "fits", "does_not_fit", "unknown"
MAX_CONTEXT_SEARCH = 1 << 24
# What the operating system, Docker and the exporters need before any service: not measured.
DEFAULT_HOST_RESERVE = 1 << 30


@dataclass
class Case:
    """A service with all that is known about it while the decision is made.

    ``gpu`` is the card that is judged; a service that is spread over equal ones takes the same of each of ``gpus``.
    """

    service: Service
    gpus: list[Gpu]
    shape: ModelShape | None
    projection: Projection | None
    # What it takes at least, where the rules of its layers are not known and the projection is the most.
    least: Projection | None = None
    unreadable: str | None = None
    available: int | None = None
    verdict: str = UNKNOWN
    limited_by: str | None = None

    @property
    def gpu(self) -> Gpu | None:
        return min(self.gpus, key=lambda gpu: gpu.usable_bytes or 0, default=None)


class Inputs:
    """Everything the decision is made from."""

    def __init__(
        self,
        services: list[Service],
        gpus: list[Gpu],
        host_memory_bytes: int | None,
        host_reserved_bytes: int,
        overhead: dict[str, int],
        alternatives: list[dict[str, Any]],
        host_bandwidth: int | None,
    ) -> None:
        self.services = services
        self.gpus = {gpu.index: gpu for gpu in gpus}
        self.host_budget = None if not host_memory_bytes else max(0, host_memory_bytes - host_reserved_bytes)
        self.overhead = overhead
        self.alternatives = alternatives
        self.host_bandwidth = host_bandwidth

    def with_services(self, services: list[Service]) -> Inputs:
        """The same host with other services."""
        other = copy.copy(self)
        other.services = list(services)
        return other


def verdict_of(projection: Projection, available: int) -> str:
    if projection.required > available:
        return DOES_NOT_FIT
    return FITS if projection.required + projection.margin <= available else UNKNOWN


def vllm_budget(service: Service, gpu: Gpu) -> int:
    """vLLM's share: the fraction of what CUDA calls the card's total memory."""
    return math.ceil(service.gpu_memory_utilization * (gpu.usable_bytes or 0))


def gpu_demand(case: Case, inputs: Inputs) -> int | None:
    """Bytes of the card that are gone when this service runs; None when that can't be told."""
    if case.service.engine == "vllm" and case.gpu and case.gpu.usable_bytes:
        beside = inputs.overhead["cuda_context"] + inputs.overhead["vllm_beyond_budget"]
        return vllm_budget(case.service, case.gpu) + beside
    # Of what is not known well the least, so that nothing is refused for it; the service's own verdict says the rest.
    projection = case.least or case.projection
    return projection.required if projection else None


def host_demand(case: Case) -> int:
    projection = case.least or case.projection
    if projection is None:
        return 0
    return projection.required if case.service.device == "cpu" else projection.host


def load_shape(service: Service) -> tuple[ModelShape | None, str | None]:
    """The service's model, and why it is not known well enough."""
    if service.engine == "triton":
        return None, None
    try:
        shape = model_shape.load(service.model)
    except model_shape.ShapeError as error:
        return None, str(error)
    # The weights' size alone can say "does not fit", never "fits".
    return shape, "layers, kv_heads and head_dim are not known" if shape and not shape.kv_layers else None


def build_cases(inputs: Inputs) -> list[Case]:
    cases = []
    for service in inputs.services:
        gpus = []
        if service.device == "gpu":
            wanted = service.gpu_indices or (service.gpu_index,)
            gpus = [inputs.gpus[index] for index in wanted if index in inputs.gpus]
        shape, unreadable = load_shape(service)
        case = Case(service, gpus, shape, project(shape, service, inputs.overhead), unreadable=unreadable)
        if shape is not None and shape.least_layers is not None:
            case.least = project(replace(shape, kv_layers=shape.least_layers), service, inputs.overhead)
        cases.append(case)
    return cases


def others_on_gpu(case: Case, cases: list[Case], inputs: Inputs) -> int:
    return sum(
        gpu_demand(other, inputs) or 0
        for other in cases
        if other is not case and any(gpu is case.gpu for gpu in other.gpus)
    )


def others_on_host(case: Case, cases: list[Case]) -> int:
    return sum(host_demand(other) for other in cases if other is not case)


def whole_device(case: Case, inputs: Inputs) -> int | None:
    """What the service could have if it were alone."""
    service = case.service
    if service.device == "cpu":
        budget = inputs.host_budget
        if service.memory_limit_bytes is not None:
            budget = min(service.memory_limit_bytes, budget or service.memory_limit_bytes)
        return budget
    if case.gpu is None or case.gpu.usable_bytes is None:
        return None
    usable = max(0, case.gpu.usable_bytes - case.gpu.taken_bytes)
    return min(usable, vllm_budget(service, case.gpu)) if service.engine == "vllm" else usable


def cpu_cache_too_small(case: Case, service: Service) -> bool:
    """Whether vLLM on the CPU was given less KV cache than one full-length sequence needs."""
    if service.engine != "vllm" or service.device != "cpu" or not service.cpu_kv_cache_bytes or not case.shape:
        return False
    return engine_memory.vllm_sequence_kv(case.shape, service) > service.cpu_kv_cache_bytes


def eight_bit_cache_crashes(case: Case) -> bool:
    """Whether vLLM was given an 8-bit KV cache for a model in float16.

    It ends at the capture of graphs then ("output must have dtype BF16": vLLM 0.30.0 on an H100).
    """
    service = case.service
    if service.engine != "vllm" or service.device != "gpu" or not service.kv_cache_type.startswith("fp8"):
        return False
    dtype = service.dtype if service.dtype != "auto" else case.shape.dtype if case.shape else ""
    return dtype in ("float16", "half")


def judge(case: Case, cases: list[Case], inputs: Inputs) -> None:
    """Fills in the case's available bytes, verdict, what limits it and, when it does not fit, why."""
    service, projection = case.service, case.projection
    if service.device == "gpu" and case.gpu is None:
        case.verdict, case.limited_by, case.available = DOES_NOT_FIT, "no_gpu", 0
        return
    alone = whole_device(case, inputs)
    if alone is None:
        case.limited_by = "memory_not_known"
        host = inputs.host_budget
        if projection is not None and host is not None and projection.weights + projection.host > host:
            # A GPU that does not tell its memory has none of its own, so at most the host's.
            case.verdict, case.limited_by, case.available = DOES_NOT_FIT, "weights", host
        return
    if service.device == "cpu":
        shared = (inputs.host_budget or alone) - others_on_host(case, cases)
        case.available = max(0, min(alone, shared))
    elif service.engine == "vllm":
        # The budget is vLLM's own; whether all budgets fit the card is judged for the card as a whole.
        case.available = alone
    else:
        case.available = max(0, alone - others_on_gpu(case, cases, inputs))
    if projection is None:
        case.limited_by = "model_not_known"
        return
    case.verdict = verdict_of(projection, case.available)
    if case.least is not None and case.verdict == DOES_NOT_FIT and case.least.required <= case.available:
        case.verdict, case.limited_by = UNKNOWN, "layer_kinds"
        return
    if cpu_cache_too_small(case, service):
        case.verdict, case.limited_by = DOES_NOT_FIT, "cpu_kv_cache"
        return
    if eight_bit_cache_crashes(case):
        case.verdict, case.limited_by = DOES_NOT_FIT, "dtype"
        return
    if service.device == "gpu" and projection.host > (service.memory_limit_bytes or projection.host):
        case.verdict, case.limited_by = DOES_NOT_FIT, "memory_limit"
        return
    if case.verdict == FITS and case.unreadable:
        case.verdict = UNKNOWN
    if case.verdict == FITS:
        return
    # Refused is what can't fit at least.
    projection = case.least or projection
    if case.verdict == UNKNOWN:
        case.limited_by = "model_not_known" if case.unreadable else "layer_kinds" if case.least else "margin"
    elif projection.required <= alone:
        case.limited_by = "other_services"
    elif service.device == "cpu" and service.memory_limit_bytes is not None and alone == service.memory_limit_bytes:
        case.limited_by = "memory_limit"
    elif projection.required - projection.cache > alone:
        case.limited_by = "weights"
    else:
        case.limited_by = "kv_cache"


def largest(check: Any, most: int) -> int:
    """The largest n in 0..most for which check(n) holds, check being true up to some n and false after."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if check(middle):
            low = middle
        else:
            high = middle - 1
    return low


def holds(case: Case, service: Service, inputs: Inputs) -> bool:
    projection = project(case.shape, service, inputs.overhead)
    if projection is None or case.available is None:
        return False
    if cpu_cache_too_small(case, service):
        return False
    return projection.required + projection.margin <= case.available


def largest_context(case: Case, service: Service, inputs: Inputs, most: int) -> int:
    """The largest context_length up to ``most`` that fits; 0 when none does."""
    most = min(most, MAX_CONTEXT_SEARCH)
    found = largest(lambda n: n == 0 or holds(case, replace(service, context_length=n), inputs), most)
    # Round down to what people write, where there is room for it.
    return found if found == most or found < 1024 else found // 256 * 256
