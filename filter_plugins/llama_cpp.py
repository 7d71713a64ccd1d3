"""Filters of the role llama_cpp: what is wrong with its settings."""

import re
from typing import Any


def llama_cpp_problems(compiler_cache: str) -> list[str]:
    """Say what the argument spec can't.

    Args:
        compiler_cache: variable ``llama_cpp_compiler_cache``, empty for none.

    Returns:
        a sentence for each problem, without its full stop.
    """
    if compiler_cache == "" or re.match(r"/[A-Za-z0-9._/@+-]+$", compiler_cache):
        return []
    return [
        f"llama_cpp_compiler_cache: '{compiler_cache}' is no absolute path of letters, digits and . _ / @ + -. Write "
        "one, such as /var/cache/ccache, or leave it empty"
    ]


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {"llama_cpp_problems": llama_cpp_problems}
