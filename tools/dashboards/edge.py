"""The edge: the Jetson, its small model, and the link to the GPU server."""

from dashboards.parts import NO_REQUEST, Board, Query, Row, Steps, host_variable, lines, number

HOST = 'host=~"$host"'
LLAMA = f'job="edge_llama_cpp", {HOST}'
NODE = f'job="node", {HOST}'
JETSON = "only a Jetson has these sensors"
NO_SENSOR = "no Jetson sensor here"

BOARD = Board(
    name="edge",
    title="AI-IDP: edge",
    description="The edge hosts: the model they serve, the RPC link, heat and power.",
    requires="edge_llama_cpp",
    variables=[host_variable('label_values(up{job="edge_llama_cpp"}, host)')],
    rows=[
        Row(
            "Inference at the edge",
            [
                number(
                    "Engine",
                    "Whether the llama.cpp server at the edge answers.",
                    "none",
                    Query(f"min(up{{{LLAMA}}})"),
                    words={"0": ("down", "red"), "1": ("up", "green")},
                    height=8,
                ),
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
                    width=7,
                ),
                lines(
                    "Speed while it generates",
                    "Tokens per second of the time in which it really generated."
                    " The report of week 4 says what to expect.",
                    "short",
                    Query(
                        f"sum by (host) (rate(llamacpp:tokens_predicted_total{{{LLAMA}}}[$__rate_interval]))"
                        " / sum by (host)"
                        f" (rate(llamacpp:tokens_predicted_seconds_total{{{LLAMA}}}[$__rate_interval]))",
                        "{{host}}",
                    ),
                    width=7,
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Requests",
                    "Requests in a slot, and requests that wait for one.",
                    "none",
                    Query(f"llamacpp:requests_processing{{{LLAMA}}}", "{{host}} processing"),
                    Query(f"llamacpp:requests_deferred{{{LLAMA}}}", "{{host}} deferred"),
                    width=6,
                ),
            ],
        ),
        Row(
            "RPC link",
            [
                lines(
                    "Round trip over the RPC link (p50)",
                    "Median time that one request to the RPC server and back takes. Each generated token pays it.",
                    "ms",
                    Query("ai_idp_rpc_rtt_p50_ms", "{{host}}"),
                    width=12,
                ),
                lines(
                    "Network",
                    "Bytes in and out of the edge hosts.",
                    "binBps",
                    Query(
                        f"sum by (host) (rate(node_network_receive_bytes_total{{{NODE}, "
                        'device!~"lo|veth.*|br-.*|docker.*"}[$__rate_interval]))',
                        "{{host}} in",
                    ),
                    Query(
                        f"sum by (host) (rate(node_network_transmit_bytes_total{{{NODE}, "
                        'device!~"lo|veth.*|br-.*|docker.*"}[$__rate_interval]))',
                        "{{host}} out",
                    ),
                    width=12,
                ),
            ],
        ),
        Row(
            "Board",
            [
                lines(
                    "CPU busy",
                    "Share of all cores that do something else than wait.",
                    "percentunit",
                    Query(
                        f'1 - avg by (host) (rate(node_cpu_seconds_total{{{NODE}, mode="idle"}}[$__rate_interval]))',
                        "{{host}}",
                    ),
                    high=1,
                    width=6,
                ),
                lines(
                    "Memory available",
                    "CPU and GPU of a Jetson share it: about 5.2 GB of 8 are there for models.",
                    "bytes",
                    Query(f"node_memory_MemAvailable_bytes{{{NODE}}}", "{{host}}"),
                    width=6,
                ),
                lines(
                    "GPU busy",
                    "Load of the Jetson's GPU.",
                    "percentunit",
                    Query(f"ai_idp_jetson_gpu_utilization_ratio{{{HOST}}}", "{{host}}", hardware=JETSON),
                    width=4,
                    high=1,
                    no_value=NO_SENSOR,
                ),
                lines(
                    "Power",
                    "By supply rail; the whole board has 25 W in its best mode.",
                    "watt",
                    Query(f"ai_idp_jetson_power_watts{{{HOST}}}", "{{host}} {{rail}}", hardware=JETSON),
                    width=4,
                    no_value=NO_SENSOR,
                ),
                lines(
                    "Temperature",
                    "By thermal zone.",
                    "celsius",
                    Query(f"ai_idp_jetson_temperature_celsius{{{HOST}}}", "{{host}} {{zone}}", hardware=JETSON),
                    width=4,
                    low=None,
                    steps=Steps(85, 95),
                    no_value=NO_SENSOR,
                ),
            ],
        ),
    ],
)
