"""What a path is that leads nowhere: a URL, a path of another system, a pattern, a name that a shell would expand."""

import re
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote

from modelmerger import Problem, shown

_HUB = r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/"
_ID = r"(?P<id>[\w.-]+/[\w.-]+?)"
_AROUND = " \t\r\n'\"“”„‘’«»"
"""What is copied along with a path, and is none of it."""
_SAID: dict[str, Callable[[re.Match[str]], str]] = {
    rf"(?:{_HUB}|hf://)(?P<kind>datasets|spaces|collections|papers)/.*": lambda found: (
        f"is one of the Hub's {found['kind']}, and no model. Give a model as org/name."
    ),
    rf"(?:{_HUB}(?:models/)?|hf://(?:models/)?|git@(?:hf\.co|huggingface\.co):|(?:hf|huggingface):){_ID}"
    r"(?:\.git|:[\w.+-]+)?"
    r"(?:@(?P<at>[\w./+-]+?)|/(?:tree|blob|resolve|commit)/(?P<revision>[^/?#]+).*)?/?(?:[?#].*)?": lambda found: (
        "is an address, and a model on the Hub is given by its name. "
        f"Write {found['id']}{_pinned(found['at'] or found['revision'])}."
    ),
    r"file:(?://(?:localhost)?)?(?P<path>/.*)": lambda found: (
        f"is an address. Write the path alone, {shown(found['path'])}."
    ),
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://.*": lambda found: (
        f"is an address, and nothing is fetched over {shown(found['scheme'], 20)}. "
        "Download the model, and give its directory."
    ),
    r".*?(?P<variable>\$\w+|\$\{[^}]*\}|%\w+%).*": lambda found: (
        f"does not exist, and variables ({shown(found['variable'], 40)}) are not expanded. Write the path out."
    ),
    r"(?P<drive>[A-Za-z]):[\\/](?P<rest>.*)": lambda found: (
        "is a path of Windows. Write it as this system has it, under WSL as "
        f"/mnt/{found['drive'].lower()}/{shown(_slashed(found['rest']))}."
    ),
    r".*\\.*": lambda found: (
        f"does not exist, and separates folders by backslashes. Write {shown(_slashed(found[0]))}."
    ),
    r"(?:.*/)?models--(?P<org>[\w.-]+?)--(?P<name>[\w.-]+?)/?": lambda found: (
        f"does not exist. It is named like a folder in the Hub's cache: write {found['org']}/{found['name']}."
    ),
    rf"{_ID}:(?P<tag>[\w.+-]+)": lambda found: (
        f"does not exist. A revision on the Hub stands behind an @: {found['id']}@{found['tag']}."
    ),
    rf"(?![.~]){_ID}/+": lambda found: (
        f"does not exist. Check the path; a model on the Hub is given without the slash, as {found['id']}."
    ),
    r".*(?:[*?]|\[.*\]).*": lambda _: "matches nothing. Check the pattern.",
    rf"(?P<around>[{_AROUND}].*\S.*|.*\S.*[{_AROUND}])": lambda found: (
        f"does not exist. Write it without what stands around it: {shown(found[0].strip(_AROUND))}."
    ),
}
"""What is said, by the pattern of the path, the first that fits."""
_PATTERNS = [(re.compile(pattern, re.ASCII | re.DOTALL), say) for pattern, say in _SAID.items()]


def absent(path: str) -> Problem | None:
    """What a path is at which nothing lies, and what to give in its place; None where it is a path like any other."""
    if (hidden := next(filter(_is_hidden, path), None)) is not None:
        spaced = "".join(" " if character.isspace() else character for character in path)
        plain = "".join(character for character in spaced if not _is_hidden(character)).strip(_AROUND)
        message = f"does not exist, and has a character in it that cannot be seen (U+{ord(hidden):04X})"
        return Problem(f"{message}. Write {shown(plain)}.", path)
    for pattern, say in _PATTERNS:
        if (found := pattern.fullmatch(path)) is not None:
            return Problem(say(found), path)
    return None


def _is_hidden(character: str) -> bool:
    """Whether a character has no form, as marks of the direction of writing, or looks like a space and is another."""
    return unicodedata.category(character) == "Cf" or (character.isspace() and character not in " \t\r\n")


def _pinned(revision: str | None) -> str:
    return f"@{shown(unquote(revision), 60)}" if revision and revision != "main" else ""


def _slashed(path: str) -> str:
    return path.replace("\\", "/")
