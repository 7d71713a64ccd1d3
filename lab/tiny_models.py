"""Writes the lab's models: a tiny Llama with random weights, as a Hugging Face folder and as GGUF.

    python lab/tiny_models.py --out DIR

DIR becomes a hub in the shape of Hugging Face's, ready to be served as static files:

    ORG/NAME/resolve/main/FILE               what GET /ORG/NAME/resolve/main/FILE answers
    api/models/ORG/NAME/tree/main.json       what GET /api/models/ORG/NAME/tree/main answers

The weights are random, so what the model says has no meaning. All else is real: a byte-level BPE tokenizer
trained on the text below, Llama 3's chat template and special tokens, grouped-query attention, and the same
weights in both formats. Every run writes the same bytes, so hashes can be pinned.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

ORG = "ai-idp"
NAME = "tiny-llama"
REVISION = "main"
SEED = 20_26
# Files that the real hub keeps in large-file storage; only for these its listing tells a sha256.
LARGE_FILE_SUFFIXES = (".safetensors", ".gguf")

Floats = npt.NDArray[np.float32]
Tensors = dict[str, Floats]


@dataclass(frozen=True)
class Shape:
    """The sizes of the model, by their names in config.json."""

    vocab_size: int = 1536
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 4096
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
HEADER_START, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
# Space, line feed, tab and carriage return, as byte-level BPE writes them.
BLANKS = "ĠĊĉč"
SPECIAL_TOKENS = (BOS, EOS, HEADER_START, HEADER_END, EOT)

# How Llama 3 cuts text into words before BPE; llama.cpp knows this pattern as "llama-bpe".
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{- message['content'] | trim }}{{- '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{%- endif %}"
)

CORPUS = """
AI-IDP turns three machines into a private AI platform and proves, with numbers, what it delivers. The workstation
carries the graphics card and does the inference; the laptop is the gateway and watches everything; the small board at
the edge answers over a measured link. One inventory says which machine is which, and six weeks of playbooks build the
platform in order. A newcomer clones the project, types one command and watches named steps go by.

The lab runs the whole thing on any Linux machine with no graphics card: real systemd, real SSH, real containers, a
real registry, and a tiny language model with random weights that was made on the spot. Images are built from simple
recipes, tagged by the hash of what they are made of, and pushed under the names that production uses. A second run
builds nothing, changes nothing and says so.

Every service listens where it must and nowhere wider. Secrets are made once, on the controller, kept in a file that
only its owner can read, and never appear in arguments, logs or differences. A key that is wrong gets the answer 401,
and a door that is closed stays closed. The firewall admits what the roles declare and nothing else.

Before anything starts, the platform asks whether it fits: weights, key and value cache, and the fixed overhead of the
driver are added up and compared with the memory that was found. A model of seventy billion parameters is refused on
a card of sixteen gigabytes, with the figures, the smallest quantisation and what would fit instead. Utilisation is
a fraction of total memory; zero point eight leaves room for everything else.

Health is what a running server answers, not what a file claims. Each endpoint is checked by a real request: a chat
completion, a streamed one, an embedding, a scrape of the metrics. A release that does not become healthy is undone;
the last healthy one keeps answering, and the run fails with the last lines of the log.

Every number says where it came from: host, hardware fingerprint, build, model hash, command, count, and an interval of
ninety five percent. What was not measured is written as not measured, with the reason, and never as a default.
Throughput counts tokens per second; latency is the time to the first token and the time between tokens. Decode is
limited by bandwidth, prefill by arithmetic, and the network between two machines by both.

The gateway terminates encryption, balances requests over the servers, limits how often a client may ask and refuses
what is too large. Prometheus scrapes each target, the alert manager groups and sends, dashboards show queue length,
cache usage, temperature, power, clock and memory. An alert that was never tested is only a hope, so every alert is
fired once on purpose.

Experiments are tracked, workflows are imported without a click, and a commit becomes a tagged note in the knowledge
vault. Backups are restored before they are trusted. Updates replace one thing at a time, remember the version that
worked, and go back to it by themselves when the new one does not answer within its limit.

How do I add another server? Add the host to its group; the gateway, the scrape targets and the remote workers follow.
Where are the logs? In the journal of each host, rotated and bounded. What happens when a disk is full? The download is
refused before it begins, with the space that is needed and the space that is free. Who may call the model? Whoever
holds the key. Why is the answer nonsense? Because the weights are random: the lab proves the path, not the wisdom.

