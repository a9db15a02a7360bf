"""Merges here are about rows, and what is measured of their tokenizers is tested elsewhere."""

from functools import partial

import pytest
from modelmerger import Inquiry
from modelmerger_plugins.tokenizer.rows import measuring


@pytest.fixture(autouse=True)
def measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Into how many tokens words are cut is found out in this process, not in one for each merge."""
    monkeypatch.setattr(measuring, "Inquiry", partial(Inquiry, costs=("sys",)))
