"""What the layers of a Hugging Face model keep in vLLM's cache, read out of its ``config.json``.

The table ``HF_MODEL_TYPES`` has a row for each ``model_type`` whose rule was read in vLLM 0.30.0 (the file of
vllm/model_executor/models that builds its attention) with the defaults of Transformers 5.23 for the keys that a
configuration may leave out. A new family is a new row. What has no row gets a lower and an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.ai_idp.hf_defaults import HF_DEFAULTS
from ansible.module_utils.ai_idp.layer_kinds import MAX_LAYERS, KvLayer, Layers, ShapeError, bounded, count, per_layer

Config = dict[str, Any]
FULL, SLIDING, CHUNKED, RECURRENT, BOTH, NONE = "full", "sliding", "chunked", "recurrent", "both", "none"

# The names of layer_types and layers_block_type, old and new (remap_legacy_layer_types of Transformers).
KIND_NAMES = {
    "full_attention": FULL,
    "attention": FULL,
    "sliding_attention": SLIDING,
    "chunked_attention": CHUNKED,
    "linear_attention": RECURRENT,
    "mamba": RECURRENT,
    "mamba2": RECURRENT,
    "conv": RECURRENT,
    "hybrid": BOTH,
    "mlp": NONE,
    "moe": NONE,
}

# Other names of the same figures, in the older configurations.
ALIASES = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "hidden_size": ("n_embd", "d_model"),
    "intermediate_size": ("n_inner", "ffn_hidden_size", "block_ff_dim"),
    "max_position_embeddings": ("n_positions", "model_max_length", "max_seq_len", "seq_length"),
}


@dataclass(frozen=True)
class HfRule:
    """How one model type lays out its layers.

    ``defaults`` are keys that a configuration may leave out beside those of ``HF_DEFAULTS``.
    ``every`` n: where the configuration names no layer types, every n-th layer is full and the others are of the kind
    ``others``; 0: all layers are full, or slide where ``sliding_window`` is set (vLLM's EngineArgs.create_engine_config
    takes the window for all layers then). ``names`` and ``state`` are functions for what takes more than that.
    """

    source: str
    defaults: Config = field(default_factory=dict)
    every: int = 0
    others: str = SLIDING
    names: Callable[[Config, int], list[str] | None] | None = None
    state: Callable[[Config], tuple[int, int]] | None = None
    # The type of a recurrent state where the configuration does not say it: float32, or the model's.
    state_type: str = ""
    state_type_key: str = ""
    kv_heads: Callable[[Config, int], int] | None = None
    full_layers: Callable[[Config, int, int], tuple[int, int]] | None = None
    mla: bool = False
    indexer: bool = False
    no_window: bool = False
    cohere_window: bool = False


# --- recurrent states: elements of the convolution and of the state (MambaStateShapeCalculator of vLLM) ---


def _number(config: Config, key: str) -> int:
    return count(config.get(key), key, least=0, most=1 << 32)


def _mamba2(heads: str, head_dim: str, groups: str, state: str, kernel: str) -> Callable[[Config], tuple[int, int]]:
    def shape(config: Config) -> tuple[int, int]:
        if config.get(head_dim) in ("auto", None):
            inner = config.get("mamba_d_ssm") or _number(config, "mamba_expand") * _number(config, "hidden_size")
            inner = count(inner, "the width of the state space")
            length = inner // max(_number(config, heads), 1)
        else:
            length = _number(config, head_dim)
            inner = length * _number(config, heads)
        conv = (inner + 2 * _number(config, groups) * _number(config, state)) * max(_number(config, kernel) - 1, 0)
        return conv, _number(config, heads) * length * _number(config, state)

    return shape


def _mamba1(inner: Callable[[Config], int], state: str, kernel: str) -> Callable[[Config], tuple[int, int]]:
    def shape(config: Config) -> tuple[int, int]:
        width = inner(config)
        return width * max(_number(config, kernel) - 1, 0), width * _number(config, state)

    return shape


def _mamba_width(config: Config) -> int:
    if config.get("intermediate_size"):
        return _number(config, "intermediate_size")
    return _number(config, "hidden_size") * _number(config, "expand")


def _jamba_width(config: Config) -> int:
    return _number(config, "mamba_expand") * _number(config, "hidden_size")


def _delta_net(config: Config) -> tuple[int, int]:
    """Qwen's gated delta net."""
    keys, values, key_dim, value_dim = (
        _number(config, f"linear_{name}")
        for name in ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")
    )
    conv = (2 * keys * key_dim + values * value_dim) * max(_number(config, "linear_conv_kernel_dim") - 1, 0)
    return conv, values * value_dim * key_dim


