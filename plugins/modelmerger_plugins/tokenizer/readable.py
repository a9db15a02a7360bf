"""Tokens as people read them."""

import unicodedata
from functools import cache


@cache
def byte_letters() -> dict[str, int]:
    """The letters that byte-level tokenizers write for bytes, as GPT-2 chose them: letter → byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def readable(token: str) -> str:
    """The text of a token, whichever way it is spelt: bytes as letters, or ▁ for a space."""
    letters = byte_letters()
    if token.isascii() or any(letter not in letters for letter in token):
        return token.replace("\u2581", " ")
    try:
        return bytes(letters[letter] for letter in token).decode()
    except UnicodeDecodeError:
        return token


def script_of_text(text: str) -> str:
    """The script of the first letter, by its name in Unicode (ARABIC); empty for a text without letters."""
    letter = next((letter for letter in text if letter.isalpha()), None)
    return "" if letter is None else unicodedata.name(letter, "").partition(" ")[0]
