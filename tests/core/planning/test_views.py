"""Views of checkpoints: what they show, what they read, and what tells them apart."""

from typing import Any

import pytest
import torch
from attrs import evolve
from modelmerger import Apart, Base, CheckpointView, InputError, LayerView, Location, ModelReference
from modelmerger.testing import MemoryCheckpoint, merge_in_memory, plan_in_memory


def numbered(*names: str, **more: Any) -> MemoryCheckpoint:
    """A model whose tensors hold 0, 1, 2 and so on, in the order of the names."""
    return MemoryCheckpoint("m", {name: torch.full((2,), float(i)) for i, name in enumerate(names)}, **more)


def layered(layers: int = 4, prefix: str = "model.layers.", **more: Any) -> MemoryCheckpoint:
    names = [f"{prefix}{i}.{part}" for i in range(layers) for part in ("attn.w", "mlp.experts.7.w")]
    return numbered("model.embed_tokens.weight", *names, "model.norm.weight", **more)


def values(view: CheckpointView) -> dict[str, float]:
    """What each tensor of a model that `numbered` made holds."""
    return {name: value[0].item() for name, value in merge_in_memory("weighted", [view]).items()}


class Doubled(CheckpointView):
    """Float32 numbers, twice as large."""

    @property
    def content(self) -> str:
        return f"doubled {super().content}"

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        super().read(tensor, start, stop, buffer)
        torch.frombuffer(buffer, dtype=torch.float32)[: stop - start].mul_(2)


def test_a_view_that_says_nothing_else_is_what_it_shows() -> None:
    model = numbered("a", "b", config={"x": 1}, aliases={"lm_head.weight": "a"})
    base = Base(ModelReference("p", "n", "w"), Location("p"), model)  # type: ignore[arg-type]  # no path is used
    model.base, model.changes = base, ("b",)
    view = CheckpointView(model)
    for name in ("name", "tensors", "aliases", "files", "donor", "base", "content", "place"):
        assert getattr(view, name) == getattr(model, name), name
    assert set(view.changes) == {"b"}
    assert values(view) == {"a": 0, "b": 1}


def test_a_view_shows_tensors_by_other_names_left_out_and_twice() -> None:
    model = numbered("a", "b", "c", aliases={"head": "b", "tail": "a", "y": "c"})
    model.changes = ("b", "a")
    view = CheckpointView(model, {"x": "b", "y": "c", "z": "b"}, config={"new": True})
    assert values(view) == {"x": 1, "y": 2, "z": 1}
    assert view.aliases == {"head": "x"}  # `tail` leads to what is left out, and `y` is a tensor of the view
    assert view.changes == {"x", "z"}
    assert (view.donor.config, model.donor.config) == ({"new": True}, None)


def test_a_name_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="'m' has no tensor 'q'"):
        CheckpointView(numbered("a"), {"x": "q"})


def test_what_is_read_ahead_is_what_is_read() -> None:
    ahead: list[tuple[str, int, int]] = []
    model = numbered("a", "b")
    model.prefetch = lambda *what: ahead.append(what)  # type: ignore[method-assign]
    CheckpointView(model, {"x": "b"}).prefetch("x", 0, 2)
    assert ahead == [("b", 0, 2)]


def test_elements_that_a_tensor_does_not_have_are_not_read() -> None:
    """In a file, another tensor's lie there."""
    model = numbered("a", "b")
    for start, stop in ((0, 3), (-1, 1), (2, 1)):
        with pytest.raises(InputError, match=rf"^m: a: a view asks for elements {start} to {stop} of 2\.$"):
            CheckpointView(model).read("a", start, stop, memoryview(bytearray(12)))
    assert model.reads == []


def test_views_of_views_read_through_each_other() -> None:
    view = Doubled(CheckpointView(Doubled(numbered("a", "b")), {"x": "b"}))
    assert values(view) == {"x": 4}
    assert len({view.content, view.checkpoint.content, Doubled(numbered("a", "b")).content, ""}) == 4


def test_a_class_whose_numbers_are_others_must_say_what_tells_them_apart() -> None:
    with pytest.raises(TypeError, match=r"^Careless overrides read and not content, so that plans could not tell"):

        class Careless(CheckpointView):
            def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None: ...

    class Careful(Doubled):
        def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None: ...

    assert Careful(numbered("a")).content == "doubled "


def digest(view: CheckpointView) -> str:
    return plan_in_memory("weighted", [view]).plan.digest


