"""What a BPE union takes from the second tokenizer: merges, single letters and entries that no merge makes."""

from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

from modelmerger_plugins.tokenizer.union.documents import Document, Pair
from modelmerger_plugins.tokenizer.union.leaders import Leaders
from modelmerger_plugins.tokenizer.union.scripts import Scripts
from modelmerger_plugins.tokenizer.union.spelling import SPACE, letters_of_bytes, script_of, spelt_in_bytes


@frozen(eq=False)
class Imported:
    """Entries and merges of the second, spelt as the first spells its tokens."""

    entries: Sequence[str] = ()
    """Tokens that the first lacks, in the order of their ids."""
    merges: Sequence[Pair] = ()
    """In the second's order, those of single letters first; the first may have some of them too."""
    impossible: int = 0
    """Merges of scripts that the second leads of which a half is in neither."""
    unmade: int = 0
    """Entries of these scripts that no merge makes, and that are not taken."""


@frozen(eq=False)
class Second:
    """The second tokenizer as the first spells tokens."""

    document: Document
    """Its own file."""
    spelt: Mapping[str, str]
    """Each of its tokens, added ones aside → the same in the first's spelling."""
    scripts: Mapping[str, frozenset[str]]
    """Scripts of these, in the first's spelling."""
    converted: bool = field(default=False)
    """Whether it is spelt in characters, and the first in bytes."""


def seen_as_first(second: Document, first: Document, scripts: Scripts) -> Second:
    """The second's tokens in the first's spelling."""
    converted = first.by_bytes and not second.by_bytes
    spelt = {token: spelt_in_bytes(token) if converted else token for token in second.vocabulary}
    if converted or not first.by_bytes:
        scripts.learn(second.vocabulary)
    found = {token: script_of(token, scripts, by_bytes=first.by_bytes) for token in spelt.values()}
    return Second(second, spelt, found, converted)


def imported_into(first: Document, known: Mapping[str, int], second: Second, leaders: Leaders) -> Imported:
    """What is taken. known: all tokens of the first, added ones too."""
    taken = dict.fromkeys(known)
    entries: list[str] = []
    merges: dict[Pair, None] = {}

    def add(token: str) -> None:
        if token not in taken:
            taken[token] = None
            entries.append(token)

    for pair in _of_letters(first, second, leaders):
        if pair[0] in taken and pair[1] in taken:
            add("".join(pair))
            merges[pair] = None
    if not first.by_bytes:
        for token in second.document.vocabulary:
            if len(token.replace(SPACE, "")) == 1 == len(token) and leaders.led(second.scripts[token]):
                add(token)
    impossible = 0
    for left, right in second.document.merges:
        pair = second.spelt.get(left, left), second.spelt.get(right, right)
        result = "".join(pair)
        if result not in second.scripts or not leaders.led(second.scripts[result]):
            continue
        if pair[0] in taken and pair[1] in taken:
            add(result)
            merges[pair] = None
        else:
            impossible += 1
    unmade = [token for token in second.spelt.values() if token not in taken and leaders.led(second.scripts[token])]
    if ignores_merges(second.document) and ignores_merges(first):
        for token in unmade:
            add(token)
        unmade = []
    counted = len(unmade) if ignores_merges(second.document) else 0
    return Imported(entries, list(merges), impossible, counted)


def ignores_merges(document: Document) -> bool:
    """Whether an entry is taken whole even where no merges make it."""
    return document.model.get("ignore_merges") is True


def _of_letters(first: Document, second: Second, leaders: Leaders) -> Iterable[Pair]:
    """Merges that make each letter of the second of its bytes, by the first's own merges where it has the letter."""
    if not second.converted:
        return
    made = {left + right: (left, right) for left, right in reversed(first.merges)}
    letters = letters_of_bytes()
    for letter in dict.fromkeys(letter for token in second.document.vocabulary for letter in token if letter > "\x7f"):
        spelt = "".join(letters[byte] for byte in letter.encode(errors="surrogatepass"))
        if letter == SPACE or not leaders.led(second.scripts.get(spelt, frozenset())):
            continue
        if spelt in made and spelt in first.vocabulary:
            yield from _chain(spelt, made)
        else:
            for end in range(1, len(spelt)):
                yield spelt[:end], spelt[end]


def _chain(token: str, made: Mapping[str, Pair]) -> Iterable[Pair]:
    """The merges that make a token, innermost first."""
    if token in made and len(token) > 1:
        for half in made[token]:
            yield from _chain(half, made)
        yield made[token]
