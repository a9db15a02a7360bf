"""The chat template of another model, where that of the vocabulary has none."""

from typing import TYPE_CHECKING

from attrs import evolve
from modelmerger import InputError, Problem

from modelmerger_plugins.chat_templates import templates_in, templates_of
from modelmerger_plugins.tokenizer.options import Sources

if TYPE_CHECKING:
    from modelmerger_plugins.tokenizer.rows.matching import Matching


def with_template(sources: Sources, matching: "Matching | None") -> tuple[Sources, list[Problem]]:
    """The sources with a template, where an option does not decide, and what is to be said of that.

    Of models whose rows were matched, one lends its template to a source that has none, if no other has another one.
    """
    if matching is None or sources.decided & {"chat_template_from", "chat_template"}:
        return sources, []
    try:
        if templates_in(sources.tokenizer.donor.directory):
            return sources, []
        found = [(model, templates_of(templates_in(model.donor.directory))) for model in matching.checkpoints]
    except InputError:  # said where the files are checked
        return sources, []
    having = [(model, templates) for model, templates in found if templates]
    if not having:
        return sources, []
    names = " and ".join(f"'{model.name}'" for model, _ in having[:3])
    if any(templates != having[0][1] for _, templates in having):
        message = (
            f"has no chat template, and those of {names} differ, so the merged model gets none. "
            "Name one of them in options.chat_template_from."
        )
        return sources, [Problem(message, sources.tokenizer.place, severity="warning")]
    message = f"has no chat template; that of {names} is taken."
    return evolve(sources, template=having[0][0]), [Problem(message, sources.tokenizer.place, severity="note")]
