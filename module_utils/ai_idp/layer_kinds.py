"""What one layer of a model keeps in memory for a sequence, and how a GGUF header says it for llama.cpp.

The table ``GGUF_ARCHITECTURES`` has a row for each architecture whose rule was read in llama.cpp's source (build
11434): ``llama_model::create_memory`` in src/llama-model.cpp chooses the kind of cache, ``load_arch_hparams`` of the
file named in the row chooses the layers. A new family is a new row. What has no row gets a lower and an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ansible.module_utils.ai_idp.sample_statistics import is_finite

MAX_LAYERS = 4096


class ShapeError(ValueError):
    """The model's size can't be told, with a sentence that says why."""


@dataclass(frozen=True)
class KvLayer:
    """What one layer holds: elements of K and V for each token, and a state of fixed size for each sequence.

    ``window`` is the number of tokens that a layer keeps (None: all of them); ``chunked`` says that they are those of
    the running chunk, which needs no further block in vLLM. ``kv_heads`` are the heads that tensor parallelism shares
    out, 0 where every card holds all. ``bytes_per_token`` does not depend on the type of the KV cache (an indexer's
    8-bit keys), ``state_bytes`` not on the length (a recurrent state with its convolution).
    """

    k_elements: int
    v_elements: int
    window: int | None = None
    chunked: bool = False
    kv_heads: int = field(default=0, compare=False)
    bytes_per_token: int = 0
    state_bytes: int = 0

    @property
    def elements(self) -> int:
        return self.k_elements + self.v_elements


@dataclass(frozen=True)
class Layers:
    """The layers of a model, and where they are not known the fewest that they may hold and the reason."""

    most: tuple[KvLayer, ...]
    least: tuple[KvLayer, ...] | None = None
    reason: str = ""


def count(value: Any, what: str, least: int = 1, most: int = 1 << 50) -> int:
    """A whole number within bounds out of somebody else's file."""
    if not is_finite(value) or value != int(value):
        raise ShapeError(f"{what} is {value!r:.60}, not a whole number")
    if not least <= value <= most:
        raise ShapeError(f"{what} is {value}, not between {least} and {most}")
    return int(value)


def per_layer(value: Any, layers: int, what: str) -> list[int]:
    """A value for each layer: one for all of them, or a list."""
    if isinstance(value, list):
        if len(value) < layers:
            raise ShapeError(f"{what} is given for {len(value)} of {layers} layers")
        return [count(int(item) if isinstance(item, bool) else item, what, least=0) for item in value[:layers]]
    return [count(value, what, least=0)] * layers


def bounded(layers: Layers, reason: str) -> Layers:
    """The same layers as an upper bound: what they hold at least is not known."""
    return replace(layers, least=tuple(KvLayer(0, 0) for _ in layers.most), reason=reason)


@dataclass(frozen=True)
class GgufRule:
    """How llama.cpp lays out the memory of one architecture.

    ``window``: ``key`` (the header has to name it), ``if_key`` (no window without the key) or a number of tokens that
    holds where the header names none; ``fixed_window`` overrides what the header says. ``period`` n: every n-th layer
    is full, the last of n unless ``dense_first``; the header's sliding_window_pattern goes before it; 0: the pattern
    has to stand in the header. ``recurrent`` layers are told by ``kv_heads`` (none of them), ``interval`` (every n-th
    is attention), ``no_heads_no_feed_forward``, or are ``all``, or ``beside`` attention in each layer. ``state`` says
    which recurrent state. ``mla``: with key_length_mla K alone is stored. ``indexer``: ``k`` or ``kv`` for each token.
    """

    source: str
    window: str | int = ""
    fixed_window: int = 0
    period: int = 0
    dense_first: bool = False
    recurrent: str = ""
    state: str = ""
    mla: bool = False
    indexer: str = ""
    kv_from_start: int = 0
    only_with_layers: int = 0
    no_cache: bool = False


def _plain(file: str) -> GgufRule:
    return GgufRule(f"models/{file}.cpp")


