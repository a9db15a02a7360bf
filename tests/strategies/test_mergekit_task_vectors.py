"""Agreement with mergekit 0.1.5 on task vectors, recorded by `record_mergekit_task_vectors.py`.

What follows from no chance agrees to 1e-6 of the largest magnitude in the tensor. What is dropped at random is another
half of the elements there, so it is held to what both promise of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelmerger.testing import merge_in_memory
from safetensors.torch import load_file

from tests.strategies.task_vector_references import as_float32

DATA = Path(__file__).parent / "data" / "mergekit"
CASES = json.loads((DATA / "task_vectors" / "cases.json").read_text())["cases"]
CERTAIN = [case for case in CASES if "random" not in case["name"]]
RANDOM = [case for case in CASES if "random" in case["name"]]


def tensors(path: str) -> dict[str, torch.Tensor]:
    return load_file(DATA / path)


def merged(case: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    models = [tensors(model["path"]) for model in case["models"]]
    told = [{k: v for k, v in model.items() if k not in ("path", "weight")} for model in case["models"]]
    weights = [model["weight"] for model in case["models"]]
    options = {**case["options"], "torch_dtype": "float32"}
    return merge_in_memory(case["strategy"], models, tensors(case["base_model"]), weights, told, options)


def undecided(case: Mapping[str, Any], name: str) -> np.ndarray:
    """Elements as large as a threshold that more are as large as: which of them are kept is chance in mergekit.

    And all where breadcrumbs keeps no element there, and one here; and where what is kept adds up to zero, which
    mergekit counts as plus.
    """
    base = tensors(case["base_model"])[name].double().numpy()
    found = np.zeros(base.shape, dtype=bool)
    sums, any_kept = np.zeros(base.shape, dtype=np.float32), found.copy()
    for model in case["models"]:
        tau = tensors(model["path"])[name].double().numpy() - base
        magnitudes, options = as_float32(tau), case["options"] | model
        density, gamma = options["density"], options.get("gamma", 0.0)
        ordered = np.sort(magnitudes, axis=None)[::-1]
        found |= "breadcrumbs" in case["strategy"] and density * tau.size < 1
        kept = max(1, int(density * tau.size))
        outliers = min(int(gamma * tau.size), tau.size - kept)
        left = (ordered[outliers + kept - 1] <= magnitudes) & (magnitudes <= ordered[outliers])
        sums += np.float32(model["weight"]) * tau.astype(np.float32) * left
        any_kept |= left & (magnitudes > 0)
        if density == 1:
            continue
        for place in (outliers - 1, outliers + kept - 1):
            if place >= 0 and place + 1 < tau.size and ordered[place] == ordered[place + 1]:
                found |= magnitudes == ordered[place]
    return found | (any_kept & (sums == 0)) if "ties" in case["strategy"] else found


@pytest.mark.parametrize("case", CERTAIN, ids=lambda case: case["name"])
def test_what_follows_from_no_chance_agrees(case: dict[str, Any]) -> None:
    compared = []
    ours = merged(case)
    for name, theirs in tensors(case["expected"]).items():
        assert ours[name].dtype == theirs.dtype == torch.float32
        decided = ~undecided(case, name)
        off = np.abs(ours[name].double().numpy() - theirs.double().numpy())[decided]
        assert off.max(initial=0) <= 1e-6 * float(theirs.abs().max()), name
        compared.append(decided)
    assert np.concatenate([found.reshape(-1) for found in compared]).mean() > 0.95


@pytest.mark.parametrize("case", RANDOM, ids=lambda case: case["name"])
@pytest.mark.parametrize("which", ["theirs", "ours"])
def test_what_is_dropped_at_random_is_distributed_alike(case: dict[str, Any], which: str) -> None:
    """About half of one model's elements are kept, of DELLA more of the larger ones, and scaled by one number a tensor."""
    start, model = tensors(case["base_model"]), tensors(case["models"][0]["path"])
    kept, upper = [], []
    for name, values in (tensors(case["expected"]) if which == "theirs" else merged(case)).items():
        base = start[name].double().numpy()
        tau, left = model[name].double().numpy() - base, values.double().numpy() - base
        there = np.abs(left) > 1e-6
        changed = np.abs(tau) > 1e-6  # 16 bits may hold the base's number
        assert not (there & ~changed).any()
        scale = np.abs(tau).sum() / np.abs(tau[there]).sum() if case["options"]["rescale"] == "l1" else 1.0
        np.testing.assert_allclose(left[there], scale * tau[there], atol=2e-6)
        ranks = np.argsort(np.argsort(np.abs(tau), axis=-1), axis=-1)
        kept.append(there[changed])
        upper.append((ranks >= tau.shape[-1] // 2)[changed])
    there, large = np.concatenate(kept), np.concatenate(upper)
    spread = 5 * 0.5 / np.sqrt(len(there))
    more = 0.16 if "della" in case["strategy"] else 0.0  # by linear ranks from 0.2 to 0.8 in rows of 8 and more
    for found, chance in ((there, 0.5), (there[large], 0.5 + more), (there[~large], 0.5 - more)):
        assert abs(found.mean() - chance) < spread * np.sqrt(2)


def test_the_recordings_cover_every_strategy_that_both_have() -> None:
    assert {case["strategy"] for case in CERTAIN} == {
        "ties", "dare_linear", "dare_ties", "della_linear", "della", "breadcrumbs", "breadcrumbs_ties",
    }  # fmt: skip
    assert any(model["weight"] < 0 for case in CERTAIN for model in case["models"])
