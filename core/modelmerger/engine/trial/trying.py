"""Tries a planned merge out: a few slices of each kind of tensor, in under a second."""

import math
from collections.abc import Iterator, Sequence

from attrs import frozen

from modelmerger.engine.devices import slice_device
from modelmerger.engine.memory.resident import MAPPED, give_back, map_from, resident
from modelmerger.engine.merge import Merge
from modelmerger.engine.output_blocks import OutputBlocks
from modelmerger.engine.trial.runs import Took, run
from modelmerger.engine.trial.samples import Sample, cut, enough, samples, spread
from modelmerger.engine.trial.together import Needs, together
from modelmerger.engine.work.executing import compiled
from modelmerger.planning.cost import rounds_of
from modelmerger.planning.outlook.trial import Trial
from modelmerger.planning.prepared import Prepared
from modelmerger.planning.slices import window
from modelmerger.values.checkpoint import TensorInfo
from modelmerger.values.layout import BLOCK
from modelmerger.values.plan import MergePlan
from modelmerger.values.tensor_plan import TensorPlan

SECONDS = 0.7
"""What the slices of the last run may take, all together."""
FIRST, SECOND = 1 << 12, 1 << 16
"""Elements of a sample in the runs before that. The first loads what is loaded but once, and fills what is kept of
inputs; the second is timed."""
LOADING = 0.3
"""Seconds that the first run may take."""
STEEPEST = 1.5
"""Power of the number of elements that time grows with, at least, where tensors are merged whole: that of an SVD."""
LEAST_MAPPED = 1 << 17
"""Bytes from which on memory goes back in a trial, at least."""
AHEAD = 2
"""Writing units, besides one a worker, whose tensors may have been measured."""


@frozen(eq=False)
class _Tried:
    """A sample as it was tried."""

    sample: Sample
    before: Took
    took: Took

    @property
    def seconds(self) -> float:
        """What all that the sample stands for takes."""
        elements = self.sample.late.elements
        one: float = self.took.seconds * (elements / self.took.elements) ** self._power
        return one * self.sample.share / elements

    @property
    def _power(self) -> float:
        """Of the number of elements, which time grows with."""
        if not self.sample.whole:
            return 1.0
        grown = self.took.elements / self.before.elements
        if grown < 2:
            return STEEPEST
        measured: float = math.log(self.took.seconds / self.before.seconds, grown)
        return min(2 * STEEPEST, max(1.0, measured))

    @property
    def statistics(self) -> float:
        """Bytes that are measured of an element, where they grow with the sample; else 0."""
        return self.took.statistics / self.took.elements if self.took.statistics != self.before.statistics else 0.0


def try_merge(ready: Prepared) -> Trial:
    """What a merge takes, by what a few slices of it take in this process. Raises what merging these raises."""
    plan, options = ready.plan, ready.settings.options
    _, highest = resident()
    merge = compiled(Merge(plan, ready.sources, ready.hooks, ready.settings, slice_device(options.device_map)))
    found = samples(plan)
    start, _ = resident()
    give_back()
    freed = start - resident()[0]  # which a merge holds on to
    loading = run(merge, [cut(tensor, FIRST) for tensor in spread(plan.tensors)], LOADING)
    give_back()
    process = resident()[0] + freed
    before = run(merge, [cut(sample.early, SECOND) for sample in found])
    share = SECONDS / max(1, len(found))
    sizes = [_size(plan, sample.late, took, share) for sample, took in zip(found, before, strict=True)]
    cuts = [cut(sample.late, size) for sample, size in zip(found, sizes, strict=True)]
    whole = sum(sample.whole for sample in found)  # which come first; each by itself, since the rest is scaled up
    last = [_run_whole(merge, *one) for one in zip(found, cuts[:whole], strict=False)] + run(
        merge, cuts[whole:], workers=plan.workers
    )
    tried = list(map(_Tried, found, before, last))
    least = max((took.memory for took in (*loading, *before)), default=0)
    held = ready.composition.memory if ready.composition else 0
    needs = Needs(
        cut=max([least, *(own for one, own in _own(plan, tried) if not one.sample.whole)]) + _window(plan) + held,
        whole=_of_whole(plan, tried),
    )
    return Trial(
        highest=max(highest, process),
        process=process,
        workers=together(plan, needs),
        statistics=_statistics(ready, tried),
        computing=sum(one.seconds for one in tried),
    )


def _run_whole(merge: Merge, sample: Sample, late: TensorPlan) -> Took:
    """What a tensor that is merged whole takes, after another one. Memory goes back as that of all of it does."""
    map_from(max(LEAST_MAPPED, MAPPED * late.elements // sample.late.elements))
    *_, took = run(merge, [cut(sample.early, late.elements), late] if sample.early is not sample.late else [late])
    map_from(MAPPED)
    return took


def _size(plan: MergePlan, tensor: TensorPlan, took: Took, share: float) -> int:
    """How many elements of a tensor are tried at last, so that they take no more than `share` seconds."""
    power = STEEPEST if tensor.granularity == "whole" else 1.0
    share = share / 2 if tensor.granularity == "whole" else share  # of two, one after the other
    possible = took.elements * (share / max(took.seconds, 1e-6)) ** (1 / power)
    return min(enough(tensor, plan.slice_elements), max(took.elements, int(possible)))


def _own(plan: MergePlan, tried: Sequence[_Tried]) -> Iterator[tuple[_Tried, int]]:
    """What each sample took besides the window of the output, which is as large as the largest file of its run."""
    largest = 0
    for one in tried:
        written = TensorInfo(one.sample.late.dtype, (one.took.elements,)).bytes
        largest = written if one.sample.whole else max(largest, written)
        yield one, max(0, one.took.memory - min(window(plan.tensors, 1), largest))


def _of_whole(plan: MergePlan, tried: Sequence[_Tried]) -> dict[int, float]:
    """Of the elements of a sample that is merged whole: bytes an element."""
    found: dict[int, float] = {}
    for one, own in _own(plan, tried):
        if one.sample.whole:
            elements = one.sample.late.elements
            found[elements] = max(found.get(elements, 0.0), own / one.took.elements)
    return found


def _window(plan: MergePlan) -> int:
    return min(window(plan.tensors, plan.workers), max((file.size for file in plan.layout.files), default=0))


def _statistics(ready: Prepared, tried: Sequence[_Tried]) -> int:
    """Bytes of what is measured and held at most: for the units that are being written, and for those that are next."""
    plan, blocks = ready.plan, OutputBlocks(ready.plan)
    fixed = max((one.took.statistics for one in tried if not one.statistics), default=0)
    growing = max((one.statistics for one in tried), default=0.0)
    if not (fixed or growing):
        return 0

    def held(index: int) -> int:
        tensor = plan.tensors[index]
        return max(fixed, int(growing * tensor.elements)) if rounds_of(tensor) else 0

    units = [
        {blocks.index[placement.tensor.name] for placement in blocks.placements(file, first * BLOCK, last * BLOCK)}
        for file, of in enumerate(plan.layout.files)
        for first, last in blocks.runs(of)
    ]
    together = plan.workers + AHEAD
    windows = (set[int]().union(*units[n : n + together]) for n in range(max(1, len(units) - together + 1)))
    return max(sum(map(held, window)) for window in windows) + plan.workers * max(map(held, range(len(plan.tensors))))
