"""The vault's finder of secrets, held against a planted set, of which the table of docs/knowledge-vault.md is too."""

import re
from pathlib import Path

from tests import planted_secrets

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "knowledge-vault.md"
# A password that a sentence tells can't be known for one.
UNSEEN = {"password in prose"}


def test_the_set_is_large_enough_and_the_same_each_time() -> None:
    planted = planted_secrets.planted()
    assert len(planted) >= 60
    assert len({one.kind for one in planted}) >= 15
    assert all(one.secret in one.text for one in planted)
    assert planted == planted_secrets.planted()
    assert len(planted_secrets.harmless()) == 200


def test_every_kind_is_found_but_the_one_that_nobody_can_know() -> None:
    ours = planted_secrets.ours()
    missed = {one.kind for one in planted_secrets.planted() if not planted_secrets.sees(ours, one)}
    assert missed == UNSEEN


def test_few_harmless_lines_lose_something() -> None:
    taken = [text for text in planted_secrets.harmless() if planted_secrets.ours()(text)]
    assert len(taken) <= 3, taken


def test_the_manual_has_our_figures() -> None:
    results = planted_secrets.results(planted_secrets.ours())
    total = sum(count for kind, count in results.items() if kind)
    [all_secrets] = re.findall(r"^\| \*\*all secrets\*\* \| \*\*(\d+)/129\*\*", MANUAL.read_text("utf-8"), re.M)
    [wrong] = re.findall(r"^\| \*\*harmless lines taken for one\*\* \| (\d+)/200", MANUAL.read_text("utf-8"), re.M)
    assert (int(all_secrets), int(wrong)) == (total, results[""])
