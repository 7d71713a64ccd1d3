"""The whole platform on one page: is everything up, how busy is it, does anything need somebody."""

from dashboards.parts import UP_OR_DOWN, Board, Query, Row, Steps, bars, lines, listing, number, states

BOARD = Board(
    name="overview",
    title="AI-IDP: overview",
    description="Is everything up, how busy is it, and does anything need somebody?",
    rows=[
        Row(
            "Now",
            [
                number(
                    "Scrape targets down",
                    "Services and exporters that Prometheus could not read. The state of each is shown below.",
                    "none",
                    Query("count(up == 0) or vector(0)"),
                    decimals=0,
                    steps=Steps(1, 1),
                ),
                number(
                    "Alerts firing",
                    "Alerts that Prometheus holds to be firing. Alertmanager says who was told.",
                    "none",
                    # No series means that no alert fires: 0 is the truth.
                    Query('count(ALERTS{alertstate="firing"}) or vector(0)'),
                    decimals=0,
                    steps=Steps(1, 1),
                ),
                number(
                    "Requests in flight",
                    "Requests that vLLM and llama.cpp work on, queued ones included.",
                    "none",
                    Query(
                        'sum({__name__=~"vllm:num_requests_running|vllm:num_requests_waiting'
                        '|llamacpp:requests_processing|llamacpp:requests_deferred"})'
                    ),
                    decimals=0,
                ),
                number(
                    "Tokens generated per second",
                    "All engines on all hosts together.",
                    "short",
                    Query(
                        'sum(rate({__name__=~"vllm:generation_tokens_total|llamacpp:tokens_predicted_total"}'
                        "[$__rate_interval]))"
                    ),
                    decimals=1,
                ),
                number(
                    "Requests per second at the gateway",
                    "Every request that NGINX took, refused ones included.",
                    "reqps",
                    Query("sum(rate(nginx_http_requests_total[$__rate_interval]))"),
                    decimals=1,
                ),
                number(
                    "Certificate valid for",
                    "Time until the first certificate that the gateway shows expires. Run week 3 again to renew it.",
                    "s",
                    Query("min(probe_ssl_earliest_cert_expiry - time())"),
                    decimals=0,
                    steps=Steps(21 * 86400, 7 * 86400),
                ),
            ],
        ),
        Row(
            "Services",
            [
                states(
                    "Scrape targets",
                    "Whether Prometheus could read each service and exporter.",
                    Query("min by (host, job) (up)", "{{host}} {{job}}"),
                    words=UP_OR_DOWN,
                    height=11,
                ),
                listing(
                    "Alerts firing",
                    "What fires now. The runbook of each alert is in docs/monitoring.md.",
                    "none",
                    Query(
                        'count by (alertname, severity, host) (ALERTS{alertstate="firing"})'
                        ' or on () label_replace(vector(0), "alertname", "none", "", "")'
                    ),
                    {"alertname": "alert", "severity": "severity", "host": "host"},
                    value="number",
                    height=11,
                ),
            ],
        ),
        Row(
            "Load",
            [
                lines(
                    "Tokens generated per second",
                    "Counted by the engines themselves.",
                    "short",
                    Query("sum by (host, job) (rate(vllm:generation_tokens_total[$__rate_interval]))", "{{host}} vLLM"),
                    Query(
                        "sum by (host, job) (rate(llamacpp:tokens_predicted_total[$__rate_interval]))",
                        "{{host}} {{job}}",
                    ),
                ),
                lines(
                    "CPU busy",
                    "Share of all cores that do something else than wait.",
                    "percentunit",
                    Query(
                        '1 - avg by (host) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))', "{{host}}"
                    ),
                    high=1,
                ),
                lines(
                    "Memory in use",
                    "Share of RAM that programs can't get without something being thrown out or swapped.",
                    "percentunit",
                    Query("1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{host}}"),
                    high=1,
                    steps=Steps(0.85, 0.95),
                ),
                lines(
                    "GPU busy",
                    "Share of time in which a kernel ran. A GPU named “replayed” shows a recording, not a measurement.",
                    "percent",
                    Query(
                        'DCGM_FI_DEV_GPU_UTIL{replay!="true"}',
                        "{{host}} GPU {{gpu}}",
                        hardware=("a lab without a GPU has only the replayed recording"),
                    ),
                    Query(
                        'DCGM_FI_DEV_GPU_UTIL{replay="true"}',
                        "{{host}} GPU {{gpu}} (replayed)",
                        hardware=("only a lab without a GPU replays a recording"),
                    ),
                    high=100,
                ),
                bars(
                    "Fullest disk",
                    "Of each host, the file system with the least room left.",
                    "percentunit",
                    Query(
                        "max by (host) (1 - node_filesystem_avail_bytes"
                        '{fstype!~"tmpfs|ramfs|squashfs|iso9660|vfat"}'
                        ' / node_filesystem_size_bytes{fstype!~"tmpfs|ramfs|squashfs|iso9660|vfat"})',
                        "{{host}}",
                    ),
                    high=1,
                    steps=Steps(0.8, 0.9),
                ),
                listing(
                    "Measured baselines",
                    "Means that the benchmark of this platform measured. Alerts compare the throughput with them.",
                    "none",
                    # The textfile says for which host it was measured; Prometheus may have put its own label first.
                    Query(
                        "max by (claim_id, host, unit)"
                        ' (label_replace(ai_idp_benchmark_mean, "host", "$1", "exported_host", "(.+)"))'
                    ),
                    {"claim_id": "claim", "host": "host", "unit": "unit"},
                    value="mean",
                    width=8,
                    no_value="week 1 has measured nothing yet",
                ),
            ],
        ),
    ],
)
