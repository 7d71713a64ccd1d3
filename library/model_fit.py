#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_fit
short_description: Tells whether language models fit the memory of a host's GPUs and of the host
description:
  - Projects the memory that inference services take (weights, KV cache, compute buffers, fixed overhead) and
    compares it with what the GPUs and the host have, for each service and for all of them together.
  - Where something does not fit it says by how much, what limits it, which context, quantisation or other model
    would fit, and names the variables that the user sets.
  - Sizes come from the model's own files where they are on the host (a GGUF header, or C(config.json) with the
    safetensors headers), else from the figures of a catalogue.
  - A context, a number of sequences or a tensor parallel size may be left open (V(auto), or V(up to N)); then the
    answer holds what the hardware allows, and why.
  - Bad values are refused with one sentence for each, before anything is decided.
  - Nothing is changed and no program is run.
options:
  services:
    description: The services that are to run on this host, each with its engine, device and model.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The service's name in messages and results.
        type: raw
      engine:
        description: The engine, C(vllm), C(llama_cpp) or C(triton).
        type: raw
      device:
        description: Where it holds its memory, C(gpu) (the default) or C(cpu).
        type: raw
      gpu_index:
        description: The GPU's index as C(nvidia-smi -L) shows it, 0 when not given.
        type: raw
      model:
        description:
          - The model as a mapping of C(name), C(path) (a C(.gguf) file, any part of a split one, or a folder) and
            C(figures), which are used while there is nothing at the path.
          - C(accept_unknown), set to true, lets a start go on whose outcome can't be told.
          - C(figures) may have C(weights_bytes), C(layers), C(kv_heads), C(head_dim), C(parameters),
            C(active_parameters), C(hidden_size), C(feed_forward_length), C(vocabulary_size), C(context_length),
            C(tied_embeddings) and C(quantizations), a list of mappings of C(name) and C(weights_bytes).
        type: raw
      context_length:
        description:
          - Tokens, 4096 when not given. For vLLM the longest sequence (C(--max-model-len)).
          - V(auto) is the most that fits and the model was trained for, V(up to N) the same with an end of the user's.
          - For llama.cpp all tokens (C(-c)), which the slots share.
        type: raw
      sequences:
        description:
          - Requests at the same time, vLLM's C(--max-num-seqs) (32) or llama.cpp's C(-np) (1).
          - V(auto) is as many as find room for 2,048 tokens each, at most 32 for vLLM and 4 for llama.cpp;
            V(up to N) the same with another end.
        type: raw
      tensor_parallel_size:
        description:
          - How many equal GPUs vLLM spreads the model over, 1 when not given.
          - V(auto) is as many as the host has and the model's attention heads can be shared out over.
        type: raw
      planned:
        description: C(context_length) and C(sequences) as they run now. They are kept in place of C(auto) where they
          fit and less than 5 % would be gained, so that a kernel or a driver that takes a little more restarts nothing.
        type: raw
      kv_cache_type:
        description: Type of the KV cache, such as C(auto), C(f16), C(q8_0), C(q4_0) or C(fp8).
        type: raw
      gpu_memory_utilization:
        description: vLLM's part of the GPU's memory, above 0 and at most 1; 0.80 when not given.
        type: raw
      max_num_batched_tokens:
        description: Tokens of one vLLM step, 4096 when not given.
        type: raw
      ubatch_size:
        description: Tokens of one llama.cpp step (C(-ub)), 512 when not given.
        type: raw
      gpu_layers:
        description: Layers that llama.cpp puts on the GPU (C(-ngl)); -1, the default, is all.
        type: raw
      memory_bytes:
        description:
          - What Triton may take; needed when it runs on the GPU.
          - For llama.cpp host memory beside the model, such as the prompt cache (C(--cache-ram)).
        type: raw
      cpu_kv_cache_bytes:
        description: KV cache of vLLM on the CPU in bytes (C(VLLM_CPU_KVCACHE_SPACE) gives GiB).
        type: raw
      memory_limit_bytes:
        description:
          - Memory limit of the container. A service on the CPU has no more than this; one on a GPU keeps in it what it
            has of main memory beside the GPU.
        type: raw
      compile_cache:
        description:
          - Whether vLLM finds its compiled kernels, V(cold) (the default) or V(warm). The length is part of their key,
            so every new setting starts cold and needs more for it.
        type: raw
      enforce_eager:
        description: Whether vLLM runs without compilation and graphs (C(--enforce-eager)), V(false) when not given.
        type: raw
      dtype:
        description: vLLM's type of activations (C(--dtype)), V(auto) when not given. With V(float16), which AWQ models
          have by themselves, it crashes on an 8-bit KV cache.
        type: raw
      variables:
        description: By parameter, the name under which the user sets it, for messages.
        type: raw
  gpus:
    description:
      - The host's GPUs as M(gpu_info) returns them. C(index) and C(memory_total_bytes) are needed;
        C(memory_reserved_bytes), or C(memory_used_bytes) and C(memory_free_bytes), make the answer exact.
      - C(other_processes_bytes) is what programs outside the platform hold, C(memory_bandwidth_bytes_per_second)
        gives the ceiling of tokens per second.
    type: list
    elements: dict
    default: []
  host_memory_bytes:
    description: The host's memory; without it services on the CPU get the verdict V(unknown).
    type: int
  host_reserved_bytes:
    description: Part of the host's memory that is kept for the operating system; 1 GiB when not given.
    type: int
  host_memory_bandwidth_bytes_per_second:
    description: The host's memory bandwidth, for the ceiling of tokens per second on the CPU.
    type: int
  overhead_bytes:
    description:
      - Fixed parts that were measured on this host, in place of the built-in ones, by the keys C(llama_cpp_gpu),
        C(llama_cpp_cublas), C(cuda_context), C(vllm_gpu), C(vllm_beyond_budget), C(vllm_tensor_parallel), C(vllm_cpu),
        C(llama_cpp_cpu) and C(triton_cpu).
    type: dict
  alternatives:
    description:
      - Other models, mappings of C(name) with C(figures) or C(path), that are offered where they fit with the same
        limits.
      - C(engines), a list, restricts one to these engines.
    type: list
    elements: dict
    default: []
  fail_on_unknown:
    description: Fail too where it can't be told whether a service fits and its model's C(accept_unknown) is not set.
    type: bool
    default: false
  fail_on_problems:
    description: Fail with what does not fit as the message. Without it the caller decides.
    type: bool
    default: false
