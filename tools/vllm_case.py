"""One start of vLLM, and what it found: run by ``gpu_proof.py`` with the Python that has vLLM.

    python vllm_case.py '{"model": "FOLDER", "max_model_len": 8192, ...}'

Prints one line that begins with RESULT and holds, in bytes and from the engine's own objects, what was asked for and
what was left for the KV cache, and whether the start went through. The weights are random (``load_format`` dummy).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    """Starts the engine in this process, looks at its worker, and says what it saw."""
    arguments = json.loads(sys.argv[1])
    found: dict[str, object] = {"verdict": "starts", "error": None}
    # Not at the top: what they read of the environment is set above, and other Pythons have neither.
    torch, vllm = importlib.import_module("torch"), importlib.import_module("vllm")
    gpu_worker = importlib.import_module("vllm.v1.worker.gpu_worker")
    asked = gpu_worker.Worker.determine_available_memory

    def determine(self: Any) -> int:
        found["requested_memory"] = int(self.requested_memory)
        found["weights_memory"] = int(self.model_runner.model_memory_usage)
        found["total_memory"] = int(self.init_snapshot.total_memory)
        left = asked(self)
        found["available_kv"] = int(self.available_kv_cache_memory_bytes)
        found["cudagraph_estimate"] = int(self.cudagraph_memory_estimate)
        return int(left)

    gpu_worker.Worker.determine_available_memory = determine
    try:
        vllm.LLM(load_format="dummy", skip_tokenizer_init=True, **arguments)
    except BaseException as error:
        # A refusal comes as ValueError, a lack of memory as another.
        found["verdict"], found["error"] = "refused", f"{type(error).__name__}: {error}"[:500]
    found["vllm"], found["torch"] = vllm.__version__, torch.__version__
    print("RESULT " + json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
