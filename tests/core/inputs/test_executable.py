"""Which keys of a config can make a loader run code, and which of them make transformers do it."""

from typing import Any

import pytest
from modelmerger.inputs.executable import executable_keys, is_executable, kernels

NAMES = ("auto_map", "trust_remote_code", "custom_pipelines")
IMPLEMENTATIONS = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_attn_implementation_autoset",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
)
PLACES = ("top", "nested", "listed")


def placed(place: str, key: str, value: Any) -> dict[str, Any]:
    """A config with the key at the top, three levels down, or in a list."""
    inner = {"hidden_size": 16, key: value}
    return {"top": inner, "nested": {"a": {"b": {"c": inner}}}, "listed": {"parts": [{"hidden_size": 8}, inner]}}[place]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", [*NAMES, *IMPLEMENTATIONS])
@pytest.mark.parametrize("value", [None, True, "eager", {"": "org/kernel"}])
def test_a_key_that_can_run_code_is_found_whatever_its_value(key: str, place: str, value: Any) -> None:
    assert executable_keys(placed(place, key, value)) == {key}


def test_keys_below_a_key_that_can_run_code_are_found_too() -> None:
    assert executable_keys({"auto_map": {"trust_remote_code": True}}) == {"auto_map", "trust_remote_code"}


@pytest.mark.parametrize("key", ["architectures", "model_type", "attention_dropout", "num_experts", "", 0, None])
def test_other_keys_run_nothing(key: object) -> None:
    assert not is_executable(key)
    assert executable_keys({key: "org/kernel"}) == set()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "name", ["org/kernel", "org/kernel@v1:run", "paged|org/kernel", "flash_attention_2", "sonicmoe"]
)
def test_an_implementation_that_transformers_lacks_is_a_kernel(key: str, place: str, name: str) -> None:
    assert kernels(placed(place, key, name)) == [f"{key}: {name}"]
    assert kernels(placed(place, key, {"": "sdpa", "text_config": name})) == [f"{key}: {name}"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "value", ["eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm", None, True, {"": "sdpa"}]
)
def test_what_transformers_has_in_itself_is_not(place: str, value: Any) -> None:
    assert [kernels(placed(place, key, value)) for key in IMPLEMENTATIONS] == [[]] * len(IMPLEMENTATIONS)


def test_each_kernel_is_said_once_and_in_order() -> None:
    config = {"b": {"attn_implementation": "z/z"}, "attn_implementation": "z/z", "_attn_implementation": "a/a"}
    assert kernels(config) == ["_attn_implementation: a/a", "attn_implementation: z/z"]
