"""What the integration tests are made of: profiles, cases that take turns, and the plays that only refuse."""

import asyncio
import json
import socket
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.parsing.convert_bool import boolean

from tests.integration import only_preflight, port_scan, suite
from tests.integration.conftest import Run
from tests.integration.drift import DOOR, DRIFTS, apart, deleted, edited, stopped

OUTPUT = """
TASK [nginx_gateway : configure | Write the release] ***************************
changed: [xps15]
ok: [jetson]

TASK [Write the endpoints] *****************************************************
changed: [jetson] => (item=a)

RUNNING HANDLER [prometheus : Restart prometheus] ******************************
changed: [xps15]

PLAY RECAP *********************************************************************
jetson                     : ok=2    changed=1    unreachable=0    failed=0
xps15                      : ok=2    changed=2    unreachable=0    failed=0
"""


def test_the_quick_profile_is_the_default() -> None:
    assert suite.profile_of({}) == suite.profile_of({"AI_IDP_PROFILE": ""}) == "quick"
    assert suite.profile_of({"AI_IDP_PROFILE": "full"}) == "full"
    with pytest.raises(ValueError, match=r"AI_IDP_PROFILE is 'all'.*quick.*full"):
        suite.profile_of({"AI_IDP_PROFILE": "all"})


def test_cases_take_turns_by_commit_and_all_have_one() -> None:
    cases = [f"case {number}" for number in range(15)]
    chosen = suite.seeded(cases, 3, "4711")
    assert chosen == suite.seeded(cases, 3, "4711")
    assert chosen == [case for case in cases if case in chosen]
    assert len(chosen) == 3
    assert {case for seed in range(100) for case in suite.seeded(cases, 3, str(seed))} == set(cases)
    assert suite.seeded(cases, 99, "") == cases


def test_the_report_has_the_slowest_first_and_what_failed() -> None:
    durations = suite.Durations()
    for phase, seconds, outcome in (("setup", 2.0, "passed"), ("call", 3.04, "failed"), ("teardown", 1.0, "passed")):
        durations.add_phase("slow", phase, seconds, outcome)
    durations.add_phase("quick", "call", 0.1, "passed")
    durations.add_run("week2.yml", 1.5, 0)
    durations.add_run("site.yml --check", 61.5, 2)
    report = durations.report()
    assert [(test["test"], test["seconds"], test["outcome"]) for test in report["tests"]] == [
        ("slow", 6.0, "failed"),
        ("quick", 0.1, "passed"),
    ]
    assert [run["playbook"] for run in report["runs"]] == ["site.yml --check", "week2.yml"]
    assert report["playbook_seconds"] == 63.0
    assert report["runs"][0]["test"].endswith("test_the_report_has_the_slowest_first_and_what_failed")
    json.dumps(report)


def test_booleans_keep_their_values_as_text() -> None:
    found = suite.booleans_as_text(suite.ROOT, "lab")
    false, true = ("jetson_platform_stats_enabled", "nvidia_driver_upgrade"), ("llama_cpp_allow_older_build",)
    assert {name: boolean(found[name]) for name in (*false, *true)} == {
        **dict.fromkeys(false, False),
        **dict.fromkeys(true, True),
    }
    # The inventory says true where the role's default is false.
    assert boolean(found["edge_inference_rpc_enabled"]) is True
    assert {"no", "0", "False", "yes"} <= {*found.values()}


def test_a_run_tells_which_roles_changed_a_host() -> None:
    run = Run(0, OUTPUT)
    assert run.changed == {"jetson": 1, "xps15": 2}
    assert run.changed_roles("xps15") == {"nginx_gateway", "prometheus"}
    assert run.changed_roles("jetson") == {"Write the endpoints"}


def test_only_what_comes_before_the_first_change_is_kept(tmp_path: Path) -> None:
    first = [{"hosts": "localhost"}, {"hosts": "all", "any_errors_fatal": True, "tasks": ["a"]}]
    (tmp_path / "preamble.yml").write_text(yaml.safe_dump(first))
    week = [{"ansible.builtin.import_playbook": "preamble.yml"}, {"hosts": "gpu_servers", "roles": ["r"]}]
    (tmp_path / "week.yml").write_text(yaml.safe_dump(week))
    plays = only_preflight.plays_of(tmp_path / "week.yml")
    assert plays == [*first, week[1]]
    assert only_preflight.before_the_first_change(plays) == [first[0], {"hosts": "all", "tasks": ["a"]}]
    with pytest.raises(ValueError, match="any_errors_fatal"):
        only_preflight.before_the_first_change(week)


def test_week_2_changes_nothing_in_what_is_kept_of_it() -> None:
    plays = only_preflight.before_the_first_change(only_preflight.plays_of(suite.ROOT / "playbooks" / "week2.yml"))
    assert [play["name"].partition(" | ")[2] for play in plays] == [
        "See whether week 2 has its own",
        "Check the plan before anything is changed",
    ]


