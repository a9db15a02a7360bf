"""What stands in the place of a file, told by its first bytes."""

import json
import struct

import pytest
from modelmerger.inputs.first_bytes import FIRST, what_it_is

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 988097824\n"
HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()

IN_PLACE = {
    "Git LFS": POINTER,
    "git lfs pull": b"version https://hawser.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "git annex get": b"/annex/objects/SHA256E-s988097824--4d4d.safetensors\n",
    "AppleDouble": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + b"\x00" * 40,
    "an HTML page": b"<!DOCTYPE html>\n<html><head><title>Sign in</title>",
    "HTML page": b"\xef\xbb\xbf\n <!-- a proxy's page -->\n<?xml version='1.0'?><HTML lang='en'>",
    "a server answered": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>',
    "signed in": b"Invalid username or password.",
    "in place of the file": b"Entry not found",
    "download it again": b"Access to model acme/gated is restricted. You must have access to it.",
}
FILES = {
    "a tokenizer": b'{"version": "1.0", "model": {"vocab": {"<html>": 0}}}',
    "merges": b"#version: 0.2\n< h\n",
    "a template": b"{% for m in messages %}<html>{{ m }}{% endfor %}",
    "a list of tokens": b"<unk>\n<s>\nheader\n",
    "a list of tags": b"<header>\n<bodyguard>\n",
    "weights": struct.pack("<Q", len(HEADER)) + HEADER + b"\0\0\0\0",
    "a sentencepiece model": b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02",
    "an empty file": b"",
    "one byte": b"x",
    "a text": b"Entries not found anywhere",
    "much white space": b" " * FIRST,
}


@pytest.mark.parametrize("word", IN_PLACE)
def test_what_stands_in_the_place_of_a_file_is_named(word: str) -> None:
    assert word in (what_it_is(IN_PLACE[word][:FIRST]) or "nothing")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_taken_as_it_is(name: str) -> None:
    assert what_it_is(FILES[name]) is None
