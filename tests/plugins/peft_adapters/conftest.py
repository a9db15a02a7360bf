"""Tiny transformers models that adapters are made for."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from plugins.peft_adapters.tiny_adapters import (
    gpt2,
    gpt2_untied,
    gpt_oss,
    llama,
    make_adapter,
    make_base,
    mixtral,
    qwen2,
    qwen3_moe,
)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One of each kind, by name, in `folder`."""
    folder = tmp_path_factory.mktemp("bases")
    makers = (qwen2, gpt2, gpt2_untied, llama, qwen3_moe, mixtral, gpt_oss)
    made = {make.__name__: make_base(folder / make.__name__, make) for make in makers}
    return SimpleNamespace(folder=folder, **made)


@pytest.fixture(scope="session")
def three(bases: SimpleNamespace) -> list[Path]:
    """Adapters of qwen2 that share some layers: of other ranks, alphas, patterns, and one rank-stabilised."""
    return [
        make_adapter(bases.folder / "one", bases.qwen2, 1),
        make_adapter(bases.folder / "two", bases.qwen2, 2, r=3, use_rslora=True, target_modules=["q_proj", "up_proj"]),
        make_adapter(
            bases.folder / "three",
            bases.qwen2,
            3,
            r=2,
            rank_pattern={"q_proj": 5},
            alpha_pattern={"layers.1.*v_proj": 9},
        ),
    ]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A base and an adapter of it."""
    folder = tmp_path_factory.mktemp("made")
    base = make_base(folder / "base", qwen2)
    return SimpleNamespace(base=base, adapter=make_adapter(folder / "adapter", base, 1))


@pytest.fixture
def adapter(trained: SimpleNamespace, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return shutil.copytree(trained.adapter, tmp_path / "spoilt")
