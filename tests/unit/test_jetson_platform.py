"""Settings of a Jetson that can't work are named before anything is changed."""

from typing import Any

import pytest
from jetson_platform import jetson_problems

GOOD: dict[str, Any] = {
    "swap_file": "/var/lib/ai-idp/swapfile",
    "swap_size_mib": 0,
    "cuda_test_mib": 1024,
    "stats_enabled": True,
    "stats_listen_address": "127.0.0.1",
    "stats_version": "4.3.2",
    "stats_exporter_version": "0.1.3",
}


def test_good_settings_have_no_problem() -> None:
    assert jetson_problems(GOOD) == []
    assert jetson_problems({**GOOD, "stats_enabled": False, "stats_listen_address": "::"}) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"swap_file": "swap file"}, "jetson_platform_swap_file is 'swap file'"),
        ({"swap_size_mib": -1}, "jetson_platform_swap_size_mib is -1; set 0 to 262144 MiB"),
        ({"cuda_test_mib": 200000}, "jetson_platform_cuda_test_mib is 200000"),
        ({"stats_listen_address": "::"}, "is '::', which is every address"),
        ({"stats_version": "latest"}, "jetson_platform_stats_version is 'latest'"),
        ({"stats_exporter_version": ">=1"}, "jetson_platform_stats_exporter_version is '>=1'"),
    ],
)
def test_each_mistake_is_named(wrong: dict[str, Any], said: str) -> None:
    (problem,) = jetson_problems({**GOOD, **wrong})
    assert said in problem