GGUF_ARCHITECTURES: dict[str, GgufRule] = {
    # Plain attention: K and V of every layer for every token (llama_kv_cache).
    "apertus": _plain("apertus"),
    "arcee": _plain("arcee"),
    "arctic": _plain("arctic"),
    "baichuan": _plain("baichuan"),
    "bailingmoe": _plain("bailingmoe"),
    "bailingmoe2": _plain("bailingmoe2"),
    "bitnet": _plain("bitnet"),
    "bloom": _plain("bloom"),
    "chameleon": _plain("chameleon"),
    "chatglm": _plain("chatglm"),
    "codeshell": _plain("codeshell"),
    "command-r": _plain("command-r"),
    "dbrx": _plain("dbrx"),
    "deci": _plain("deci"),
    "deepseek": _plain("deepseek"),
    "deepseek2-ocr": _plain("deepseek2ocr"),
    "dots1": _plain("dots1"),
    "ernie4_5": _plain("ernie4-5"),
    "ernie4_5-moe": _plain("ernie4-5-moe"),
    "exaone": _plain("exaone"),
    "falcon": _plain("falcon"),
    "gemma": _plain("gemma"),
    "glm4": _plain("glm4"),
    "glm4moe": _plain("glm4-moe"),
    "gpt2": _plain("gpt2"),
    "gptneox": _plain("gptneox"),
    "granite": _plain("granite"),
    "granitemoe": _plain("granite-moe"),
    "grok": _plain("grok"),
    "grovemoe": _plain("grovemoe"),
    "hunyuan-dense": _plain("hunyuan-dense"),
    "hunyuan-moe": _plain("hunyuan-moe"),
    "hunyuan_vl": _plain("hunyuan-vl"),
    "internlm2": _plain("internlm2"),
    "jais": _plain("jais"),
    "jais2": _plain("jais2"),
    "llama": _plain("llama"),
    "llama-embed": _plain("llama-embed"),
    "maincoder": _plain("maincoder"),
    "minicpm": _plain("minicpm"),
    "minicpm3": _plain("minicpm3"),
    "minimax-m2": _plain("minimax-m2"),
    "mistral3": _plain("mistral3"),
    "mpt": _plain("mpt"),
    "nemotron": _plain("nemotron"),
    "olmo": _plain("olmo"),
    "olmoe": _plain("olmoe"),
    "openelm": _plain("openelm"),
    "orion": _plain("orion"),
    "paddleocr": _plain("paddleocr"),
    "pangu-embedded": _plain("pangu-embed"),
    "phi2": _plain("phi2"),
    # llama.cpp does not use the sliding window of Phi-3 (load_arch_hparams says so in its log).
    "phi3": _plain("phi3"),
    "phimoe": _plain("phimoe"),
    "plamo": _plain("plamo"),
    "plm": _plain("plm"),
    "qwen": _plain("qwen"),
    "qwen2": _plain("qwen2"),
    "qwen2moe": _plain("qwen2moe"),
    "qwen2vl": _plain("qwen2vl"),
    "qwen3": _plain("qwen3"),
    "qwen3moe": _plain("qwen3moe"),
    "qwen3vl": _plain("qwen3vl"),
    "qwen3vlmoe": _plain("qwen3vlmoe"),
    "refact": _plain("refact"),
    "seed_oss": _plain("seed-oss"),
    "smollm3": _plain("smollm3"),
    "stablelm": _plain("stablelm"),
    "starcoder": _plain("starcoder"),
    "starcoder2": _plain("starcoder2"),
    "xverse": _plain("xverse"),
    # Multi-head latent attention: V is a view of K (has_v = !is_mla in llama_kv_cache).
    "deepseek2": GgufRule("models/deepseek2.cpp", mla=True),
    "mistral4": GgufRule("models/mistral4.cpp", mla=True),
    # Beside it the keys of the lightning indexer, one head (llama_kv_cache_dsa).
    "deepseek32": GgufRule("models/deepseek32.cpp", mla=True, indexer="k"),
    # Sparse attention whose indexer stores one key head and, as no MLA, one value head (llama_kv_cache_msa).
    "minimax-m3": GgufRule("models/minimax-m3.cpp", indexer="kv"),
    # Sliding windows (llama_kv_cache_iswa).
    "afmoe": GgufRule("models/afmoe.cpp", window="if_key", period=4),
    "cohere2": GgufRule("models/cohere2.cpp", window="key", period=4),
    "cohere2moe": GgufRule("models/cohere2moe.cpp", window="key", period=4, dense_first=True),
    "exaone4": GgufRule("models/exaone4.cpp", window=4096, period=4, only_with_layers=64),
    "exaone-moe": GgufRule("models/exaone-moe.cpp", window="key", period=4),
    "gemma2": GgufRule("models/gemma2.cpp", window=4096, period=2),
    "gemma3": GgufRule("models/gemma3.cpp", window="if_key", period=6),
    # Of the 30 or 35 layers those from the 20th on read the cache of earlier ones (n_layer_kv_from_start).
    "gemma3n": GgufRule("models/gemma3n.cpp", window="key", period=5, kv_from_start=20),
    # The last shared_kv_layers read the cache of earlier ones.
    "gemma4": GgufRule("models/gemma4.cpp", window="key"),
    "gpt-oss": GgufRule("models/openai-moe.cpp", window="key", period=2),
    "granite_swa": GgufRule("models/granite-swa.cpp", window="key"),
    "laguna": GgufRule("models/laguna.cpp", window="if_key", period=4, dense_first=True),
    # Chunks of 8,192 tokens whatever the header says, unless it says 0.
    "llama4": GgufRule("models/llama4.cpp", fixed_window=8192, period=4),
    "maple": GgufRule("models/maple.cpp", window="key"),
    "mellum": GgufRule("models/mellum.cpp", window="if_key", period=4),
    "mimo2": GgufRule("models/mimo2.cpp", window="key"),
    "muse-glimmer": GgufRule("models/muse-glimmer.cpp", window="key", period=4),
    "olmo2": GgufRule("models/olmo2.cpp", window="if_key", period=4),
    "plamo3": GgufRule("models/plamo3.cpp", window="if_key", period=8),
    "smallthinker": GgufRule(
        "models/smallthinker.cpp", window="if_key", fixed_window=4096, period=4, dense_first=True
    ),
    "spark2_5": GgufRule("models/spark2-5.cpp", window="key"),
    "step35": GgufRule("models/step35.cpp", window="key"),
    # Recurrent states, in part beside attention (llama_memory_hybrid, llama_memory_recurrent).
    "falcon-h1": GgufRule("models/falcon-h1.cpp", recurrent="beside", state="ssm"),
    "granitehybrid": GgufRule("models/granite-hybrid.cpp", recurrent="kv_heads", state="ssm"),
    "jamba": GgufRule("models/jamba.cpp", recurrent="kv_heads", state="ssm"),
    "kimi-linear": GgufRule("models/kimi-linear.cpp", recurrent="kv_heads", state="kda", mla=True),
    "lfm2": GgufRule("models/lfm2.cpp", window="if_key", recurrent="kv_heads", state="shortconv"),
    "lfm2moe": GgufRule("models/lfm2moe.cpp", recurrent="kv_heads", state="shortconv"),
    "mamba": GgufRule("models/mamba.cpp", recurrent="all", state="ssm"),
    "mamba2": GgufRule("models/mamba2.cpp", recurrent="all", state="ssm"),
    "minimax-01": GgufRule("models/minimax-01.cpp", recurrent="interval", state="la"),
    "nemotron_h": GgufRule("models/nemotron-h.cpp", recurrent="no_heads_no_feed_forward", state="ssm"),
    "nemotron_h_moe": GgufRule("models/nemotron-h-moe.cpp", recurrent="no_heads_no_feed_forward", state="ssm"),
    "plamo2": GgufRule("models/plamo2.cpp", recurrent="kv_heads", state="ssm"),
    "qwen3next": GgufRule("models/qwen3next.cpp", recurrent="interval", state="ssm"),
    "qwen35": GgufRule("models/qwen35.cpp", recurrent="interval", state="ssm"),
    "qwen35moe": GgufRule("models/qwen35moe.cpp", recurrent="interval", state="ssm"),
    "rwkv6": GgufRule("models/rwkv6.cpp", recurrent="all", state="rwkv"),
    "rwkv6qwen2": GgufRule("models/rwkv6qwen2.cpp", recurrent="all", state="rwkv"),
    "rwkv7": GgufRule("models/rwkv7.cpp", recurrent="all", state="rwkv"),
    "arwkv7": GgufRule("models/arwkv7.cpp", recurrent="all", state="rwkv"),
    # No cache at all: encoders and diffusion models (create_memory returns nothing).
    **{
        name: GgufRule("llama-model.cpp", no_cache=True)
        for name in (
            "bert", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llada", "llada-moe",
            "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1",
        )
    },
}  # fmt: skip


