"""Inference, one row for each engine."""

from dashboards.parts import NO_REQUEST, Board, Query, Row, Steps, heat, host_variable, lines, number, quantiles

HOST = 'host=~"$host"'
VLLM = f'job="vllm", {HOST}'
LLAMA = f'job="llama_cpp", {HOST}'
TRITON = f'job="triton", {HOST}'
MODEL = "{{host}} {{model_name}}"
TRITON_MODEL = "{{host}} {{model}}"


def ratio(part: str, whole: str, by: str) -> str:
    """Part per whole over the last interval; no value while nothing happens."""
    return f"sum by ({by}) (rate({part}[$__rate_interval])) / sum by ({by}) (rate({whole}[$__rate_interval]))"


BOARD = Board(
    name="inference",
    title="AI-IDP: inference by engine",
    description="vLLM, llama.cpp and Triton: what they are asked, how fast they answer, where they are full.",
    variables=[host_variable('label_values(up{job=~"vllm|llama_cpp|triton"}, host)')],
    rows=[
        Row(
            "vLLM",
            [
                number(
                    "Running",
                    "Requests that vLLM generates tokens for now.",
                    "none",
                    Query(f"sum(vllm:num_requests_running{{{VLLM}}})"),
                    decimals=0,
                ),
                number(
                    "Waiting",
                    "Requests in vLLM's queue. A queue that stays means that a second GPU server would help.",
                    "none",
                    Query(f"sum(vllm:num_requests_waiting{{{VLLM}}})"),
                    decimals=0,
                    steps=Steps(1, 10),
                ),
                number(
                    "KV cache of the fullest",
                    "Share in use. Near 100 % requests are preempted and computed again.",
                    "percentunit",
                    Query(f"max(vllm:kv_cache_usage_perc{{{VLLM}}})"),
                    decimals=0,
                    steps=Steps(0.8, 0.95),
                ),
                number(
                    "Generated per second",
                    "Tokens of all requests together.",
                    "short",
                    Query(f"sum(rate(vllm:generation_tokens_total{{{VLLM}}}[$__rate_interval]))"),
                    decimals=1,
                ),
                number(
                    "TTFT p95 in this range",
                    "Time to first token of 95 of 100 requests in the range that the dashboard shows.",
                    "s",
                    Query(
                        "histogram_quantile(0.95, sum by (le)"
                        f" (rate(vllm:time_to_first_token_seconds_bucket{{{VLLM}}}[$__range])))"
                    ),
                    steps=Steps(1, 3),
                    no_value=NO_REQUEST,
                ),
                number(
                    "Requests in this range",
                    "Requests that vLLM finished, whatever ended them.",
                    "none",
                    Query(f"sum(increase(vllm:request_success_total{{{VLLM}}}[$__range]))"),
                    decimals=0,
                ),
                lines(
                    "Time to first token (TTFT)",
                    "From the request's arrival to its first token: queue and prefill.",
                    "s",
                    *quantiles("vllm:time_to_first_token_seconds_bucket", VLLM),
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Inter-token latency (ITL)",
                    "Time between two tokens of one stream. Readers notice more than about 0.1 s.",
                    "s",
                    *quantiles("vllm:inter_token_latency_seconds_bucket", VLLM),
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Whole request",
                    "From a request's arrival to its last token.",
                    "s",
                    *quantiles("vllm:e2e_request_latency_seconds_bucket", VLLM),
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Tokens per second",
                    "Tokens read (prompt) and generated.",
                    "short",
                    Query(
                        f"sum by (host, model_name) (rate(vllm:generation_tokens_total{{{VLLM}}}[$__rate_interval]))",
                        f"{MODEL} generated",
                    ),
                    Query(
                        f"sum by (host, model_name) (rate(vllm:prompt_tokens_total{{{VLLM}}}[$__rate_interval]))",
                        f"{MODEL} prompt",
                    ),
                ),
                lines(
                    "Requests",
                    "Requests that run and that wait.",
                    "none",
                    Query(f"vllm:num_requests_running{{{VLLM}}}", f"{MODEL} running"),
                    Query(f"vllm:num_requests_waiting{{{VLLM}}}", f"{MODEL} waiting"),
                ),
                lines(
                    "KV cache in use",
                    "Share of the cache that running requests hold.",
                    "percentunit",
                    Query(f"vllm:kv_cache_usage_perc{{{VLLM}}}", MODEL),
                    high=1,
                    steps=Steps(0.8, 0.95),
                ),
                lines(
                    "Requests finished, by reason",
                    "stop: the model ended; length: the limit was reached; abort: the client left; error: see the log.",
                    "reqps",
                    Query(
                        "sum by (host, finished_reason)"
                        f" (rate(vllm:request_success_total{{{VLLM}}}[$__rate_interval]))",
                        "{{host}} {{finished_reason}}",
                    ),
                ),
                lines(
                    "Where the time goes (mean)",
                    "Mean time in the queue, for the prompt and for the answer.",
                    "s",
                    *(
                        Query(
                            ratio(
                                f"vllm:request_{part}_time_seconds_sum{{{VLLM}}}",
                                f"vllm:request_{part}_time_seconds_count{{{VLLM}}}",
                                "host",
                            ),
                            f"{{{{host}}}} {name}",
                        )
                        for part, name in (("queue", "queue"), ("prefill", "prefill"), ("decode", "decode"))
                    ),
                    stacked=True,
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Prefix cache hits",
                    "Share of prompt tokens that were found in the prefix cache and not computed again.",
                    "percentunit",
                    Query(
                        ratio(
                            f"vllm:prefix_cache_hits_total{{{VLLM}}}",
                            f"vllm:prefix_cache_queries_total{{{VLLM}}}",
                            "host",
                        ),
                        "{{host}}",
                    ),
                    width=4,
                    high=1,
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Preemptions per minute",
                    "Requests that were put back into the queue because the KV cache was full.",
                    "short",
                    Query(
                        f"sum by (host) (rate(vllm:num_preemptions_total{{{VLLM}}}[$__rate_interval])) * 60",
                        "{{host}}",
                    ),
                    width=4,
                ),
                heat(
                    "Time to first token, all requests",
                    "How many requests had to wait how long for their first token.",
                    "s",
                    Query(
                        f"sum by (le) (increase(vllm:time_to_first_token_seconds_bucket{{{VLLM}}}[$__rate_interval]))",
                        "{{le}}",
                    ),
                    width=24,
                ),
            ],
        ),
        Row(
            "llama.cpp",
            [
                lines(
                    "Tokens per second",
                    "Tokens read (prompt) and generated, over all of the time.",
                    "short",
                    Query(
                        f"sum by (host) (rate(llamacpp:tokens_predicted_total{{{LLAMA}}}[$__rate_interval]))",
                        "{{host}} generated",
                    ),
                    Query(
                        f"sum by (host) (rate(llamacpp:prompt_tokens_total{{{LLAMA}}}[$__rate_interval]))",
                        "{{host}} prompt",
                    ),
                ),
                lines(
                    "Speed while it generates",
                    "Tokens per second of the time in which it really generated, which idle time does not lower.",
                    "short",
                    Query(
                        ratio(
                            f"llamacpp:tokens_predicted_total{{{LLAMA}}}",
                            f"llamacpp:tokens_predicted_seconds_total{{{LLAMA}}}",
                            "host",
                        ),
                        "{{host}} generation",
                    ),
                    Query(
                        ratio(
                            f"llamacpp:prompt_tokens_total{{{LLAMA}}}",
                            f"llamacpp:prompt_seconds_total{{{LLAMA}}}",
                            "host",
                        ),
                        "{{host}} prompt",
                    ),
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Requests",
                    "Requests in a slot, and requests that wait for one.",
                    "none",
                    Query(f"llamacpp:requests_processing{{{LLAMA}}}", "{{host}} processing"),
                    Query(f"llamacpp:requests_deferred{{{LLAMA}}}", "{{host}} deferred"),
                ),
            ],
        ),
        Row(
            "Triton",
            [
                lines(
                    "Requests per second",
                    "Requests that succeeded and that failed, by model.",
                    "reqps",
                    Query(
                        f"sum by (host, model) (rate(nv_inference_request_success{{{TRITON}}}[$__rate_interval]))",
                        f"{TRITON_MODEL} succeeded",
                    ),
                    Query(
                        f"sum by (host, model) (rate(nv_inference_request_failure{{{TRITON}}}[$__rate_interval]))",
                        f"{TRITON_MODEL} failed",
                    ),
                    width=6,
                ),
                lines(
                    "Time per request (mean)",
                    "Mean time of a request, and how much of it was spent in the queue.",
                    "µs",
                    Query(
                        ratio(
                            f"nv_inference_request_duration_us{{{TRITON}}}",
                            f"nv_inference_request_success{{{TRITON}}}",
                            "host, model",
                        ),
                        f"{TRITON_MODEL} whole",
                    ),
                    Query(
                        ratio(
                            f"nv_inference_queue_duration_us{{{TRITON}}}",
                            f"nv_inference_request_success{{{TRITON}}}",
                            "host, model",
                        ),
                        f"{TRITON_MODEL} queue",
                    ),
                    width=6,
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Inferences per execution",
                    "Above 1 where dynamic batching puts requests together.",
                    "short",
                    Query(
                        ratio(f"nv_inference_count{{{TRITON}}}", f"nv_inference_exec_count{{{TRITON}}}", "host, model"),
                        TRITON_MODEL,
                    ),
                    width=6,
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Waiting",
                    "Requests that wait to be executed.",
                    "none",
                    Query(f"sum by (host, model) (nv_inference_pending_request_count{{{TRITON}}})", TRITON_MODEL),
                    width=6,
                ),
            ],
        ),
    ],
)
