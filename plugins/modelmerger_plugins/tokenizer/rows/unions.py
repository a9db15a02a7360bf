"""The union of the tokenizers of a merge's models."""

from collections.abc import Mapping, Sequence

from modelmerger import InputError, Problem

from modelmerger_plugins.tokenizer.renaming import with_new_names
from modelmerger_plugins.tokenizer.rows.models import OfModel
from modelmerger_plugins.tokenizer.rows.reserved import renamed_tokens
from modelmerger_plugins.tokenizer.union.documents import (
    Document,
    document_of,
    read_document,
    with_tokens,
    without_tokens,
)
from modelmerger_plugins.tokenizer.union.joining import Union, union_of
from modelmerger_plugins.tokenizer.vocabularies import listed_entries


def union_of_models(
    models: Sequence[OfModel], source: int, renamed: Mapping[str, str]
) -> tuple[Union, list[int | None]]:
    """The union, the source's tokenizer first, and for each model which of the joined tokenizers is its own.

    renamed: reserved tokens of the source, and what others have made of them; those of others that the source has
    renamed are no tokens of theirs. Models with one vocabulary are joined once; None for one of which nothing is known.
    Raises `InputError` where they cannot be joined.
    """
    documents: list[Document] = []
    numbers: list[int | None] = [None] * len(models)
    seen: list[tuple[Mapping[str, int], int]] = []
    for index in [source, *(i for i in range(len(models)) if i != source)]:
        model = models[index]
        if model.tokens is None:
            continue
        known = [number for tokens, number in seen if tokens == model.tokens]
        if not known:
            if model.directory is None:
                message = "has no tokenizer of its own, so it cannot be joined. Name one model in tokenizer_source."
                raise InputError(Problem(message, model.checkpoint.place))
            entries = {token: entry for token, (_, entry) in listed_entries(model.directory).items()}
            document = with_tokens(read_document(model.directory, model.checkpoint.name), model.tokens, entries)
            if index == source and renamed:
                value = with_new_names(document.value, renamed)
                document = document_of(value, document.name, document.place)
            elif index != source:
                document = without_tokens(document, renamed_tokens(model.tokens, [models[source].tokens or {}]))
            known = [len(documents)]
            seen.append((model.tokens, known[0]))
            documents.append(document)
        numbers[index] = known[0]
    return union_of(documents), numbers
