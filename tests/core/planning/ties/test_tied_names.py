"""Names of one tensor."""

import torch
from modelmerger.planning.ties.tied_names import tied_names


def model(*groups: str) -> dict[str, torch.Tensor]:
    """A tensor for each group of names."""
    return {name: tensor for group in groups for tensor in [torch.ones(2)] for name in group.split()}


def test_names_are_tied_that_stand_for_one_tensor_in_every_model() -> None:
    assert tied_names([model("a b c", "d e"), model("a", "b c", "e d")]) == {"c": "b", "e": "d"}
    assert tied_names([model("a b")]) == {"b": "a"}
    assert tied_names([model("a b"), model("a", "b")]) == {}
    assert tied_names([model("a b"), model("a")]) == {}
    assert tied_names([]) == {}


def test_heads_and_tensors_without_numbers_are_left_out() -> None:
    assert tied_names([model("embed_tokens.weight lm_head.weight x")]) == {"x": "embed_tokens.weight"}
    nothing, meta = torch.empty(0), torch.ones(2, device="meta")
    assert tied_names([{"a": nothing, "b": nothing, "c": meta, "d": meta}]) == {}
