"""References to models: PATH[@REVISION][+ADAPTER[@REVISION]], or a mapping that says the same."""

import os
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from modelmerger import shown


class WrongReferenceError(ValueError):
    """What is wrong with a reference, in a sentence."""


@frozen
class Reference:
    """A model, and the adapter that is folded into it."""

    model: str
    """Path or Hub id, with @REVISION where one is given."""
    adapter: str = ""
    """The same of the adapter; empty for none."""

    @property
    def text(self) -> str:
        """As mergekit writes it."""
        return f"{self.model}+{self.adapter}" if self.adapter else self.model

    @property
    def place(self) -> tuple[str, str]:
        """The same for references that lead to one place, however they are spelt."""
        return _plain(self.model), _plain(self.adapter)

    @property
    def name(self) -> str:
        """The last part of its path, without revision."""
        return os.path.basename((self.adapter or self.model).split("@")[0].rstrip("/")) or "model"


def read_reference(given: Any) -> Reference:
    """The reference that stands in a recipe. Raises `WrongReferenceError`."""
    if isinstance(given, str):
        return _of_text(given)
    if not isinstance(given, Mapping):
        raise WrongReferenceError(f"must name a model, got {shown(repr(given), 40)}")
    if "override_architecture" in given:
        raise WrongReferenceError(
            "override_architecture is not available: tensors go by their names here. Leave it out"
        )
    model = given.get("model")
    if model is None:
        raise WrongReferenceError("the key 'model' is missing. Write {model: PATH}, or the path alone")
    adapter = given.get("lora")
    return Reference(_part(model), "" if adapter is None else _part(adapter))


def _of_text(text: str) -> Reference:
    parts = text.split("+")
    if len(parts) > 2:
        message = "chains two adapters. Merge the adapters into one first (strategy weighted, merge_adapters: true)"
        raise WrongReferenceError(f"'{shown(text, 60)}' {message}")
    if any(part != part.strip() or not part for part in parts):
        raise WrongReferenceError(f"'{shown(text, 60)}' has a blank or nothing beside its +. Write MODEL+ADAPTER")
    return Reference(*map(_part, parts))


def _part(given: Any) -> str:
    """Path and revision of one model."""
    if isinstance(given, Mapping) and isinstance(path := given.get("path"), str):
        revision = given.get("revision")
        return f"{path}@{revision}" if revision is not None else path
    if not isinstance(given, str) or not given.strip():
        raise WrongReferenceError(f"must name a model, got {shown(repr(given), 40)}")
    if given.count("@") > 1:
        raise WrongReferenceError(f"'{shown(given, 60)}' has more than one @. Write PATH@REVISION")
    return given


def _plain(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if path else ""
