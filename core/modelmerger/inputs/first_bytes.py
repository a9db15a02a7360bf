"""What stands in the place of a file that somebody meant to have: told by its first bytes."""

import re

FIRST = 512
"""Bytes at the beginning of a file that are enough to know what it is."""

_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_POINTER = re.compile(rb"version https?://(?:git-lfs\.github\.com|hawser\.github\.com|git-media\.io)/")
_ANNEX = re.compile(rb"(?:\.\./)*(?:\.git)?/annex/objects/")
_BEFORE_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s|<!--.*?-->|<\?xml[^>]*\?>)*+", re.DOTALL)
_PAGE = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_SERVER_ERROR = re.compile(rb"<Error>\s*<Code>")
_HUB_ANSWER = re.compile(
    rb"(?:Entry not found|Repository not found|Revision not found|File not found|404: Not Found"
    rb"|Invalid (?:username or password|credentials)|Access to model .{1,200}? is restricted"
    rb"|Cannot access gated repo)\b"
)
_AGAIN = "download it again, signed in where the model needs that"


def what_it_is(first_bytes: bytes) -> str | None:
    """What a file is in truth, with what to do, to be said after "is"; None where its beginning says nothing of that
    kind.

    first_bytes: its first `FIRST` bytes, or all of a shorter one. Known are what git leaves in place of large files,
    what macOS keeps beside a file, and the answers of servers that were saved under a file's name.
    """
    if _POINTER.match(first_bytes):
        return "a Git LFS pointer and not the file itself. Run `git lfs pull` where it was cloned"
    if _ANNEX.match(first_bytes):
        return "a git-annex pointer and not the file itself. Run `git annex get` where it was cloned"
    if first_bytes.startswith(_APPLE_DOUBLE):
        return "an AppleDouble file, where macOS keeps what belongs to another file. Delete it"
    markup = first_bytes[_end(_BEFORE_MARKUP, first_bytes) :]
    if _PAGE.match(markup):
        return f"an HTML page, most likely what a server answered in place of the file: {_AGAIN}"
    if _SERVER_ERROR.match(markup) or _HUB_ANSWER.match(first_bytes):
        return f"what a server answered in place of the file: {_AGAIN}"
    return None


def _end(pattern: re.Pattern[bytes], text: bytes) -> int:
    found = pattern.match(text)
    return found.end() if found else 0
