"""What happens when keys are replaced.

The run that replaces the gates' key is the one that brings the lab back from replayed GPUs: it comes after their tests.
"""

import ssl
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai import DefaultHttpxClient, OpenAI

from .conftest import Run, SharedRuns, extra, read_secrets, run_playbook
from .suite import ALONE, ROOT


def test_rotated_keys_replace_the_old_ones(shared: SharedRuns, client: OpenAI, endpoints: dict[str, Any]) -> None:
    run, before = shared.rotation.run, shared.rotation.before
    assert run.code == 0, run.output
    assert not any(key in run.output for key in before.values())
    after = read_secrets()
    # What an engine wants is between it and its gate: a key of the platform is replaced without it.
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {"engine_gate_key"}
    assert not {"engine_gate_key_before", "engine_gate_key_retired"} & {*after}
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key=before[endpoints["vllm"]["key"]]).models.list()
    # Clients of the gateway have keys of their own and notice nothing.
    well = subprocess.run(["ai-idp", "doctor"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert well.returncode == 0, well.stdout
    again = run_playbook("playbooks/week2.yml")
    assert again.changed["schlimers-server"] == 0, again.output


def test_nobody_notices_that_keys_are_replaced(secrets: dict[str, str], trust: ssl.SSLContext) -> None:
    """Of hundreds of streams through the gateway none fails and none is cut while both keys are good, and after it.

    Streams are asked for by OpenAI's client as it comes: nginx closes kept connections when it reloads, and the client
    then asks once more. Hundreds of other requests are each made once.
    """
    transport = DefaultHttpxClient(verify=trust, timeout=120, trust_env=False)
    key = secrets["gateway_client_key_load"]
    client = OpenAI(base_url="https://10.77.0.12/v1", api_key=key, http_client=transport)

    def whole_streams(rotating: Future[Run]) -> int:
        count = 0
        while not rotating.done():
            chunks = client.chat.completions.create(
                model="tiny-llama", messages=[{"role": "user", "content": "Count."}], max_tokens=64, stream=True
            )
            *_, last = chunks
            assert last.choices[0].finish_reason in {"length", "stop"}
            count += 1
        return count

    def codes(rotating: Future[Run]) -> list[int]:
        """Ask on a connection of its own each time, and never again."""
        found = []
        with httpx.Client(verify=trust, timeout=30, trust_env=False, limits=ALONE) as plain:
            while not rotating.done():
                answer = plain.get("https://10.77.0.12/llama/v1/models", headers={"Authorization": f"Bearer {key}"})
                found.append(answer.status_code)
        return found

    with ThreadPoolExecutor(6) as pool:
        rotating = pool.submit(run_playbook, "playbooks/week2.yml", *extra(rotate_keys=True))
        asking = pool.submit(codes, rotating)
        streams = sum(each.result() for each in [pool.submit(whole_streams, rotating) for _ in range(4)])
        answers = asking.result()
    run = rotating.result()
    assert run.code == 0, run.output
    assert read_secrets()["engine_gate_key"] != secrets["engine_gate_key"]
    print(f"{streams} streams and {len(answers)} requests while the keys were replaced")
    assert streams >= 200
    assert len(answers) >= 200
    assert {*answers} == {200}


def test_keys_of_clients_are_good_until_all_have_the_new_ones(trust: ssl.SSLContext) -> None:
    """Whoever presents the key of before or the new one is let in at any moment, and in the end the new one alone."""
    before = read_secrets()["gateway_client_key"]
    both: list[tuple[int, int]] = []
    with httpx.Client(
        verify=trust, base_url="https://10.77.0.12", timeout=20, trust_env=False, limits=ALONE
    ) as gateway:

        def status(key: str) -> int:
            return gateway.get("/llama/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code

        with ThreadPoolExecutor(1) as pool:
            rotation = pool.submit(run_playbook, "playbooks/week3.yml", *extra(rotate_keys=True))
            while not rotation.done():
                now = read_secrets()["gateway_client_key"]
                both += [(status(before), status(now))] if now != before else []
                time.sleep(0.3)
        run, after = rotation.result(), read_secrets()
        assert run.code == 0, run.output
        assert after["gateway_client_key"] != before
        assert not [name for name in after if name.endswith(("_before", "_retired"))]
        assert all(200 in statuses for statuses in both), both
        # Before the run ended, somebody was let in with either.
        assert (200, 200) in both
        assert (status(before), status(after["gateway_client_key"])) == (401, 200)
