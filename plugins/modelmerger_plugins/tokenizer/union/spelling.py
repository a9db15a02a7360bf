"""How tokens are spelt: in letters that stand for bytes, or in characters with ▁ for a space."""

import re
from functools import cache

from modelmerger_plugins.tokenizer.readable import byte_letters
from modelmerger_plugins.tokenizer.union.scripts import Scripts

SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@cache
def letters_of_bytes() -> list[str]:
    """Byte → the letter that stands for it."""
    found = {byte: letter for letter, byte in byte_letters().items()}
    return [found[byte] for byte in range(0x100)]


def as_bytes(token: str) -> bytes | None:
    """The bytes of a token spelt in letters for bytes; None for a token that is not."""
    letters = byte_letters()
    try:
        return bytes(letters[letter] for letter in token)
    except KeyError:
        return None


def spelt_in_bytes(token: str) -> str:
    """A token of characters, in letters that stand for its bytes."""
    letters = letters_of_bytes()
    if byte := _BYTE.fullmatch(token):
        return letters[int(byte[1], 16)]
    text = token.replace(SPACE, " ").encode(errors="surrogatepass")
    return "".join(letters[byte] for byte in text)


def spelt_in_characters(token: str) -> str:
    """The reverse, for a token that is whole text; as it is for another one."""
    content = as_bytes(token)
    try:
        return token if content is None else content.decode().replace(" ", SPACE)
    except UnicodeDecodeError:
        return token


def script_of(token: str, scripts: Scripts, *, by_bytes: bool) -> frozenset[str]:
    """The scripts of a token, however it is spelt."""
    content = as_bytes(token) if by_bytes else None
    return scripts.of(token) if content is None else scripts.of_bytes(content)
