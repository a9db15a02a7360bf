"""Foresees a search on this machine: a step of it is done, and nothing is written."""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from attrs import frozen
from modelmerger import amount

from modelmerger_plugins.tune.aside import FACTORS, groups_of
from modelmerger_plugins.tune.asked import Objective
from modelmerger_plugins.tune.constraints import constraints_of
from modelmerger_plugins.tune.evaluating import ByCoefficients, encoded, tokenizer_of
from modelmerger_plugins.tune.gradient.skeleton import lines_together
from modelmerger_plugins.tune.measured import Lines
from modelmerger_plugins.tune.opened import Opened
from modelmerger_plugins.tune.outlook import TunePlan
from modelmerger_plugins.tune.section import LOSSES
from modelmerger_plugins.tune.texts import Texts
from modelmerger_plugins.tune.work import chosen


@frozen
class Pace:
    """Seconds of a batch, as a straight line through those that were measured."""

    fixed: float
    """However small it is: the tensors of all models are read for each batch."""
    a_token: float
    """For each token, with padding."""

    @classmethod
    def through(cls, seconds: Mapping[int, float]) -> "Pace":
        """The line through two batches, or from one through 0. seconds: by tokens."""
        (few, least), (many, most) = min(seconds.items()), max(seconds.items())
        slope = max(0.0, (most - least) / (many - few)) if many > few else most / many
        fixed = max(0.0, most - slope * many)
        return cls(fixed, (most - fixed) / many)

    def of(self, batches: Sequence[int]) -> float:
        """Seconds of batches of so many tokens each."""
        return sum(self.fixed + self.a_token * tokens for tokens in batches)


@frozen
class Passes:
    """How often a search goes through lines."""

    steps: int
    """With derivatives, through the lines to tune on."""
    tune: int
    """Without, through the lines to tune on."""
    test: int
    """Without, through the lines to test on."""

    @classmethod
    def of(cls, opened: Opened, method: str) -> "Passes":
        """Of a search: every source once, the steps, what a report shows beside, and the test of start and result."""
        sources = len(opened.models)
        line = len(FACTORS) - 1 if opened.has_base else 0  # at the factor 1 it is the start
        beside = line + len(groups_of(opened.space))
        steps = opened.read.tune.search.steps
        if method == "gradient":
            return cls(steps, sources + 1 + beside, sources + 2)
        return cls(0, sources + (2 if method == "gap" else steps + 1) + beside, sources + 2)


def batches_of(lines: Lines, most: int) -> list[tuple[str, list[int], int]]:
    """The batches that lines make: split, numbers of its lines, tokens with padding. most: tokens at a time."""
    found: list[tuple[str, list[int], int]] = []
    for split, own in lines.tokens.items():
        lengths = [len(line) + 1 for line in own]
        found += [
            (split, group, len(group) * max(lengths[i] for i in group)) for group in lines_together(lengths, most)
        ]
    return found


def planned(opened: Opened, texts: Texts, objective: Objective | None) -> TunePlan:
    """Does a step and writes nothing. Raises `MergeError` for what a search of this config would end with at once."""
    tune = opened.read.tune
    whole = objective is not None or not {goal.metric for goal in tune.goals} <= set(LOSSES)
    foreseen = _of_whole_models(opened, texts, objective) if whole else _of_losses(opened, texts)
    resident, on_gpu = peaks()
    return TunePlan(
        method=foreseen.method,
        metric=foreseen.metric,
        per={mark.where: per for mark, per in zip(opened.space.marks, opened.space.per, strict=True)},
        numbers=len(opened.space.coordinates),
        lines={split: len(own) for split, own in texts.tune.items()},
        test_lines={split: len(own) for split, own in texts.test.items()},
        steps=1 if foreseen.method == "gap" else tune.search.steps,
        step_seconds=foreseen.step,
        seconds=foreseen.seconds,
        memory=resident,
        gpu_memory=on_gpu,
        measured=foreseen.measured,
        notes=list(opened.notes),
    )


@frozen
class _Foreseen:
    method: str
    metric: str
    step: float
    seconds: float
    measured: str


def _of_whole_models(opened: Opened, texts: Texts, objective: Objective | None) -> _Foreseen:
    from modelmerger_plugins.tune.live.whole_models import measure_of, method_of

    with tempfile.TemporaryDirectory() as folder:
        measure = measure_of(opened, objective, texts.tune, Path(folder) / "tune.jsonl")
        started = time.perf_counter()
        names = list(measure(opened.space.start))
        one = time.perf_counter() - started
    times = opened.read.tune.search.steps + 3  # the start first; at the end, start and result on the test lines
    return _Foreseen(method_of(opened, names), names[0], one, times * one, "one vector was tried")


def _of_losses(opened: Opened, texts: Texts) -> _Foreseen:
    method, evaluator = chosen(opened)
    tokenizer = tokenizer_of(opened)
    lines, test = encoded(texts.tune, tokenizer), encoded(texts.test, tokenizer)
    constraints_of(opened.read.tune.constraints, lines.splits, opened.models)
    metric, start, most = opened.read.tune.goal.metric, opened.space.start, opened.read.tune.search.batch_tokens
    passes, batches = Passes.of(opened, method), batches_of(lines, most)
    tokens, of_test = [n for _, __, n in batches], [n for _, __, n in batches_of(test, most)]
    if not isinstance(evaluator, ByCoefficients):
        one = _timed(lambda: evaluator.nats(lines, start))
        times = passes.tune + passes.test * sum(of_test) / sum(tokens)
        return _Foreseen(method, metric, one, times * one, "one vector was tried")
    ends = min(batches, key=_tokens), max(batches, key=_tokens)
    given = {n: _only(lines, split, group) for split, group, n in ends}
    evaluator.nats(given[min(given)], start)  # what comes first is slower: nothing is cached yet
    plain = Pace.through({n: _timed(partial(evaluator.nats, own, start)) for n, own in given.items()})
    sloped = plain
    if passes.steps:
        sloped = Pace.through({n: _timed(partial(evaluator.slopes, own, start)) for n, own in given.items()})
    step = sloped.of(tokens)
    whole = passes.steps * step + passes.tune * plain.of(tokens) + passes.test * plain.of(of_test)
    sizes = " and ".join(f"{n:,}" for n in sorted(given))
    return _Foreseen(
        method, metric, step, whole, f"{amount(len(tokens), 'batch', 'batches')}; measured on {sizes} tokens"
    )


def peaks() -> tuple[int, int | None]:
    """Resident bytes of this process at their peak so far; those of torch on the GPU, None without one."""
    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return resident, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _tokens(batch: tuple[str, list[int], int]) -> int:
    return batch[2]


def _only(lines: Lines, split: str, group: Sequence[int]) -> Lines:
    own = lines.tokens[split]
    return Lines({split: [own[i] for i in group]}, {split: lines.bytes[split]})


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
