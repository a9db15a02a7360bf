"""What a union of WordPiece or Unigram tokenizers takes from the second: pieces of scripts that it leads."""

from collections.abc import Mapping

from modelmerger_plugins.tokenizer.union.imported import Imported, Second
from modelmerger_plugins.tokenizer.union.leaders import Leaders


def imported_words(known: Mapping[str, int], second: Second, leaders: Leaders) -> Imported:
    """The pieces that are taken, in the order of their ids. known: all tokens of the first."""
    special = {token["content"] for token in second.document.added}
    by_id = sorted(second.document.vocabulary.items(), key=lambda entry: entry[1])
    taken = [token for token, _ in by_id if token not in known and token not in special]
    return Imported([token for token in taken if leaders.led(second.scripts[token])])
