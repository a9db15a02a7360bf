"""Tasks of the lm-evaluation-harness: `acc` and its like, for each task and over all of them.

    lm_eval_acc = (1/T) Σ accₜ                over the T tasks that have it, however many documents each holds

What a task is, how it is prompted and how its answers are judged is lm-eval's: Gao et al.,
https://github.com/EleutherAI/lm-evaluation-harness. A number is named as there, behind `lm_eval_`. Tasks of lm-eval
itself fetch their data from the Hub where it is not on this machine; a folder of one's own (`include_path`) with data
of one's own fetches nothing. A task of that folder may hold Python code (`!function`), which runs.
"""

import contextlib
import io
import logging
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from attrs import field, frozen
from attrs import validators as checked
from modelmerger import (
    Better,
    Check,
    ConfigError,
    Finding,
    Subject,
    UnmeasurableError,
    ValidationSettings,
    amount,
    hookimpl,
    must_be_between,
    must_not_be_empty,
    shown,
)

WAYS: Mapping[str, Better] = MappingProxyType(
    {
        "acc": "higher",
        "acc_norm": "higher",
        "acc_bytes": "higher",
        "acc_mutual_info": "higher",
        "exact_match": "higher",
        "f1": "higher",
        "mcc": "higher",
        "bleu": "higher",
        "chrf": "higher",
        "ter": "lower",
        "brier_score": "lower",
        "likelihood": "higher",
        "perplexity": "lower",
        "word_perplexity": "lower",
        "byte_perplexity": "lower",
        "bits_per_byte": "lower",
    }
)
"""The metrics of lm-eval, and which way each is better."""
_PREFIX = "lm_eval_"


def _unknown(names: tuple[str, ...]) -> str | None:
    if not names:
        return "must hold at least one name"
    others = [name for name in names if name not in WAYS]
    return f"must be some of {', '.join(WAYS)}, got {others[0]!r}" if others else None


@frozen(kw_only=True)
class Options:
    """Options of this validator."""

    tasks: tuple[str, ...] = ()
    """The tasks or groups of tasks of lm-eval that are run."""
    task_metrics: tuple[str, ...] = field(
        default=("acc",), validator=Check({"minItems": 1, "items": {"enum": list(WAYS)}}, _unknown)
    )
    """Which of their metrics are reported."""
    limit: int | None = field(default=None, validator=checked.optional(must_be_between(1, 2**31)))
    """How many documents of each task are asked at most; without it, all."""
    num_fewshot: int | None = field(default=None, validator=checked.optional(must_be_between(0, 1000)))
    """How many solved examples stand before each question; without it, as the task says."""
    include_path: str | None = field(default=None, validator=checked.optional(must_not_be_empty))
    """A folder with tasks of one's own, as YAML."""


def metrics(options: Options) -> Mapping[str, Better]:
    """What is found with these options. Raises `ConfigError` where nothing could be."""
    if find_spec("lm_eval") is None:
        raise ConfigError("metrics: lm_eval needs lm-eval, which is not installed. Install modelmerger[lm-eval]")
    if not options.tasks:
        raise ConfigError("metrics: lm_eval has no task to run. Give 'tasks' in 'validation', e.g. tasks: [arabicmmlu]")
    if options.include_path is not None and not os.path.isdir(options.include_path):
        raise ConfigError(f"validation.include_path: {shown(options.include_path)} is no folder. Give one with tasks")
    return {_PREFIX + name: WAYS[name] for name in options.task_metrics}


@hookimpl
def validate_model(subject: Subject, settings: ValidationSettings, options: Options) -> Iterable[Finding]:
    """Each metric over all tasks, then for each."""
    results = _run(subject, settings, options)
    for name in options.task_metrics:
        yield from _findings(name, results)


def _findings(name: str, results: Mapping[str, Any]) -> Iterator[Finding]:
    """results: as lm-eval gives them; a key of a task's numbers is `metric,filter`."""
    tool = f"lm-eval {version('lm_eval')}"
    found: dict[str, tuple[float, str]] = {}
    for task in results["configs"]:  # the tasks that ran, without groups
        for key, value in results["results"][task].items():
            metric, _, kind = key.partition(",")
            if metric == name and isinstance(value, float | int):
                label = task if kind in ("", "none") else f"{task} ({kind})"
                asked = amount(results["n-samples"][task]["effective"], "document")
                found[label] = float(value), f"{asked}, {results['n-shot'][task]}-shot; {tool}"
    if not found:
        has = sorted({key.partition(",")[0] for task in results["configs"] for key in results["results"][task]})
        known = ", ".join(other for other in has if other in WAYS) or "none that is known here"
        reason = f"no task has {name}. Name others in 'task_metrics': {known}"
        yield Finding(metric=_PREFIX + name, value=None, evidence=reason)
        return
    mean = sum(value for value, _ in found.values()) / len(found)
    evidence = f"mean over {amount(len(found), 'task')}: {', '.join(found)}; {tool}"
    yield Finding(metric=_PREFIX + name, value=mean, evidence=evidence)
    for label, (value, evidence) in found.items():
        yield Finding(metric=_PREFIX + name, value=value, evidence=evidence, label=label)


def _run(subject: Subject, settings: ValidationSettings, options: Options) -> Mapping[str, Any]:
    """The results of lm-eval. Raises `UnmeasurableError` where it fails."""
    language = subject.language  # which says what is wrong with a model of another kind
    with _quiet(), _random_state_kept():
        try:
            from lm_eval import simple_evaluate
            from lm_eval.models.huggingface import HFLM

            model = HFLM(pretrained=subject.model, tokenizer=subject.tokenizer, batch_size=settings.test_batch_size)
            seed = settings.seed % 2**32
            results: Mapping[str, Any] = simple_evaluate(
                model=model,
                tasks=list(options.tasks),
                task_manager=_tasks(options),
                num_fewshot=options.num_fewshot,
                limit=options.limit,
                bootstrap_iters=0,
                log_samples=False,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        except (UnmeasurableError, MemoryError):
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise UnmeasurableError(
                f"lm-eval cannot run {', '.join(options.tasks)} on {language.name}: {said}"
            ) from error
    return results


def _tasks(options: Options) -> Any:
    """The tasks that may be named: those of the folder, and lm-eval's own where that does not have all that are."""
    from lm_eval.tasks import TaskManager

    if options.include_path is not None:
        own = TaskManager(include_path=options.include_path, include_defaults=False)
        if set(options.tasks) <= set(own.all_tasks):
            return own  # thousands of files need not be read
    every = TaskManager(include_path=options.include_path)
    if unknown := sorted(set(options.tasks) - set(every.all_tasks)):
        raise UnmeasurableError(f"lm-eval has no task '{unknown[0]}', and neither has include_path")
    return every


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what lm-eval and its libraries say of their progress from the screen."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """lm-eval seeds the global generators."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (the one that lm-eval seeds)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
