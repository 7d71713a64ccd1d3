"""What is in place after a build, asked of the programs themselves."""

import json


def release(host) -> dict:
    return json.loads(host.file("/opt/llama/current/release.json").content_string)


def test_programs_say_the_build_that_was_asked_for(host):
    for program in ("llama-server", "llama-bench", "ggml-rpc-server"):
        said = host.check_output(f"/opt/llama/current/bin/{program} --version")
        assert "build 12001, commit archive-" in said


def test_everybody_may_run_them_and_only_root_may_change_them(host):
    for path in ("", "/bin", "/bin/llama-server", "/bin/libggml-rpc.so"):
        file = host.file(f"/opt/llama/{host.file('/opt/llama/current').linked_to.removeprefix('/opt/llama/')}{path}")
        assert (file.user, file.group) == ("root", "root")
        assert file.mode == (0o644 if path.endswith(".so") else 0o755) or file.mode == 0o755
    # The account of the connection, as a service's would be.
    assert host.run("/opt/llama/current/bin/llama-bench --version").rc == 0


def test_release_says_what_it_is(host):
    record = release(host)
    assert (record["build"], record["backend"], record["rpc"], record["rdma"]) == (12001, "cpu", True, False)
    assert record["architecture"] == host.check_output("uname -m")
    assert "-DGGML_RPC_RDMA=OFF" in record["flags"]
    assert host.file("/opt/llama/current").linked_to.endswith(f"releases/{record['name']}")


def test_nothing_of_the_build_is_left_but_its_log(host):
    assert not host.file("/opt/llama/build").exists
    assert not host.file("/opt/llama/sources").exists
    assert host.check_output("systemctl show ai-idp-llama-cpp-build --property=LoadState --value") == "not-found"
    log = host.file(f"/opt/llama/logs/{release(host)['name']}.log").content_string
    assert "Linking C executable bin/llama-server" in log


def test_what_was_compiled_is_kept_for_the_next_build(host):
    assert host.check_output("find /var/cache/ccache -type f -name '*R' | head -1")


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
