"""The gateway: the one door, and who comes through it."""

from dashboards.parts import (
    NO_REQUEST,
    UP_OR_DOWN,
    Board,
    Query,
    Row,
    Steps,
    host_variable,
    lines,
    number,
    quantiles,
    states,
    variable,
)

HOST = 'host=~"$host"'
NGINX = f'job="nginx", {HOST}'
PROBE = f'job="blackbox", {HOST}'
CLIENT = f'{HOST}, client=~"$client"'


def by_client(metric: str, labels: str = "client", more: str = "") -> str:
    """Rate of one of the counters that are made from the access log."""
    return f"sum by ({labels}) (rate(ai_idp_gateway_{metric}{{{CLIENT}{more}}}[$__rate_interval]))"


BOARD = Board(
    name="gateway",
    title="AI-IDP: gateway by client",
    description="What comes through the HTTPS door: load, who asks for what, refusals, time to the first byte.",
    variables=[
        host_variable('label_values(nginx_up{job="nginx"}, host)', "Gateway"),
        variable("client", "Client", "label_values(ai_idp_gateway_requests_total, client)"),
    ],
    rows=[
        Row(
            "Door",
            [
                number(
                    "Requests per second",
                    "Every request that NGINX took, refused ones included.",
                    "reqps",
                    Query(f"sum(rate(nginx_http_requests_total{{{NGINX}}}[$__rate_interval]))"),
                    decimals=1,
                ),
                number(
                    "Open connections",
                    "Connections of clients, those that idle included.",
                    "none",
                    Query(f"sum(nginx_connections_active{{{NGINX}}})"),
                    decimals=0,
                ),
                number(
                    "Connections dropped",
                    "Connections in this range that NGINX took but had no room to serve.",
                    "none",
                    Query(
                        f"sum(increase(nginx_connections_accepted{{{NGINX}}}[$__range])"
                        f" - increase(nginx_connections_handled{{{NGINX}}}[$__range]))"
                    ),
                    decimals=0,
                    steps=Steps(1, 1),
                ),
                number(
                    "Certificate valid for",
                    "Time until the certificate expires. Run week 3 again to renew it.",
                    "s",
                    Query(f"min(probe_ssl_earliest_cert_expiry{{{PROBE}}} - time())"),
                    decimals=0,
                    steps=Steps(21 * 86400, 7 * 86400),
                ),
                number(
                    "Probes that fail",
                    "Addresses that do not answer as they should, asked from outside NGINX.",
                    "none",
                    Query(f"count(probe_success{{{PROBE}}} == 0) or vector(0)"),
                    decimals=0,
                    steps=Steps(1, 1),
                ),
                number(
                    "Refused or failed",
                    "Share of requests in this range that were answered with a code of 400 or above.",
                    "percentunit",
                    Query(
                        f'(sum(increase(ai_idp_gateway_requests_total{{{CLIENT}, status=~"[45].."}}[$__range]))'
                        " or vector(0))"
                        f" / sum(increase(ai_idp_gateway_requests_total{{{CLIENT}}}[$__range]))"
                    ),
                    decimals=1,
                    steps=Steps(0.05, 0.2),
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Connections",
                    "Reading a request, writing an answer (streams count here), and waiting for the next request.",
                    "none",
                    *(
                        Query(f"nginx_connections_{state}{{{NGINX}}}", f"{{{{host}}}} {state}")
                        for state in ("reading", "writing", "waiting")
                    ),
                    stacked=True,
                ),
                states(
                    "Probes",
                    "Each address as seen by the blackbox exporter.",
                    Query(f"probe_success{{{PROBE}}}", "{{instance}}"),
                    words=UP_OR_DOWN,
                    width=8,
                ),
                lines(
                    "Time of probes",
                    "How long each address took to answer.",
                    "s",
                    Query(f"probe_duration_seconds{{{PROBE}}}", "{{instance}}"),
                ),
            ],
        ),
        Row(
            "Clients",
            [
                lines(
                    "Requests per second",
                    "By client. (none) are requests without a valid key, and pages that need none.",
                    "reqps",
                    Query(by_client("requests_total"), "{{client}}"),
                ),
                lines(
                    "Refused or failed per second",
                    "By client and code: 401 no valid key, 404 not allowed, 413 too big, 429 too often, 5xx upstream.",
                    "reqps",
                    Query(
                        by_client("requests_total", "client, status", ', status=~"[45].."')
                        + ' or on () label_replace(vector(0), "client", "none", "", "")',
                        "{{client}} {{status}}",
                    ),
                ),
                lines(
                    "Requests per second by route",
                    "Which engine or page was asked for.",
                    "reqps",
                    Query(by_client("requests_total", "route"), "{{route}}"),
                ),
                lines(
                    "Time to the first byte",
                    "From the request's arrival to the upstream's first byte. For streams that is the first token.",
                    "s",
                    *quantiles("ai_idp_gateway_first_byte_seconds_bucket", CLIENT, by="client", which=(0.5, 0.95)),
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Time of the whole request",
                    "Until the last byte was sent: a long stream takes long.",
                    "s",
                    *quantiles("ai_idp_gateway_request_seconds_bucket", CLIENT, by="client", which=(0.5, 0.95)),
                    no_value=NO_REQUEST,
                ),
                lines(
                    "Sent",
                    "Bytes per second to each client.",
                    "binBps",
                    Query(by_client("sent_bytes_total"), "{{client}}"),
                ),
            ],
        ),
    ],
)
