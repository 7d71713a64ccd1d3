"""What host_baseline refuses, and how it tells the firewall in force from the declared one."""

import pytest
from ansible.module_utils.ai_idp.host_baseline import Declared, Found, look
from ansible.module_utils.ai_idp.host_state.changes import StateError
from ansible.module_utils.ai_idp.programs import Answer
from host_baseline import host_baseline_problems

GOOD = {
    "distribution": "Debian",
    "user": "ubuntu",
    "directory": "/srv/platform",
    "ssh_port": 22,
    "ssh_sources": ["0.0.0.0/0", "::/0"],
}
RULE = {"port": "8000", "protocol": "tcp", "sources": ["10.0.0.1"], "comment": ""}


@pytest.mark.parametrize(
    "source", ["10.0.0.1", "192.168.1.5/24", "0.0.0.0/0", "::/0", "fd00::1", "fe80::/10", "::1/128"]
)
@pytest.mark.parametrize("port", ["1", "8000-8010", "65535", 443])
def test_ports_and_networks_pass(source: str, port: str) -> None:
    assert host_baseline_problems([{**RULE, "port": port, "sources": [source]}], **GOOD) == []


@pytest.mark.parametrize(
    "source",
    ["", "gateway", "10.0.0", "10.0.0.256", "10.0.0.1/33", "10.0.0.0/255.0.0.0", "10.0.0.1/", "fe80::1%eth0", ":::"],
)
def test_what_nft_would_not_take_as_a_source_is_named(source: str) -> None:
    (problem,) = host_baseline_problems([RULE, {**RULE, "sources": [source]}], **GOOD)
    assert problem == f"host_baseline_firewall_allow[1].sources: '{source}' is no address or network"
    (problem,) = host_baseline_problems([], **{**GOOD, "ssh_sources": [source]})
    assert problem == f"host_baseline_firewall_ssh_sources: '{source}' is no address or network"


@pytest.mark.parametrize("port", ["0", "65536", "10-9", "http", "1-2-3", "-1", ""])
def test_what_is_no_port_is_named(port: str) -> None:
    (problem,) = host_baseline_problems([{**RULE, "port": port}], **GOOD)
    assert problem.startswith(f"host_baseline_firewall_allow[0].port: '{port}' is no port (1 to 65535) or range")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"distribution": "Fedora"}, "the host runs Fedora, not Debian or Ubuntu"),
        ({"directory": "srv"}, "host_baseline_dir: 'srv' is no absolute path below /"),
        ({"directory": "/"}, "host_baseline_dir: '/' is no absolute path below /"),
        ({"user": "Not Me"}, "host_baseline_user: 'Not Me' is no plain account name"),
        ({"ssh_sources": []}, "host_baseline_firewall_ssh_sources is empty, nobody could connect any more"),
        ({"ssh_port": 0}, "host_baseline_firewall_ssh_port: '0' is no port"),
        ({"ssh_port": "22-23"}, "host_baseline_firewall_ssh_port: '22-23' is no port"),
    ],
)
def test_each_wrong_setting_has_its_sentence(setting: dict, problem: str) -> None:
    assert host_baseline_problems([], **{**GOOD, **setting}) == [problem]


def test_a_rule_for_nobody_or_with_a_quote_is_refused() -> None:
    rule = {"port": "80", "sources": [], "comment": 'a "quote"'}
    assert host_baseline_problems([rule], **GOOD) == [
        "host_baseline_firewall_allow[0].sources is empty; 0.0.0.0/0 would be everybody",
        "host_baseline_firewall_allow[0].comment may hold letters, digits, spaces and .,:;/()+- (100 at most)",
    ]


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = {"distribution": "Fedora", "user": "", "directory": "x", "ssh_port": "x", "ssh_sources": []}
    # The argument spec tells of the keys that are missing.
    assert len(host_baseline_problems([{}], **wrong)) == 7


