"""What wrappers write into names."""

import pytest
import torch
from modelmerger_plugins.names.wrappers import unwrapped, writer

PLAIN = ["model.layers.0.q.weight", "model.layers.0.q.bias", "lm_head.weight"]


@pytest.mark.parametrize("part", ["_orig_mod", "_fsdp_wrapped_module", "_forward_module", "module", "base_model.model"])
def test_what_is_in_front_of_all_names_is_taken_off_and_named(part: str) -> None:
    found = unwrapped([f"{part}.{name}" for name in PLAIN])
    assert list(found.names.values()) == PLAIN
    assert found.counts == {part: 3}
    assert writer(part)


@pytest.mark.parametrize(
    "name",
    [
        "module._orig_mod.model.layers.0.q.weight",
        "_orig_mod.module.model.layers.0.q.weight",
        "base_model.model._orig_mod.model.layers.0.q.weight",
        "module.module.model.layers.0.q.weight",
        "_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.q.weight",
        "model.layers.0._checkpoint_wrapped_module._orig_mod.q.weight",
        "model.layers.0.q._orig_mod.weight",
        "_forward_module.module._orig_mod.model._fsdp_wrapped_module.layers.0.q.weight",
    ],
)
def test_wrappers_are_nested_and_in_the_middle(name: str) -> None:
    assert unwrapped([name]).names == {name: "model.layers.0.q.weight"}


def test_half_of_the_names_have_it() -> None:
    for part in ("_orig_mod", "module"):
        names = [f"{part}.{PLAIN[0]}", *PLAIN[1:]]
        found = unwrapped(names)
        assert list(found.names.values()) == PLAIN
        assert found.counts == {part: 1}


def test_a_part_of_a_model_that_is_called_like_a_wrapper_stays() -> None:
    names = ["module.weight", "head.weight", "layers.0.module.weight", "my_orig_mod.weight", "x._orig_mod"]
    found = unwrapped(names)
    assert found.names == {name: name for name in names}
    assert found.counts == {}


def test_layers_that_are_wrapped_one_by_one() -> None:
    names = ["a.layers.0.module.b.weight", "a.layers.0.module.c.module.weight", "a.d.module.weight", "a.d.bias"]
    assert unwrapped(names).counts == {}
    found = unwrapped(names, layers=("module",))
    plain = ["a.layers.0.b.weight", "a.layers.0.c.weight", "a.d.module.weight", "a.d.bias"]  # d holds more than that
    assert list(found.names.values()) == plain
    assert found.counts == {"module": 2}


def test_two_names_that_come_to_one_are_told() -> None:
    assert unwrapped(["a.weight", "b.weight", "_orig_mod.a.weight"]).collision == ("a.weight", "_orig_mod.a.weight")
    assert unwrapped(["a.weight", "_orig_mod.b.weight"]).collision is None


def test_the_wrappers_of_torch_write_what_is_taken_off() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper, checkpoint_wrapper

    plain = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    names = list(plain.state_dict())
    inside = checkpoint_wrapper(plain[1])
    assert isinstance(inside, CheckpointWrapper)
    partly = torch.nn.Sequential(torch.compile(plain[0]), inside)
    for made in (torch.compile(plain), torch.nn.DataParallel(plain), torch.compile(torch.nn.DataParallel(partly))):
        raw = [name for name, _ in made.named_parameters(remove_duplicate=False)]
        assert raw != names
        assert list(unwrapped(raw).names.values()) == names
        assert list(unwrapped(made.state_dict()).names.values()) == names
