"""Tiny transformers models that adapters are made for."""

from types import SimpleNamespace

import pytest
from plugins.peft_adapters.tiny_adapters import gpt2, gpt2_untied, gpt_oss, llama, make_base, mixtral, qwen2, qwen3_moe


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One of each kind, by name, in `folder`."""
    folder = tmp_path_factory.mktemp("bases")
    makers = (qwen2, gpt2, gpt2_untied, llama, qwen3_moe, mixtral, gpt_oss)
    made = {make.__name__: make_base(folder / make.__name__, make) for make in makers}
    return SimpleNamespace(folder=folder, **made)
