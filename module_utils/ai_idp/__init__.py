"""Pure Python shared by the modules in ``library/``: the standard library only, no I/O that a test can not replace."""
