"""What was made of tensors is made once while somebody asks for that, and only of the same tensors."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from attrs import frozen
from modelmerger import merge_tensors, recalled, recalling
from torch import Tensor


@frozen(eq=False)
class Pair:
    one: Tensor
    others: list[Tensor]


def counting() -> tuple[list[int], Callable[..., Pair]]:
    made: list[int] = []

    def doubled(*tensors: Tensor, told: object = 0, what: str = "doubled") -> Pair:
        def make() -> Pair:
            made.append(len(made))
            return Pair(tensors[0] * 2, [tensor * 2 for tensor in tensors[1:]])

        return recalled(what, tensors, told, make)

    return made, doubled


def test_it_is_made_each_time_where_nobody_asks() -> None:
    made, doubled = counting()
    for _ in range(2):
        assert doubled(torch.ones(3)).one.tolist() == [2.0] * 3
    assert len(made) == 2


def test_of_equal_tensors_it_is_made_once() -> None:
    made, doubled = counting()
    with recalling(1 << 20):
        first = doubled(torch.arange(6.0).view(2, 3), torch.ones(2))
        assert doubled(torch.arange(6.0).view(2, 3), torch.ones(2)) is first
        assert doubled(torch.arange(6.0).view(3, 2).T.contiguous().T.reshape(2, 3), torch.ones(2)) is first
    doubled(torch.arange(6.0).view(2, 3), torch.ones(2))
    assert len(made) == 2


OTHERS = [
    ([torch.tensor([1.0, 3.0])], {}),
    ([torch.tensor([1.0, 2.0]).view(2, 1)], {}),
    ([torch.tensor([1.0, 2.0], dtype=torch.float64)], {}),
    ([torch.tensor([1.0]), torch.tensor([2.0])], {}),
    ([torch.tensor([1.0, 2.0])], {"told": 1}),
    ([torch.tensor([1.0, 2.0])], {"what": "another"}),
    ([torch.tensor([1.0, 2.0]).view(torch.int32)], {}),
]


@pytest.mark.parametrize(("tensors", "told"), OTHERS)
def test_of_others_it_is_made_anew(tensors: list[Tensor], told: dict[str, object]) -> None:
    made, doubled = counting()
    with recalling(1 << 20):
        doubled(torch.tensor([1.0, 2.0]))
        found = doubled(*tensors, **told)
    assert len(made) == 2
    assert torch.equal(found.one, tensors[0] * 2)


def test_what_comes_first_stays_and_no_more_is_kept_than_was_said() -> None:
    made, doubled = counting()
    with recalling(100):  # room for two of 40 bytes
        for _ in range(3):
            for number in range(4):
                doubled(torch.full((10,), float(number)))
    assert len(made) == 4 + 2 + 2
    made.clear()
    with recalling(200, among=2):
        for _ in range(3):
            for number in range(4):
                doubled(torch.full((10,), float(number)))
    assert len(made) == 4 + 2 + 2


def test_threads_get_the_same() -> None:
    made, doubled = counting()
    with recalling(1 << 20), ThreadPoolExecutor(4) as threads:
        doubled(torch.zeros(5))
        found = list(threads.map(lambda _: doubled(torch.zeros(5)), range(20)))
    assert len({id(one) for one in found}) == 1
    assert len(made) == 1


@pytest.mark.parametrize("strategy", ["tsv_m", "iso_c", "boost"])
def test_merges_have_the_same_bits_whether_they_recall_or_not(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.Generator().manual_seed(0)
    base = {"m.weight": torch.randn(12, 8, generator=drawn)}
    models = [{"m.weight": base["m.weight"] + 0.1 * torch.randn(12, 8, generator=drawn)} for _ in range(3)]
    ways = [([1.0, 1.0, 1.0], 0.5), ([1.0, 1.0, 1.0], 1.5), ([0.2, 0.7, 2.0], 0.5)]

    def merged(weights: list[float], scale: float) -> Tensor:
        options = {"scaling_factor": scale}
        return merge_tensors(strategy, models, base, weights=weights, options=options)["m.weight"]

    wanted = [merged(*way) for way in ways]
    svd, calls = torch.linalg.svd, []
    monkeypatch.setattr(torch.linalg, "svd", lambda *given, **told: (calls.append(1), svd(*given, **told))[1])
    with recalling():
        found = [merged(*way) for way in ways]
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    once = 5 if strategy == "tsv_m" else 1  # of each model, and of both sides together
    assert len(calls) == (
        once if strategy == "tsv_m" else 2 * once
    )  # sums of task vectors are others for other weights
