"""Checks of strategies: the same bits whoever merges what and when, and nothing shared with what is handed over."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from modelmerger.testing.checks.check import assert_same, is_same, works
from modelmerger.testing.checks.random_state import global_states, random_state_kept, seed_globally
from modelmerger.testing.checks.strategy import StrategyUnderTest
from modelmerger.testing.merging import Planned

SEVERAL = {"model.layers.0.weight": (40, 50), "model.layers.1.weight": (40, 50), "model.norm.weight": (300,)}
"""Shapes of tensors that make several files of `SMALL` bytes, and several slices."""
SMALL = 9_000


def check_inputs_are_kept(strategy: StrategyUnderTest) -> None:
    """The hooks write neither to the tensors that they are handed nor to the measurements."""
    changed = []

    def spy(hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            handed = [tensor for argument in arguments for tensor in _tensors(argument)]
            before = [tensor.clone() for tensor in handed]
            found = function(*arguments)
            if not all(map(is_same, handed, before)):
                changed.append(hook)
            return found

        return watched

    planned = strategy.plan(strategy.inputs(), f"{strategy.name}: a merge")
    _spy(planned, spy)
    with works(f"{strategy.name}: a merge"):
        planned.merge()
    if changed:
        message = "writes to the tensors that it is handed. Make new ones: `tensor * 2` and not `tensor.mul_(2)`."
        raise AssertionError(f"{strategy.name}: {changed[0]} {message}")


def check_no_shared_storage(strategy: StrategyUnderTest) -> None:
    """What the hooks return is in memory of its own: neither that of an input nor that of an earlier answer."""
    shared, made = [], dict[int, torch.Tensor]()  # what was made is held, or its memory would be used again

    def spy(hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            found = function(*arguments)
            if isinstance(found, torch.Tensor) and found.numel():
                place = found.untyped_storage().data_ptr()
                handed = {t.untyped_storage().data_ptr() for argument in arguments for t in _tensors(argument)}
                if place in handed or place in made:
                    shared.append(f"{hook} returns {'one of its inputs' if place in handed else 'memory that it gave'}")
                made[place] = found
            return found

        return watched

    planned = strategy.plan(strategy.inputs(), f"{strategy.name}: a merge")
    _spy(planned, spy)
    with works(f"{strategy.name}: a merge"):
        planned.merge()
    if shared:
        raise AssertionError(
            f"{strategy.name}: {shared[0]}{'' if 'inputs' in shared[0] else ' before'}. Several threads merge at the "
            "same time: return a new tensor each time."
        )


def check_same_bits_twice(strategy: StrategyUnderTest) -> None:
    """The same merge twice gives the same bits."""
    given, what = strategy.inputs(shapes=SEVERAL), f"{strategy.name}: the same merge twice"
    planned = strategy.plan(given, what)
    with works(what):
        first, second = planned.merge(), planned.merge()
    sentence = f"{what} must give the same bits. Keep no state between calls, and draw numbers from `random(model)`."
    assert_same(second, first, sentence)
    assert_same(strategy.merge(given, what), first, sentence)


def check_global_random_state(strategy: StrategyUnderTest) -> None:
    """The random state of torch, of NumPy and of Python neither changes the result nor is changed by the merge."""
    given, what = strategy.inputs(), f"{strategy.name}: a merge"
    found = []
    with random_state_kept():
        for seed in (1, 2):
            seed_globally(seed)
            before = global_states()
            found.append(strategy.merge(given, what))
            if global_states() != before:
                raise AssertionError(
                    f"{what} draws numbers from a global generator. Take `random(model)`, which belongs to the "
                    "elements and the option `seed`."
                )
    assert_same(found[1], found[0], f"{what} depends on the global random state. Take `random(model)` instead.")


def check_slices_and_workers(strategy: StrategyUnderTest) -> None:
    """Slices, workers, files and the order of the work change no bit."""
    given, what = strategy.inputs(shapes=SEVERAL), f"{strategy.name}: a merge in other slices"
    whole = strategy.merge(given, what)
    planned = strategy.plan(given, what, options={"max_shard_size": SMALL})
    with works(what):
        sliced = planned.merge(slice_elements=70)
        others = planned.merge(workers=3, slice_elements=130, order=lambda units: list(reversed(units)))
    sentence = (
        f"{what} must give the same bits. A slice holds some of the elements, or some of the rows: take what is to be "
        "known of the whole tensor from `measure_tensor`."
    )
    assert_same(sliced, whole, sentence)
    assert_same(others, whole, sentence.replace("in other slices", "by several workers"))


def check_resumed(strategy: StrategyUnderTest) -> None:
    """A merge that is interrupted and goes on gives the bits of one that is not."""
    given, what = strategy.inputs(shapes=SEVERAL), f"{strategy.name}: a merge that was interrupted and goes on"
    with works(what):
        begun = strategy.plan(given, what, options={"max_shard_size": SMALL}).stage(order=_last_alone)
        again = strategy.plan(given, what, options={"max_shard_size": SMALL})
        resumed = again.stage(staged=begun).tensors
        whole = again.merge()
    sentence = f"{what} must give the bits of one that was not. Let no tensor depend on those that were merged before."
    assert_same(resumed, whole, sentence)


def _last_alone(units: Sequence[Any]) -> Sequence[Any]:
    """Of what can be written, the last; all that is measured."""
    writes = [unit for unit in units if unit.kind == "write"]
    return [unit for unit in units if unit.kind == "measure"] + writes[-1:]


def _tensors(argument: Any) -> list[torch.Tensor]:
    return [t for t in argument if isinstance(t, torch.Tensor)] if isinstance(argument, list | tuple) else []


def _spy(planned: Planned, spy: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
    """Puts a spy around the hooks of the strategy that take tensors, in this plan alone."""
    caller = planned.hooks.strategy.calls.manager.hook
    for hook in ("merge_tensor", "measure_tensor"):
        for implementation in getattr(caller, hook).get_hookimpls():
            implementation.function = spy(hook, implementation.function)