def _olmo_delta_net(config: Config) -> tuple[int, int]:
    """The same with the lengths that OlmoHybridConfig derives where the configuration names none."""
    heads = config.get("linear_num_key_heads") or _heads(config)
    length = config.get("linear_key_head_dim") or _number(config, "hidden_size") * 3 // 4 // count(heads, "heads")
    values = config.get("linear_num_value_heads") or _heads(config)
    value_length = config.get("linear_value_head_dim") or 2 * count(length, "linear_key_head_dim")
    names = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")
    told = dict(zip((f"linear_{name}" for name in names), (heads, values, length, value_length), strict=True))
    return _delta_net({**config, **told})


def _short_conv(config: Config) -> tuple[int, int]:
    width = _number(config, "conv_dim" if config.get("conv_dim") is not None else "hidden_size")
    return width * max(_number(config, "conv_L_cache") - 1, 0), 0


def _kimi_delta(config: Config) -> tuple[int, int]:
    told = config.get("linear_attn_config")
    linear = told if isinstance(told, dict) else {}
    heads, length = (count(linear.get(key), f"linear_attn_config {key}") for key in ("num_heads", "head_dim"))
    kernel = count(linear.get("short_conv_kernel_size", 4), "short_conv_kernel_size")
    return 3 * heads * length * (kernel - 1), heads * length * length


# --- layer names that take more than a period ---


def _nemotron_h_names(config: Config, _layers: int) -> list[str] | None:
    pattern = config.get("hybrid_override_pattern")
    if not isinstance(pattern, str):
        return None
    kinds = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
    return [kinds.get(letter, letter) for letter in pattern[:MAX_LAYERS]]


def _jamba_names(config: Config, layers: int) -> list[str]:
    period = count(config.get("attn_layer_period"), "attn_layer_period")
    offset = _number(config, "attn_layer_offset")
    return ["full_attention" if index % period == offset else "mamba" for index in range(layers)]


def _lfm2_names(config: Config, layers: int) -> list[str] | None:
    full = config.get("full_attn_idxs")
    if not isinstance(full, list):
        return None
    return ["full_attention" if index in full else "conv" for index in range(layers)]


def _llama4_names(config: Config, layers: int) -> list[str]:
    """Layers without a position encoding are full, the others see a chunk (Llama4Attention of vLLM)."""
    if not config.get("attention_chunk_size"):
        return ["full_attention"] * layers
    told = config.get("no_rope_layers")
    if isinstance(told, list) and told:
        return ["chunked_attention" if item else "full_attention" for item in told]
    interval = count(config.get("no_rope_layer_interval", 4), "no_rope_layer_interval")
    return ["chunked_attention" if (index + 1) % interval else "full_attention" for index in range(layers)]


def _kimi_names(config: Config, layers: int) -> list[str]:
    told = config.get("linear_attn_config")
    full = told.get("full_attn_layers") if isinstance(told, dict) else None
    if isinstance(full, list):
        return ["full_attention" if index + 1 in full else "linear_attention" for index in range(layers)]
    return ["full_attention" if index and index % 4 == 0 else "linear_attention" for index in range(layers)]


def _windowed_from(config: Config, layers: int) -> list[str] | None:
    """Qwen2's: with use_sliding_window the layers from max_window_layers on slide."""
    if not config.get("use_sliding_window") or not config.get("sliding_window"):
        return ["full_attention"] * layers
    first = _number(config, "max_window_layers")
    return ["sliding_attention" if index >= first else "full_attention" for index in range(layers)]


def _all_full(_config: Config, layers: int) -> list[str]:
    return ["full_attention"] * layers