DECLARED = Declared("ai-idp 0123", "/etc/nftables.d/ai-idp.nft", "ai-idp-firewall.service", "systemd-timesyncd.service")
TABLE = 'table inet ai_idp {\n  comment "ai-idp 0123"\n  type filter hook prerouting\n  tcp dport 22 accept\n}\n'


def unit(**more: str) -> str:
    shown = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "exited",
        "UnitFileState": "enabled",
        "NeedDaemonReload": "no",
        **more,
    }
    return "\n".join(f"{key}={value}" for key, value in shown.items()) + "\n"


class Host:
    """A host that answers as it is told to; one that all is well with, unless told otherwise."""

    def __init__(self, container: str = "", **answers: Answer) -> None:
        self.answers = {
            "systemd-detect-virt": Answer(0 if container else 1, f"{container or 'none'}\n"),
            "nft": Answer(0, TABLE),
            "unshare": Answer(0, TABLE),
            "systemctl": Answer(0, unit() if container else f"{unit()}\n{unit()}"),
            "timedatectl": Answer(0, "yes\n"),
            **answers,
        }
        self.asked: list[str] = []

    def __call__(self, argv: list[str], timeout: float) -> Answer:
        self.asked.append(argv[0])
        return self.answers[argv[0]]


def test_a_host_that_is_as_declared_has_no_problem() -> None:
    assert look(DECLARED, Host()) == Found("", "declared", ())


def test_a_container_is_not_asked_for_its_clock() -> None:
    host = Host("docker", timedatectl=Answer(0, "no\n"))
    assert look(DECLARED, host) == Found("docker", "declared", ())
    assert "timedatectl" not in host.asked


def test_a_rule_that_was_taken_out_by_hand_is_missed() -> None:
    found = look(DECLARED, Host(nft=Answer(0, TABLE.replace("  tcp dport 22 accept\n", ""))))
    assert found.firewall == "other"
    assert "the kernel's table inet ai_idp is not the one in /etc/nftables.d/ai-idp.nft" in found.problems[0]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(0, TABLE.replace("0123", "4567")), "other"),
        (Answer(0, TABLE.replace("hook prerouting", "")), "other"),
        (Answer(1, "Error: No such file or directory"), "missing"),
        (Answer(127, "no nft"), "missing"),
    ],
)
def test_another_table_or_none_is_a_problem(answer: Answer, state: str) -> None:
    found = look(DECLARED, Host(nft=answer))
    assert found.firewall == state
    assert len(found.problems) == 1


@pytest.mark.parametrize("answer", [Answer(1, "unshare failed: Operation not permitted"), Answer(0, "comment of old")])
def test_without_a_namespace_the_fingerprint_decides(answer: Answer) -> None:
    assert look(DECLARED, Host(unshare=answer)).firewall == "declared"


def test_a_unit_that_is_stopped_or_disabled_is_a_problem() -> None:
    stopped = unit(ActiveState="inactive", SubState="dead", UnitFileState="disabled")
    assert look(DECLARED, Host("lxc", systemctl=Answer(0, stopped))).problems == (
        "ai-idp-firewall.service is inactive",
        "ai-idp-firewall.service is not enabled at boot",
    )


def test_a_clock_that_nobody_keeps_is_a_problem() -> None:
    (problem,) = look(DECLARED, Host(timedatectl=Answer(0, "no\n"))).problems
    assert "the clock does not agree with a time server" in problem
    stopped = f"{unit()}\n{unit(ActiveState='failed', SubState='failed')}"
    assert look(DECLARED, Host(systemctl=Answer(0, stopped))).problems == ("systemd-timesyncd.service does not run",)


def test_who_wants_neither_is_asked_for_neither() -> None:
    host = Host()
    assert look(Declared("", "/f", "u.service", ""), host) == Found("", "off", ())
    assert host.asked == ["systemd-detect-virt"]


def test_a_host_that_can_not_tell_what_it_is_fails() -> None:
    with pytest.raises(StateError, match="systemd-detect-virt can't tell"):
        look(DECLARED, Host(**{"systemd-detect-virt": Answer(127, "no such program")}))
