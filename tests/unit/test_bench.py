"""The bench: what is counted, what follows from it, and what is written. The lab is not needed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bench import light_hosts, runs, session, sides
from bench.__main__ import parse
from bench.figures import (
    BEFORE,
    STOCK,
    THIS,
    Counts,
    Measured,
    NotMeasured,
    Run,
    changed_reason,
    compared,
    document,
    failures,
    growth,
    last_line,
    medians,
    ratios,
    read_counts,
    shares,
    turns,
)
from bench.plot import drawn
from bench.runs import COUNTED, environment
from bench.session import cpu_model

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = ["site", "week1", "week2"]
ABOUT = {
    "commit": "0123456789abcdef",
    "date": "2026-01-02T03:04:05Z",
    "machine": {"cpu_model": "Example CPU", "cores": 2},
}


def a_run(wall_s: float, *, changed: int = 0, task_runs: int = 100) -> Run:
    counts = Counts(
        task_headers=80,
        task_runs=task_runs,
        task_skips=30,
        module_starts=60,
        module_starts_local=5,
        ssh_calls=70,
        changed=changed,
    )
    return Run("2026-01-02T03:04:05Z", wall_s, wall_s / 2, (0.1, 0.2, 0.3), (1.1, 0.4, 0.3), counts)


def measured(*seconds: float) -> Measured:
    return Measured(tuple(a_run(value) for value in seconds))


# --- Counting


def test_counts_are_put_together_from_three_files() -> None:
    told = {"task_headers": 3, "task_runs": 5, "task_skips": 2, "changed": 1, "changed_tasks": ["a: install | Install"]}
    counts, changed = read_counts(json.dumps(told), b"hhlh", b"......")
    assert counts == Counts(3, 5, 2, module_starts=3, module_starts_local=1, ssh_calls=6, changed=1)
    assert changed == ["a: install | Install"]


@pytest.mark.parametrize("told", [{}, {"task_headers": 3, "task_runs": None, "task_skips": 2, "changed": 0}])
def test_a_missing_count_is_no_zero(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the run's counts have no task_"):
        read_counts(json.dumps(told), b"", b"")


def test_what_changed_is_said_by_name_and_not_without_end() -> None:
    assert changed_reason(1, ["a: one"]) == "a run that should change nothing changed 1: a: one"
    assert changed_reason(9, list("abcdefghi")).endswith("changed 9: a; b; c; d; e; and 4 more")


INVENTORY = "near ansible_connection=local ansible_python_interpreter={{ansible_playbook_python}}\nfar\n[far]\nfar\n"
PLAYBOOK = """
- name: Something of everything
  hosts: near
  gather_facts: false
  tasks:
    - name: look | Stat the folder
      ansible.builtin.stat: {path: /}
      loop: [1, 2]
    - name: look | Skip this
      ansible.builtin.stat: {path: /}
      when: false
    - name: write | Write a file
      ansible.builtin.copy: {content: text, dest: "{{ playbook_dir }}/written", mode: "0600"}
      notify: tell
    - name: look | Fail and be rescued
      block:
        - name: look | Fail
          ansible.builtin.fail: {msg: Failed as planned}
      rescue:
        - name: look | Rescue
          ansible.builtin.debug: {msg: well}
  handlers:
    - name: tell
      ansible.builtin.debug: {msg: told}
"""
# Its own process, since all children of the one that counts are ended.
PROGRAM = """
import json, sys
from pathlib import Path
from bench.runs import adopt_orphans, environment, run_counted
folder = Path(sys.argv[1])
adopt_orphans()
env = environment({"PATH": "/usr/bin:/bin", "HOME": str(folder)}, Path(sys.executable).parent, folder / "ansible.cfg")
ended = run_counted(["ansible-playbook", "-i", "hosts", "play.yml"], cwd=folder, env=env, callbacks=[folder / "own"],
                    log=folder / "log")
print(json.dumps({**ended.run.figures(), "changed_tasks": ended.changed_tasks, "load": ended.run.load_after}))
"""
OWN = """
from ansible.plugins.callback import CallbackBase
class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "own"
    def v2_playbook_on_start(self, playbook):
        print("the project's own callback is active")
