"""What MkDocs calls while it builds the site: pages from outside of docs/, generated pages, and links between them.

A link is written as the repository needs it, relative to the file it stands in. Here it comes to lead to the page that
the file is on the site, or, of a file that is no page, to its text.
"""

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

sys.path.insert(0, str(Path(__file__).parent))

import api
import rooms

ROOT = api.ROOT
SHOWN = {".svg", ".png", ".json", ".html"}
"""Suffixes of files that a browser shows as what they are; others are shown as text."""
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Lists the pages by room."""
    docs = Path(config.docs_dir)
    pages = [file.relative_to(docs).as_posix() for file in docs.rglob("*.md")]
    config.nav = rooms.navigation(pages, api.navigation())
    config.watch.extend(str(ROOT / file) for file in rooms.ELSEWHERE.values())
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds what is not under docs/: pages of the repository's root, generated ones, and files that pages link to."""
    for page, source in rooms.ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    linked = {
        target
        for file in files.documentation_pages()
        for target in _targets(file.content_string, source_of(file.src_uri))
        if (ROOT / target).exists() and target not in rooms.ELSEWHERE.values() and not target.startswith("docs/")
    }
    for target in sorted(linked):
        files.append(File.generated(config, _as_file(target), content=_content(ROOT / target)))
    for page, text in api.pages():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001  # called by name
    """Turns links between files of the repository into links between pages of the site."""
    here = page.file.src_uri
    source = source_of(here)

    def as_here(link: re.Match[str]) -> str:
        target = _joined(source, link[2])
        there = _page_of(target)
        if there is None or files.get_file_from_path(there) is None:
            return link[0]  # which the strict build then refuses
        return f"{link[1]}{get_relative_url(there, here)}{link[3]}"

    def outside_fences(text: str) -> str:
        parts = _FENCE.split(text)
        fences = [*_FENCE.findall(text), ""]
        return "".join(_LINK.sub(as_here, part) + fence for part, fence in zip(parts, fences, strict=True))

    if not page.file.generated_by or here in rooms.ELSEWHERE:
        markdown = outside_fences(markdown)
    return markdown.replace('<div dir="rtl">', '<div dir="rtl" lang="ar" markdown>')


def on_post_page(output: str, page: Any, config: Any) -> str:  # noqa: ARG001  # called by name
    """Gives the dialog of the search a name, which the theme leaves out and a screen reader says."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )


def source_of(page: str) -> str:
    """The file of the repository that a page is made of."""
    return rooms.ELSEWHERE.get(page, f"docs/{page}")


def _joined(source: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _targets(text: str, source: str) -> set[str]:
    return {_joined(source, target) for _, target, _ in _LINK.findall(_FENCE.sub("", text))}


def _page_of(target: str) -> str | None:
    """Where the site has a file of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    for page, source in rooms.ELSEWHERE.items():
        if target == source:
            return page
    return _as_file(target) if (ROOT / target).exists() else None


def _content(path: Path) -> bytes:
    """What a file holds, or the names of a folder's files."""
    if path.is_file():
        return path.read_bytes()
    names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    return "\n".join([*sorted(names), ""]).encode()


def _as_file(target: str) -> str:
    return f"files/{target}" if Path(target).suffix in SHOWN else f"files/{target}.txt"