class _Header:
    """Reads ``{architecture}.{key}`` of a header as numbers within bounds."""

    def __init__(self, value: Any) -> None:
        self.raw = value

    def number(self, key: str, default: int = 0) -> int:
        found = self.raw(key)
        if isinstance(found, list):
            found = found[0] if found else None
        return default if found is None else count(found, key, least=0, most=1 << 32)

    def has(self, key: str) -> bool:
        return self.raw(key) is not None


def _state_elements(header: _Header, kind: str, heads: int, k_length: int, hidden: int) -> int:
    """Elements of one layer's recurrent state and convolution, 32 bit (llama_hparams::n_embd_r and n_embd_s)."""
    if kind == "rwkv":
        return hidden * (header.number("token_shift_count", 2) + header.number("wkv.head_size"))
    if kind == "shortconv":
        return hidden * max(header.number("shortconv.l_cache") - 1, 0)
    kernel = header.number("ssm.conv_kernel")
    if kind == "kda":
        width = header.number("kda.head_dim")
        return heads * width * (3 * (kernel - 1 if kernel else 3) + width)
    if kind == "la":
        return heads * k_length * k_length
    inner, state, groups = (header.number(f"ssm.{key}") for key in ("inner_size", "state_size", "group_count"))
    return max(kernel - 1, 0) * (inner + 2 * groups * state) + inner * state


