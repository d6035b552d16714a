import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.errors import BaselineMismatch
from pytest_joules.provenance import (
    Context,
    Identity,
    Provenance,
    differences,
    require_comparable,
)

OURS = Identity(
    gpu_model="NVIDIA H200",
    num_gpus=2,
    memory_bytes=141 * 10**9,
    power_limit_w=700.0,
    mig=False,
    topology="1 x nvlink-18",
)
OTHERS: dict[str, Any] = {
    "gpu_model": "NVIDIA H200 NVL",
    "num_gpus": 1,
    "memory_bytes": 141 * 10**9 + 1,
    "power_limit_w": 700.1,
    "mig": True,
    "topology": "1 x system",
    "inputs_sha256": "0" * 64,
}


def test_equal_hardware_is_comparable() -> None:
    require_comparable(OURS, replace(OURS), "p")


def test_every_field_of_identity_is_covered_below() -> None:
    assert set(OTHERS) == {field.name for field in fields(Identity)}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_hardware_is_named(name: str) -> None:
    theirs = replace(OURS, **{name: OTHERS[name]})

    with pytest.raises(BaselineMismatch) as caught:
        require_comparable(OURS, theirs, "some-point")

    message = str(caught.value)
    assert message.startswith(f"some-point: the baseline has {name}={OTHERS[name]!r}")
    assert repr(getattr(OURS, name)) in message
    assert "--joules-record" in message


@pytest.mark.parametrize("name", ["memory_bytes", "power_limit_w", "mig", "topology"])
def test_hardware_that_one_side_does_not_know_is_not_comparable(name: str) -> None:
    with pytest.raises(BaselineMismatch, match=f"{name}=None"):
        require_comparable(OURS, replace(OURS, **{name: None}), "p")


def test_differences_of_software_are_told_as_theirs_and_ours() -> None:
    ours = Context(driver="580", model_revision="b", packages={"vllm": "0.33", "new": "1"})
    theirs = Context(driver="570", model_revision="b", packages={"vllm": "0.32", "old": "2"})

    assert differences(ours, theirs) == {
        "driver": ("570", "580"),
        "new": ("", "1"),
        "old": ("2", ""),
        "vllm": ("0.32", "0.33"),
    }
    assert differences(ours, ours) == {}


texts = st.text(max_size=8)
contexts = st.builds(
    Context,
    stack=texts,
    packages=st.dictionaries(texts, texts, max_size=3),
    driver=texts,
    gpu_uuids=st.lists(texts, max_size=3).map(tuple),
)
identities = st.builds(
    Identity,
    gpu_model=texts,
    num_gpus=st.integers(1, 8),
    memory_bytes=st.none() | st.integers(0, 2**40),
    power_limit_w=st.none() | st.floats(1, 2000),
    mig=st.none() | st.booleans(),
)


@given(st.builds(Provenance, identity=identities, context=contexts))
def test_provenance_survives_json(provenance: Provenance) -> None:
    assert Provenance.from_json(json.loads(json.dumps(provenance.as_json()))) == provenance


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"identity": {}, "context": {}}, TypeError),
        ({"context": {}}, KeyError),
        (
            {"identity": {"gpu_model": "x", "num_gpus": 1, "colour": 1}, "context": {}},
            TypeError,
        ),
    ],
)
def test_wrong_keys_are_refused(values: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Provenance.from_json(values)