def _nemotron_nas_names(config: Config, layers: int) -> list[str]:
    """Blocks whose attention was taken out or replaced hold no cache (nemotron_nas.py)."""
    return ["mlp" if not heads else "full_attention" for heads in _nas_groups(config, layers)]


def _nas_groups(config: Config, layers: int) -> list[int]:
    blocks = config.get("block_configs")
    if not isinstance(blocks, list) or len(blocks) < layers:
        raise ShapeError(f"block_configs is no list of {layers} blocks")
    found = []
    for block in blocks[:layers]:
        attention = block.get("attention") if isinstance(block, dict) else None
        if not isinstance(attention, dict):
            raise ShapeError("a block of block_configs has no attention")
        gone = attention.get("no_op") or attention.get("replace_with_linear")
        found.append(0 if gone else count(attention.get("n_heads_in_group"), "n_heads_in_group"))
    return found


# --- KV heads that are not num_key_value_heads of the whole model ---


def _heads(config: Config) -> int:
    return count(config.get("num_attention_heads"), "num_attention_heads")


def _falcon_heads(config: Config, _index: int) -> int:
    if config.get("new_decoder_architecture"):
        return count(config.get("num_kv_heads") or _heads(config), "num_kv_heads")
    return 1 if config.get("multi_query", True) else _heads(config)


def _multi_query_heads(config: Config, _index: int) -> int:
    return 1 if config.get("multi_query", True) else _heads(config)


def _nas_heads(config: Config, index: int) -> int:
    group = _nas_groups(config, index + 1)[index]
    return _heads(config) // group if group else 0


def _gemma4_full(config: Config, kv_heads: int, head_dim: int) -> tuple[int, int]:
    """Heads and head size of Gemma 4's full layers (Gemma4TextConfig, Gemma4Attention)."""
    own = config.get("num_global_key_value_heads") if config.get("attention_k_eq_v") else None
    heads = count(own, "num_global_key_value_heads") if own is not None else kv_heads
    return heads, count(config.get("global_head_dim") or head_dim, "global_head_dim")


_mamba2_state = _mamba2("mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_d_conv")
# A Mamba has no attention heads; its width inside is expand x hidden_size where the configuration does not say it.
_NO_HEADS: Config = {"num_attention_heads": 1}


