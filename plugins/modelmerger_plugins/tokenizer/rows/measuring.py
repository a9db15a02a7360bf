"""What is to be measured of tokenizers whose vocabularies differ: an inquiry for a process of its own."""

from collections.abc import Mapping, Sequence

from modelmerger import Inquiry

from modelmerger_plugins.chat_templates import encoded
from modelmerger_plugins.tokenizer.code_lines import CODE
from modelmerger_plugins.tokenizer.rows.matching import Matching
from modelmerger_plugins.tokenizer.vocabularies import FAST

FUNCTION = "modelmerger_plugins.tokenizer.fertility:measured"
MOST = 256
"""Lines of a label that are measured."""
ALONE = {"TOKENIZERS_PARALLELISM": "false"}


def inquiries(matching: Matching, texts: Mapping[str, Sequence[str]]) -> list[Inquiry]:
    """One, or none where the merged model's tokenizer is in no tokenizer.json. texts: label → lines."""
    files: dict[int, tuple[str, list[str]]] = {}
    for model in matching.models:
        if model.directory is not None and model.file == FAST:  # equal files have one and the same mapping
            files.setdefault(id(model.tokens), (str(model.directory), []))[1].append(model.checkpoint.name)
    source = matching.models[matching.source]
    if source.directory is None or source.file != FAST:
        return []
    union = matching.union
    own = source.tokens or {}
    lines = {label: list(group)[:MOST] for label, group in texts.items()}
    argument = {
        "files": [[directory, names] for directory, names in files.values()],
        "source": source.checkpoint.name,
        "union": None if union is None else encoded(union.value).decode(),
        "imported": [] if union is None else [row for token, row in union.tokens.items() if token not in own],
        "texts": {"code": CODE, **lines},
    }
    return [Inquiry(FUNCTION, argument, "into how many tokens words are cut", environment=ALONE)]
