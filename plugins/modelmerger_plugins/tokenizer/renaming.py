"""Tokenizer files in which reserved tokens have their new names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmerger import FileIdentity, read_beside, read_json

from modelmerger_plugins.chat_templates import encoded
from modelmerger_plugins.tokenizer.vocabularies import LIMIT, MOST_VALUES

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "added_tokens.json")
"""The documents that name tokens."""
LINES = "vocab.txt"
"""The file that names one a line."""
_ENDS = re.compile(b"(\r\n|\r|\n)")


def renamed_files(
    files: Mapping[str, bytes | FileIdentity], renamed: Mapping[str, str], directory: Path
) -> dict[str, bytes]:
    """Those of the files that name tokens, with the new names. directory: of those that are not made anew."""
    made: dict[str, bytes] = {}
    for name in (name for name in files if name in (*FILES, LINES)):
        held = files[name]
        content = held if isinstance(held, bytes) else read_beside(directory, name, LIMIT) or b""
        if name == LINES:
            new = {old.encode(): token.encode(errors="surrogatepass") for old, token in renamed.items()}
            made[name] = b"".join(new.get(part, part) for part in _ENDS.split(content))
        else:
            value = read_json(content or b"{}", name, unique=False, nodes=MOST_VALUES)
            made[name] = encoded(with_new_names(value, renamed))
    return made


def with_new_names(value: Any, renamed: Mapping[str, str]) -> Any:
    """The content of a document with tokens renamed wherever one is named alone: as a key, or as a text."""
    if isinstance(value, str):
        return renamed.get(value, value)
    if isinstance(value, list):
        return [with_new_names(one, renamed) for one in value]
    if isinstance(value, Mapping):
        return {renamed.get(key, key): with_new_names(one, renamed) for key, one in value.items()}
    return value
