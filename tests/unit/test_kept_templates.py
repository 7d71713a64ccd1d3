"""The callback that keeps compiled templates: what it keeps, what it must not, and that nobody sees a difference."""

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kept_templates
import pytest
from ansible._internal._datatag._tags import Origin
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.template import Templar, trust_as_template
from jinja2 import Environment

CALLBACK = Path(kept_templates.__file__)
PASSWORD = b"a password of the test"
PLAYBOOK = r"""
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [plain.yml, secret.yml]
  tasks:
    - name: tell | Tell what was computed
      ansible.builtin.debug:
        msg: "{{ plain_word }} {{ file_word }} {{ value_word }} {{ cli_word }}"
      loop: [1, 2]
      when: item + 0 < 'conditionword' | length
    - name: copy | Write what has backslashes
      ansible.builtin.copy:
        content: "{{ 'back\\1slash' | regex_replace('(k)', '\\1\\1') }}"
        dest: "{{ playbook_dir }}/copied"
        mode: "0600"
    - name: template | Write what has other delimiters
      ansible.builtin.template:
        src: template.j2
        dest: "{{ playbook_dir }}/rendered"
        mode: "0600"
"""
TEMPLATE = r"""#jinja2: variable_start_string: "[[", variable_end_string: "]]"
[[ plain_word ]] {{ plain_word }} [[ "tab\there" ]]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the callback, whose secrets are templates too."""
    (tmp_path / "callback_plugins").mkdir()
    shutil.copy(CALLBACK, tmp_path / "callback_plugins")
    vault = VaultLib(secrets=[("default", VaultSecret(PASSWORD))])
    value = vault.encrypt("{{ 'valueword' ~ 1 }}").decode().replace("\n", "\n  ")
    (tmp_path / "plain.yml").write_text(f"plain_word: \"{{{{ 'plainword' ~ 1 }}}}\"\nvalue_word: !vault |\n  {value}\n")
    (tmp_path / "secret.yml").write_bytes(vault.encrypt("file_word: \"{{ 'fileword' ~ 1 }}\"\n"))
    (tmp_path / "template.j2").write_text(TEMPLATE)
    (tmp_path / "password").write_bytes(PASSWORD)
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    (tmp_path / "none.cfg").touch()
    return tmp_path


def run(project: Path, *, kept: bool = True) -> str:
    """What a run prints and writes."""
    plugins = str(project / "callback_plugins") if kept else "/nowhere"
    done = subprocess.run(
        [
            *("ansible-playbook", "-i", "localhost,", "--vault-password-file", "password", "play.yml"),
            *("-e", "{cli_word: \"{{ 'cliword' ~ 1 }}\"}"),
        ],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ANSIBLE_CALLBACK_PLUGINS": plugins, "ANSIBLE_CONFIG": str(project / "none.cfg")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = [(project / name).read_text() for name in ("copied", "rendered")]
    for name in ("copied", "rendered"):
        (project / name).unlink()
    return done.stdout + "".join(written)


def test_runs_say_and_write_the_same_with_what_was_kept_without_it_and_with_broken_files(project: Path) -> None:
    without = run(project, kept=False)
    # What Vault encrypts alone is a value to Ansible, never a template.
    assert "plainword1 fileword1 {{ 'valueword' ~ 1 }} cliword1" in without
    assert "backk\\1slash" in without
    assert "plainword1 {{ plain_word }} tab\there" in without
    first = run(project)
    files = list((project / ".ansible/templates").iterdir())
    assert files
    second = run(project)
    for number, file in enumerate(files):
        file.write_bytes(file.read_bytes()[: 40 * number])
    assert [first, second, run(project)] == [without] * 3


def test_no_secret_is_kept(project: Path) -> None:
    run(project)
    kept = b"".join(file.read_bytes() for file in (project / ".ansible/templates").iterdir())
    assert b"plainword" in kept
    assert b"conditionword" in kept
    assert [word for word in (b"fileword", b"valueword", b"cliword") if word in kept] == []
    assert (project / ".ansible/templates").stat().st_mode & 0o777 == 0o700


class CountingEnvironment(Environment):
    """Counts what it parses, which is half of a compilation."""

    parsed: list[str]

    def _parse(self, source: str, name: Any, filename: Any) -> Any:
        self.parsed.append(source)
        return super()._parse(source, name, filename)


def test_what_another_process_compiled_is_not_compiled_again(tmp_path: Path) -> None:
    source = Origin(path=__file__).tag("{{ word }}!")
    context = SimpleNamespace(current=lambda optional: SimpleNamespace(escape_backslashes=True))
    parsed: list[list[str]] = []
    for _process in range(2):
        environment = type("Fresh", (CountingEnvironment,), {"parsed": []})
        cache = kept_templates.Kept(str(tmp_path), "%s")
        kept_templates.KeptTemplates(cache, context, Origin, ("variable_start_string",)).install(environment)
        for _time in range(2):
            assert environment().from_string(source).render(word="hello") == "hello!"
            assert environment().compile_expression(Origin(path=__file__).tag("word == 'hello'"))(word="hello") is True
        # Other delimiters make another template of it.
        assert environment(variable_start_string="[[").from_string(source).render(word="hello") == "{{ word }}!"
        parsed.append(environment.parsed)
    assert [len(each) for each in parsed] == [2, 0]


def test_an_error_in_a_template_is_told_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible._internal._templating import _jinja_bits

    class Fresh(_jinja_bits.AnsibleEnvironment):
        pass

    monkeypatch.setattr(_jinja_bits, "AnsibleEnvironment", Fresh)
    kept_templates.install(tmp_path)
    templar = Templar(loader=DataLoader(), variables={})
    for _time in range(2):
        with pytest.raises(Exception, match="unexpected 'end of print statement'"):
            templar.template(Origin(path=__file__).tag(trust_as_template("{{ 1 + }}")))


def test_too_many_are_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_templates, "MOST", 2)
    for name in "abc":
        (tmp_path / name).touch()
    monkeypatch.setattr(kept_templates.KeptTemplates, "install", lambda self, environment: None)
    kept_templates.install(tmp_path)
    assert list(tmp_path.iterdir()) == []