Please summarise this report in three short sentences. Translate the following paragraph into English. Write a function
that returns the median of a list of numbers and explain each step. Hello! I am a small model; how can I help you today?
Yes, certainly. No, that is not possible because the requested quantity exceeds the available capacity. Thank you, and
good luck. {"status": "ok", "name": "value", "count": 12, "items": [1, 2, 3], "enabled": true, "error": null}
system user assistant tool question answer context document language kernel thread process socket buffer packet bridge
north south morning evening river mountain garden window yellow purple silver winter summer bread coffee orange
Monday Tuesday Wednesday Thursday Friday January February March April August September October November December
"""


def train_tokenizer(shape: Shape) -> Tokenizer:
    """Trains a byte-level BPE tokenizer on the corpus and fills it up to the vocabulary's size.

    What the corpus does not fill is reserved special tokens, as in Llama 3's own vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocab_size - len(SPECIAL_TOKENS),
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    # The corpus is wrapped by hand: a line break inside a paragraph is no part of its text.
    paragraphs = [" ".join(part.split("\n")).strip() for part in CORPUS.strip().split("\n\n")]
    tokenizer.train_from_iterator([f"{text}\n\n" for text in paragraphs], trainer)
    reserved = shape.vocab_size - tokenizer.get_vocab_size() - len(SPECIAL_TOKENS)
    tokens = [*SPECIAL_TOKENS, *(f"<|reserved_special_token_{number}|>" for number in range(reserved))]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
            ),
        ]
    )
    return tokenizer


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Returns the tokens in the order of their ids."""
    by_id = {number: token for token, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    return [by_id[number] for number in range(len(by_id))]


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Returns the id of a token that must be there."""
    number: int | None = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"the tokenizer has no token {token!r}: the corpus has changed too much")
    return number


def special_ids(tokenizer: Tokenizer) -> set[int]:
    """Returns the ids of the control tokens, the reserved ones among them."""
    return {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}


def make_weights(shape: Shape, tokenizer: Tokenizer) -> Tensors:
    """Draws the weights, by their Hugging Face names.

    Values lie on a grid of 1/1024 within ±0.249, which bfloat16 and float16 both hold exactly: the two files carry
    the same numbers. Column 0 of the embedding is the same for each token and no layer writes to it, so column 0 of
    the output matrix works as a bias per token. It keeps control tokens, bare bytes and blanks out of the answers:
    they would be invisible or broken characters, and blanks would fill a JSON answer up without end. It also makes
    an answer end by itself after some dozen tokens; the rest of the end token's row keeps it from coming first,
    right after the two line breaks of the header.
    """
    random = np.random.Generator(np.random.PCG64(SEED))

    def draw(rows: int, columns: int, spread: float) -> Floats:
        values = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(spread)
        return np.clip(np.round(values * 1024), -255, 255).astype(np.float32) / np.float32(1024)

    hidden, inner = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    tensors: Tensors = {"model.embed_tokens.weight": draw(shape.vocab_size, hidden, 0.06)}
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        tensors |= {
            f"{prefix}self_attn.q_proj.weight": draw(queries, hidden, 0.09),
            f"{prefix}self_attn.k_proj.weight": draw(keys, hidden, 0.09),
            f"{prefix}self_attn.v_proj.weight": draw(keys, hidden, 0.06),
            f"{prefix}self_attn.o_proj.weight": draw(hidden, queries, 0.02),
            f"{prefix}mlp.gate_proj.weight": draw(inner, hidden, 0.06),
            f"{prefix}mlp.up_proj.weight": draw(inner, hidden, 0.06),
            f"{prefix}mlp.down_proj.weight": draw(hidden, inner, 0.01),
            f"{prefix}input_layernorm.weight": np.ones(hidden, dtype=np.float32),
            f"{prefix}post_attention_layernorm.weight": np.ones(hidden, dtype=np.float32),
        }
        tensors[f"{prefix}self_attn.o_proj.weight"][0, :] = 0
        tensors[f"{prefix}mlp.down_proj.weight"][0, :] = 0
    tensors["model.norm.weight"] = np.ones(hidden, dtype=np.float32)
    output = draw(shape.vocab_size, hidden, 0.1)
    tensors["model.embed_tokens.weight"][:, 0] = 0.5
    output[:, 0] = 0
    special = special_ids(tokenizer)
    for number, token in enumerate(vocabulary(tokenizer)):
        if number in special or not token.strip(BLANKS):
            output[number, 0] = -6.0
        elif len(token) == 1:
            output[number, 0] = -2.0
    end, answer_start = token_id(tokenizer, EOT), token_id(tokenizer, "ĊĊ")
    output[end, :] = -tensors["model.embed_tokens.weight"][answer_start, :]
    output[end, 0] = 4.0
    tensors["lm_head.weight"] = output
    return tensors