extends_documentation_fragment: [read_only]
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The services fit this host
  model_fit:
    gpus: "{{ __gpus.gpus }}"
    host_memory_bytes: "{{ ansible_facts['memtotal_mb'] * 1048576 }}"
    services:
      - name: vllm
        engine: vllm
        device: gpu
        model:
          name: Llama 3.1 8B AWQ
          figures:
            weights_bytes: 5730000000
            layers: 32
            kv_heads: 8
            head_dim: 128
        context_length: 8192
        gpu_memory_utilization: 0.80
        variables:
          gpu_memory_utilization: inference_stack_vllm_gpu_memory_utilization
  register: __fit

- name: The longest context that the GPUs of this host allow is known
  model_fit:
    gpus: "{{ __gpus.gpus }}"
    services:
      - name: vllm
        engine: vllm
        model: {name: Llama 3.1 8B AWQ, path: /srv/models/llama-3.1-8b-awq}
        context_length: up to 65536
        tensor_parallel_size: auto
  register: __planned

- name: It is said with its reason
  ansible.builtin.debug:
    msg: "{{ __planned.services[0].context_length }}, {{ __planned.services[0].reasons.context_length }}"

- name: What does not fit is refused with the figures
  ansible.builtin.assert:
    that: __fit.problems | length == 0
    fail_msg: "{{ __fit.problems | join('\n') }}"
"""

RETURN = r"""
fits:
  description: Everything is known to fit. False also where one answer is V(unknown).
  returned: success
  type: bool
  sample: true
verdict:
  description: V(fits), V(does_not_fit) when there are problems, else V(unknown).
  returned: success
  type: str
  sample: fits
