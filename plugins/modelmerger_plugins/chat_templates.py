"""Chat templates: where a model keeps them, and how one model's are written where another's would be."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from modelmerger import TEMPLATES_FOLDER, InputError, is_plain_path, list_directory, read_beside, read_json

CONFIG, CONFIG_LIMIT = "tokenizer_config.json", 64 << 20
KEY, DEFAULT = "chat_template", "default"
FILE, OF_PROCESSOR = "chat_template.jinja", "chat_template.json"
TEMPLATE_LIMIT = 16 << 20
PLACES = (CONFIG, FILE, OF_PROCESSOR)
"""Where chat templates may stand; with the file go further ones, in a folder."""


def templates_in(directory: Path | None) -> dict[str, dict[str, str]]:
    """Place → name of a template → its text. Raises `InputError` for what cannot be read."""
    if directory is None:
        return {}
    files = {} if (text := _text(directory, FILE)) is None else {DEFAULT: text}
    folder = directory / TEMPLATES_FOLDER
    if folder.is_dir() and not folder.is_symlink():
        for name in list_directory(folder):
            wanted = name.endswith(".jinja") and not name.startswith(".")
            text = _text(directory, f"{TEMPLATES_FOLDER}/{name}") if wanted else None
            if text is not None:
                files[name.removesuffix(".jinja")] = text
    found = {CONFIG: _named(_object(directory, CONFIG).get(KEY)), FILE: files}
    found[OF_PROCESSOR] = _named(_object(directory, OF_PROCESSOR).get(KEY))
    return {place: templates for place, templates in found.items() if templates}


def templates_of(places: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Name → text, as transformers takes them: files before the key of the config."""
    found: dict[str, str] = {}
    for place in (OF_PROCESSOR, CONFIG, FILE):
        found |= places.get(place, {})
    return found


def is_template(name: str) -> bool:
    """Whether a file holds nothing but templates."""
    return name in (FILE, OF_PROCESSOR) or name.startswith(f"{TEMPLATES_FOLDER}/")


def files_with(
    templates: Mapping[str, str], places: Collection[str], config: Mapping[str, Any] | None
) -> dict[str, bytes]:
    """The files that hold these templates, and no others, in these places.

    config: the content of tokenizer_config.json, whose templates are replaced; None where there is none.
    """
    if config is None:
        places = {*places, FILE} - {CONFIG}
    files: dict[str, bytes] = {}
    if config is not None:
        rest = {key: value for key, value in config.items() if key != KEY}
        files[CONFIG] = encoded(rest | ({KEY: _as_key(templates)} if CONFIG in places else {}))
    if OF_PROCESSOR in places and DEFAULT in templates:
        files[OF_PROCESSOR] = encoded({KEY: templates[DEFAULT]})
    if FILE in places:
        for name, text in templates.items():
            file = FILE if name == DEFAULT else f"{TEMPLATES_FOLDER}/{name}.jinja"
            if is_plain_path(file):
                files[file] = text.encode(errors="surrogatepass")
    return files


def encoded(value: Any) -> bytes:
    """JSON in UTF-8. Half a surrogate pair, which JSON allows and UTF-8 does not, stays an escape."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _as_key(templates: Mapping[str, str]) -> Any:
    if list(templates) == [DEFAULT]:
        return templates[DEFAULT]
    return [{"name": name, "template": text} for name, text in templates.items()]


def _named(value: Any) -> dict[str, str]:
    """A template, or several by name, as a config has them."""
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list):
        value = {one.get("name"): one.get("template") for one in value if isinstance(one, Mapping)}
    if not isinstance(value, Mapping):
        return {}
    return {name: text for name, text in value.items() if isinstance(name, str) and isinstance(text, str)}


def _object(directory: Path, name: str) -> Mapping[str, Any]:
    content = read_beside(directory, name, CONFIG_LIMIT)
    value = {} if content is None else read_json(content, str(directory / name), unique=False)
    return value if isinstance(value, Mapping) else {}


def _text(directory: Path, name: str) -> str | None:
    content = read_beside(directory, name, TEMPLATE_LIMIT)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{directory / name} is not UTF-8 ({error.reason}).") from error
