"""Packages of one version, and units that do their work and end, in host_state."""

import pytest
from ansible.module_utils.ai_idp.host_state.base import package_versions
from ansible.module_utils.ai_idp.host_state.changes import Journal, StateError
from ansible.module_utils.ai_idp.host_state.units import Units, WantedUnit
from ansible.module_utils.ai_idp.programs import Answer

SHOWN = """LoadState=loaded
ActiveState=inactive
SubState=dead
UnitFileState=static
FragmentPath=/etc/systemd/system/page.service
NeedDaemonReload=no
"""


class Systemd:
    """Notes what it is asked for."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.asked: list[str] = []

    def __call__(self, argv: list[str], timeout: float) -> Answer:
        if argv[:2] == ["systemctl", "show"]:
            return Answer(0, SHOWN)
        self.asked.append(" ".join(argv[:2]))
        return Answer(1 if self.fails else 0, "said")


def test_a_package_counts_by_name_and_by_version() -> None:
    text = "installed\tgrafana\t13.2.2\t\nnot-installed\tgone\t1\t\ninstalled\tmawk\t1.3\tawk (= 1), x\n"
    wanted = ["grafana", "grafana=13.2.2", "mawk", "awk", "x", "grafana=13.2.3", "gone", "gone=1"]
    assert list(package_versions(wanted, lambda _argv, _timeout: Answer(1, text))) == wanted[:5]


@pytest.mark.parametrize("check", [False, True])
def test_a_oneshot_is_run_when_something_changed(check: bool) -> None:
    systemd, journal = Systemd(), Journal()
    unit = WantedUnit("page.service", running=None, enabled=None, oneshot=True, restart=True)
    Units(journal, check, systemd).apply([unit])
    assert systemd.asked == ([] if check else ["systemctl restart"])
    assert [(change.name, change.how) for change in journal.changes] == [("page.service", "run")]


def test_a_oneshot_is_left_alone_when_nothing_changed() -> None:
    systemd, journal = Systemd(), Journal()
    Units(journal, False, systemd).apply([WantedUnit("page.service", running=None, enabled=None, oneshot=True)])
    assert (systemd.asked, journal.changes) == ([], [])


def test_a_oneshot_that_fails_is_told() -> None:
    unit = WantedUnit("page.service", running=None, enabled=None, oneshot=True, restart=True)
    with pytest.raises(StateError, match="restart page"):
        Units(Journal(), False, Systemd(fails=True)).apply([unit])