HF_MODEL_TYPES: dict[str, HfRule] = {
    # Plain attention, or one window for all layers.
    "apertus": HfRule("apertus.py"),
    "arcee": HfRule("arcee.py"),
    "bloom": HfRule("bloom.py"),
    "cohere": HfRule("commandr.py"),
    "ernie4_5": HfRule("ernie45.py"),
    "ernie4_5_moe": HfRule("ernie45_moe.py"),
    "exaone": HfRule("exaone.py"),
    "falcon": HfRule("falcon.py", kv_heads=_falcon_heads),
    "gemma": HfRule("gemma.py", {"sliding_window": None}),
    "glm": HfRule("glm.py"),
    "glm4": HfRule("glm4.py"),
    "glm4_moe": HfRule("glm4_moe.py"),
    "gpt2": HfRule("gpt2.py"),
    "gpt_bigcode": HfRule("transformers/base.py", kv_heads=_multi_query_heads),
    "gpt_neox": HfRule("gpt_neox.py"),
    "gptj": HfRule("gpt_j.py"),
    "granite": HfRule("granite.py"),
    "granitemoe": HfRule("granitemoe.py"),
    "granitemoeshared": HfRule("granitemoeshared.py"),
    "hunyuan_v1_dense": HfRule("transformers/base.py"),
    "hunyuan_v1_moe": HfRule("transformers/base.py"),
    "internlm2": HfRule("internlm2.py"),
    "internlm3": HfRule("llama.py"),
    "llama": HfRule("llama.py"),
    "minimax_m2": HfRule("minimax_m2.py"),
    "ministral": HfRule("llama.py"),
    "ministral3": HfRule("llama.py"),
    "mistral": HfRule("llama.py"),
    "mixtral": HfRule("mixtral.py"),
    "nemotron": HfRule("nemotron.py"),
    "olmo": HfRule("transformers/base.py"),
    "olmo2": HfRule("transformers/base.py"),
    "olmoe": HfRule("olmoe.py"),
    "opt": HfRule("opt.py"),
    "phi": HfRule("phi.py"),
    "phi3": HfRule("llama.py"),
    "phimoe": HfRule("phimoe.py"),
    "qwen2": HfRule("qwen2.py", names=_windowed_from),
    "qwen2_moe": HfRule("qwen2_moe.py", names=_all_full),
    "qwen2_5_vl_text": HfRule("qwen2.py", names=_windowed_from),
    "qwen2_vl_text": HfRule("qwen2.py", names=_windowed_from),
    "qwen3": HfRule("qwen3.py", names=_windowed_from),
    "qwen3_moe": HfRule("qwen3_moe.py", names=_all_full),
    "qwen3_vl_text": HfRule("qwen3.py", names=_all_full),
    "qwen3_vl_moe_text": HfRule("qwen3_moe.py", names=_all_full),
    "seed_oss": HfRule("seed_oss.py"),
    "smollm3": HfRule("transformers/base.py", names=_all_full),
    "stablelm": HfRule("stablelm.py"),
    "starcoder2": HfRule("transformers/base.py"),
    "nemotron-nas": HfRule("nemotron_nas.py", names=_nemotron_nas_names, kv_heads=_nas_heads, no_window=True),
    # Sliding or chunked layers between full ones.
    "afmoe": HfRule("afmoe.py", every=4),
    "cohere2": HfRule("commandr.py", every=4, cohere_window=True),
    "exaone4": HfRule("exaone4.py", every=4),
    "gemma2": HfRule("gemma2.py", every=2),
    "gemma3_text": HfRule("gemma3.py", every=6),
    "gemma3n_text": HfRule("gemma3n.py", every=5),
    "gemma4_text": HfRule("gemma4.py", {"global_head_dim": 512}, every=6, full_layers=_gemma4_full),
    "gpt_oss": HfRule("gpt_oss.py", every=2),
    "laguna": HfRule("laguna.py", names=_all_full),
    "llama4_text": HfRule("llama4.py", names=_llama4_names, no_window=True),
    "olmo3": HfRule("transformers/base.py", every=4),
    # Multi-head latent attention (mla_attention.py), with an indexer beside it (deepseek_v2.py).
    "deepseek_v2": HfRule("deepseek_v2.py", mla=True),
    "deepseek_v3": HfRule("deepseek_v2.py", mla=True),
    "deepseek_v32": HfRule("deepseek_v2.py", mla=True, indexer=True),
    "glm4_moe_lite": HfRule("glm4_moe_lite.py", mla=True),
    "kimi_k2": HfRule("deepseek_v2.py", HF_DEFAULTS["deepseek_v3"], mla=True),
    "minicpm3": HfRule("minicpm3.py", names=_all_full),
    "mistral4": HfRule("mistral_large_3.py", mla=True),
    # Recurrent states, in part beside attention.
    "falcon_h1": HfRule("falcon_h1.py", others=BOTH, every=-1, state=_mamba2_state),
    "falcon_mamba": HfRule(
        "mamba.py",
        _NO_HEADS,
        every=-1,
        others=RECURRENT,
        state=_mamba1(_mamba_width, "state_size", "conv_kernel"),
    ),
    "granitemoehybrid": HfRule("granitemoehybrid.py", every=-1, others=RECURRENT, state=_mamba2_state),
    "jamba": HfRule(
        "jamba.py",
        names=_jamba_names,
        state=_mamba1(_jamba_width, "mamba_d_state", "mamba_d_conv"),
    ),
    "kimi_linear": HfRule("vllm/models/kimi_k3", names=_kimi_names, mla=True, state=_kimi_delta, state_type="float32"),
    "lfm2": HfRule("lfm2.py", names=_lfm2_names, state=_short_conv),
    "lfm2_moe": HfRule("lfm2_moe.py", names=_lfm2_names, state=_short_conv),
    "mamba": HfRule(
        "mamba.py",
        _NO_HEADS,
        every=-1,
        others=RECURRENT,
        state=_mamba1(_mamba_width, "state_size", "conv_kernel"),
    ),
    "nemotron_h": HfRule(
        "nemotron_h.py",
        names=_nemotron_h_names,
        state_type="float32",
        state_type_key="mamba_ssm_cache_dtype",
        state=_mamba2("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel"),
    ),
    "olmo_hybrid": HfRule("olmo_hybrid.py", every=4, others=RECURRENT, state=_olmo_delta_net),
    "qwen3_next": HfRule("qwen3_next.py", every=4, others=RECURRENT, state=_delta_net),
    "qwen3_5_text": HfRule("qwen3_5.py", every=4, others=RECURRENT, state=_delta_net, state_type_key="mamba_ssm_dtype"),
    "qwen3_5_moe_text": HfRule(
        "qwen3_5.py", every=4, others=RECURRENT, state=_delta_net, state_type_key="mamba_ssm_dtype"
    ),
}

