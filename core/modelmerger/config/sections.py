"""The top-level keys of a config: those of the core, and the sections that plugins bring."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelmerger.config.strict_attrs import structure
from modelmerger.hooks.plugins import Plugin
from modelmerger.values.errors import ConfigError, PluginError, Problem
from modelmerger.values.sections import Section

CORE_KEYS = ("strategy", "models", "base_model", "merges", "output_path", "options", "validation")
INNER_KEYS = ("strategy", "models", "base_model", "options")
"""Those of a merge within a merge."""


def as_written(sections: Iterable[str]) -> list[str]:
    """The keys of a config with these sections, in the order in which a config is written."""
    return [*CORE_KEYS[:-1], *sections, CORE_KEYS[-1]]


def sections_of(plugins: Iterable[Plugin]) -> list[Section]:
    """The sections that plugins declare. Raises `PluginError` for one declared twice, or that is a key of the core."""
    owners = dict.fromkeys(CORE_KEYS, "the core")
    found = []
    for plugin in plugins:
        for section in plugin.sections:
            if section.name in owners:
                both = f"{owners[section.name]} and by {plugin.provider}"
                cure = f"rename it in {plugin.provider}" if section.name in CORE_KEYS else "switch one of them off"
                raise PluginError(f"section '{section.name}' is declared twice: by {both}; {cure}.")
            owners[section.name] = str(plugin.provider)
            found.append(section)
    return found


def read_sections(given: Mapping[str, Any], sections: Sequence[Section], problems: list[Problem]) -> dict[str, Any]:
    """The value of each section; None where it is not given, or wrong, which `problems` gets."""
    return {section.name: read_section(given.get(section.name), section, problems) for section in sections}


def read_section(given: Any, section: Section, problems: list[Problem]) -> Any:
    """An instance of the section's class; None where it is not given, or wrong, which `problems` gets."""
    if given is None or given == {}:
        return None
    try:
        return structure(given, section.options, section.name)
    except ConfigError as error:
        problems += error.problems
        return None


def missing_base(strategy: str, sections: Iterable[Section]) -> Problem:
    """The problem of a config that has no base model though its strategy needs one."""
    hints = "".join(f"; {section.brings_base}" for section in sections if section.brings_base)
    message = f"{strategy} needs base_model. Give the path of the model that the others were tuned from{hints}"
    return Problem(message, "config")