"""


def counted(folder: Path, playbook: str) -> subprocess.CompletedProcess[str]:
    (folder / "hosts").write_text(INVENTORY)
    (folder / "play.yml").write_text(playbook)
    (folder / "ansible.cfg").write_text("[defaults]\ncallback_plugins = nowhere\n")
    (folder / "own").mkdir()
    (folder / "own/own.py").write_text(OWN)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, folder],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
    )


def test_a_run_is_counted(tmp_path: Path) -> None:
    done = counted(tmp_path, PLAYBOOK)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["task_headers"] == 6
    assert told["task_runs"] == 5
    assert told["task_skips"] == 1
    # Two of the loop; copy asks with stat and then copies.
    assert told["module_starts_local"] == 4
    assert told["module_starts"] == told["ssh_calls"] == 0
    assert told["changed"] == 1
    assert told["changed_tasks"] == ["near: write | Write a file"]
    assert 0 < told["cpu_s"] < 300
    assert 0 < told["wall_s"] < 300
    assert "the project's own callback is active" in (tmp_path / "log").read_text()


def test_a_run_that_fails_has_no_figures(tmp_path: Path) -> None:
    done = counted(tmp_path, PLAYBOOK.replace("rescue", "always"))
    assert done.returncode == 1
    assert "RunFailedError: it ended with code 2" in done.stderr
    assert "Failed as planned" in done.stderr


ORPHAN = """
import os, subprocess, sys, time
from pathlib import Path
from bench import runs
runs.adopt_orphans()
log = Path(sys.argv[1]) / "log"
# Field 14 is what it has used, in hundredths of a second: the test does not depend on how busy the machine is.
busy = "(while :; do :; done) & echo $!; until [ $(cut -d ' ' -f 14 /proc/$!/stat) -gt 15 ]; do sleep 0.1; done"
runs.run(["sh", "-c", busy], cwd=log.parent, env=os.environ, log=log)
print(runs._children_cpu_s() > 0.1, Path(f"/proc/{log.read_text().strip()}").exists())
"""


def test_what_a_run_leaves_running_is_ended_and_counted(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN, tmp_path], capture_output=True, text=True, timeout=300, env=env
    )
    assert (done.stdout, done.stderr) == ("True False\n", "")


@pytest.mark.parametrize("program", ["ssh", "sftp"])
def test_a_call_of_ssh_is_counted_and_made(tmp_path: Path, program: str) -> None:
    real = tmp_path / "bin" / program
    real.parent.mkdir()
    real.write_text('#!/bin/sh\necho "$0:$2"\nexit 7\n')
    real.chmod(0o755)
    env = {"PATH": f"{real.parent}:/usr/bin:/bin", "AI_IDP_BENCH_DIR": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run([COUNTED / program, "-v", "a b"], env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (7, f"{real}:a b\n")
    assert (tmp_path / "ssh").read_bytes() == b".."


def test_the_callers_settings_reach_no_run() -> None:
    inherited = {
        "ANSIBLE_FORKS": "1",
        "ANSIBLE_VAULT_PASSWORD_FILE": "/v",
        "AI_IDP_HOME": "/x",
        "LANG": "C",
        "PATH": "/p",
    }
    assert environment(inherited, Path("/venv/bin"), Path("/a.cfg")) == {
        "ANSIBLE_CONFIG": "/a.cfg",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_VAULT_PASSWORD_FILE": "/v",
        "LANG": "C",
        "PATH": "/venv/bin:/p",
    }


# --- Figures


def test_each_figure_has_its_own_median() -> None:
    assert medians([{"a": 1, "b": 9}, {"a": 5, "b": 2}, {"a": 3, "b": 4}]) == {"a": 3, "b": 4}
    assert medians([{"a": 1.0}, {"a": 2.0}]) == {"a": 1.5}


def test_a_ratio_to_nothing_is_none() -> None:
    assert ratios({"wall_s": 20.0, "changed": 0}, {"wall_s": 80.0, "changed": 0}) == {"wall_s": 0.25, "changed": None}


def test_sides_are_compared_where_both_were_measured() -> None:
    found = compared({THIS: measured(10, 30, 20), STOCK: measured(40), BEFORE: NotMeasured("no such commit", True)})
    assert found[STOCK]["wall_s"] == 0.5
    assert found[STOCK]["cpu_s"] == 0.5
    assert found[BEFORE] == {"status": "not_measured", "reason": "no such commit"}


def test_without_this_tree_there_is_no_ratio() -> None:
    found = compared({THIS: NotMeasured("it changed 1"), STOCK: measured(40), BEFORE: measured(50)})
    assert {side: row["reason"] for side, row in found.items()} == {STOCK: "it changed 1", BEFORE: "it changed 1"}


def test_an_added_host_is_a_share_of_the_first() -> None:
    assert shares({1: 10.0, 4: 16.0, 16: 70.0}) == {4: 0.2, 16: 0.4}


def test_growth_says_what_was_not_measured() -> None:
    found = growth({1: measured(10), 4: NotMeasured("away"), 16: measured(25)})
    assert found["share_of_first"] == {"16": 0.1, "4": {"status": "not_measured", "reason": "away"}}
    without_first = growth({1: NotMeasured("no first"), 4: measured(16)})
    assert without_first["share_of_first"] == {"4": {"status": "not_measured", "reason": "no first"}}
    assert without_first["seconds"]["4"]["median"]["wall_s"] == 16


def test_each_round_begins_with_another_side() -> None:
    assert turns(["a", "b", "c"], 4) == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def some_targets() -> dict[str, Any]:
    return {
        "site": {THIS: measured(60, 62, 58), STOCK: measured(120), BEFORE: measured(480)},
        "week1": {THIS: measured(10), STOCK: NotMeasured("left out by --skip stock"), BEFORE: NotMeasured("no", True)},
    }


def test_the_last_line_has_the_sites_figures() -> None:
    assert last_line(some_targets()) == "ratio_noop_vs_before=0.125 ratio_noop_vs_stock=0.500 seconds_noop=60.0"
    left_out = {"site": dict.fromkeys([THIS, STOCK, BEFORE], NotMeasured("left out"))}
    assert last_line(left_out) == (
        "ratio_noop_vs_before=not_measured ratio_noop_vs_stock=not_measured seconds_noop=not_measured"
    )


def test_what_was_left_out_is_no_failure() -> None:
    assert failures(some_targets(), {1: measured(1), 4: NotMeasured("away", True)}) == [
        "week1, before: no",
        "4 light hosts: away",
    ]


def test_the_result_file_has_every_run_and_says_where_it_comes_from() -> None:
    result = document(some_targets(), {1: measured(10), 16: measured(25)}, measured(300), ABOUT)
    assert json.loads(json.dumps(result)) == result
    assert result["commit"] == "0123456789abcdef"
    site = result["targets"]["site"]
    assert [run["wall_s"] for run in site["this"]["runs"]] == [60, 62, 58]
    assert site["this"]["runs"][0]["load_before"] == [0.1, 0.2, 0.3]
    assert site["this"]["median"]["task_runs"] == 100
    assert site["ratios"]["before"]["wall_s"] == 0.125
    assert result["targets"]["week1"]["stock"] == {"status": "not_measured", "reason": "left out by --skip stock"}
    assert result["edge"]["share_of_first"] == {"16": 0.1}
    assert result["edge"]["first_run"]["median"]["wall_s"] == 300


# --- The plot


def test_the_plot_shows_figures_and_what_there_is_none_of() -> None:
    result = document(some_targets(), {1: measured(10), 4: measured(16), 16: measured(25)}, measured(300), ABOUT)
    text = drawn(result)
    assert text == drawn(result)
    for shown in ("commit 0123456", "former tree", "not measured", "an added host: 10% of the first", "2 cores"):
        assert shown in text


def test_a_plot_without_light_hosts_says_so() -> None:
    left_out = NotMeasured("left out by --skip hosts")
    text = drawn(document({"site": {THIS: measured(1)}}, {1: left_out, 4: left_out}, left_out, ABOUT))
    assert text.count("not measured") == 3


# --- Sides


CONFIG = """
[defaults]
inventory = inventory/lab
roles_path = roles:more/roles
callback_plugins = callback_plugins
forks = 20
fact_caching = jsonfile
callbacks_enabled = ansible.posix.profile_tasks
[inventory]
ignore_patterns = ^state$, ^secrets\\.yml$
[ssh_connection]
pipelining = true
"""


def test_stock_settings_are_paths_alone() -> None:
    assert sides.stock_settings(CONFIG, Path("/tree")) == (
        "[defaults]\ninventory = /tree/inventory/lab\nroles_path = /tree/roles:/tree/more/roles\n"
        "[inventory]\nignore_patterns = ^state$, ^secrets\\.yml$\n"
    )


def test_stock_settings_find_what_the_project_has(tmp_path: Path) -> None:
    this = session.this_side()
    stock = sides.stock_side(this, tmp_path)
    assert (this.keeps_facts, stock.keeps_facts) == (True, False)
    assert (this.callbacks, stock.callbacks) == ([ROOT / "callback_plugins"], [])
    assert stock.playbooks == this.playbooks
    assert "week1" in stock.playbooks
    text = stock.config.read_text()
    assert f"roles_path = {ROOT}/roles\n" in text
    assert "forks" not in text


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A tree of two commits, with a bench's result beside the second."""
    root = tmp_path / "project"
    (root / "benchmarks").mkdir(parents=True)
    (root / "benchmarks/claims.yml").write_text("old")
    (root / "ansible.cfg").write_text("[defaults]\n")
    (root / "hosts.yml").write_text("jetson: 10.77.0.13\nother: 10.177.0.13\n")
    (root / "settings.yml").write_text("lab_network: ai-idp-lab\nlab_registry_push: 127.0.0.1:15000\n")
    (root / "link").symlink_to("settings.yml")
    (root / ".gitignore").write_text("state/\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "old")
    (root / "benchmarks/claims.yml").write_text("new")
    git(root, "commit", "--quiet", "--all", "--message", "new")
    (root / "benchmarks/bench.json").write_text("{}")
    return root


def test_the_former_tree_gets_a_lab_of_its_own_and_keeps_its_files(project: Path, tmp_path: Path) -> None:
    old = git(project, "rev-parse", "HEAD~1")
    folder = tmp_path / "work/before"
    for _ in range(2):
        side = sides.before_side(project, folder, old)
        assert (side.tree / "benchmarks/claims.yml").read_text() == "old"
        assert not (side.tree / "benchmarks/bench.json").exists()
        assert (side.tree / "hosts.yml").read_text() == "jetson: 10.78.0.13\nother: 10.177.0.13\n"
        assert (side.tree / "settings.yml").read_text() == (
            "lab_network: ai-idp-old\nlab_registry_push: 127.0.0.1:15010\n"
        )
        assert (side.tree / "link").is_symlink()
        # A second bench finds the lab that the first has made, and puts files right that were edited.
        (side.tree / "state").mkdir(exist_ok=True)
        (side.tree / "state/key").touch()
        (side.tree / "benchmarks/claims.yml").write_text("edited")
    assert (folder / "state/key").exists()
    assert git(project, "status", "--porcelain") == "?? benchmarks/bench.json"


def test_a_former_tree_that_git_does_not_have_is_not_measured(project: Path, tmp_path: Path) -> None:
    with pytest.raises(sides.SideError, match=r"git checkout: .*0123456"):
        sides.before_side(project, tmp_path / "before", "0123456")


def test_a_commit_with_edits_is_told_from_a_clean_one(project: Path) -> None:
    assert sides.commit_of(project).endswith("+changes")
    (project / "benchmarks/bench.json").unlink()
    assert sides.commit_of(project) == git(project, "rev-parse", "HEAD")


# --- Light hosts


def test_an_edge_grows_by_light_hosts_alone() -> None:
    lab = yaml.safe_load((ROOT / "inventory/lab/hosts.yml").read_text())
    groups = light_hosts.grown(lab, 4)["all"]["children"]
    assert list(groups["edge"]["hosts"]) == ["bench-1", "bench-2", "bench-3", "bench-4"]
    assert groups["edge"]["hosts"]["bench-4"] == {"ansible_host": "10.77.0.143"}
    assert groups["gateways"] == lab["all"]["children"]["gateways"]


def test_light_hosts_take_nobodys_address() -> None:
    ours = {host["address"] for host in light_hosts.hosts(max(light_hosts.SIZES))}
    text = (ROOT / "inventory/lab/hosts.yml").read_text() + (ROOT / "lab/settings.yml").read_text()
    assert len(ours) == 16
    assert not [address for address in ours if f"{address}\n" in text]


def test_light_hosts_have_the_labs_variables(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inventory/lab/state").mkdir(parents=True)
    (root / "inventory/lab/state/id_ed25519").write_text("key")
    for name in ("inventory/lab/hosts.yml", "inventory/lab/group_vars", "inventory/wiring.yml", "playbooks"):
        (root / name).symlink_to(ROOT / name)
    folder = tmp_path / "edge"
    for _ in range(2):
        found = light_hosts.write_inventories(root, folder, (1, 4))
    done = subprocess.run(
        ["ansible-inventory", "-i", found[4], "--host", "bench-3"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    variables = json.loads(done.stdout)
    assert variables["ai_idp_environment"] == "lab"
    assert "host_baseline_firewall_allow" in variables
    assert variables["ansible_host"] == "10.77.0.142"
    # Of the edge, and of every inventory.
    assert variables["edge_inference_model_name"] == "tiny-llama-gguf"
    assert "ai_idp_images" in variables
    assert (folder / "state/id_ed25519").stat().st_mode & 0o777 == 0o600


# --- The whole, with runs that are made up


class Pretended:
    """Stands for everything that would run: seconds by log name, and what goes wrong there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.ran: list[str] = []
        self.changed: dict[str, int] = {}
        self.failing: set[str] = set()
        self.left: list[str] = []
        self.deployed: list[str] = []
        self.arguments: dict[str, list[str]] = {}
        monkeypatch.setattr(session, "WORK", folder)
        monkeypatch.setattr(session, "run_counted", self.run_counted)
        monkeypatch.setattr(session, "run", self.run)
        monkeypatch.setattr(session, "before_side", self.before_side)
        monkeypatch.setattr(light_hosts, "write_inventories", lambda _root, where, sizes: dict.fromkeys(sizes, where))
        monkeypatch.setattr(runs, "run", lambda *_, **__: 0.0)
        monkeypatch.setattr(session, "settle", lambda: None)
        monkeypatch.setattr(light_hosts, "remove", lambda: self.left.append("removed"))

    def before_side(self, *_: object) -> sides.Side:
        (self.folder / "before/playbooks").mkdir(parents=True, exist_ok=True)
        for name in ("week1", "site"):
            (self.folder / f"before/playbooks/{name}.yml").touch()
        return sides.Side("before", self.folder / "before", ROOT / "ansible.cfg")

    def run(self, *_: object, log: Path, **__: object) -> float:
        self.deployed += [log.stem] if log.stem.startswith("lab-") else []
        if log.stem in self.failing:
            raise runs.RunFailedError("it ended with code 2")
        return 0.0

    def run_counted(self, arguments: list[str], *_: object, log: Path, **__: object) -> runs.Ended:
        self.ran.append(log.stem)
        self.arguments[log.stem] = arguments
        if log.stem in self.failing:
            raise runs.RunFailedError("it ended with code 2")
        changed = self.changed.get(log.stem, 0)
        return runs.Ended(a_run(480 if "before" in log.stem else 60, changed=changed), ["jetson: install | Install"])


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pretended:
    return Pretended(monkeypatch, tmp_path)


def bench_of(*words: str) -> session.Bench:
    bench = session.Bench(parse(words, session.this_side().playbooks))
    bench.measure()
    return bench


def test_sides_and_sizes_run_by_turns(pretended: Pretended) -> None:
    bench = bench_of("--only", "week1,hosts", "--runs", "2")
    week1 = ["week1-this", "week1-stock", "week1-before", "week1-stock", "week1-before", "week1-this"]
    assert pretended.ran == [*week1, "edge-first", "edge-1", "edge-4", "edge-16", "edge-4", "edge-16", "edge-1"]
    assert failures(bench.targets, bench.edge) == []
    assert compared(bench.targets["week1"])[BEFORE]["wall_s"] == 0.125
    assert bench.targets["site"][THIS] == NotMeasured("left out by --only week1,hosts")


def test_the_former_site_is_held_against_the_weeks_that_it_has(pretended: Pretended) -> None:
    bench = bench_of("--only", "site", "--runs", "1")
    assert pretended.ran == ["site-this", "site-stock", "site-before", "site-this_shared_weeks"]
    assert pretended.arguments["site-this_shared_weeks"][-1:] == ["playbooks/week1.yml"]
    cells = {**bench.targets["site"], "this": measured(1000)}
    assert compared(cells)[BEFORE]["wall_s"] == 0.125
    assert compared(bench_of("--only", "site", "--skip", "before").targets["site"])[BEFORE] == {
        "status": "not_measured",
        "reason": "left out by --skip before",
    }


def test_a_side_that_changes_something_has_no_figure_and_no_second_turn(pretended: Pretended) -> None:
    pretended.changed = {"week1-stock": 1}
    bench = bench_of("--only", "week1")
    assert pretended.ran.count("week1-stock") == 1
    (line,) = failures(bench.targets, bench.edge)
    assert line.startswith(
        "week1, stock: run 1: a run that should change nothing changed 1: jetson: install | Install;"
    )
    assert compared(bench.targets["week1"])[BEFORE]["status"] == "measured"


def test_what_the_former_tree_changes_is_counted_and_no_failure(pretended: Pretended) -> None:
    pretended.changed = {"week1-before": 1}
    bench = bench_of("--only", "week1")
    assert failures(bench.targets, bench.edge) == []
    assert compared(bench.targets["week1"])[BEFORE]["status"] == "measured"


def test_the_former_trees_lab_is_made_once(pretended: Pretended) -> None:
    bench_of("--only", "week1", "--runs", "1")
    assert pretended.deployed == ["lab-before-0", "lab-before-1", "lab-before-2"]
    there = pretended.folder / "before" / sides.LAB_THERE
    there.parent.mkdir(parents=True)
    there.touch()
    bench_of("--only", "week1", "--runs", "1")
    assert len(pretended.deployed) == 3


def test_a_former_lab_that_can_not_be_made_is_not_measured(pretended: Pretended) -> None:
    pretended.failing = {"lab-before-0"}
    bench = bench_of("--only", "week1", "--runs", "1")
    assert bench.targets["week1"][BEFORE] == NotMeasured("it ended with code 2", failed=True)
    assert compared(bench.targets["week1"])[STOCK]["status"] == "measured"


def test_light_hosts_are_removed_when_a_run_on_them_fails(pretended: Pretended) -> None:
    pretended.failing = {"edge-first"}
    bench = bench_of("--only", "hosts")
    assert pretended.left == ["removed", "removed"]
    assert len(failures(bench.targets, bench.edge)) == 3
    assert bench.first_run == NotMeasured("it ended with code 2", failed=True)


def test_what_was_not_reached_is_a_failure(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> runs.Ended:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "run_counted", interrupted)
    bench = session.Bench(parse(["--only", "hosts"], session.this_side().playbooks))
    with pytest.raises(KeyboardInterrupt):
        bench.measure()
    assert pretended.left == ["removed", "removed"]
    assert failures(bench.targets, bench.edge)[0] == "1 light hosts: the bench ended before it"


# --- The command line


def test_all_is_measured_three_times_unless_asked_otherwise() -> None:
    options = parse([], PLAYBOOKS)
    assert (options.runs, options.targets, options.skipped) == (3, ("site", "week1", "week2"), {})
    assert options.sizes == (1, 4, 16)


def test_what_is_left_out_has_its_reason() -> None:
    options = parse(["--only", "week2,site", "--skip", "stock", "--runs", "5"], PLAYBOOKS)
    assert options.runs == 5
    assert options.targets == ("site", "week2")
    assert options.left_out == {"week1": "left out by --only week2,site"}
    assert options.skipped == {"stock": "left out by --skip stock", "hosts": "left out by --only week2,site"}


def test_quick_is_one_run_without_the_former_tree() -> None:
    options = parse(["--quick"], PLAYBOOKS)
    assert (options.runs, options.skipped, options.sizes) == (1, {"before": "left out by --quick"}, (1, 4))
    assert parse(["--quick", "--runs", "2"], PLAYBOOKS).runs == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "week9"], "--only week9: takes site, week1, week2, hosts, joined by commas"),
        (["--skip", "site"], "--skip site: takes before, stock, hosts, joined by commas"),
        (["--runs", "0"], "--runs 0: takes a number from 1 on"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_allowed(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(words, PLAYBOOKS)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def test_a_processor_without_a_name_is_its_architecture() -> None:
    assert (
        cpu_model("processor\t: 0\nmodel name\t: Example CPU @ 2 GHz\nmodel name\t: other\n") == "Example CPU @ 2 GHz"
    )
    assert cpu_model("processor\t: 0\n") == os.uname().machine


@pytest.mark.parametrize(("loads", "waited"), [([0.5], 0), ([9.0, 4.0, 1.0], 2), ([9.0] * 100, 60)])
def test_a_busy_machine_is_waited_for_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, loads: list[float], waited: int
) -> None:
    now, left = [0.0], list(loads)
    monkeypatch.setattr(session.os, "sched_getaffinity", lambda _process: {0, 1})
    monkeypatch.setattr(session.os, "getloadavg", lambda: (left.pop(0), 0.0, 0.0))
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(session.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    session.settle()
    assert now[0] == 5 * waited
