"""tools/gpu_proof.py, as far as it can be tested without a GPU: comparisons, blanking, the GGUF writer, the table.

Both parts are also run whole against constructed programs; what they find on a real GPU is for a real GPU to say.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import gpu_proof
import pytest
import random_gguf
from ansible.module_utils.ai_idp import gguf_header, gpu_info
from ansible.module_utils.ai_idp.gpu_info import Answer, Probe
from random_gguf import Shape

ROOT = Path(__file__).parent.parent.parent
H100 = ROOT / "tests" / "golden" / "h100" / "nvidia-smi-q-x.xml"
UUID = "GPU-00000000-0000-0000-0000-000000000000"
TINY = Shape("tiny", 2, 256, 512, 4, 2, 64, tied=True, vocabulary=1024)
# Constructed from the captured document, in the order of gpu_proof's query.
CSV = (
    f"NVIDIA H100 80GB HBM3, {UUID}, 00000000:00:06.0, 580.159.04, 96.00.DA.00.0C, 9.0, 81559, 480, 0, 81079, "
    "700.00, 700.00, 71.20, 39, 1980, 2619, 5, 16, 16, Enabled, Disabled, Enabled\n"
)


def h100() -> list[dict[str, Any]]:
    probe = Probe(smi=Answer(0, H100.read_text()), compute_capabilities=Answer(0, f"{UUID}, 9.0\n"))
    return gpu_info.describe(probe)["gpus"]


def test_csv_and_gpu_info_agree_on_the_captured_card() -> None:
    assert gpu_proof.compare_csv(CSV, h100()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("81559", "81920", "memory.total"),
        ("580.159.04", "590.1", "driver_version"),
        ("Enabled, Disabled", "[N/A], Disabled", "ecc.mode.current: nvidia-smi says None, gpu_info True"),
        ("71.20", "400.0", "power.draw"),
        (CSV, "", "nvidia-smi lists 0 GPUs, gpu_info 1"),
    ],
)
def test_what_does_not_agree_is_named(old: str, new: str, words: str) -> None:
    problems = gpu_proof.compare_csv(CSV.replace(old, new), h100())
    assert len(problems) == 1
    assert words in problems[0]


def test_captures_tell_no_card_from_another() -> None:
    one, two = "GPU-1b724e78-eef5-4163-d43c-e4da15d41176", "GPU-466be1f8-6148-1a27-a450-592604f3df54"
    text = gpu_proof.blank(
        f"<uuid>{one}</uuid><uuid>{two}</uuid>{one}<serial>165AB2</serial><pdi>0x6e00</pdi>"
        "<host_id>N/A</host_id><vbios_version>96.00</vbios_version>"
    )
    zero = "GPU-00000000-0000-0000-0000-00000000000"
    assert text == (
        f"<uuid>{zero}0</uuid><uuid>{zero}1</uuid>{zero}0<serial>000000</serial><pdi>000000</pdi>"
        "<host_id>N/A</host_id><vbios_version>96.00</vbios_version>"
    )
    assert "0x" not in gpu_proof.blank("<pdi>0x6e009e874acdafdb</pdi>")


def test_the_writer_s_files_are_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    random_gguf.write_gguf(path, TINY)
    ours = gguf_header.read_file(str(path))
    theirs = gguf.GGUFReader(path)
    assert ours.complete
    assert ours.value("block_count") == 2
    assert {tensor.name: tensor.bytes for tensor in ours.tensors} == {
        tensor.name: int(tensor.n_bytes) for tensor in theirs.tensors
    }
    weights = next(tensor.data for tensor in theirs.tensors if tensor.name == "blk.0.attn_q.weight")
    assert weights.dtype == "float16"
    assert float(abs(weights).max()) <= 1 / 16
    assert float(abs(weights).min()) >= 1 / 32
    assert len(set(weights.ravel()[:1000].tolist())) > 500
    norm = next(tensor.data for tensor in theirs.tensors if tensor.name == "output_norm.weight")
    assert set(norm.tolist()) == {1.0}


def test_real_shapes_have_the_parameters_of_the_real_models() -> None:
    """Meta's numbers: 1.24, 3.21 and 8.03 billion."""
    for shape, billions in zip(gpu_proof.SHAPES, (1.24, 3.21, 8.03), strict=True):
        count = sum(size[0] * (size[1] if len(size) > 1 else 1) for _, size in random_gguf.tensors(shape))
        assert round(count / 1e9, 2) == billions


def test_the_peer_s_line_is_read() -> None:
    """Layout as llama-fit-params of build 11347 prints it."""
    assert gpu_proof.peer_mib("CUDA0 762 128 68\nHost 205 0 20 \n") == 958
    assert gpu_proof.peer_mib("CUDA0 700 10 5 \nCUDA1 300 10 5 \nHost 1 1 1\n") == 1030
    assert gpu_proof.peer_mib("Host 0 4 8 \n") is None


