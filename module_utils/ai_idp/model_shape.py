"""One description of a model's size, whatever it was read from: GGUF, Hugging Face folder or catalogue.

The memory projections (``engine_memory``) work on ModelShape alone.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from typing import Any

from ansible.module_utils.ai_idp import gguf_header, hf_config


class ShapeError(ValueError):
    """The model's size can't be told, with a sentence that says why."""


@dataclass(frozen=True)
class KvLayer:
    """What one layer adds to the KV cache for each token, in elements.

    ``window`` is the number of tokens a sliding-window layer keeps, None for full attention.
    """

    k_elements: int
    v_elements: int
    window: int | None = None


@dataclass(frozen=True)
class Quantization:
    """A published quantisation of a model: its name and the size of its weights."""

    name: str
    weights_bytes: int


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model. ``None`` means that nobody said it; lengths are in elements."""

    name: str
    source: str  # gguf, hugging_face or figures
    weights_bytes: int
    kv_layers: tuple[KvLayer, ...] = ()
    hidden: int | None = None
    feed_forward: int | None = None
    vocabulary: int | None = None
    trained_context: int | None = None
    # Bytes of each repeating layer's weights and of the input embedding, where a header told them.
    layer_weights: tuple[int, ...] | None = None
    token_embedding_bytes: int | None = None
    tied_embeddings: bool | None = None
    # Attention heads, which tensor parallelism shares out; kv_heads is None where a card can't hold a part of them.
    heads: int | None = None
    kv_heads: int | None = None
    # Bytes of weights that one token reads: less than all in mixture-of-experts models.
    active_weights_bytes: int | None = None
    quantizations: tuple[Quantization, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def layers(self) -> int:
        return len(self.kv_layers)

    def quantized(self, choice: Quantization) -> ModelShape:
        """The same model at another quantisation: every weight scaled alike."""
        ratio = choice.weights_bytes / self.weights_bytes

        def scaled(value: int | None) -> int | None:
            return None if value is None else math.ceil(value * ratio)

        return replace(
            self,
            weights_bytes=choice.weights_bytes,
            layer_weights=None
            if self.layer_weights is None
            else tuple(math.ceil(value * ratio) for value in self.layer_weights),
            token_embedding_bytes=scaled(self.token_embedding_bytes),
            active_weights_bytes=scaled(self.active_weights_bytes),
        )


def kv_bytes(layers: tuple[KvLayer, ...], tokens: int, k_bytes: float, v_bytes: float) -> int:
    """Bytes of KV cache for ``tokens`` tokens of one sequence.

    KV bytes per token = layers x kv_heads x (K length + V length) x bytes per element, which is
    2 x layers x kv_heads x head_dim x bytes where K and V are of one length (llama.cpp prints the same sum
    as its "KV buffer size"). A sliding-window layer keeps its window's tokens only.
    """
    total = 0.0
    for layer in layers:
        kept = tokens if layer.window is None else min(tokens, layer.window)
        total += kept * (layer.k_elements * k_bytes + layer.v_elements * v_bytes)
    return math.ceil(total)


def _count(value: Any, what: str, least: int = 1, most: int = 1 << 50) -> int:
    """A whole number within bounds out of somebody else's file."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ShapeError(f"{what} is {value!r}, not a whole number")
    if not least <= value <= most:
        raise ShapeError(f"{what} is {value}, not between {least} and {most}")
    return int(value)


MAX_LAYERS = 4096


def from_gguf(name: str, header: gguf_header.GgufHeader) -> ModelShape:
    """The shape a GGUF header tells (keys: ``docs/gguf.md`` of ggml)."""
    value = header.value
    layers = _count(value("block_count"), "block_count", most=MAX_LAYERS)
    hidden = _count(value("embedding_length"), "embedding_length")
    heads = value("attention.head_count")
    heads_list = heads if isinstance(heads, list) else [heads] * layers
    kv_heads = value("attention.head_count_kv", heads)
    kv_list = kv_heads if isinstance(kv_heads, list) else [kv_heads] * layers
    if len(kv_list) < layers or len(heads_list) < layers:
        raise ShapeError(f"attention head counts are given for {len(kv_list)} of {layers} layers")
    first_heads = next((count for count in heads_list if count), None)
    per_head = hidden // _count(first_heads, "attention.head_count") if first_heads else 0
    k_length = _count(value("attention.key_length", per_head), "attention.key_length", least=0)
    v_length = _count(value("attention.value_length", per_head), "attention.value_length", least=0)
    kv_layers = tuple(
        KvLayer(
            _count(kv, "attention.head_count_kv", least=0) * k_length,
            _count(kv, "attention.head_count_kv", least=0) * v_length,
        )
        for kv in kv_list[:layers]
    )
    notes = []
    if value("attention.sliding_window"):
        # Which layers slide is built into llama.cpp by architecture; all of them full is the upper bound.
        notes.append("sliding-window layers are counted in full, so the KV cache is an upper bound")
    feed_forward = value("feed_forward_length", 0)
    widths = feed_forward if isinstance(feed_forward, list) else [feed_forward]
    width = max((int(item) for item in widths if isinstance(item, (int, float))), default=0)
    experts, used = value("expert_count", 0) or 0, value("expert_used_count", 0) or 0
    if experts and used:
        width = max(width, int(value("expert_feed_forward_length", 0) or 0) * int(used))

    layer_weights = [0] * layers
    embedding, has_output, active = 0, False, 0
    for tensor in header.tensors:
        parts = tensor.name.split(".")
        if parts[0] == "blk" and len(parts) > 1 and parts[1].isdigit() and int(parts[1]) < layers:
            layer_weights[int(parts[1])] += tensor.bytes
        elif tensor.name == "token_embd.weight":
            embedding = tensor.bytes
        elif tensor.name == "output.weight":
            has_output = True
        if "_exps." in tensor.name and experts and used:
            active += tensor.bytes * min(int(used), int(experts)) // int(experts)
        else:
            active += tensor.bytes
    if has_output:
        active -= embedding  # one row of the input embedding is read, all of the output matrix is
    vocabulary = value("vocab_size")
    if vocabulary is None:
        tokens = header.metadata.get("tokenizer.ggml.tokens")
        vocabulary = tokens.length if isinstance(tokens, gguf_header.LongArray) else None
    context = value("context_length")
    return ModelShape(
        name=name,
        source="gguf",
        weights_bytes=header.tensor_bytes,
        kv_layers=kv_layers,
        hidden=hidden,
        feed_forward=width or None,
        vocabulary=vocabulary,
        trained_context=_count(context, "context_length") if context else None,
        layer_weights=tuple(layer_weights) if any(layer_weights) else None,
        token_embedding_bytes=embedding,
        tied_embeddings=not has_output,
        active_weights_bytes=active,
        notes=tuple(notes),
    )


def from_hugging_face(name: str, model: hf_config.HfModel) -> ModelShape:
    """The shape a ``config.json`` tells (keys as in the Transformers library's configurations)."""
    config = model.config
    nested = config.get("text_config")
    if isinstance(nested, dict) and "num_hidden_layers" in nested:
        config = nested  # models with vision or audio parts keep the language model's figures inside
    for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"):
        if config.get(key) is None:
            raise ShapeError(f"config.json has no {key}")
    layers = _count(config["num_hidden_layers"], "num_hidden_layers", most=MAX_LAYERS)
    hidden = _count(config["hidden_size"], "hidden_size")
    heads = _count(config["num_attention_heads"], "num_attention_heads")
    if config.get("kv_lora_rank"):
        # Multi-head latent attention caches one compressed vector and the rotary part per layer.
        latent = _count(config["kv_lora_rank"], "kv_lora_rank")
        rotary = _count(config.get("qk_rope_head_dim", 0), "qk_rope_head_dim", least=0)
        k_elements, v_elements = latent + rotary, 0
    else:
        kv_heads = _count(config.get("num_key_value_heads") or heads, "num_key_value_heads")
        head_dim = _count(config.get("head_dim") or hidden // heads, "head_dim")
        k_elements = v_elements = kv_heads * head_dim
    window = config.get("sliding_window")
    kinds = config.get("layer_types")
    kv_layers = []
    for index in range(layers):
        kind = kinds[index] if isinstance(kinds, list) and index < len(kinds) else "full_attention"
        if kind == "linear_attention":
            kv_layers.append(KvLayer(0, 0))
        elif kind == "sliding_attention" and window:
            kv_layers.append(KvLayer(k_elements, v_elements, _count(window, "sliding_window")))
        else:
            kv_layers.append(KvLayer(k_elements, v_elements))
    if model.weights_bytes is None:
        raise ShapeError("there are neither safetensors files nor an index that tells the weights' size")
    quantized = bool(config.get("quantization_config") or model.config.get("quantization_config"))
    weights = model.weights_bytes
    notes = []
    # vLLM's dtype "auto" loads float32 checkpoints as 16 bit (vLLM docs, --dtype).
    if not quantized and model.bytes_by_dtype.get("F32", 0) > weights // 2:
        weights -= model.bytes_by_dtype["F32"] // 2
        notes.append("float32 weights are loaded as 16 bit")
    width = config.get("intermediate_size") or 0
    experts = config.get("num_experts") or config.get("num_local_experts") or config.get("n_routed_experts")
    if experts and config.get("moe_intermediate_size"):
        used = config.get("num_experts_per_tok") or 1
        width = max(width, config["moe_intermediate_size"] * used)
    context = config.get("max_position_embeddings")
    return ModelShape(
        name=name,
        source="hugging_face",
        weights_bytes=weights,
        kv_layers=tuple(kv_layers),
        hidden=hidden,
        feed_forward=int(width) or None,
        vocabulary=config.get("vocab_size"),
        trained_context=_count(context, "max_position_embeddings") if context else None,
        token_embedding_bytes=model.token_embedding_bytes,
        tied_embeddings=config.get("tie_word_embeddings", model.config.get("tie_word_embeddings")),
        heads=heads,
        kv_heads=None if config.get("kv_lora_rank") else config.get("num_key_value_heads") or heads,
        # How many experts' weights one token reads is not to be told from here.
        active_weights_bytes=None if experts else weights,
        notes=tuple(notes),
    )


FIGURE_KEYS = (
    "weights_bytes",
    "layers",
    "kv_heads",
    "head_dim",
    "parameters",
    "active_parameters",
    "hidden_size",
    "feed_forward_length",
    "vocabulary_size",
    "context_length",
    "tied_embeddings",
    "quantizations",
)


def quantizations_from(figures: dict[str, Any]) -> tuple[Quantization, ...]:
    """The published quantisations of a catalogue entry, largest first."""
    entries = figures.get("quantizations") or []
    if not isinstance(entries, list):
        raise ShapeError("quantizations is not a list of {name, weights_bytes}")
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or "name" not in entry or "weights_bytes" not in entry:
            raise ShapeError(f"the quantisation {entry!r} needs a name and weights_bytes")
        size = _count(entry["weights_bytes"], f"weights_bytes of {entry['name']}")
        found.append(Quantization(str(entry["name"]), size))
    return tuple(sorted(found, key=lambda item: item.weights_bytes, reverse=True))


def from_figures(name: str, figures: dict[str, Any]) -> ModelShape:
    """The shape that a catalogue's figures tell; what is left out is estimated or stays unknown.

    Width: a transformer layer with a gated feed-forward of 3.5 times the width and grouped-query attention
    has about 12.5 x width^2 parameters, so width ~ sqrt(parameters / (12.5 x layers)): 2.7 % off for
    Llama 3.3 70B, 9 % for Llama 3.1 8B.
    """
    unknown = sorted(set(figures) - set(FIGURE_KEYS))
    if unknown:
        raise ShapeError(f"unknown figures {', '.join(unknown)}; known are {', '.join(FIGURE_KEYS)}")
    if figures.get("weights_bytes") is None:
        raise ShapeError("the figures have no weights_bytes")

    def optional(key: str) -> int | None:
        return None if figures.get(key) is None else _count(figures[key], key)

    weights = _count(figures["weights_bytes"], "weights_bytes")
    layers, kv_heads, head_dim = optional("layers"), optional("kv_heads"), optional("head_dim")
    kv_layers: tuple[KvLayer, ...] = ()
    if layers and layers > MAX_LAYERS:
        raise ShapeError(f"layers is {layers}, more than {MAX_LAYERS}")
    if layers and kv_heads and head_dim:
        kv_layers = (KvLayer(kv_heads * head_dim, kv_heads * head_dim),) * layers
    parameters = optional("parameters")
    hidden, width = optional("hidden_size"), optional("feed_forward_length")
    if hidden is None and parameters and layers:
        hidden = math.ceil(math.sqrt(parameters / (12.5 * layers)))
    if width is None and hidden is not None:
        width = math.ceil(3.5 * hidden)
    active_parameters = optional("active_parameters")
    active = weights
    if active_parameters and parameters:
        active = weights * min(active_parameters, parameters) // parameters
    tied = figures.get("tied_embeddings")
    return ModelShape(
        name=name,
        source="figures",
        weights_bytes=weights,
        kv_layers=kv_layers,
        hidden=hidden,
        feed_forward=width,
        vocabulary=optional("vocabulary_size"),
        trained_context=optional("context_length"),
        tied_embeddings=tied if isinstance(tied, bool) else None,
        # Heads are as wide as the model together in every model of the catalogue.
        heads=hidden // head_dim if figures.get("hidden_size") and hidden and head_dim else None,
        kv_heads=kv_heads,
        active_weights_bytes=active,
        quantizations=quantizations_from(figures),
    )


def find_gguf(folder: str) -> str | None:
    """The one GGUF model in a folder (a split one counts once); None when there is none."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".gguf"))
    firsts = sorted({gguf_header.split_parts(os.path.join(folder, name))[0] for name in names})
    if len(firsts) > 1:
        listed = ", ".join(os.path.basename(path) for path in firsts[:5])
        raise ShapeError(f"{folder}: {len(firsts)} GGUF models are there ({listed}): name the file")
    return firsts[0] if firsts else None


def from_path(name: str, path: str) -> ModelShape:
    """Reads a ``.gguf`` file or a model folder. Raises ShapeError, HeaderError, ConfigError or OSError."""
    if os.path.isdir(path):
        if os.path.isfile(os.path.join(path, "config.json")):
            return from_hugging_face(name, hf_config.read_folder(path))
        found = find_gguf(path)
        if found is None:
            raise ShapeError(f"{path}: there is neither a config.json nor a .gguf file")
        path = found
    return from_gguf(name, gguf_header.read_model(path))


def load(model: dict[str, Any]) -> ModelShape | None:
    """The best description there is: the files where they are already there, else the figures.

    None when there is neither, which means "can't tell", not "does not fit".
    """
    name = str(model.get("name") or model.get("path") or "model")
    path, figures = model.get("path"), model.get("figures") or {}
    has_figures = figures.get("weights_bytes") is not None
    unreadable = ""
    if path and os.path.exists(path):
        try:
            return replace(from_path(name, path), quantizations=quantizations_from(figures))
        except (ShapeError, gguf_header.HeaderError, hf_config.ConfigError, OSError) as error:
            if not has_figures:
                raise ShapeError(str(error)) from error
            unreadable = str(error)
    if not has_figures:
        return None
    shape = from_figures(name, figures)
    if unreadable:
        shape = replace(shape, notes=(f"the catalogue's figures are used, because {unreadable}",))
    return shape
