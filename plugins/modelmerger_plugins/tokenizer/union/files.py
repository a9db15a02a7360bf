"""The files of a union of tokenizers that are made anew."""

from pathlib import Path

from modelmerger import FileIdentity, read_beside, read_json

from modelmerger_plugins.chat_templates import CONFIG, encoded
from modelmerger_plugins.tokenizer.union.joining import Union
from modelmerger_plugins.tokenizer.vocabularies import FAST, LIMIT, LISTED


def union_files(union: Union, config: bytes | FileIdentity | None, directory: Path | None) -> dict[str, bytes]:
    """tokenizer.json, and tokenizer_config.json where it lists added tokens, which are more now.

    config: the first's tokenizer_config.json as it would be written. directory: of the first's model.
    """
    files = {FAST: encoded(union.value)}
    content = read_beside(directory, CONFIG, LIMIT) if isinstance(config, FileIdentity) and directory else config
    if isinstance(content, bytes) and union.added:
        value = read_json(content, CONFIG, unique=False)
        if isinstance(value, dict) and isinstance(value.get(LISTED), dict):
            more = {str(one["id"]): {key: one[key] for key in one if key != "id"} for one in union.added}
            files[CONFIG] = encoded({**value, LISTED: {**value[LISTED], **more}})
    return files
