"""A config file, whoever's it is: plugins are asked first, then it is read as one of ours."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from modelmerger.config.documents.document import decode_document, parse_named, plain_document, read_bytes
from modelmerger.config.strict_attrs import structure, unknown_keys
from modelmerger.hooks.plugins import Plugin, option_names
from modelmerger.hooks.reading import load_readers
from modelmerger.hooks.registry import Registry
from modelmerger.values.errors import ConfigError, Problem, raise_errors
from modelmerger.values.read_config import ReadConfig
from modelmerger.values.text import shown

READ = "--read"
"""Where options of a reader are given, for messages."""


@frozen(eq=False)
class GivenConfig:
    """A config as a file gives it, with what its keys do not say."""

    data: dict[str, Any]
    """Plain data in our keys."""
    notes: tuple[Problem, ...] = ()
    """Warnings and notes of the plugin that read it."""
    reader: str = ""
    """That plugin and the file, for messages; empty for a config of our own."""
    file: str = ""
    """Where it was read from; empty for one that was not."""
    text: str = ""
    """What stands there, if it is in our keys."""
    changed: tuple[str, ...] = ()
    """Keys whose values were given elsewhere."""

    @contextlib.contextmanager
    def blaming(self) -> Iterator[None]:
        """What is wrong with the config, as it is found in here, says in which line, or which plugin read it."""
        try:
            yield
        except ConfigError as error:
            error.problems = tuple(p if p in self.notes else self._placed(p) for p in error.problems)
            error.args = error.problems
            raise

    def _placed(self, problem: Problem) -> Problem:
        place = self.reader
        if self.text and not problem.where.startswith(self.changed or "\n"):
            from modelmerger.config.documents.positions import line_of

            line = line_of(problem, self.text)
            near = os.path.relpath(self.file)
            file = self.file if near.startswith(os.pardir) else near
            place = f"{shown(file)}:{line}" if line is not None else ""
        return evolve(problem, message=f"{problem.message} ({place})") if place else problem


def read_config(path: Path, registry: Registry, told: Mapping[str, Any] | None = None) -> GivenConfig:
    """Reads a config file. told: options for whichever reader takes it. Raises `ConfigError`, and `PluginError`.

    Readers are asked in the order of first results. Without any, nothing is imported for them.
    """
    told, providers = told or {}, registry.of_kind("reader")
    content = read_bytes(path)
    if providers:
        text, readers = decode_document(content, source=str(path)), load_readers(providers)
        for plugin in readers.plugins:
            options, problems = _options(plugin, told)
            found = readers.ask(plugin, text, str(path), options)
            if found is not None:
                raise_errors(problems, ConfigError)
                return _checked(found, plugin, path)
    data = parse_named(content, path)
    if told:
        asked = (
            f"of the readers {', '.join(p.name for p in providers)} none took it"
            if providers
            else "no reader is installed"
        )
        nobody = f"this is read as a config of our own, as {asked}. Leave it out"
        raise ConfigError(*(Problem(f"nothing reads '{key}' ({READ}): {nobody}", str(path)) for key in told))
    return GivenConfig(data, file=os.path.abspath(path), text=decode_document(content, source=str(path)))


def _options(plugin: Plugin, told: Mapping[str, Any]) -> tuple[Any, Sequence[Problem]]:
    """A reader's options, and what is wrong with them.

    Then they are its defaults, and it is asked all the same: only the reader that takes the file must understand them.
    """
    if plugin.read_options is None:
        return None, _unknown(plugin, told, [])
    known = option_names(plugin.read_options)
    problems = _unknown(plugin, told, known)
    try:
        return structure({key: told[key] for key in told if key in known}, plugin.read_options, READ), problems
    except ConfigError as error:
        wrong = [evolve(p, message=f"{p.message} (an option of {plugin.provider})") for p in error.problems]
        return plugin.read_options(), [*problems, *wrong]


def _unknown(plugin: Plugin, told: Mapping[str, Any], known: Sequence[str]) -> list[Problem]:
    has = f"{plugin.provider} reads this file, and knows {', '.join(known) or 'no options'}"
    return [evolve(p, message=f"{p.message} ({has})") for p in unknown_keys(told, known, READ)]


def _checked(found: ReadConfig, plugin: Plugin, path: Path) -> GivenConfig:
    given = GivenConfig({}, tuple(found.notes), f"so {plugin.provider} reads {shown(path, 60)}", os.path.abspath(path))
    raise_errors(given.notes, ConfigError)
    with given.blaming():
        return evolve(given, data=plain_document(found.config))
