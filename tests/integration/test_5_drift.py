"""What was damaged by hand is found by ``--check --diff``, and repaired by the next run, which touches nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
import testinfra

from .conftest import Run, lab_host, run_playbook
from .drift import DOOR, DRIFTS, EDGE, GPU, Drift, apart
from .suite import FULL, rotation, write_proof

ADDRESSES = {GPU: "10.77.0.11", DOOR: "10.77.0.12", EDGE: "10.77.0.13"}


def groups() -> list[list[Drift]]:
    """Damages that are done at the same time: two of them never touch the same thing."""
    found: list[list[Drift]] = []
    for drift in rotation("damages", DRIFTS, 12):
        for group in found:
            if all(apart(drift, other) for other in group):
                group.append(drift)
                break
        else:
            found.append([drift])
    # The others of the same thing have their turn in another commit, or in the full profile.
    return found if FULL else found[:1]


class Damaged:
    """The lab before and after damages, and what runs made of them."""

    def __init__(self, drifts: list[Drift]) -> None:
        self.hosts: dict[str, testinfra.host.Host] = {name: lab_host(address) for name, address in ADDRESSES.items()}
        self.before = {drift.name: self.seen(drift) for drift in drifts}
        for drift in drifts:
            self.hosts[drift.host].check_output(drift.damage)
        self.damaged = {drift.name: self.seen(drift) for drift in drifts}
        self.check: Run = run_playbook("playbooks/site.yml", "--check", "--diff")
        self.still = {drift.name: self.seen(drift) for drift in drifts}
        self.repair: Run = run_playbook("playbooks/site.yml", "--diff")
        self.after = {drift.name: self.seen(drift) for drift in drifts}

    def seen(self, drift: Drift) -> str:
        """What the probe says now."""
        return str(self.hosts[drift.host].run(drift.probe).stdout)


@pytest.fixture(scope="module", params=groups(), ids=lambda group: f"{len(group)} damages")
def damaged(request: pytest.FixtureRequest) -> tuple[list[Drift], Damaged]:
    return request.param, Damaged(request.param)


def test_the_damage_is_done(damaged: tuple[list[Drift], Damaged]) -> None:
    drifts, lab = damaged
    assert [drift.name for drift in drifts if lab.before[drift.name] == lab.damaged[drift.name]] == []


def test_a_check_finds_it_and_changes_nothing(damaged: tuple[list[Drift], Damaged]) -> None:
    drifts, lab = damaged
    assert lab.check.code == 0, lab.check.output
    missed = [drift.name for drift in drifts if drift.role not in lab.check.changed_roles(drift.host)]
    assert missed == [], lab.check.output
    assert lab.still == lab.damaged


@pytest.fixture(scope="module")
def proof() -> Iterator[list[dict[str, Any]]]:
    """What was found and repaired in each round; written down when it was all of them."""
    rounds: list[dict[str, Any]] = []
    yield rounds
    if sum(len(one["repaired"]) for one in rounds) == len(DRIFTS):
        write_proof("drift", rounds)


def test_the_next_run_repairs_it_and_touches_no_other_role(
    damaged: tuple[list[Drift], Damaged], proof: list[dict[str, Any]]
) -> None:
    drifts, lab = damaged
    assert lab.repair.code == 0, lab.repair.output
    assert [drift.name for drift in drifts if lab.after[drift.name] != lab.before[drift.name]] == [], lab.repair.output
    for host in ADDRESSES:
        follows = {role for drift in drifts for where, role in drift.also if where == host}
        assert lab.repair.changed_roles(host) <= {drift.role for drift in drifts if drift.host == host} | follows, host
    proof.append({"repaired": [drift.name for drift in drifts], "changed_tasks": lab.repair.changed})