# A configuration that names no type at all, which vLLM does not load: its keys are taken at their word.
UNNAMED = HfRule("llama.py")
UNNAMED_LATENT = HfRule("mla_attention.py", mla=True)

# The outer model type of models with vision or audio, and the type of the language model inside.
TEXT_TYPES = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "llava": "llama",
    "llava_next": "llama",
    "mllama": "mllama_text",
}


def text_config(config: Config) -> tuple[Config, str]:
    """The language model's part with defaults in place of what it leaves out, and its type."""
    nested = config.get("text_config")
    inner: Config = nested if isinstance(nested, dict) and nested else config
    outer_type = str(config.get("model_type") or "")
    kind = str(inner.get("model_type") or TEXT_TYPES.get(outer_type, outer_type))
    kind = TEXT_TYPES.get(kind, kind)
    rule = HF_MODEL_TYPES.get(kind)
    named = dict(inner)
    for key, others in ALIASES.items():
        told = next((inner[other] for other in others if inner.get(other) is not None), None)
        if named.get(key) is None and told is not None:
            named[key] = told
    return {**HF_DEFAULTS.get(kind, {}), **(rule.defaults if rule else {}), **named}, kind


BYTES_BY_TYPE = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}


LENGTH_KEYS = ("global_head_dim", "v_head_dim", "kv_lora_rank")


def _names(config: Config, rule: HfRule, layers: int) -> list[str]:
    """The kind of each layer, by the names of KIND_NAMES; what vLLM does not know comes out as it stands."""
    told = config.get("layer_types")
    told = config.get("layers_block_type") if told is None else told
    if told is None and rule.names:
        told = rule.names(config, layers)
    if told is None:
        window = None if rule.no_window else config.get("sliding_window")
        if rule.every < 0:
            return [rule.others] * layers
        if not rule.every:
            return [SLIDING if window else FULL] * layers
        period = rule.every
        pattern = config.get("sliding_window_pattern")
        if rule.others == SLIDING and isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
            period = pattern
        elif rule.others == RECURRENT and config.get("full_attention_interval") is not None:
            period = count(config["full_attention_interval"], "full_attention_interval")
        return [rule.others if (index + 1) % period else FULL for index in range(layers)]
    if not isinstance(told, list):
        raise ShapeError(f"layer_types is {told!r:.60}, not a list")
    if len(told) < layers:
        raise ShapeError(f"layer_types names {len(told)} of {layers} layers")
    return [KIND_NAMES.get(name, name) if isinstance(name, str) else str(name)[:40] for name in told[:layers]]


def _layer_count(config: Config, rule: HfRule | None) -> int:
    told = config.get("num_hidden_layers")
    if told is None and rule and rule.names:
        names = config.get("layers_block_type") or rule.names(config, 0)
        told = len(names) if names else None
    if told is None:
        raise ShapeError("config.json has no num_hidden_layers")
    return count(told, "num_hidden_layers", most=MAX_LAYERS)