services:
  description: The answer for each service, in the order given. Sizes that are not known are null.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The service.
      type: str
    engine:
      description: Its engine.
      type: str
    device:
      description: Its device.
      type: str
    model:
      description: Its model; null for Triton.
      type: str
    gpus:
      description: Indices of the GPUs that it uses.
      type: list
      elements: int
    devices:
      description: The same as CDI names them behind C(nvidia.com/gpu=), C(0) or for a MIG instance C(0:1).
      type: list
      elements: str
    context_length:
      description: What was given, or what fits; null for Triton.
      type: int
    sequences:
      description: What was given, or what fits; null for Triton.
      type: int
    tensor_parallel_size:
      description: How many GPUs vLLM spreads the model over; null for the others.
      type: int
    reasons:
      description: Why each of these numbers is what it is.
      type: dict
      sample: {context_length: the most that fits 13.3 GB, sequences: as set}
    verdict:
      description: V(fits), V(does_not_fit) or V(unknown) (no figures, or closer than the margin).
      type: str
    required_bytes:
      description: Projected need on the device, without the margin; vLLM's KV cache for one full sequence. Of a
        service that is spread over several GPUs what each of them holds.
      type: int
    least_bytes:
      description: What it takes at least, where the rules of its layers are not known; else required_bytes.
      type: int
    warm_required_bytes:
      description: What a start of vLLM needs that finds its compiled kernels; required_bytes is for one that does not.
      type: int
    warm_max_context_length:
      description: The max_context_length of such a start, told and never planned for. Null for other engines.
      type: int
    accepted:
      description: Whether the answer is V(unknown) and the model's C(accept_unknown) is set.
      type: bool
    available_bytes:
      description: What this service can have on the device.
      type: int
    host_bytes:
      description: Host memory that a service on the GPU holds too.
      type: int
    breakdown:
      description: Bytes of weights, kv_cache, states (recurrent ones), pool (of vLLM's blocks, beside one sequence's
        tokens), compute, graphs, reserved, overhead and the margin.
      type: dict
    limited_by:
      description:
        - Null when it fits, else V(weights), V(kv_cache), V(other_services), V(no_gpu), V(cpu_kv_cache),
          V(memory_limit), V(margin), V(dtype), V(layer_kinds), V(model_not_known) or V(memory_not_known).
      type: str
    max_context_length:
      description: Largest context_length that fits with the same sequences; 0 when none does.
      type: int
    max_sequences:
      description: How many sequences of the present length fit at the same time.
      type: int
    next_smaller_quantization:
      description: Name, weights_bytes and required_bytes of the next smaller one that fits, or null.
      type: dict
    smallest_quantization:
      description: The smallest published one with its required_bytes and whether it fits, or null.
      type: dict
    alternatives:
      description: The alternatives that fit with the same limits, largest first; filled when this one does not fit.
      type: list
      elements: dict
    roofline_tokens_per_second:
      description: Memory bandwidth over weights read per token, a ceiling for one sequence, or null.
      type: float
    error_bound_fraction:
      description: By which part of required_bytes the projection may be wrong.
      type: float
    figures_source:
      description: V(gguf), V(hugging_face) or V(figures).
      type: str
    notes:
      description: What makes the projection less exact.
      type: list
      elements: str
    message:
      description: The answer in words.
      type: str
gpus:
  description: For each GPU its budget_bytes, the required_bytes of all services on it and whether they fit.
  returned: success
  type: list
  elements: dict
  sample:
    - {index: 0, name: NVIDIA GeForce RTX 5070 Ti, budget_bytes: 16619929600, required_bytes: 13848543232, fits: true}
host:
  description: The same for the host's memory.
  returned: success
  type: dict
  sample: {budget_bytes: 133143986176, required_bytes: 6442450944, fits: true}
problems:
  description: What does not fit, ready to print. On failure what is wrong with the input.
  returned: always
  type: list
  elements: str
unaccepted:
  description: Those of the unknowns that stop where C(fail_on_unknown) is set.
  returned: success
  type: list
  elements: str
unknowns:
  description: What can't be told and why.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.ai_idp import model_fit
from ansible.module_utils.basic import AnsibleModule

SERVICE_OPTIONS = (
    "name",
    "engine",
    "device",
    "gpu_index",
    "model",
    "context_length",
    "sequences",
    "tensor_parallel_size",
    "planned",
    "kv_cache_type",
    "gpu_memory_utilization",
    "max_num_batched_tokens",
    "ubatch_size",
    "gpu_layers",
    "memory_bytes",
    "cpu_kv_cache_bytes",
    "memory_limit_bytes",
    "compile_cache",
    "enforce_eager",
    "dtype",
    "variables",
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # Raw on purpose: a wrong value gets a sentence that names the user's variable, not a type error.
            "services": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {name: {"type": "raw"} for name in SERVICE_OPTIONS},
            },
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "host_memory_bytes": {"type": "int"},
            "host_reserved_bytes": {"type": "int"},
            "host_memory_bandwidth_bytes_per_second": {"type": "int"},
            "overhead_bytes": {"type": "dict"},
            "alternatives": {"type": "list", "elements": "dict", "default": []},
            "fail_on_unknown": {"type": "bool", "default": False},
            "fail_on_problems": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    inputs, problems = model_fit.parse(module.params)
    if inputs is None:
        module.fail_json(msg="\n".join(problems), problems=problems)
    answer = model_fit.decide(inputs)
    if answer["problems"] and module.params["fail_on_problems"]:
        module.fail_json(msg="\n".join(answer["problems"]), **answer)
    if answer["unaccepted"] and module.params["fail_on_unknown"]:
        module.fail_json(msg="\n".join(answer["unaccepted"]), **answer)
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
