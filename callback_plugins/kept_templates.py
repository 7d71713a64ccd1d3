"""Keep what Jinja compiled, for the other tasks of a run and for later runs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kept_templates
type: aggregate
short_description: Compile each template and each condition once, not once for each task and host
description:
  - Ansible forks a process for each task and host, and each of them compiles every template and condition that it
    meets anew. In a run that changes nothing that was a fifth of the controller's processor time.
  - This callback has Jinja keep the compiled code in C(.ansible/templates) of the project, by Jinja's own cache of
    bytecode. What was compiled by another Python or Jinja is compiled anew. Values are not kept, and of templates
    those alone that stand in a file that Ansible Vault does not encrypt.
  - Where Ansible's inner names are other than expected, it does nothing. It prints nothing.
author: AI-IDP (@ai-idp)
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ansible.parsing.vault import is_encrypted_file
from ansible.plugins.callback import CallbackBase
from jinja2 import Environment
from jinja2.bccache import Bucket, FileSystemBytecodeCache
from jinja2.environment import TemplateExpression
from jinja2.nodes import Template

KEPT = Path(__file__).resolve().parents[1] / ".ansible" / "templates"
# About ten times as many as the whole project has; those of a project that changed are left behind.
MOST = 20_000


class Kept(FileSystemBytecodeCache):
    """Jinja's cache, which takes a file that it can't read or write for one that is not there."""

    def load_bytecode(self, bucket: Bucket) -> None:
        """Read one; a file may be cut off where the power was lost."""
        try:
            super().load_bytecode(bucket)
        except Exception:  # Whatever unpickling raises.
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Write one; without room on the disk the run goes on without it."""
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


class KeptTemplates:
    """Compiles for an environment of Ansible's, unless the code is there already.

    Args:
        cache: where the code is kept.
        context: Ansible's context of a compilation, which says how backslashes are read.
        origin: Ansible's tag of a source, which says in which file it stands.
        settings: names of the environment's settings that a template may override, such as its delimiters.
    """

    def __init__(self, cache: FileSystemBytecodeCache, context: Any, origin: Any, settings: tuple[str, ...]) -> None:
        self._cache = cache
        self._context = context
        self._origin = origin
        self._settings = settings
        self._buckets: dict[str, Bucket] = {}
        # Each thread has its own.
        self._expression: ContextVar[Bucket | None] = ContextVar("expression", default=None)
        self._plain: dict[str, bool] = {}

    def bucket(self, environment: Environment, kind: str, source: str) -> Bucket | None:
        """The place of a source's code, with the code if there is some; None for what is not to be kept."""
        context = self._context.current(optional=True)
        if context is None or not self._readable(source):
            return None
        settings = [getattr(environment, name) for name in self._settings]
        key = repr((kind, context.escape_backslashes, settings, sorted(environment.extensions), str(source)))
        if key not in self._buckets:
            self._buckets[key] = self._cache.get_bucket(environment, key, None, source)
        return self._buckets[key]

    def _readable(self, source: str) -> bool:
        """Whether a source stands in a file that is no secret; what the command line says may be one."""
        origin = self._origin.get_tag(source)
        if origin is None or origin.path is None:
            return False
        if origin.path not in self._plain:
            with contextlib.suppress(OSError), Path(origin.path).open("rb") as file:
                self._plain[origin.path] = not is_encrypted_file(file)
        return self._plain.get(origin.path, False)

    def keep(self, bucket: Bucket, code: Any) -> None:
        """Keep the code of a source."""
        bucket.code = code
        self._cache.set_bucket(bucket)

    @contextlib.contextmanager
    def expression(self, bucket: Bucket | None) -> Iterator[None]:
        """Within it, the code that is compiled from a tree is that of an expression, which Jinja has parsed before."""
        before = self._expression.set(bucket)
        try:
            yield
        finally:
            self._expression.reset(before)

    def install(self, environment: Any) -> None:
        """Have a class of environments compile with what is kept."""
        compile_template, compile_expression = environment.compile, environment.compile_expression

        def compiled(this: Any, source: str | Template, *args: Any, **kwargs: Any) -> Any:
            bucket = self.bucket(this, "template", source) if isinstance(source, str) else self._expression.get()
            # What has a file of its own is Jinja's loaders' business.
            if bucket is None or args or kwargs:
                return compile_template(this, source, *args, **kwargs)
            if bucket.code is None:
                self.keep(bucket, compile_template(this, source))
            return bucket.code

        def compiled_expression(this: Any, source: str, undefined_to_none: bool = True) -> TemplateExpression:
            bucket = self.bucket(this, "expression", source)
            if bucket is None or bucket.code is None:
                with self.expression(bucket):
                    return compile_expression(this, source, undefined_to_none)
            template = this.template_class.from_code(this, bucket.code, this.make_globals(None), None)
            return TemplateExpression(template, undefined_to_none)

        environment.compile, environment.compile_expression = compiled, compiled_expression


def install(folder: Path) -> None:
    """Have Ansible's templates kept in a folder.

    Raises:
        ImportError: this Ansible names its environment or its tags otherwise.
        OSError: the folder can't be made.
    """
    from ansible._internal._datatag._tags import Origin
    from ansible._internal._templating import _jinja_bits

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache = Kept(str(folder), "%s")
    if sum(1 for _file in folder.iterdir()) > MOST:
        for file in folder.iterdir():
            file.unlink(missing_ok=True)
    settings = _jinja_bits._TEMPLATE_OVERRIDE_FIELD_NAMES
    kept = KeptTemplates(cache, _jinja_bits._TemplateCompileContext, Origin, settings)
    kept.install(_jinja_bits.AnsibleEnvironment)


class CallbackModule(CallbackBase):
    """Has no output; its work is done when a playbook starts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kept_templates"
    _installed = False

    def v2_playbook_on_start(self, playbook: object) -> None:
        """Every process that is forked from now on takes what is kept."""
        if not CallbackModule._installed:
            with contextlib.suppress(ImportError, AttributeError, OSError):
                install(KEPT)
                CallbackModule._installed = True