def hf_layers(config: Config, kind: str) -> Layers:
    """The layers that a configuration tells, which ``text_config`` has prepared; ShapeError says what is missing."""
    rule = HF_MODEL_TYPES.get(kind)
    if not kind:
        rule = UNNAMED_LATENT if config.get("kv_lora_rank") else UNNAMED
    layers = _layer_count(config, rule)
    for key in ("hidden_size", "num_attention_heads"):
        if config.get(key) is None:
            raise ShapeError(f"config.json has no {key}")
    hidden, heads = count(config["hidden_size"], "hidden_size"), _heads(config)
    head_dim = count(config.get("head_dim") or max(hidden // heads, 1), "head_dim")
    if rule is None:
        # At most each attention head keeps its own keys and values, of the greatest length that the keys name.
        widest = max([head_dim, *(count(config[key], key) for key in LENGTH_KEYS if config.get(key))])
        upper = Layers((KvLayer(heads * widest, heads * widest, kv_heads=heads),) * layers)
        return bounded(upper, f"the model type {kind:.60} has no row in the table of layer kinds")
    names = _names(config, rule, layers)
    unknown = sorted({name for name in names if name not in KIND_NAMES.values()})
    state_bytes = _state_bytes(config, rule) if any(name in (RECURRENT, BOTH) for name in names) else 0
    window = _window(config, rule) if any(name in (SLIDING, CHUNKED) for name in names) else None
    shared = config.get("num_kv_shared_layers") or 0
    with_kv = layers - min(count(shared, "num_kv_shared_layers", least=0), layers)
    most, least = [], []
    for index, name in enumerate(names):
        recurrent = state_bytes if name in (RECURRENT, BOTH) else 0
        if name in (RECURRENT, NONE) or index >= with_kv:
            most.append(KvLayer(0, 0, state_bytes=recurrent))
            least.append(most[-1])
            continue
        if name in unknown:
            most.append(KvLayer(heads * head_dim, heads * head_dim, kv_heads=heads))
            least.append(KvLayer(0, 0))
            continue
        layer = _attention_layer(config, rule, index, head_dim, name)
        limit = window if name in (SLIDING, CHUNKED) else None
        most.append(
            KvLayer(
                layer.k_elements,
                layer.v_elements,
                limit,
                chunked=name == CHUNKED,
                kv_heads=layer.kv_heads,
                bytes_per_token=layer.bytes_per_token,
                state_bytes=recurrent,
            )
        )
        least.append(most[-1])
    if not unknown:
        return Layers(tuple(most))
    return Layers(tuple(most), tuple(least), f"layers of the kind {', '.join(unknown):.80} are not known")


def _window(config: Config, rule: HfRule) -> int | None:
    if rule.no_window:
        told = config.get("attention_chunk_size")
        return count(told, "attention_chunk_size") if told else None
    told = config.get("sliding_window")
    if not told:
        return None
    # Cohere's layers see one token more (commandr.py).
    return count(told, "sliding_window") + (1 if rule.cohere_window else 0)


def _attention_layer(config: Config, rule: HfRule, index: int, head_dim: int, name: str) -> KvLayer:
    """K and V of one attention layer."""
    if rule.mla:
        # One compressed vector and the rotary part, on every card whole.
        latent = count(config.get("kv_lora_rank"), "kv_lora_rank")
        rotary = count(config.get("qk_rope_head_dim", 0), "qk_rope_head_dim", least=0)
        # The indexer's keys in 8 bit with a 32-bit scale for each 128 of them (deepseek_v2.py, Indexer).
        index_dim = count(config.get("index_head_dim"), "index_head_dim") if rule.indexer else 0
        return KvLayer(latent + rotary, 0, bytes_per_token=index_dim + index_dim // 128 * 4)
    if rule.kv_heads:
        kv_heads = rule.kv_heads(config, index)
    else:
        told = config.get("num_key_value_heads")
        if isinstance(told, list):
            kv_heads = per_layer(told, index + 1, "num_key_value_heads")[index]
        else:
            kv_heads = count(told or _heads(config), "num_key_value_heads")
    if rule.full_layers and name == FULL:
        kv_heads, head_dim = rule.full_layers(config, kv_heads, head_dim)
    return KvLayer(kv_heads * head_dim, kv_heads * head_dim, kv_heads=kv_heads)


def _state_bytes(config: Config, rule: HfRule) -> int:
    """Bytes of one layer's convolution and recurrent state for one sequence."""
    if rule.state is None:
        raise ShapeError("the configuration names recurrent layers, which this model type does not have")
    conv, state = rule.state(config)
    told = config.get(rule.state_type_key) if rule.state_type_key else None
    wanted = told if isinstance(told, str) else rule.state_type
    return 2 * conv + BYTES_BY_TYPE.get(wanted, 2) * state
