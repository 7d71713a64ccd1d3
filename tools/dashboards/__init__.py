"""Grafana's dashboards as one Python description, and the JSON that it makes (`make dashboards`).

One module describes one dashboard; `parts` is the vocabulary they share, `checks` says what is wrong with a dashboard,
`queries` lists what a dashboard asks of Prometheus.
"""

from dashboards import edge, gateway, gpu, host, inference, knowledge, overview
from dashboards.parts import Board

BOARDS: tuple[Board, ...] = (
    overview.BOARD,
    gpu.BOARD,
    inference.BOARD,
    edge.BOARD,
    host.BOARD,
    gateway.BOARD,
    knowledge.BOARD,
)
