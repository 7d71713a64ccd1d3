"""What is read from Docker Compose's list of containers."""

import compose
import pytest


@pytest.mark.parametrize(
    ("state", "health", "settled"),
    [
        ("running", "healthy", True),
        ("running", "", True),
        ("running", "starting", False),
        ("running", "unhealthy", False),
        ("restarting", "", False),
        ("exited", "", False),
        ("created", "healthy", False),
    ],
)
def test_a_service_is_settled_when_it_runs_and_nothing_says_that_it_is_not_well(
    state: str, health: str, settled: bool
) -> None:
    containers = [
        {"Service": "vllm", "State": state, "Health": health},
        {"Service": "triton", "State": "running", "Health": "healthy"},
        {"Service": "dcgm-exporter", "State": "running"},
    ]
    assert compose.unsettled_services(containers) == ([] if settled else ["vllm"])
