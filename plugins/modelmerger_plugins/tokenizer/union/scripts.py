"""Scripts of texts, and of bytes that may begin a letter without ending it, by the Unicode data of `regex`."""

from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice

LATIN = "LATIN"
NONE, IN_LATIN = frozenset[str](), frozenset({LATIN})
NO_SCRIPTS = ("COMMON", "INHERITED", "UNKNOWN")
ARABIC, ARABIC_BLOCK = "ARABIC", range(0x600, 0x700)
"""All of this block counts as Arabic, with its commas, digits and vowel signs."""
LAST, SURROGATES = 0x10FFFF, range(0xD800, 0xE000)
AT_ONCE = 64


class Scripts:
    """Which scripts texts are of, remembered by letter. Digits, signs, spaces and emoji are of none."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def learn(self, texts: Iterable[str]) -> None:
        """Looks up all letters of some texts at once, which is faster than one by one."""
        letters = {letter for text in texts for letter in text} - self._known.keys()
        joined = "".join(letter for letter in letters if ord(letter) not in SURROGATES)
        self._known |= dict.fromkeys(letters, "")
        for name, runs in _patterns().items() if joined else ():
            for run in runs(joined):
                self._known |= dict.fromkeys(run, name)
        self._known |= {letter: ARABIC for letter in letters if ord(letter) in ARABIC_BLOCK}

    def of(self, text: str) -> frozenset[str]:
        """The scripts of a text."""
        if text.isascii():
            return IN_LATIN if text.swapcase() != text else NONE
        return frozenset({self.of_letter(letter) for letter in text} - {""})

    def of_bytes(self, content: bytes) -> frozenset[str]:
        """The scripts of whole letters, and of bytes at the end that only letters of one script begin with.

        Bytes at the beginning that only end a letter have none.
        """
        if content.isascii():
            return IN_LATIN if content.swapcase() != content else NONE
        start = 0
        while start < len(content) and 0x80 <= content[start] < 0xC0:
            start += 1
        text, rest = _whole(content[start:])
        found = self.of(text)
        for part in rest:
            script = _of_beginning(part)
            found |= {script} if script else NONE
        return found

    def of_letter(self, letter: str) -> str:
        """The script of a letter; empty where it is of none."""
        if letter not in self._known:
            self.learn([letter])
        return self._known[letter]


@cache
def _of_beginning(part: bytes) -> str:
    """The script of all letters that begin with these bytes; empty where there are several, or one is of none."""
    scripts, found = Scripts(), set[str]()
    points = iter(_beginning_with(part))
    while letters := [chr(point) for point in islice(points, AT_ONCE)]:
        scripts.learn(letters)
        found |= {scripts.of_letter(letter) for letter in letters}
        if len(found) > 1 or "" in found:
            return ""
    return found.pop() if found else ""


@cache
def _patterns() -> dict[str, Callable[[str], list[str]]]:
    """For each script that the library knows, by one of its names, what finds the runs of its letters in a text."""
    import regex
    from regex._regex_core import PROPERTIES

    names: dict[int, str] = {}
    for name, number in PROPERTIES["SCRIPT"][1].items():
        names.setdefault(number, name)
    return {name: regex.compile(rf"\p{{Script={name}}}+").findall for name in names.values() if name not in NO_SCRIPTS}


def _whole(content: bytes) -> tuple[str, list[bytes]]:
    """The whole letters of some bytes, and parts of letters that only begin."""
    try:
        return content.decode(), []
    except UnicodeDecodeError:
        pass
    text, rest, place = "", list[bytes](), 0
    while place < len(content):
        length = _length(content[place])
        part = content[place : place + length]
        following = 1
        while following < len(part) and 0x80 <= part[following] < 0xC0:
            following += 1
        part = part[:following]
        if len(part) == length:
            text += part.decode(errors="ignore")
        elif length > 1:
            rest.append(part)
        place += len(part)
    return text, rest


def _length(byte: int) -> int:
    """How many bytes a letter has that begins with this one; 1 for a byte that begins none."""
    return 2 if 0xC2 <= byte < 0xE0 else 3 if 0xE0 <= byte < 0xF0 else 4 if 0xF0 <= byte < 0xF5 else 1


def _beginning_with(part: bytes) -> Iterable[int]:
    """The code points whose UTF-8 begins with these bytes."""
    length = _length(part[0])
    value = part[0] & (0xFF >> (length + 1))
    for byte in part[1:]:
        value = value << 6 | byte & 0x3F
    left = 6 * (length - len(part))
    least = (0x80, 0x800, 0x10000)[length - 2]
    points = range(max(least, value << left), min(LAST, (value + 1 << left) - 1) + 1)
    return (point for point in points if point not in SURROGATES)
