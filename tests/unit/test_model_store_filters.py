"""What model_store derives from the catalogue and the lock, and the catalogue itself."""

from pathlib import Path
from typing import Any

import model_store as filters
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROOT = Path(filters.__file__).resolve().parent.parent
HUB = "https://huggingface.co"
ENTRY: dict[str, Any] = {"name": "tiny", "format": "gguf", "source": {"repository": "a/b"}, "files": ["x.gguf"]}
RESULT = {
    "name": "tiny",
    "revision": "c" * 40,
    "files": [{"path": "x.gguf", "size_bytes": 3, "sha256": "a" * 64}],
}
CATALOGUE = yaml.safe_load((ROOT / "playbooks/group_vars/all/models.yml").read_text())["ai_idp_models"]


def problems(*entries: dict[str, Any], names: list[str] | None = None, **changes: Any) -> str:
    arguments = {"endpoint": HUB, "has_token": False, "nas": {}, "keep_free": "20GB", **changes}
    names = names if names is not None else [entry["name"] for entry in entries]
    return " ".join(filters.model_store_problems(list(entries), names, **arguments))


def test_sound_catalogue_has_no_problem() -> None:
    assert problems(ENTRY) == ""
    assert problems(ENTRY, nas={"source": "nas:/models", "path": "/mnt/nas"}) == ""


@pytest.mark.parametrize(
    ("entry", "changes", "words"),
    [
        ({}, {"names": ["tiney"]}, "'tiney' is not in the catalogue (did you mean 'tiny'?). It has: tiny."),
        ({"name": "../x"}, {}, "the name '../x' must be"),
        ({"source": {}}, {}, "without source.repository"),
        ({"source": {"type": "url", "repository": "a/b"}}, {}, "without source.url"),
        ({"source": {"repository": "a/b", "url": "http://x/y"}}, {}, "source.url, which a source of type huggingface"),
        ({"sha256": "abc"}, {}, "sha256 of tiny is 'abc'"),
        ({"gated": True}, {}, "which is gated, and model_store_token is empty"),
        ({}, {"endpoint": "hub"}, "model_store_endpoint is 'hub'"),
        ({}, {"keep_free": "lots"}, "model_store_keep_free_bytes is 'lots'"),
        ({}, {"nas": {"source": "nas:/x"}}, "model_store_nas lacks path"),
        ({}, {"nas": {"source": "nas:/x", "path": "mnt"}}, "model_store_nas.path is 'mnt'"),
    ],
)
def test_each_problem_is_one_sentence(entry: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    assert words in problems({**ENTRY, **entry}, **changes)


def test_gated_model_with_token_or_from_a_mirror() -> None:
    assert problems({**ENTRY, "gated": True}, has_token=True) == ""
    assert problems({**ENTRY, "gated": True}, endpoint="http://10.77.0.5:8080") == ""


def test_a_model_that_is_not_gated_may_be_said_so_in_text() -> None:
    assert problems({**ENTRY, "gated": "no"}) == ""


def test_duplicate_names() -> None:
    assert "tiny is listed 2 times" in problems(ENTRY, ENTRY)


def test_lock_goes_round() -> None:
    (first,) = filters.model_store_wanted([ENTRY], ["tiny", "tiny"], None)
    assert first["lock"] == []
    assert first["source"] == {"type": "huggingface", "repository": "a/b", "revision": "main", "files": ["x.gguf"]}
    lock = {"models": filters.model_store_merge({}, [filters.model_store_locked([first], [RESULT]), {}])}
    (second,) = filters.model_store_wanted([ENTRY], ["tiny"], lock)
    assert second["lock"] == RESULT["files"]
    assert second["lock_revision"] == "c" * 40
    assert filters.model_store_merge(lock, [filters.model_store_locked([second], [RESULT])]) == lock["models"]


def test_a_lock_that_says_all_already_is_left_alone() -> None:
    (item,) = filters.model_store_wanted([ENTRY], ["tiny"], None)
    found = filters.model_store_locked([item], [RESULT])
    lock = {"models": filters.model_store_merge({"models": {"gone": found["tiny"]}}, [found])}
    assert filters.model_store_is_locked(lock, found)
    assert filters.model_store_is_locked(lock, {})
    assert not filters.model_store_is_locked({}, found)
    assert not filters.model_store_is_locked(lock, {**found, "new": found["tiny"]})


def test_the_module_is_given_what_it_knows() -> None:
    (item,) = filters.model_store_wanted([ENTRY], ["tiny"], None)
    assert filters.model_store_arguments([item]) == [{"name": "tiny", "source": item["source"]}]


def test_credentials_are_as_mount_reads_them() -> None:
    assert filters.model_store_credentials({"username": "a"}) == "username=a\npassword=\n"
    given = {"username": "a", "password": "b", "domain": "c"}
    assert filters.model_store_credentials(given) == "username=a\npassword=b\ndomain=c\n"


def test_lock_of_another_source_is_not_enforced() -> None:
    (item,) = filters.model_store_wanted([ENTRY], ["tiny"], None)
    lock = {"models": filters.model_store_locked([item], [RESULT])}
    moved = {**ENTRY, "source": {"repository": "a/b", "revision": "v2"}}
    assert filters.model_store_wanted([moved], ["tiny"], lock)[0]["lock"] == []


def test_prediction_without_hashes_is_never_locked() -> None:
    (item,) = filters.model_store_wanted([ENTRY], ["tiny"], None)
    guess = {**RESULT, "files": [{"path": "x.gguf", "size_bytes": None, "sha256": None}]}
    assert filters.model_store_locked([item], [guess]) == {}


def test_hosts_that_disagree_are_not_locked() -> None:
    (item,) = filters.model_store_wanted([ENTRY], ["tiny"], None)
    other = {**RESULT, "files": [{"path": "x.gguf", "size_bytes": 3, "sha256": "b" * 64}]}
    found = [filters.model_store_locked([item], [result]) for result in (RESULT, other)]
    with pytest.raises(AnsibleFilterError, match="two hosts hold different files"):
        filters.model_store_merge({}, found)


# -- the catalogue that is shipped ---------------------------------------------------------------------------


def test_shipped_catalogue_fits_the_argument_specification() -> None:
    path = ROOT / "roles/model_store/meta/argument_specs.yml"
    options = yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"]
    spec = {"model_store_catalogue": options["model_store_catalogue"]}
    result = ArgumentSpecValidator(spec).validate({"model_store_catalogue": CATALOGUE})
    assert result.error_messages == []
    assert problems(*CATALOGUE) == ""


def test_no_hash_is_written_by_hand() -> None:
    assert [entry["name"] for entry in CATALOGUE if "sha256" in entry] == []


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: str(entry["name"]))
def test_figures_agree_with_the_shape(entry: dict[str, Any]) -> None:
    """Parameters follow from the shape (query heads times head size = width in all of these families)."""
    figures = entry["figures"]
    width, depth, vocabulary = figures["hidden_size"], figures["layers"], figures["vocabulary_size"]
    kv_width = figures["kv_heads"] * figures["head_dim"]
    linear = depth * (2 * width**2 + 2 * width * kv_width + 3 * width * figures["feed_forward_length"])
    tied = entry["family"].startswith("llama-3.2")
    biases = depth * (width + 2 * kv_width) if entry["family"].startswith("qwen2.5") else 0
    assert figures["parameters"] == linear + vocabulary * width * (1 if tied else 2) + (2 * depth + 1) * width + biases
    sizes = [quantization["weights_bytes"] for quantization in figures["quantizations"]]
    assert sizes == sorted(sizes)
