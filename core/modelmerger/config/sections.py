"""The top-level keys of a config: the core's, and the sections that plugins obey."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelmerger.config.strict_attrs import structure
from modelmerger.hooks.plugins import Plugin
from modelmerger.values.errors import ConfigError, PluginError, Problem
from modelmerger.values.sections import Section

CORE_KEYS = ("strategy", "models", "base_model", "output_path", "options", "validation")


def sections_of(plugins: Iterable[Plugin]) -> list[Section]:
    """The sections that plugins declare. Raises `PluginError` for one that is declared twice, or is a key of the core."""
    owners = dict.fromkeys(CORE_KEYS, "the core")
    found = []
    for plugin in plugins:
        for section in plugin.sections:
            if section.name in owners:
                both = f"{owners[section.name]} and by {plugin.provider}"
                raise PluginError(f"section '{section.name}' is declared twice: by {both}; switch one of them off.")
            owners[section.name] = str(plugin.provider)
            found.append(section)
    return found


def read_sections(given: Mapping[str, Any], sections: Sequence[Section], problems: list[Problem]) -> dict[str, Any]:
    """What the config says in each section; None where it says nothing, or something wrong (then `problems` grows)."""
    return {section.name: given_or_none(given.get(section.name), section, problems) for section in sections}


def given_or_none(given: Any, section: Section, problems: list[Problem]) -> Any:
    """An instance of the section's class; None where nothing is given, or where it is wrong (then `problems` grows)."""
    if given is None or given == {}:
        return None
    try:
        return structure(given, section.options, section.name)
    except ConfigError as error:
        problems += error.problems
        return None


def needs_base(strategy: str, sections: Iterable[Section]) -> Problem:
    """What is wrong with a config without a base model whose strategy needs one."""
    hints = "".join(f"; {section.brings_base}" for section in sections if section.brings_base)
    message = f"{strategy} needs base_model. Give the path of the model that the others were tuned from{hints}"
    return Problem(message, "config")