def test_another_view_is_another_plan_and_the_same_view_is_the_same() -> None:
    def views() -> list[CheckpointView]:
        renamed = CheckpointView(layered(), {name: name for name in layered().tensors if "norm" not in name})
        tied = CheckpointView(layered())
        tied.aliases = {"lm_head.weight": "model.embed_tokens.weight"}
        generating = CheckpointView(layered())
        generating.donor = evolve(generating.donor, generation={"eos_token_id": 1})
        return [
            CheckpointView(layered()),
            CheckpointView(layered(), config={"x": 1}),
            LayerView(layered(), [0, 1]),
            LayerView(layered(), [1, 0]),
            LayerView(layered(), [0, 1, 2, 3]),
            Doubled(layered()),
            Doubled(LayerView(layered(), [1, 0])),
            renamed,
            tied,
            generating,
        ]

    first, second = ([digest(view) for view in views()] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


def test_what_a_model_other_than_the_donor_is_seen_as_is_in_the_plan_too() -> None:
    def plan(dtype: torch.dtype) -> str:
        return plan_in_memory(
            "weighted", [numbered("a"), MemoryCheckpoint("n", {"a": torch.ones(2).to(dtype)})]
        ).plan.digest

    assert plan(torch.float16) != plan(torch.bfloat16)


def test_layers_are_cut_repeated_and_numbered_anew() -> None:
    model = layered()
    view = LayerView(model, [3, 0, 0])
    place = {name: float(i) for i, name in enumerate(model.tensors)}
    expected = {"model.embed_tokens.weight": 0.0, "model.norm.weight": 9.0}
    for number, layer in enumerate([3, 0, 0]):
        for part in ("attn.w", "mlp.experts.7.w"):  # an expert is no layer
            expected[f"model.layers.{number}.{part}"] = place[f"model.layers.{layer}.{part}"]
    assert values(view) == expected
    assert list(view.tensors) == list(expected)
    assert view.layers == (3, 0, 0)


@pytest.mark.parametrize("prefix", ["", "h.", "transformer.h."])
def test_layers_may_have_any_prefix(prefix: str) -> None:
    found = values(LayerView(numbered(*(f"{prefix}{i}" for i in range(12))), [11, 1]))
    assert found == {f"{prefix}0": 11, f"{prefix}1": 1}


def test_of_several_stacks_the_one_that_is_meant_must_be_said() -> None:
    model = numbered("encoder.layer.0.w", "encoder.layer.1.w", "decoder.layer.0.w", "decoder.layer.1.w")
    with pytest.raises(InputError, match=r"m: has layers of 'encoder\.layer', 'decoder\.layer': say which are meant"):
        LayerView(model, [1])
    assert values(LayerView(model, [1], "decoder.layer")) == {
        "encoder.layer.0.w": 0,
        "encoder.layer.1.w": 1,
        "decoder.layer.0.w": 3,
    }


@pytest.mark.parametrize(
    ("layers", "prefix", "problem"),
    [
        ([0, 4], None, r"has no layer 4 of 'model\.layers'; its layers are 4, from 0 to 3\."),
        ([-1], None, r"has no layer -1 of 'model\.layers'"),
        ([0], "h", r"has no layer 0 of 'h'; its layers are none\."),
    ],
)
def test_layers_that_a_model_does_not_have_are_refused(layers: list[int], prefix: str | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        LayerView(layered(), layers, prefix)


def test_a_model_without_layers_and_a_view_of_none_are_refused() -> None:
    with pytest.raises(InputError, match=r"m: has no layers\."):
        LayerView(numbered("a"), [0])
    with pytest.raises(ValueError, match="at least one"):
        LayerView(layered(), [])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, None),
        ({"num_hidden_layers": 4, "hidden_size": 4}, {"num_hidden_layers": 3, "hidden_size": 4}),
        ({"n_layer": 4}, {"n_layer": 3}),
        ({"x": 1}, {"x": 1, "num_hidden_layers": 3}),
        ({"num_hidden_layers": 4, "layer_types": list("abcd")}, {"num_hidden_layers": 3, "layer_types": list("daa")}),
        ({"num_hidden_layers": 4, "layer_types": "all"}, {"num_hidden_layers": 3, "layer_types": "all"}),
        (
            {"text_config": {"num_hidden_layers": 4, "no_rope_layers": [0, 1, 2, 3]}, "vision_config": {"layers": 4}},
            {"text_config": {"num_hidden_layers": 3, "no_rope_layers": [3, 0, 0]}, "vision_config": {"layers": 4}},
        ),
    ],
    ids=str,
)
def test_the_config_fits_the_layers(config: dict[str, Any] | None, expected: dict[str, Any] | None) -> None:
    assert LayerView(layered(config=config), [3, 0, 0]).donor.config == expected


def test_a_config_that_is_given_is_taken_as_it_is() -> None:
    given = {"decoder_layers": 2}
    assert LayerView(layered(config={"decoder_layers": 4}), [0, 1], config=given).donor.config == given


def test_what_a_tensor_is_made_of_shows_through_a_view_unless_that_reads_otherwise() -> None:
    model = numbered("a", "b")
    factors = [(torch.ones(2, 1), torch.ones(1, 1))]
    model.apart = lambda tensor: Apart(model, tensor, factors)  # type: ignore[method-assign]
    found = CheckpointView(model, {"x": "b"}).apart("x")
    assert (found.checkpoint, found.tensor, found.factors) == (model, "b", factors)
    doubled = Doubled(model)
    found = doubled.apart("b")
    assert (found.checkpoint, found.tensor, found.factors) == (doubled, "b", ())
