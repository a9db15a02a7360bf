"""Special tokens that a chat template writes, and that the merged vocabulary lacks."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from modelmerger import InputError, Problem, shown

from modelmerger_plugins.chat_templates import DEFAULT, templates_in, templates_of
from modelmerger_plugins.tokenizer.options import Options, Sources

if TYPE_CHECKING:
    from modelmerger_plugins.tokenizer.rows.matching import Matching

_SPECIAL = r"<[^<>\s]{1,64}>|\[/?[A-Z_]{2,24}\]"
EXAMPLES = 3


def problems_with_template_tokens(sources: Sources, options: Options, matching: "Matching") -> Iterator[Problem]:
    """A warning about tokens that a model has and the merged model cuts into pieces, so that no prompt reads as it was
    trained. sources: with the template that is written.
    """
    owners: dict[str, str] = {}
    for token in _written(sources, options):
        names = [model.checkpoint.name for model in matching.models if token in (model.tokens or {})]
        if names and token not in matching.tokens:
            owners[token] = names[0]
    if not owners:
        return
    named = ", ".join(shown(token, 30) for token in list(owners)[:EXAMPLES])
    more = f" and {len(owners) - EXAMPLES} more" if len(owners) > EXAMPLES else ""
    owner = Counter(owners.values()).most_common(1)[0][0]
    message = (
        f"the chat template writes {named}{more}, which the merged vocabulary lacks, so that prompts are not what "
        f"'{shown(owner, 30)}' was trained on. Set options.tokenizer_source to {shown(owner, 30)}, or to union."
    )
    yield Problem(message, sources.template.place, severity="warning")


def _written(sources: Sources, options: Options) -> list[str]:
    """What looks like a special token in the templates, each once."""
    templates: Mapping[str, str] = {DEFAULT: options.chat_template or ""}
    if options.chat_template is None:
        try:
            templates = templates_of(templates_in(sources.template.donor.directory))
        except InputError:  # said where the files are checked
            return []
    return list(dict.fromkeys(token for text in templates.values() for token in re.findall(_SPECIAL, text)))
