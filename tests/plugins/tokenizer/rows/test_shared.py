"""Vocabularies that are held once are the same vocabularies, and take no more than is promised."""

import gc
import random
import tracemalloc
from pathlib import Path

import pytest
from modelmerger import MergeConfig
from modelmerger.planning.opening import open_models
from modelmerger.run import make_merged
from modelmerger_plugins.tokenizer.rows.models import OfModel
from modelmerger_plugins.tokenizer.rows.shared import Shared, shared

from tests.plugins.tokenizer.rows.test_rows import config_of
from tests.plugins.tokenizer.rows.vocabularies import write

PROMISED = 50 << 20
"""Bytes that a merge of two models with 256,000 tokens may take beside the same merge with equal vocabularies."""


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_same_mapping(seed: int) -> None:
    drawn = random.Random(seed)
    other = {f"t{i}": row for i, row in enumerate(drawn.sample(range(300), 200))}
    tokens = {drawn.choice([f"t{i}", f"own{i}", f"{i}\ud800"]): 1_000 - i for i in range(300)}

    found = Shared(other, tokens)

    assert dict(found) == tokens
    assert found == tokens
    assert len(found) == len(tokens)
    assert all((token in found) == (token in tokens) for token in other)
    assert found.get("t199", -1) == tokens.get("t199", -1)


@pytest.mark.parametrize("other", [{"a": 0, "b": 0}, {"a": 1 << 40}, {}, None])
def test_what_cannot_be_held_by_number_stays_as_it_is(other: dict[str, int] | None) -> None:
    models = [OfModel(None, 4, tokens) for tokens in (other, {"a": 1})]  # type: ignore[arg-type]
    assert [model.tokens for model in shared(models, 0)] == [other, {"a": 1}]


def test_matched_rows_take_no_more_than_is_promised(tmp_path: Path) -> None:
    count = 20_000
    order = list(range(count))
    random.Random(0).shuffle(order)
    write(tmp_path / "a", 1, {f"t{i}": i for i in range(count)}, count, tied=True)
    write(tmp_path / "b", 2, {f"t{i}" if i % 10 else f"own{i}": order[i] for i in range(count)}, count, tied=True)
    settings, hooks = MergeConfig(**config_of(tmp_path, ["a", "b"])).resolved()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with open_models(settings, hooks, merged=make_merged) as opened:
            gc.collect()
            held = tracemalloc.get_traced_memory()[0] - before
            assert [len(model.tensors) for model in opened.checkpoints] == [2, 2]
    finally:
        tracemalloc.stop()
    assert held / count < PROMISED / 256_000
