"""A model together with other weights that belong to it."""

import pytest
import torch
from modelmerger import CheckpointView, JoinedView, MergeError
from modelmerger.planning.beside.input_tensors import tensors_taken
from modelmerger.testing import MemoryCheckpoint, merge_in_memory, plan_in_memory
from modelmerger.testing.checks.checkpoint_reading import assert_counted, assert_slices, assert_threads

WEIGHT = torch.arange(6, dtype=torch.float32).view(2, 3)


def joined(scale: float = 1.0, place: str = "beside", prefix: str = "dense/") -> JoinedView:
    model = MemoryCheckpoint("m", {"w": torch.ones(2) * scale}, aliases={"head": "w"})
    return JoinedView(model, {prefix: MemoryCheckpoint(place, {"linear.weight": WEIGHT * scale})})


def test_it_shows_the_model_and_behind_it_the_others() -> None:
    view = joined()
    assert list(view.tensors) == ["w", "dense/linear.weight"]
    assert view.tensors["dense/linear.weight"].shape == (2, 3)
    assert (view.name, view.aliases) == ("m", {"head": "w"})
    assert_slices(view, "joined")
    assert_counted(view, "joined")
    assert_threads(view, "joined")
    buffer = bytearray(8)
    view.read_ranges("dense/linear.weight", [(1, 2), (4, 5)], memoryview(buffer))
    assert torch.frombuffer(buffer, dtype=torch.float32).tolist() == [1.0, 4.0]


def test_both_are_merged_also_through_another_view() -> None:
    views = [CheckpointView(joined(scale)) for scale in (1.0, 3.0)]
    merged = merge_in_memory("weighted", views)
    assert torch.equal(merged["w"], torch.full((2,), 2.0))
    assert torch.equal(merged["dense/linear.weight"], WEIGHT * 2)


def test_the_tensors_of_both_are_counted() -> None:
    views = [joined(1.0), joined(3.0)]
    plan = plan_in_memory("weighted", views).plan
    found = tensors_taken(plan, views, views)
    assert {name: (one.merged, one.copied, one.left) for name, one in found.items()} == {
        "m": (2, 0, 0),
        "m (2)": (2, 0, 0),
    }


def test_other_weights_make_another_content() -> None:
    contents = [one.content for one in (joined(), joined(place="elsewhere"), joined(prefix="linear/"))]
    assert len(set(contents)) == 3
    assert joined().content == contents[0]


def test_a_name_that_is_there_already_is_refused() -> None:
    with pytest.raises(ValueError, match="has a tensor 'dense/linear\\.weight' of its own"):
        JoinedView(joined(), {"dense/": MemoryCheckpoint("again", {"linear.weight": WEIGHT})})


def test_elements_that_are_not_there_are_put_down_to_what_has_the_tensor() -> None:
    with pytest.raises(MergeError, match="elements 0 to 7") as refusal:
        joined().read("dense/linear.weight", 0, 7, memoryview(bytearray(28)))
    (problem,) = refusal.value.problems
    assert problem.where == "beside"