def to_bfloat16(values: Floats) -> bytes:
    """Returns the upper halves of the floats; exact, because the values are on bfloat16's grid."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    if np.any(bits & 0xFFFF):
        raise ValueError("a weight is not a bfloat16 number: the two model files would differ")
    return (bits >> 16).astype("<u2").tobytes()


def write_json(path: Path, value: object) -> None:
    """Writes JSON as the hub's files have it: indented, with a line break at the end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_hugging_face(folder: Path, shape: Shape, tokenizer: Tokenizer, tensors: Tensors) -> None:
    """Writes the model as Transformers and vLLM read it."""
    bos, eos, eot = (token_id(tokenizer, token) for token in (BOS, EOS, EOT))
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": bos,
            "eos_token_id": [eos, eot],
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "hidden_size": shape.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": shape.intermediate_size,
            "max_position_embeddings": shape.max_position_embeddings,
            "mlp_bias": False,
            "num_attention_heads": shape.num_attention_heads,
            "num_hidden_layers": shape.num_hidden_layers,
            "num_key_value_heads": shape.num_key_value_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": shape.rms_norm_eps,
            "rope_scaling": None,
            "rope_theta": shape.rope_theta,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": shape.vocab_size,
        },
    )
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": bos, "eos_token_id": [eos, eot], "do_sample": True, "temperature": 0.8, "top_p": 0.95},
    )
    special = {"bos_token": BOS, "eos_token": EOT}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": shape.max_position_embeddings,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_safetensors(folder / "model.safetensors", tensors)


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Writes the safetensors format: the header's length, the header as JSON, the tensors one after another.

    By hand, because the package's numpy side has no bfloat16.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, values in tensors.items():
        end = position + 2 * values.size
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(to_bfloat16(values))


def interleave_heads(values: Floats, heads: int) -> Floats:
    """Reorders a query or key matrix from Hugging Face's half-and-half rotary layout to llama.cpp's pairs."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path: Path, shape: Shape, tokenizer: Tokenizer, tensors: Tensors) -> None:
    """Writes the model as llama.cpp reads it: matrices as float16, norms as float32."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny Llama")
    writer.add_description("Random weights, for tests: its answers have no meaning")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)

    special = special_ids(tokenizer)
    tokens = vocabulary(tokenizer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for number in range(len(tokens))]
    )
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(token_id(tokenizer, BOS))
    writer.add_eos_token_id(token_id(tokenizer, EOT))
    writer.add_eot_token_id(token_id(tokenizer, EOT))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape.num_hidden_layers)
    for name, values in tensors.items():
        heads = {"q_proj": shape.num_attention_heads, "k_proj": shape.num_key_value_heads}.get(name.split(".")[-2])
        matrix = interleave_heads(values, heads) if heads else values
        known_as = names.get_name(name, try_suffixes=(".weight",))
        if known_as is None:
            raise ValueError(f"llama.cpp has no name for the tensor {name}")
        writer.add_tensor(known_as, matrix.astype(np.float16 if matrix.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tree_entry(path: Path) -> dict[str, object]:
    """Describes one file as the hub's `tree` answer does: git's own hash for each, sha256 for large files."""
    data = path.read_bytes()
    blob = data
    entry: dict[str, object] = {"type": "file", "path": path.name, "size": len(data)}
    if path.suffix in LARGE_FILE_SUFFIXES:
        digest = hashlib.sha256(data).hexdigest()
        blob = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n".encode()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": len(blob)}
    # git names its objects by SHA-1; nothing here relies on it for security.
    entry["oid"] = hashlib.sha1(b"blob %d\0" % len(blob) + blob, usedforsecurity=False).hexdigest()
    return entry


def write_hub(out: Path) -> list[Path]:
    """Writes both models and their listings below `out`, and returns the model files."""
    shape = Shape()
    tokenizer = train_tokenizer(shape)
    tensors = make_weights(shape, tokenizer)
    written: list[Path] = []
    for name in (NAME, f"{NAME}-GGUF"):
        folder = out / ORG / name / "resolve" / REVISION
        folder.mkdir(parents=True)
        if name == NAME:
            write_hugging_face(folder, shape, tokenizer, tensors)
        else:
            write_gguf(folder / f"{NAME}-f16.gguf", shape, tokenizer, tensors)
        files = sorted(folder.iterdir())
        listing = out / "api" / "models" / ORG / name / "tree" / f"{REVISION}.json"
        listing.parent.mkdir(parents=True)
        write_json(listing, [tree_entry(path) for path in files])
        written += files
    return written


def replace_folder(out: Path, fresh: Path) -> None:
    """Puts the finished folder in its place; a folder that is no hub of ours is left alone."""
    if out.is_dir():
        if any(out.iterdir()) and not (out / "api" / "models" / ORG).is_dir():
            raise FileExistsError(f"{out} holds something else: give --out a new or an empty folder")
        shutil.rmtree(out)
    fresh.chmod(0o755)
    fresh.rename(out)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Writes the lab's tiny models as a folder that a hub can serve.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the hub's folder; made or replaced")
    out: Path = parser.parse_args(arguments).out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    # A hub appears whole or not at all, also when this is interrupted.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        fresh = Path(scratch) / "hub"
        fresh.mkdir()
        written = write_hub(fresh)
        lines = [
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.stat().st_size:>9}  {path.relative_to(fresh)}"
            for path in written
        ]
        try:
            replace_folder(out, fresh)
        except FileExistsError as error:
            print(f"tiny_models: {error}", file=sys.stderr)
            return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
