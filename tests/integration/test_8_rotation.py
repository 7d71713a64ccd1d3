"""What happens when keys are replaced.

The run that replaces the gates' key is the one that brings the lab back from replayed GPUs: it comes after their tests.
"""

import ssl
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import openai
import pytest
import testinfra
from openai import OpenAI

from tests import stream_timing as timing

from .conftest import INVENTORY, SharedRuns, extra, read_secrets, run_playbook
from .suite import ROOT

GATEWAY = "https://10.77.0.12"
CA = INVENTORY / "state" / "ca.crt"
# The errors by which a connection is found closed, when something is sent and when an answer is waited for.
CLOSED = ("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError", "SSLEOFError", "SSLZeroReturnError")


def test_rotated_keys_replace_the_old_ones(shared: SharedRuns, client: OpenAI, endpoints: dict[str, Any]) -> None:
    run, before = shared.rotation.run, shared.rotation.before
    assert run.code == 0, run.output
    assert not any(key in run.output for key in before.values())
    after = read_secrets()
    # What an engine wants is between it and its gate: a key of the platform is replaced without it.
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {"engine_gate_key"}
    assert "engine_gate_key_before" not in after
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key=before[endpoints["vllm"]["key"]]).models.list()
    # Clients of the gateway have keys of their own and notice nothing.
    well = subprocess.run(["ai-idp", "doctor"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert well.returncode == 0, well.stdout
    again = run_playbook("playbooks/week2.yml")
    assert again.changed["schlimers-server"] == 0, again.output


@dataclass
class Asked:
    """What became of streams that were asked for one after the other.

    Attributes:
        times: when each stream began and ended, on the clock of ``time.monotonic``.
        lost: how often a kept connection turned out to be closed before any byte of an answer came.
    """

    times: list[tuple[float, float]] = field(default_factory=list)
    lost: int = 0


def ask_until(ended: Callable[[], bool], key: Callable[[], str], tokens: int) -> Asked:
    """Ask vLLM through the gateway for one whole stream after the other on one kept connection.

    nginx closes kept connections when it reloads, perhaps just as a request goes out on one. Such a request was never
    read, so it is asked again, as HTTP says; it is counted, and nothing else is repeated.

    Args:
        ended: whether it is enough.
        key: the key to present now.
        tokens: of each stream.
    """
    session, asked = timing.Session(timing.Target(GATEWAY, ca=str(CA))), Asked()
    try:
        while not ended():
            session.target = replace(session.target, key=key())
            was_kept, began = session.connection.sock is not None, time.monotonic()
            one = session.stream("tiny-llama", tokens)
            if was_kept and not one.status and one.problem.startswith(CLOSED):
                asked.lost += 1
                continue
            assert (one.status, one.problem) == (200, "")
            asked.times.append((began, time.monotonic()))
    finally:
        session.close()
    return asked


def what_runs(gpu_server: testinfra.host.Host, jetson: testinfra.host.Host) -> list[str]:
    """Each engine with its container or process, and since when it runs."""
    form = "{{.Name}} {{.Id}} {{.State.StartedAt}}"
    containers = gpu_server.check_output(f"docker inspect --format '{form}' $(docker ps --quiet)").splitlines()
    shown = "systemctl show edge-inference.service --property=MainPID,ExecMainStartTimestampMonotonic"
    return [*sorted(containers), jetson.check_output(shown)]


def test_nobody_notices_that_keys_are_replaced(
    secrets: dict[str, str], gpu_server: testinfra.host.Host, jetson: testinfra.host.Host
) -> None:
    """Of hundreds of streams through the gateway none fails and none is cut while both keys are good, and after it."""
    running, key = what_runs(gpu_server, jetson), secrets["gateway_client_key_load"]
    with ThreadPoolExecutor(5) as pool:
        rotating = pool.submit(run_playbook, "playbooks/week2.yml", *extra(rotate_keys=True))
        asking = [pool.submit(ask_until, rotating.done, lambda: key, 64) for _ in range(4)]
        asked = [each.result() for each in asking]
    run = rotating.result()
    assert run.code == 0, run.output
    assert read_secrets()["engine_gate_key"] != secrets["engine_gate_key"]
    streams, lost = sum(len(one.times) for one in asked), sum(one.lost for one in asked)
    print(f"{streams} streams while the keys were replaced, and {lost} kept connections that were closed meanwhile")
    assert streams >= 200
    # Only gates and the gateway are told of a key of the platform, and they reload.
    assert what_runs(gpu_server, jetson) == running


def spans(asked: list[Asked], moment: tuple[float, float]) -> bool:
    """Whether any stream began before a span of time and ended after it."""
    return any(began <= moment[0] and moment[1] <= ended for one in asked for began, ended in one.times)


def test_keys_of_clients_are_good_until_all_have_the_new_ones(trust: ssl.SSLContext) -> None:
    """Whoever presents the key of before or the new one is let in at any moment, and in the end the new one alone.

    Meanwhile a client asks for streams by the key of before, and by the new one as soon as it is good. None fails, and
    one is under way whenever the gateway takes other keys.
    """
    name = "gateway_client_key_load"
    before = using = read_secrets()[name]
    # When it was looked, and what the two keys got.
    looks: list[tuple[float, int, int]] = []
    with httpx.Client(verify=trust, base_url=GATEWAY, timeout=20, trust_env=False) as gateway:

        def status(key: str) -> int:
            return gateway.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code

        with ThreadPoolExecutor(4) as pool:
            rotation = pool.submit(run_playbook, "playbooks/week3.yml", *extra(rotate_keys=True))
            # Of unlike lengths, so that their ends fall together seldom.
            asking = [pool.submit(ask_until, rotation.done, lambda: using, tokens) for tokens in (900, 620, 64)]
            while not rotation.done():
                began, now = time.monotonic(), read_secrets()[name]
                # Before there is a new one, no other is good.
                looks.append((began, status(before), status(now) if now != before else 401))
                using = now if looks[-1][1:] == (200, 200) else using
                time.sleep(0.3)
            asked = [each.result() for each in asking]
        run, after = rotation.result(), read_secrets()
        assert run.code == 0, run.output
        assert after[name] != before
        assert not [key for key in after if key.endswith("_before")]
        assert all(200 in statuses for _, *statuses in looks), looks
        # Before the run ended, somebody was let in with either.
        let_in = next(place for place, (_, *statuses) in enumerate(looks) if statuses == [200, 200])
        assert (status(before), status(after[name])) == (401, 200)
    good = [began for began, old, _ in looks if old == 200]
    gone = [began for began, old, _ in looks if old != 200]
    print(f"{[(len(one.times), one.lost) for one in asked]} streams and kept connections that were closed")
    assert sum(len(one.times) for one in asked) >= 50
    assert spans(asked, (looks[let_in - 1][0], looks[let_in][0]))
    # A run that ended before anybody looked again has taken the old key away at its end.
    assert spans(asked, (good[-1], gone[0] if gone else good[-1]))
