"""Reads the recipes of mergekit as configs, and says what mergekit makes of them."""

from attrs import frozen
from modelmerger import ReadConfig, hookimpl

from modelmerger_plugins.mergekit_recipes.documents import looks_like_one


@frozen(kw_only=True)
class ReadOptions:
    """What `--read` can say of a recipe."""

    intent: bool = False
    """Whether what the recipe means is done where mergekit would not read it; else the numbers are mergekit's."""


@hookimpl
def read_config(text: str, source: str, options: ReadOptions) -> ReadConfig | None:
    """The recipe as a config; None for a file that is no recipe."""
    if not looks_like_one(text):
        return None
    from modelmerger_plugins.mergekit_recipes.documents import read_documents
    from modelmerger_plugins.mergekit_recipes.reading import read_recipe

    documents = read_documents(text, source)
    return None if documents is None else read_recipe(documents, source, intent=options.intent)
