"""What vLLM takes of a card beside its KV cache: weights as loaded, the profile run's peak, captured graphs.

Held against 14 starts of vLLM 0.30.0 on an H100 (docs/model-fit.md); what each constant was read from stands beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ansible.module_utils.ai_idp.model_shape import ModelShape

MIB = 1 << 20

# torch takes 2 MiB at a time for what is not small, and vLLM keeps it from splitting blocks of 20 MiB and more.
GRANULE = 2 * MIB
UNSPLIT = 20 * MIB
# Weights of 4 bit are packed anew for Marlin when they are loaded; what that leaves in torch's pool was 4.3 to 4.8 % of
# them in three models.
REPACKED = 0.045
# The workspace of cuBLAS: beside the peak of quantised models, within the graphs of those that are not.
CUBLAS_WORKSPACE = 32 * MIB
# A start that compiles leaves 10 and 18 MiB more in torch's pool (two pairs of starts).
COLD_REMAINS = 18 * MIB
# One graph: 3.0 MiB and 0.19 MiB for each layer, and the hidden state of its tokens. Within 18 MiB of the 14 starts,
# with 11, 35 and 51 graphs.
GRAPH_BASE = 3.0 * MIB
GRAPH_LAYER = 0.19 * MIB
# MXFP4 experts, padded for Marlin and TRTLLM (mxfp4_round_up_hidden_size_and_intermediate_size).
MXFP4_HIDDEN, MXFP4_FEED_FORWARD = 256, 128


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


@dataclass(frozen=True)
class Start:
    """Bytes on each card. ``compute`` is the peak beyond what is kept, of a cold start and of a warm one."""

    weights: int
    buffers: int
    graphs: int
    compute: int
    compute_warm: int
    remains: int


def linear_parameters(shape: ModelShape) -> int:
    """Parameters of all attention and feed-forward matrices of a dense model; 0 where that can't be told."""
    if not shape.hidden or not shape.feed_forward or not shape.head_dim or not shape.heads or shape.experts:
        return 0
    heads = shape.heads + 2 * (shape.kv_heads or shape.heads)
    attention = shape.hidden * shape.head_dim * (heads + shape.heads)
    return shape.layers * (attention + 3 * shape.hidden * shape.feed_forward)


def weight_bits(shape: ModelShape) -> int:
    """16, 8 or 4: how the matrices are stored, by the quantisation's name or else by their bytes."""
    if shape.weight_bits:
        return shape.weight_bits
    parameters = linear_parameters(shape)
    if not parameters or not shape.hidden or not shape.vocabulary:
        return 16
    embeddings = shape.hidden * shape.vocabulary * 2
    each = (shape.weights_bytes - embeddings * (1 if shape.tied_embeddings else 2)) / parameters
    return 4 if each < 0.75 else 8 if each < 1.5 else 16


def _granules(shape: ModelShape, bits: int, cards: int) -> int:
    """What torch's granules take beyond the matrices that vLLM makes: QKV, output, gate and up, down, embeddings."""
    if not linear_parameters(shape) or not shape.hidden or not shape.feed_forward or not shape.head_dim:
        return 0
    heads, kv_heads = shape.heads or 0, shape.kv_heads or shape.heads or 0
    matrices = (
        shape.hidden * (heads + 2 * kv_heads) * shape.head_dim,
        heads * shape.head_dim * shape.hidden,
        2 * shape.hidden * shape.feed_forward,
        shape.hidden * shape.feed_forward,
    )

    def beyond(size: int) -> int:
        return _round_up(size, GRANULE) - size if size >= UNSPLIT else 0

    total = shape.layers * sum(beyond(matrix * bits // 8 // cards) for matrix in matrices)
    embedding = shape.hidden * (shape.vocabulary or 0) * 2 // cards
    return total + beyond(embedding) * (1 if shape.tied_embeddings else 2)


def _padded_experts(shape: ModelShape, cards: int) -> int:
    """What MXFP4 experts take beyond their file on each card."""
    if not shape.mxfp4_bytes or not shape.hidden or not shape.expert_feed_forward:
        return 0
    own = -(-shape.expert_feed_forward // cards)
    padded = _round_up(shape.hidden, MXFP4_HIDDEN) * _round_up(own, MXFP4_FEED_FORWARD)
    return math.ceil(shape.mxfp4_bytes / cards * (padded / (shape.hidden * own) - 1))


def loaded_weights(shape: ModelShape, cards: int) -> int:
    """Weights as they lie on each card, with the table of rotary positions (max_position x head length x 2 bytes)."""
    bits = weight_bits(shape)
    weights = math.ceil(shape.weights_bytes / cards) + _granules(shape, bits, cards) + _padded_experts(shape, cards)
    if bits == 4 and not shape.mxfp4_bytes:
        embeddings = (shape.hidden or 0) * (shape.vocabulary or 0) * 2 * (1 if shape.tied_embeddings else 2)
        weights += math.ceil(REPACKED * max(shape.weights_bytes - embeddings, 0) / cards)
    if shape.trained_context and shape.head_dim:
        weights += shape.trained_context * shape.head_dim * 2
    return weights


def graph_sizes(sequences: int, batched: int) -> list[int]:
    """The batch sizes that vLLM captures (VllmConfig._set_cudagraph_sizes)."""
    most = min(2 * sequences, 512, batched)
    sizes = [size for size in (1, 2, 4) if size <= most]
    sizes += list(range(8, min(most, 255) + 1, 8))
    return sizes + list(range(256, most + 1, 16))


def start(shape: ModelShape, hidden: int, feed_forward: int, sequences: int, batched: int, cards: int) -> Start:
    """A start with compilation and graphs, as the template sets it.

    Peak of a warm start: batched tokens x 2 bytes x (3 x feed-forward + 3 x width), to the MiB for 16-bit weights; a
    model of 4 bit takes a workspace less, one of FP8 (3 x feed-forward + 1.25 x width). A cold start holds the largest
    example that Inductor tunes its kernels on, the input embedding, beside two hidden states.
    """
    bits = weight_bits(shape)
    own = math.ceil(feed_forward / cards)
    vocabulary = shape.vocabulary or UNKNOWN_VOCABULARY
    width = 1.25 if bits == 8 else 3
    warm = math.ceil(batched * 2 * (3 * own + width * hidden))
    if bits == 4:
        warm = max(warm - CUBLAS_WORKSPACE, 0)
    embedding = _round_up(math.ceil(vocabulary / cards) * hidden * 2, GRANULE)
    cold = max(warm, embedding + 4 * batched * hidden - CUBLAS_WORKSPACE)
    sizes = graph_sizes(sequences, batched)
    graphs = len(sizes) * (GRAPH_BASE + GRAPH_LAYER * shape.layers) + sum(sizes) * hidden * 2
    graphs += CUBLAS_WORKSPACE if bits == 16 else 0
    # Penalties and token counts of the sampler: 4 bytes for each entry of the vocabulary, and 60 kB.
    buffers = sequences * (vocabulary * 4 + 60_000)
    return Start(loaded_weights(shape, cards), buffers, math.ceil(graphs), cold, warm, COLD_REMAINS)


UNKNOWN_VOCABULARY = 131_072