def _sliding(header: _Header, rule: GgufRule, layers: int) -> tuple[int, list[bool]] | None:
    """The window and which layers have it; None where all attention is full."""
    key = "attention.sliding_window"
    if not (rule.window or rule.fixed_window) or (rule.only_with_layers and layers != rule.only_with_layers):
        return None
    if rule.window == "key" and not header.has(key):
        raise ShapeError(f"the header has no {key}, without which llama.cpp does not load this architecture")
    told = header.number(key, rule.window if isinstance(rule.window, int) else 0)
    if not told and (header.has(key) or not rule.fixed_window or rule.window == "if_key"):
        return None
    window = rule.fixed_window or told
    pattern = header.raw("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        return window, [bool(item) for item in per_layer(pattern, layers, "sliding_window_pattern")]
    if pattern is None and not rule.period:
        if rule.recurrent:
            return window, [True] * layers
        raise ShapeError("the header has no list attention.sliding_window_pattern, which this architecture needs")
    period = rule.period if pattern is None else count(pattern, "sliding_window_pattern", least=0, most=MAX_LAYERS)
    if not period:
        return window, [True] * layers
    full = 0 if rule.dense_first else period - 1
    return window, [index % period != full for index in range(layers)]


def _recurrent(header: _Header, rule: GgufRule, layers: int, kv_heads: list[int]) -> list[bool]:
    """Which layers hold a recurrent state."""
    if rule.recurrent in ("all", "beside"):
        return [True] * layers
    if rule.recurrent == "kv_heads":
        return [heads == 0 for heads in kv_heads]
    if rule.recurrent == "no_heads_no_feed_forward":
        widths = per_layer(header.raw("feed_forward_length") or 0, layers, "feed_forward_length")
        return [not heads and not width for heads, width in zip(kv_heads, widths, strict=False)]
    if rule.recurrent == "interval":
        told = header.raw("attention.recurrent_layers")
        if isinstance(told, list):
            return [bool(item) for item in per_layer(told, layers, "attention.recurrent_layers")]
        interval = header.number("full_attention_interval", 4)
        if not interval:
            raise ShapeError("full_attention_interval is 0")
        return [(index + 1) % interval != 0 for index in range(layers)]
    return [False] * layers


def gguf_layers(architecture: str, value: Any) -> Layers:
    """The layers that a GGUF header tells; ``value(key)`` gives ``{architecture}.{key}``.

    A layer that only predicts further tokens (nextn_predict_layers) has no part in the cache of an ordinary server.
    """
    header = _Header(value)
    all_layers = count(value("block_count"), "block_count", most=MAX_LAYERS)
    hidden = count(value("embedding_length"), "embedding_length")
    heads = per_layer(value("attention.head_count") or 0, all_layers, "attention.head_count")
    kv_raw = value("attention.head_count_kv")
    kv_heads = heads if kv_raw is None else per_layer(kv_raw, all_layers, "attention.head_count_kv")
    first_heads = next((item for item in heads if item), 0)
    per_head = hidden // first_heads if first_heads else 0
    lengths = [header.number(f"attention.{key}_length", per_head) for key in ("key", "value")]
    lengths_swa = [
        header.number(f"attention.{key}_length_swa", length)
        for key, length in zip(("key", "value"), lengths, strict=True)
    ]
    rule = GGUF_ARCHITECTURES.get(architecture)
    if rule is None:
        # At most every attention head has keys and values of its own in each layer; a recurrent state of the usual
        # kind (head length squared for each head) is smaller than that from some hundred tokens on.
        widest = max([*lengths, *lengths_swa])
        upper = Layers(tuple(KvLayer(item * widest, item * widest) for item in heads))
        name = f"llama.cpp's architecture {architecture}" if architecture else "a header that names no architecture"
        return bounded(upper, f"{name:.80} has no row in the table of layer kinds")
    if rule.no_cache:
        return Layers((KvLayer(0, 0),) * all_layers)
    trunk = max(all_layers - header.number("nextn_predict_layers"), 0)
    sliding = _sliding(header, rule, trunk)
    recurrent = _recurrent(header, rule, trunk, kv_heads)
    state = 4 * _state_elements(header, rule.state, first_heads, lengths[0], hidden) if rule.state else 0
    only_k = rule.mla and header.number("attention.key_length_mla") and header.number("attention.value_length_mla")
    shared = header.number("attention.shared_kv_layers") if architecture == "gemma4" else 0
    with_kv = rule.kv_from_start or all_layers - shared
    indexer = header.number("attention.indexer.key_length") if rule.indexer else 0
    dense_lead = header.number("leading_dense_block_count") if rule.indexer == "kv" else 0
    found = []
    for index in range(all_layers):
        if index >= trunk:
            found.append(KvLayer(0, 0))
            continue
        slides = sliding is not None and sliding[1][index]
        own_state = state if recurrent[index] else 0
        if (recurrent[index] and rule.recurrent != "beside") or index >= with_kv:
            found.append(KvLayer(0, 0, state_bytes=own_state))
            continue
        k_length, v_length = lengths_swa if slides else lengths
        k, v = kv_heads[index] * k_length, 0 if only_k else kv_heads[index] * v_length
        if indexer and index >= dense_lead:
            k, v = k + indexer, v + (v_length if rule.indexer == "kv" else 0)
        found.append(KvLayer(k, v, sliding[0] if sliding and slides else None, state_bytes=own_state))
    return Layers(tuple(found))
