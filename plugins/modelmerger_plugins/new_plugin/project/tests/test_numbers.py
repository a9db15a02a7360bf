"""What the strategy computes, and what is written of it."""

import json
from types import SimpleNamespace

import torch
from agreeing_merge import strategy
from agreeing_merge.sidecar import write_sidecars
from agreeing_merge.validator import Options, validate_model
from modelmerger.testing import merge_in_memory, plan_in_memory

BASE = {"w": torch.tensor([1.0, 1.0, 1.0])}
MODELS = [{"w": torch.tensor([2.0, 2.0, 1.0])}, {"w": torch.tensor([5.0, -1.0, 2.0])}]


def test_the_mean_of_the_changes_halved_where_they_disagree():
    merged = merge_in_memory(strategy, MODELS, BASE)
    torch.testing.assert_close(merged["w"], torch.tensor([3.5, 0.75, 1.5]))


def test_a_model_that_is_trusted_counts_more():
    told = [{"trust": 3.0}, {}]
    merged = merge_in_memory(strategy, MODELS, BASE, model_options=told, options={"disputed": 1.0})
    torch.testing.assert_close(merged["w"], torch.tensor([2.75, 1.25, 1.25]))


def test_the_file_says_who_was_trusted():
    plan = plan_in_memory(strategy, MODELS, BASE, model_options=[{"trust": 3.0}, {}]).plan
    assert write_sidecars(plan) == {}
    (content,) = write_sidecars(SimpleNamespace(strategy="agreeing_merge", models=plan.models)).values()
    assert json.loads(content) == {"model_0": {"trust": 3.0}, "model_1": {"trust": 1.0}}


def test_half_of_the_answers_are_repeated():
    answers = [SimpleNamespace(text=text) for text in ("yes it is", "yes  it is", "no", "no")]
    (finding,) = validate_model(SimpleNamespace(answers=lambda: {"": answers}), Options())
    assert finding.value == 0.5
