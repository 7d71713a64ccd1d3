"""The client that measures the gateway: what it says of servers whose timing is known."""

import pytest

from tests import stream_timing as timing
from tests.mock_openai import mock_server


def test_a_stream_s_times_are_the_server_s() -> None:
    with mock_server(ttft_ms=40, spacing_ms=10) as url:
        session = timing.Session(timing.Target(url))
        session.stream("m", 2)
        # What else runs on the machine can only delay.
        streams = [session.stream("m", 10) for _ in range(3)]
        session.close()
    assert all((stream.status, stream.tokens, stream.problem) == (200, 10, "") for stream in streams)
    assert 39 < min(stream.first_ms for stream in streams) < 50
    assert min(sum(stream.gaps_ms) for stream in streams) == pytest.approx(90, abs=15)


def test_what_comes_later_is_measured_as_later() -> None:
    with mock_server(ttft_ms=10, spacing_ms=5) as direct, mock_server(ttft_ms=30, spacing_ms=5) as later:
        found = timing.compare(timing.Target(direct), timing.Target(later), "m", runs=5, tokens=4)
    assert found.first_added_p50 == pytest.approx(20, abs=8)
    assert found.problems == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"drop_after": 3}, "IncompleteRead|ended before|Connection"),
        ({"fail_every": 1}, "500"),
        ({"key": "wanted"}, "401"),
    ],
)
def test_a_stream_that_fails_is_told(fault: dict[str, int | str], said: str) -> None:
    with mock_server(ttft_ms=1, spacing_ms=1, **fault) as url:
        found = timing.load(timing.Target(url, key="other"), "m", concurrency=2, streams=2, tokens=5)
    assert len(found.problems) == 2
    assert any(word in found.problems[0] for word in said.split("|"))


def test_tokens_that_are_held_back_are_seen() -> None:
    assert timing.together([10, 10, 10, 10], 10) == 0
    assert timing.together([30, 0.1, 0.1, 30], 10) == 0.5
    assert timing.together([], 10) == 0


def test_only_tokens_count() -> None:
    assert timing.has_token(b'{"choices": [{"delta": {"content": "a"}}]}')
    assert timing.has_token(b'{"choices": [{"text": "a"}]}')
    for other in (b'{"choices": [{"delta": {"role": "assistant"}}]}', b'{"choices": [], "usage": {}}', b"x", b"{}"):
        assert not timing.has_token(other)
