"""Which model an adapter belongs to. What the adapter says of it comes from a stranger: it opens no socket."""

import os
import re
from pathlib import Path

from attrs import evolve
from modelmerger import Base, InputError, LoadContext, Location, ModelReference, Problem, base_name, shown, user_path

from modelmerger_plugins.peft_adapters.finding import weights_of
from modelmerger_plugins.peft_adapters.reading import config
from modelmerger_plugins.peft_adapters.reading.replication import replicated
from modelmerger_plugins.peft_adapters.section import BASE_KEY, FILE, given_base, whole_key

_QUANTISED = re.compile(r"(?i)\b[248][-_]?bits?\b|\b(bnb|gptq|awq|int[48]|fp8|nf4|gguf|mlx)\b")
"""What names of quantised models have in them."""


def find_base(adapter: config.AdapterConfig, context: LoadContext) -> Base:
    """The base that the config of the merge gives, else the one that the adapter names, if it is on this machine.

    Raises `InputError` where there is none, or where it is an adapter itself.
    """
    settings = context.settings
    given, key = given_base(settings), whole_key(settings, BASE_KEY)
    path = given or local_path(adapter.base, adapter.revision)
    if path is None:
        which = ": the 16-bit model that it was made from" if _QUANTISED.search(adapter.base) else ""
        named = f"the base model {shown(adapter.base)!r}, which is neither a directory nor in the local cache"
        message = (
            f"names {named if adapter.base else 'no base model'}. "
            f"Give {key}, or {whole_key(settings, 'base_model')}{which}."
        )
        raise InputError(Problem(message, str(adapter.path)))
    if settings and given and given in (settings.given.get("merges") or ()):
        message = f"is a merge, and adapters are folded into models alone. Publish it, and give its directory as {key}."
        raise InputError(Problem(message, given))
    name = base_name(evolve(settings, base_model=path)) if settings else Path(path).name
    where = BASE_KEY if given else str(adapter.path)
    source = settings.live.get("base_model") if settings and given == settings.base_model else None
    reference = ModelReference(path, name, where, source)
    location = context.locate(reference) if given and source is None else Location(user_path(path))
    if os.path.lexists(location.directory / FILE):
        weights_of(location.directory)
        message = (
            f"is an adapter itself (it has {FILE}), so it is no base of one. "
            f"Fold it first, in a merge of it alone, and give what that writes as {key}."
        )
        raise InputError(Problem(message, path))
    checkpoint = context.open_model(evolve(reference, path=str(location.directory), given=path))
    return Base(reference, location, replicated(checkpoint, adapter), key)


def local_path(name: str, revision: str = "") -> str | None:
    """Where a base model that an adapter names is on this machine; None where it is not. Nothing is downloaded.

    `revision`: a branch, tag or commit of a model in the cache; empty: the default branch.
    """
    if not name or "\0" in name:
        return None
    if os.path.isdir(user_path(name)):
        return name
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision or None)
    except (ValueError, OSError):
        return None
    return os.path.dirname(found) if isinstance(found, str) else None


def is_another(adapter: config.AdapterConfig, used: ModelReference) -> bool:
    """Whether the adapter names another base than the one that is used: other names, unless they lead to one directory.

    Of a model in memory nobody knows.
    """
    trained_on = adapter.base
    if used.source is not None or not trained_on or _last_part(trained_on) == _last_part(used.path):
        return False
    found = local_path(trained_on)
    return found is None or os.path.realpath(user_path(found)) != os.path.realpath(user_path(used.path))


def _last_part(path: str) -> str:
    return os.path.basename(path.rstrip("/"))