def of_play(play: dict[str, object]) -> str:
    """All that a play says, with the lists of tasks that it brings from other files."""
    words = json.dumps(play)
    folder = suite.ROOT / "playbooks" / "tasks"
    return words + "".join(path.read_text() for path in sorted(folder.glob("*.yml")) if f"tasks/{path.name}" in words)


@pytest.mark.parametrize("week", [2, 3, 4, 5])
def test_no_week_makes_a_key_before_all_its_preflights_have_passed(week: int) -> None:
    """A plan that was refused left new keys with the controller, and the old ones on the hosts."""
    plays = only_preflight.plays_of(suite.ROOT / "playbooks" / f"week{week}.yml")
    first = only_preflight.before_the_first_change(plays)
    makes_keys = ["platform_secrets" in of_play(play) for play in plays]
    assert any(makes_keys)
    assert not any(makes_keys[: len(first)])
    assert any("__roles" in of_play(play) for play in first)


def test_a_project_is_laid_out_around_other_hosts(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "project"
    inventory = root / "inventory" / "lab"
    for made in (folder, root / "roles", root / "playbooks" / "tasks", inventory / "group_vars"):
        made.mkdir(parents=True)
    (root / "playbooks" / "week.yml").write_text(yaml.safe_dump([{"hosts": "all", "any_errors_fatal": True}]))
    (inventory / "hosts.yml").write_text("all: {}")
    hosts = {"second": {}, "first": {}}
    playbook, there = only_preflight.lay_out(root, folder, "week.yml", inventory, hosts)
    assert yaml.safe_load(playbook.read_text()) == [{"hosts": "all"}]
    # The first host of a group has a part of its own.
    assert list(yaml.safe_load((there / "hosts.yml").read_text())) == ["second", "first"]
    assert (playbook.parent / "tasks").is_dir()
    assert (playbook.parent.parent / "roles").is_symlink()
    assert (there / "group_vars").is_symlink()
    assert (inventory / "hosts.yml").read_text() == "all: {}"


def test_outcomes_are_told_by_host() -> None:
    results = {
        "bad": {"failed": True, "msg": "port 22 is taken"},
        "away": {"unreachable": True, "msg": "no route"},
        "good": {"msg": "fine"},
    }
    stats = {
        "bad": {"failures": 1, "unreachable": 0, "changed": 0},
        "away": {"failures": 0, "unreachable": 1, "changed": 0},
        "good": {"failures": 0, "unreachable": 0, "changed": 2},
    }
    told = only_preflight.outcomes({"plays": [{"tasks": [{"hosts": results}]}], "stats": stats})
    assert {host: (one.refused, one.changed) for host, one in told.items()} == {
        "bad": (True, 0), "away": (False, 0), "good": (False, 2),
    }  # fmt: skip
    assert "port 22 is taken" in told["bad"].said
    assert told["good"].said == ""


def test_a_damage_whose_repair_changes_what_another_one_looks_at_is_done_apart() -> None:
    """A CA made anew names another release of the gateway, whose text is then another one."""
    (ca,) = (drift for drift in DRIFTS if drift.name == "/etc/ai-idp/tls/ca.crt deleted")
    gateway = edited(DOOR, "nginx_gateway", "/etc/ai-idp/gateway/current/nginx.conf")
    assert gateway in DRIFTS
    assert not apart(ca, gateway)
    assert not apart(gateway, ca)
    assert not apart(gateway, deleted(DOOR, "nginx_gateway", "/etc/ai-idp/gateway/current/nginx.conf"))
    assert apart(gateway, stopped(DOOR, "monitoring_daemon", "prometheus.service"))


def test_a_datagram_reaches_who_answers_and_where_nobody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_scan, "TIMEOUT_S", 0.2)
    assert len({*port_scan.WELL_KNOWN}) == 50
    with (
        socket.socket(type=socket.SOCK_DGRAM) as answering,
        socket.socket(type=socket.SOCK_DGRAM) as silent,
        socket.socket(type=socket.SOCK_DGRAM) as closed,
    ):
        for one in (answering, silent, closed):
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in (answering, silent, closed)]
        closed.close()

        async def scan() -> list[int]:
            loop = asyncio.get_running_loop()
            answering.setblocking(False)

            async def answer() -> None:
                while True:
                    data, sender = await loop.sock_recvfrom(answering, 9)
                    await loop.sock_sendto(answering, data, sender)

            server = asyncio.create_task(answer())
            found = await port_scan.scan_datagrams("127.0.0.1", ports)
            server.cancel()
            return found

        # Who listens and says nothing is to the scan what a firewall is; what listens is asked of the host itself.
        assert asyncio.run(scan()) == [ports[0], ports[2]]
