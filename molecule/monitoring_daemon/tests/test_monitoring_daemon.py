"""What becomes of a program that comes as an archive."""


def test_service_runs_from_the_unpacked_archive(host):
    service = host.service("ai-idp-toy")
    assert service.is_running
    assert service.is_enabled
    assert host.socket("tcp://127.0.0.1:18200").is_listening
    toy = host.file("/opt/ai-idp/ai-idp-toy/toy")
    assert (toy.user, toy.mode) == ("root", 0o755)


def test_it_runs_as_its_account_without_any_capability(host):
    assert host.user("toy-account").shell == "/usr/sbin/nologin"
    with host.sudo():
        pid = host.check_output("systemctl show ai-idp-toy --property=MainPID --value")
        status = host.file(f"/proc/{pid}/status").content_string
        uid = host.check_output("id --user toy-account")
    assert f"Uid:\t{uid}\t" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_options_of_its_own_stand_last(host):
    with host.sudo():
        unit = host.file("/etc/systemd/system/ai-idp-toy.service").content_string
    assert unit.index("ReadOnlyPaths=/usr/share") > unit.index("ProtectSystem=strict")


def test_it_comes_back_when_it_dies(host):
    with host.sudo():
        host.check_output("systemctl kill --signal=KILL ai-idp-toy")
        host.check_output("timeout 20 sh -c 'sleep 1; until systemctl is-active ai-idp-toy; do sleep 1; done'")


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
