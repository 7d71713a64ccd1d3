"""The claims' file: the project's own is right, and every mistake is one sentence that says what is allowed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ai_idp.benchmarks.claims import KINDS, Claim, ClaimsError, kind_of, load_claims

ROOT = Path(__file__).resolve().parent.parent.parent
CLAIM: dict[str, Any] = {
    "id": "mine",
    "description": "It is fast",
    "source": "me",
    "documented": {"low": 10, "high": 20},
    "unit": "tok/s",
    "metric": "output_tokens_per_second",
    "better": "higher",
    "group": "gpu_servers",
    "measurement": "vllm-c1",
    "how": "Measured",
}
RATIO = {**CLAIM, "method": "ratio", "unit": "x", "baseline": {"measurement": "llama-cpp-server-c1", "name": "the CPU"}}


def write(folder: Path, *claims: Any, **document: Any) -> Path:
    path = folder / "claims.yml"
    path.write_text(yaml.safe_dump({"schema": 1, "claims": list(claims), **document}, sort_keys=False))
    return path


def problems(folder: Path, *claims: Any, **document: Any) -> list[str]:
    with pytest.raises(ClaimsError) as caught:
        load_claims(write(folder, *claims, **document))
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


def test_the_plan_s_claims_are_all_there_with_the_owner_s_figures() -> None:
    claims = {claim.id: claim for claim in load_claims(ROOT / "benchmarks" / "claims.yml")}

    def figures(name: str) -> tuple[Any, ...]:
        claim = claims[name]
        ends = [(one.low, one.high) if one else None for one in (claim.documented, claim.expected)]
        return (*ends, claim.unit, claim.better)

    assert figures("vllm-throughput") == ((140, 170), (60, 100), "tok/s", "higher")
    assert figures("vllm-ttft") == ((22, 22), (80, 150), "ms", "lower")
    assert figures("rtx-5070-ti-fp8") == (None, None, "tok/s", "higher")
    assert figures("llama-3.3-70b-hybrid") == ((30, 40), None, "tok/s", "higher")
    assert figures("usb4-rpc-latency") == ((0.4, 0.4), (2, 5), "ms", "lower")
    assert figures("throughput-improvement-7x") == ((7, 7), (2, 4), "x", "higher")
    assert figures("ryzen-9900x-cpu-throughput") == (None, None, "tok/s", "higher")
    assert figures("jetson-llama-3.2-1b") == (None, None, "tok/s", "higher")
    assert figures("network-2.5gbe") == ((2.5, 2.5), (2.35, 2.35), "Gbit/s", "higher")
    assert len(claims) == 9
    assert claims["llama-3.3-70b-hybrid"].method == "derived"
    baseline = claims["throughput-improvement-7x"].baseline
    assert baseline is not None
    assert (baseline.measurement, "CPU" in baseline.name) == ("llama-cpp-server-c1", True)
    # Nothing of the lab can answer a claim about the owner's machines; arithmetic holds anywhere.
    for claim in claims.values():
        assert claim.subject.environment == (None if claim.method == "derived" else "production")


def test_models_of_the_claims_are_in_the_catalogue() -> None:
    catalogue = yaml.safe_load((ROOT / "playbooks/group_vars/all/models.yml").read_text())["ai_idp_models"]
    known = {model["name"] for model in catalogue}
    for claim in load_claims(ROOT / "benchmarks" / "claims.yml"):
        assert set(claim.subject.model) <= known


def test_a_user_s_claims_follow_those_of_the_file(tmp_path: Path) -> None:
    claims = load_claims(write(tmp_path, CLAIM), [{**CLAIM, "id": "second", "documented": 22, "week": 2}])
    assert [claim.id for claim in claims] == ["mine", "second"]
    assert claims[1].documented is not None
    assert (claims[1].documented.low, claims[1].documented.high) == (22, 22)
    assert load_claims(write(tmp_path, RATIO))[0].method == "ratio"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unit": "tok/min"}, "unit is 'tok/min'; allowed is 'tok/s', the unit of the metric output_tokens_per"),
        ({"metric": "ttft_p50_ms", "better": "lower"}, "unit is 'tok/s'; allowed is 'ms', the unit of the metric ttft"),
        ({"better": "lower"}, "better is 'lower'; allowed is 'higher' for the metric output_tokens_per_second."),
        ({"better": "bigger"}, "better is 'bigger'; allowed is higher or lower."),
        ({"metric": "speed"}, "metric is 'speed'; allowed is a name that ends with its unit: "),
        ({"colour": "red"}, "colour is no key of a claim; allowed are baseline, better, description, "),
        ({"subject": {"gpus": "H100"}}, "subject.gpus is no key of a claim; allowed are cpu, environment, gpu, model."),
        ({"subject": "H100"}, "subject is 'H100'; allowed is a mapping with any of gpu, cpu, model and environment."),
        ({"documented": {"low": 170, "high": 140}},
         "documented is {'low': 170, 'high': 140}: its low end is above its high end. Allowed is "),
        ({"documented": {"low": 170}}, "documented is {'low': 170}: its high end is missing. Allowed is "),
        ({"documented": {"low": 1, "high": 2, "mid": 1}},
         "documented is {'low': 1, 'high': 2, 'mid': 1}: it has the unknown key 'mid'. "),
        ({"documented": "140-170"}, "documented is '140-170': it is no number above 0. Allowed is a number above 0"),
        ({"documented": True}, "documented is True: it is no number above 0."),
        ({"expected": 0}, "expected is 0: it is no number above 0."),
        ({"expected": float("nan")}, "expected is nan: it is no number above 0."),
        ({"expected": float("inf")}, "expected is inf: it is no number above 0."),
        ({"week": 7}, "week is 7; allowed is a whole number from 1 to 6, the week that measures it."),
        ({"week": "4"}, "week is '4'; allowed is a whole number from 1 to 6, the week that measures it."),
        ({"description": ""}, "description is '': it is empty. Allowed is a text."),
        ({"description": None}, "description is None; allowed is a text."),
        ({"measurement": "VLLM c1"}, "measurement is 'VLLM c1'; allowed is the id of the measurement that answers"),
        ({"measurement": None}, "measurement is missing; allowed is the id of the measurement that answers"),
        ({"method": "guessed"}, "method is 'guessed'; allowed is measured, ratio or derived."),
        ({"method": "ratio", "unit": "x"}, "baseline is missing; a ratio needs one."),
        ({"baseline": RATIO["baseline"]}, "baseline is set, but method is 'measured'; set method to ratio or leave"),
        ({"method": "derived"}, "measurement is 'vllm-c1', but a derived claim has none; leave it out or set"),
        ({"method": "derived", "measurement": None, "documented": None}, "documented is missing; a derived claim"),
        ({**RATIO, "unit": "tok/s"}, "unit is 'tok/s'; allowed is 'x', the unit of a ratio of output_tokens_per"),
        ({**RATIO, "baseline": {"measurement": "vllm-c1", "name": "it"}},
         "baseline.measurement is 'vllm-c1', the measurement itself"),
        ({**RATIO, "baseline": {**RATIO["baseline"], "metric": "ttft_p50_ms"}},
         "baseline.metric is 'ttft_p50_ms'; allowed is a metric in tok/s"),
        ({**RATIO, "baseline": {"name": "it"}}, "baseline.measurement is missing; allowed is the id of a measurement"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    found = problems(tmp_path, {**CLAIM, **changes})
    assert len(found) == 1
    assert found[0].startswith(f"claims.yml: claim mine: {sentence}")


def test_missing_keys_and_names(tmp_path: Path) -> None:
    nameless = {key: value for key, value in CLAIM.items() if key not in ("id", "source")}
    assert problems(tmp_path, nameless) == [
        "claims.yml: claim 1: id is missing; allowed is small letters, digits, dots, dashes and underscores, such as "
        "vllm-throughput.",
        "claims.yml: claim 1: source is missing; allowed is a text.",
    ]
    assert problems(tmp_path, "mine") == ["claims.yml: claim 1 is 'mine'; allowed is a mapping of keys."]


def test_two_claims_of_one_name(tmp_path: Path) -> None:
    sentence = "claim mine: id is 'mine' for two claims; give each its own."
    assert problems(tmp_path, CLAIM, CLAIM) == [sentence]
    with pytest.raises(ClaimsError) as caught:
        load_claims(write(tmp_path, CLAIM), [CLAIM])
    assert caught.value.problems == [sentence]


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ClaimsError) as caught:
        load_claims(write(tmp_path, {**CLAIM, "unit": "ms"}, {**CLAIM, "id": "b", "week": 0}), [{**CLAIM, "id": "C"}])
    assert len(caught.value.problems) == 3
    assert caught.value.problems[2].startswith("the extra claims: claim C: id is 'C'; allowed is small letters")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "there is no list 'claims'."),
        ("[]", "there is no list 'claims'."),
        ("schema: 1\nclaims: []\n", "claims is []; allowed is a list with at least one claim."),
        ("schema: 1\nclaims: 4\n", "claims is 4; allowed is a list with at least one claim."),
        ("schema: 2\nclaims: [{}]\n", "schema is 2; allowed is 1."),
        ("schema: 1\nclaim: []\nclaims: []\n", "claim is no key of the file; allowed are claims and schema."),
        (
            "claims:\n  - id: a\n    unit: ms\n    unit: s\n",
            "this is no YAML in line 4: the key 'unit' is there twice.",
        ),
        ("claims: [\n", "this is no YAML in line 2: "),
        (
            "claims: !!python/object/apply:os.getcwd []\n",
            "this is no YAML in line 1: could not determine a constructor",
        ),
    ],
)
def test_what_is_no_file_of_claims(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "claims.yml"
    path.write_text(content)
    with pytest.raises(ClaimsError) as caught:
        load_claims(path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{path}: {sentence}")


def test_a_file_that_can_t_be_read(tmp_path: Path) -> None:
    with pytest.raises(ClaimsError, match="can't be read: No such file"):
        load_claims(tmp_path / "none.yml")
    (tmp_path / "binary.yml").write_bytes(b"schema: \xff")
    with pytest.raises(ClaimsError, match="not UTF-8"):
        load_claims(tmp_path / "binary.yml")


def test_every_kind_of_metric_is_told_by_its_own_ending() -> None:
    for kind in KINDS:
        assert kind_of(f"a_{kind.ending.lstrip('_')}") == kind
    assert kind_of("speed") is None


def test_a_claim_s_text_is_one_line() -> None:
    assert Claim.model_validate({**CLAIM, "description": " It\n is   fast "}).description == "It is fast"
