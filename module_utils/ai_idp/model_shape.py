"""One description of a model's size, whatever it was read from: GGUF, Hugging Face folder or catalogue.

The memory projections (``engine_memory``) work on ModelShape alone.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from typing import Any

from ansible.module_utils.ai_idp import gguf_header, hf_config, layer_kinds, layer_kinds_hf
from ansible.module_utils.ai_idp.layer_kinds import MAX_LAYERS, KvLayer, ShapeError, count


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
    # Bytes of the largest matrix of each repeating layer.
    layer_largest: tuple[int, ...] = ()
    token_embedding_bytes: int | None = None
    # What llama.cpp keeps on the host beside the input embedding.
    host_weights_bytes: int = 0
    tied_embeddings: bool | None = None
    # Attention heads, which tensor parallelism shares out; kv_heads is None where a card can't hold a part of them.
    heads: int | None = None
    kv_heads: int | None = None
    # Bytes of weights that one token reads: less than all in mixture-of-experts models.
    active_weights_bytes: int | None = None
    quantizations: tuple[Quantization, ...] = ()
    notes: tuple[str, ...] = field(default=())
    # Where the rules of the layers are not known kv_layers is the most that they may hold, this the least, and why.
    least_layers: tuple[KvLayer, ...] | None = None
    uncertain: str = ""
    head_dim: int | None = None
    experts: bool = False
    # A vision or audio part, whose weights are counted and whose working memory is not.
    other_parts: bool = False
    expert_feed_forward: int | None = None
    # Bits of the matrices' elements as a quantisation names them; 0 where nobody said it.
    weight_bits: int = 0
    # Bytes of MXFP4 experts, which vLLM pads when it loads them.
    mxfp4_bytes: int = 0
    # The type of activations that the model is made for, such as float16.
    dtype: str = ""
    # llama.cpp multiplies some matrices of a prompt by cuBLAS; only a GGUF header tells. Of figures the file's size
    # counts the input embedding too, which is more than cuBLAS takes.
    cublas: bool = False

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
            layer_largest=tuple(math.ceil(value * ratio) for value in self.layer_largest),
            token_embedding_bytes=scaled(self.token_embedding_bytes),
            active_weights_bytes=scaled(self.active_weights_bytes),
        )


def kv_bytes(layers: tuple[KvLayer, ...], tokens: int, k_bytes: float, v_bytes: float) -> int:
    """Bytes of KV cache for ``tokens`` tokens of one sequence, recurrent states aside.

    KV bytes per token = layers x kv_heads x (K length + V length) x bytes per element, which is
    2 x layers x kv_heads x head_dim x bytes where K and V are of one length (llama.cpp prints the same sum
    as its "KV buffer size"). A sliding-window layer keeps its window's tokens only.
    """
    total = 0.0
    for layer in layers:
        kept = tokens if layer.window is None else min(tokens, layer.window)
        total += kept * (layer.k_elements * k_bytes + layer.v_elements * v_bytes)
    return math.ceil(total)


# Tensors of the input beside the embedding, which llama.cpp keeps on the host: LLM_TENSOR_LAYER_INPUT in
# llama-arch.cpp.
INPUT_TENSORS = ("per_layer_token_embd.weight", "position_embd.weight", "token_types.weight")

# Architectures for which llama.cpp makes no output matrix, neither an own one nor a second copy of the input embedding:
# load_arch_tensors in models/NAME.cpp (build 11434).
NO_OUTPUT = (
    "bert", "eurobert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe",
)  # fmt: skip

# Types that llama.cpp has a matrix kernel of its own for, whatever the batch, on cards from Turing on:
# ggml_cuda_should_use_mmq in ggml-cuda/mmq.cu (build 11434).
MMQ_TYPES = (
    "Q1_0", "Q2_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ2_XXS",
    "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL", "MXFP4", "NVFP4",
)  # fmt: skip

# Weights of two dimensions that are no factor of a matrix multiplication.
NOT_MULTIPLIED = ("norm", "conv", "attn_rel_b")


def needs_cublas(tensor: gguf_header.Tensor) -> bool:
    """Whether llama.cpp on CUDA multiplies a prompt's batch by this tensor of a layer with cuBLAS.

    ggml_cuda_mul_mat (ggml-cuda.cu) takes cuBLAS for what neither MMQ has a kernel for nor MMVF and MMF, which take
    batches of up to 16 tokens (ggml_cuda_should_use_mmvf, ggml_cuda_should_use_mmf). So it takes it for 16 and 32 bit,
    such as the router of experts, which stays at 32 bit in a quantised model. The output matrix is multiplied by the
    last token of each sequence alone. The scan of Mamba 2, whose ``ssm_a`` is one number for each head, works by cuBLAS
    from 129 tokens on, whatever the weights' type (ggml_cuda_op_ssm_scan in ssm-scan.cu).
    """
    stem = tensor.name.split(".", 2)[-1]
    if stem == "ssm_a":
        return len(tensor.shape) > 1 and tensor.shape[0] == 1
    multiplied = stem.endswith(".weight") and not any(word in stem for word in NOT_MULTIPLIED)
    return multiplied and len(tensor.shape) > 1 and min(tensor.shape[:2]) > 1 and tensor.type_name not in MMQ_TYPES


def from_gguf(name: str, header: gguf_header.GgufHeader) -> ModelShape:
    """The shape a GGUF header tells (keys: ``docs/gguf.md`` of ggml)."""
    value = header.value
    kinds = layer_kinds.gguf_layers(header.architecture, value)
    layers = len(kinds.most)
    hidden = count(value("embedding_length"), "embedding_length")
    width = _width(value("feed_forward_length"))
    experts, used = _width(value("expert_count")), _width(value("expert_used_count"))
    expert_width = _width(value("expert_feed_forward_length"))
    if experts and used:
        width = max(width, expert_width * used)

    # Layers that predict further tokens are left in the file (load_mtp of llama.cpp is off).
    trunk = layers - min(_width(value("nextn_predict_layers")), layers)
    layer_weights, layer_largest = [0] * layers, [0] * layers
    embedding, has_output, active, skipped, on_host = 0, False, 0, 0, 0
    cublas = False
    for tensor in header.tensors:
        parts = tensor.name.split(".")
        if parts[0] == "blk" and len(parts) > 1 and parts[1].isdigit() and int(parts[1]) < layers:
            if int(parts[1]) >= trunk:
                skipped += tensor.bytes
                continue
            cublas = cublas or needs_cublas(tensor)
            layer_weights[int(parts[1])] += tensor.bytes
            layer_largest[int(parts[1])] = max(layer_largest[int(parts[1])], tensor.bytes)
        elif tensor.name in INPUT_TENSORS:
            on_host += tensor.bytes
            continue  # one row of it is read
        elif tensor.name == "token_embd.weight":
            embedding = tensor.bytes
        elif tensor.name == "output.weight":
            has_output = True
        if "_exps." in tensor.name and experts and used:
            active += tensor.bytes * min(used, experts) // experts
        else:
            active += tensor.bytes
    if has_output:
        active -= embedding  # one row of the input embedding is read, all of the output matrix is
    told = value("vocab_size")
    vocabulary = count(told, "vocab_size") if told else None
    if vocabulary is None:
        tokens = header.metadata.get("tokenizer.ggml.tokens")
        vocabulary = tokens.length if isinstance(tokens, gguf_header.LongArray) else None
    context = value("context_length")
    return ModelShape(
        name=name,
        source="gguf",
        weights_bytes=header.tensor_bytes - skipped,
        host_weights_bytes=on_host,
        kv_layers=kinds.most,
        least_layers=kinds.least,
        uncertain=kinds.reason,
        hidden=hidden,
        feed_forward=width or None,
        vocabulary=vocabulary,
        trained_context=count(context, "context_length") if context else None,
        layer_weights=tuple(layer_weights) if any(layer_weights) else None,
        layer_largest=tuple(layer_largest),
        token_embedding_bytes=embedding,
        tied_embeddings=not has_output and header.architecture not in NO_OUTPUT,
        cublas=cublas,
        active_weights_bytes=active,
        heads=_width(value("attention.head_count")) or None,
        experts=bool(experts),
        expert_feed_forward=expert_width or None,
    )


def from_hugging_face(name: str, model: hf_config.HfModel) -> ModelShape:
    """The shape a ``config.json`` tells (keys as in the Transformers library's configurations)."""
    config, kind = layer_kinds_hf.text_config(model.config)
    kinds = layer_kinds_hf.hf_layers(config, kind)
    hidden = count(config["hidden_size"], "hidden_size")
    heads = count(config["num_attention_heads"], "num_attention_heads")
    kv_heads = [layer.kv_heads for layer in kinds.most if layer.elements]
    if model.weights_bytes is None:
        raise ShapeError("there are neither safetensors files nor an index that tells the weights' size")
    method = config.get("quantization_config") or model.config.get("quantization_config")
    weights = model.weights_bytes
    notes = []
    # vLLM's dtype "auto" loads float32 checkpoints as 16 bit (vLLM docs, --dtype).
    if not method and model.bytes_by_dtype.get("F32", 0) > weights // 2:
        weights -= model.bytes_by_dtype["F32"] // 2
        notes.append("float32 weights are loaded as 16 bit")
    other_parts = bool(model.config.get("vision_config") or model.config.get("audio_config"))
    if other_parts:
        notes.append("the working memory of the vision or audio part is not counted")
    width = _width(config.get("intermediate_size"))
    experts = next((config[key] for key in EXPERT_KEYS if config.get(key)), None)
    expert_width = _width(config.get("moe_intermediate_size") or (width if experts else 0))
    if experts and config.get("moe_intermediate_size"):
        used = count(config.get("num_experts_per_tok") or 1, "num_experts_per_tok")
        width = max(width, expert_width * used)
    context = config.get("max_position_embeddings")
    vocabulary = config.get("vocab_size") or model.config.get("vocab_size")
    dtype = next((config.get(key) or model.config.get(key) for key in ("dtype", "torch_dtype")), None)
    bits = _weight_bits(method)
    return ModelShape(
        name=name,
        source="hugging_face",
        weights_bytes=weights,
        kv_layers=kinds.most,
        least_layers=kinds.least,
        uncertain=kinds.reason,
        hidden=hidden,
        feed_forward=width or None,
        vocabulary=count(vocabulary, "vocab_size") if vocabulary else None,
        trained_context=count(context, "max_position_embeddings") if context else None,
        token_embedding_bytes=model.token_embedding_bytes,
        tied_embeddings=config.get("tie_word_embeddings", model.config.get("tie_word_embeddings")),
        heads=heads,
        kv_heads=max(kv_heads, default=0) or None,
        head_dim=count(config.get("head_dim") or max(hidden // heads, 1), "head_dim"),
        # How many experts' weights one token reads is not to be told from here.
        active_weights_bytes=None if experts else weights,
        experts=bool(experts),
        other_parts=other_parts,
        expert_feed_forward=expert_width or None,
        weight_bits=bits,
        mxfp4_bytes=_mxfp4_bytes(method, model, kinds.most, hidden, expert_width, experts),
        dtype=_dtype(dtype, method),
        notes=tuple(notes),
    )


EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
# Methods whose matrices are of 4 bit where the configuration does not say how many.
FOUR_BITS = ("awq", "auto_awq", "gptq", "awq_marlin", "gptq_marlin", "bitsandbytes", "mxfp4", "modelopt_fp4", "nvfp4")


def _width(value: Any) -> int:
    """A figure that may be a list with one for each layer: the largest; 0 where there is none."""
    widths = value if isinstance(value, list) else [value]
    return max((count(item, "a width or a number of experts", least=0) for item in widths if item), default=0)


def _weight_bits(method: Any) -> int:
    """Bits of the matrices that a quantization_config names: 16, 8, 4, or 0 where it can't be told."""
    if not isinstance(method, dict):
        return 16 if not method else 0
    bits = method.get("bits") or method.get("w_bit")
    groups = method.get("config_groups")
    if bits is None and isinstance(groups, dict) and groups:
        first = next(iter(groups.values()))
        weights = first.get("weights") if isinstance(first, dict) else None
        bits = weights.get("num_bits") if isinstance(weights, dict) else None
    if isinstance(bits, int) and not isinstance(bits, bool) and bits > 0:
        return 4 if bits <= 4 else 8 if bits <= 8 else 16
    name = str(method.get("quant_method") or "")
    return 4 if name in FOUR_BITS else 8 if "fp8" in name or "int8" in name else 0


def _mxfp4_bytes(
    method: Any, model: hf_config.HfModel, layers: tuple[KvLayer, ...], hidden: int, width: int, experts: Any
) -> int:
    """Bytes of MXFP4 experts: three matrices each, 4 bit with an 8-bit scale for 32 elements."""
    if not isinstance(method, dict) or method.get("quant_method") != "mxfp4" or not experts or not width:
        return 0
    told = 3 * len(layers) * count(experts, "the number of experts") * hidden * width * 17 // 32
    return min(told, model.weights_bytes or told)


def _dtype(told: Any, method: Any) -> str:
    """The type of activations; AWQ runs in float16 unless it is told otherwise."""
    if isinstance(told, str):
        return told.replace("torch.", "")
    name = str(method.get("quant_method") or "") if isinstance(method, dict) else ""
    return "float16" if name in ("awq", "auto_awq") else ""


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
        size = count(entry["weights_bytes"], f"weights_bytes of {entry['name']}")
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
        return None if figures.get(key) is None else count(figures[key], key)

    weights = count(figures["weights_bytes"], "weights_bytes")
    layers, kv_heads, head_dim = optional("layers"), optional("kv_heads"), optional("head_dim")
    kv_layers: tuple[KvLayer, ...] = ()
    if layers and layers > MAX_LAYERS:
        raise ShapeError(f"layers is {layers}, more than {MAX_LAYERS}")
    if layers and kv_heads and head_dim:
        kv_layers = (KvLayer(kv_heads * head_dim, kv_heads * head_dim, kv_heads=kv_heads),) * layers
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
        head_dim=head_dim,
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