def test_there_are_seventy_two_cases_and_those_held_out() -> None:
    found = list(gpu_proof.cases([shape.name for shape in gpu_proof.SHAPES]))
    assert len(found) == len(set(found)) == 72
    assert len(list(gpu_proof.cases([gpu_proof.HELD_OUT.name]))) == 12


def test_the_table_shows_both_errors() -> None:
    case = {"model": "m", "quantization": "Q8_0", "context": 32768, "sequences": 4, "kv": "f16"}
    good = gpu_proof.row_of({**case, "measured_mib": 1000.0, "model_fit_mib": 1149.0, "llama_fit_params_mib": 600.0})
    bad = gpu_proof.row_of({**case, "measured_mib": 10000.0, "model_fit_mib": 9600.0, "llama_fit_params_mib": None})
    assert (good["within"], bad["within"], bad["allowed_mib"]) == (True, False, 300.0)
    table = gpu_proof.markdown([good, bad], "a GPU")
    assert "1 of 2 cases are within" in table
    assert "| 1,149 | +149 (+14.9 %) | 600 | -400 (-40.0 %) | yes |" in table
    assert "| 9,600 | -400 (-4.0 %) | - | - | no |" in table


def program(path: Path, body: str) -> None:
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)


SMI = f"""
import sys
arguments = " ".join(sys.argv[1:])
if "-q -x" in arguments: print(open({str(H100)!r}).read())
elif "compute_cap --format" in arguments: print("{UUID}, 9.0")
elif "name,uuid" in arguments: print({CSV!r}, end="")
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to build the constructed NVML with")
def test_the_first_part_runs_whole_on_a_constructed_machine(tmp_path: Path) -> None:
    library = tmp_path / "libnvidia-ml.so.1"
    source = Path(__file__).parent / "fake_nvml.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    program(tmp_path / "nvidia-smi", SMI)
    out = tmp_path / "proof"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "gpu_proof.py", "--out", out],
        env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    # This machine has neither a bus with a card nor a readable log, which gpu_check says; the backends agree.
    said = [line for line in done.stdout.splitlines() if not line.startswith("gpu_check:")]
    assert said in ([], ["Everything agrees."]), done.stdout + done.stderr
    captures = {path.name for path in (out / "captures").iterdir()}
    assert {"nvml.json", "nvidia-smi-q-x.xml", "golden-nvml.json", "golden-nvidia-smi.json"} <= captures
    by_nvml = json.loads((out / "captures" / "golden-nvml.json").read_text())
    assert by_nvml["gpus"][0]["fingerprint"] == h100()[0]["fingerprint"]


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "gpu_proof.py", "--out", tmp_path],
        env={"PATH": "/bin"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "needs a machine with an NVIDIA GPU" in done.stderr


SERVER = """
import http.server, sys
if "--version" in sys.argv: print("version: 11434 (constructed)"); sys.exit()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    do_POST = do_GET
    def log_message(self, *arguments): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answer).serve_forever()
"""


def test_the_second_part_runs_whole_and_goes_on_where_it_stopped(tmp_path: Path, monkeypatch) -> None:
    llama = tmp_path / "llama"
    llama.mkdir()
    program(llama / "llama-server", SERVER)
    program(llama / "llama-quantize", "import shutil, sys\nshutil.copy(sys.argv[1], sys.argv[2])\n")
    program(llama / "llama-fit-params", 'print("CUDA0 2 8 40")\nprint("Host 0 0 1")\n')
    program(tmp_path / "nvidia-smi", 'print("constructed GPU, 580.0")\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpu_proof, "SHAPES", (TINY,))
    monkeypatch.setattr(gpu_proof, "CONTEXTS", (4096,))
    monkeypatch.setattr(gpu_proof, "QUANTIZATIONS", ("Q8_0",))
    monkeypatch.setattr(gpu_proof, "KV_TYPES", ("f16",))
    readings = iter([0.0, 600.0, 640.0, 640.0] * 2)
    monkeypatch.setattr(gpu_proof, "used_mib", lambda: (next(readings), 16 << 30))
    stopped = gpu_proof.prove_memory(tmp_path / "out", llama, tmp_path / "work", ["tiny"], minutes=0)
    assert "run the same command again" in stopped[0]
    done = gpu_proof.prove_memory(tmp_path / "out", llama, tmp_path / "work", ["tiny"], minutes=5)
    assert done == []
    rows = json.loads((tmp_path / "out" / "memory.json").read_text())["cases"]
    assert [(row["sequences"], row["measured_mib"], row["llama_fit_params_mib"]) for row in rows] == [
        (1, 640.0, 50.0),
        (4, 640.0, 50.0),
    ]
    assert abs(rows[0]["error_mib"]) < 150
    assert "2 of 2 cases are within" in (tmp_path / "out" / "memory.md").read_text()
    again = gpu_proof.prove_memory(tmp_path / "out", llama, tmp_path / "work", ["tiny"], minutes=5)
    assert again == []
    assert not (tmp_path / "work" / "tiny-f16.gguf").exists()
