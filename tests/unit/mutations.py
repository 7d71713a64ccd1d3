"""Good inputs made wrong: documents with other values in places, and texts that are cut off or something else."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

HTML = "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body><h1>502</h1></body></html>\n"
DEEP = "[" * 100_000
# What stands where something else was expected: every type, edges of numbers, half a character, what YAML is wary of.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 99_999, 1 << 64, 10**400, -0.5, 1e308, float("inf"), float("nan"), "", " ", "0", "x",
    "on", "010", "1e3", "null", "-", "/", "..", "a\0b", "\n", "\ud800", "ü", "{{ x }}", "%s{}", "[::1", "x" * 5000,
    "2026-99-99", "http://[", "http://127.0.0.1:99999", [], [None], [[]], [{}], {}, {"": None}, {"x": {"y": []}},
)  # fmt: skip
TEXTS = (
    b"", b" ", b"\n", b"\0", b"\xff\xfe\x00", b"\xef\xbb\xbf{}", b"null", b"true", b"0", b"1e999", b"NaN", b'""', b"[]",
    b"[null]", b"{}", b"[[]]", b'"\\ud800"', b"{", b'{"', b"[1,", b"- a\n- b\n", b"a: b: c\n",
    b"!!python/name:os.system x\n",
    b"x: 2026-99-99\n", b"? [a]\n: b\n", b"x: !vault [1]\n", b"&a [*a]\n", HTML.encode(), DEEP.encode(),
    ("9" * 5000).encode(),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a document, the whole included."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*path, key))


def mutated(document: Any, chance: random.Random) -> Any:
    """A copy with one to three places changed: another value, gone, twice, or under another name."""
    whole = [copy.deepcopy(document)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        known = list(places(whole[0]))
        # Not the whole each second time, and deep places as often as others.
        path = (0, *chance.choice(known[1:] or known))
        *above, last = path
        holder: Any = whole
        for key in above:
            holder = holder[key]
        what = chance.random()
        if what < 0.15 and len(path) > 1:
            del holder[last]
        elif what < 0.22 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        elif what < 0.27 and isinstance(holder, dict):
            holder[f"{last}s"] = holder.pop(last)
        else:
            holder[last] = copy.deepcopy(chance.choice(VALUES))
        if not whole:
            return None
    return whole[0]


def spoiled(text: bytes, chance: random.Random) -> bytes:
    """A text that is another, cut off, has bytes changed, or a part twice or not at all."""
    what = chance.random()
    if what < 0.3 or not text:
        return chance.choice(TEXTS)
    place = chance.randrange(len(text))
    more = place + chance.randint(1, 40)
    if what < 0.5:
        return text[:place]
    if what < 0.65:
        return text[:place] + text[more:]
    if what < 0.8:
        return text[:place] + chance.choice(TEXTS[:27]) + text[more:]
    if what < 0.9:
        return text[:place] + text[place:more] * 3 + text[more:]
    changed = bytearray(text)
    for _ in range(chance.randint(1, 6)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def spoiled_json(document: Any, chance: random.Random) -> bytes:
    """A document as a file holds it: half of them well-formed with other values, half spoiled as texts."""
    if chance.random() < 0.6:
        return json.dumps(mutated(document, chance)).encode()
    return spoiled(json.dumps(document).encode(), chance)
