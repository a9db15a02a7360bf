"""Hostile safetensors files, as data: what is in them, a part of the reason to refuse them, and the tensor to name."""

from attrs import frozen

EMPTY = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


@frozen
class HostileFile:
    """content: the whole file. reason: a part of the sentence. tensor: the name that goes with it, or None."""

    content: bytes
    reason: str
    tensor: str | None = None


def framed(header: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header; `length` is what its first eight bytes claim (default: the truth)."""
    raw = header.encode() if isinstance(header, str) else header
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(dtype: str = "F32", shape: str = "[1]", offsets: str = "[0,4]") -> str:
    """The JSON of a tensor's entry, of JSON parts."""
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


def _one(value: str, reason: str, size: int = 4) -> HostileFile:
    return HostileFile(framed(f'{{"a":{value}}}', bytes(size)), reason, "a")


def _two(first: str, second: str, size: int, reason: str, tensor: str | None) -> HostileFile:
    """Two tensors of bytes, with these data_offsets."""
    members = []
    for name, offsets in (("a", first), ("b", second)):
        begin, end = (int(part) for part in offsets.split(","))
        members.append(f'"{name}":{entry("U8", f"[{end - begin}]", f"[{offsets}]")}')
    return HostileFile(framed("{" + ",".join(members) + "}", bytes(size)), reason, tensor)


def _header(header: str | bytes, reason: str, data: bytes = b"") -> HostileFile:
    return HostileFile(framed(header, data), reason)


def _name(spelling: str, reason: str) -> HostileFile:
    return _header(f'{{"{spelling}":{EMPTY}}}', reason)


def _metadata(value: str, reason: str) -> HostileFile:
    return _header(f'{{"__metadata__":{value}}}', reason)


_LENGTHS = {
    "no bytes": HostileFile(b"", "the file is 0 bytes long"),
    "one byte": HostileFile(b"\x02", "the file is 1 byte long"),
    "seven bytes": HostileFile(bytes(7), "the file is 7 bytes long"),
    "a length alone": HostileFile((2).to_bytes(8, "little"), "claims 2 bytes, and the file has 0 left"),
    "length 0": HostileFile(framed("{}", length=0), "the header is 0 bytes long"),
    "length over the file": HostileFile(framed("{}", length=3), "claims 3 bytes, and the file has 2 left"),
    "length over the limit": HostileFile(
        framed("{}", length=100_000_001), "claims 100,000,001 bytes, and at most 100,000,000"
    ),
    "largest length": HostileFile(framed("{}", length=2**64 - 1), "18,446,744,073,709,551,615 bytes"),
    "length in big endian": HostileFile((2).to_bytes(8, "big") + b"{}", "and at most 100,000,000"),
}

_TEXTS = {
    "not UTF-8": _header(b'{"\xff":' + EMPTY.encode() + b"}", "not UTF-8: invalid start byte at byte 10 of the file"),
    "overlong UTF-8": _header(b'{"\xc0\x80":' + EMPTY.encode() + b"}", "not UTF-8"),
    "a surrogate in UTF-8": _header(b'{"\xed\xa0\x80":' + EMPTY.encode() + b"}", "not UTF-8"),
    "cut UTF-8": _header(b'{"\xe2\x82', "not UTF-8: unexpected end of data"),
    "UTF-16": _header('{"a":1}'.encode("utf-16"), "not UTF-8"),
    "a byte order mark": _header("\ufeff{}", r"begins with '\ufeff{}', and must begin with '{'"),
    "a leading space": _header(" {}", "begins with ' {}'"),
    "spaces only": _header(" " * 16, "must begin with '{'"),
    "a list": _header("[]", "begins with '[]'"),
    "a null": _header("null", "begins with 'null'"),
    "a string": _header('"{}"', "must begin with '{'"),
    "NULs for padding": _header("{}\0\0\0\0\0\0", r"goes on after its end, with '\x00"),
    "no-break spaces for padding": _header("{}\u00a0", r"goes on after its end, with '\xa0'"),
    "two objects": _header("{}{}", "goes on after its end, with '{}'"),
    "one brace": _header("{", "at character 1 it needs a string and has the header's end"),
    "a cut key": _header('{"a', "Unterminated string starting at at character 1"),
    "no value": _header('{"a"', "at character 4 it needs ':' and has the header's end"),
    "no colon": _header('{"a" 1}', "at character 4 it needs ':' and has ' 1}'"),
    "a key without quotes": _header(f"{{a:{EMPTY}}}", "at character 1 it needs a string and has 'a:{"),
    "single quotes": _header(f"{{'a':{EMPTY}}}", "at character 1 it needs a string"),
    "a comma at the end": _header(f'{{"a":{EMPTY},}}', "it needs a string and has '}'"),
    "a comma at the beginning": _header(f'{{,"a":{EMPTY}}}', 'it needs a string and has \',"a":'),
    "no comma": _header(f'{{"a":{EMPTY}"b":{EMPTY}}}', "it needs ',' or '}' and has '\"b\":"),
    "no end": _header(f'{{"a":{EMPTY}', "it needs ',' or '}' and has the header's end"),
    "a comment": _header(f'{{/**/"a":{EMPTY}}}', "it needs a string and has '/**/"),
    "an unknown escape": _header(f'{{"\\x41":{EMPTY}}}', "not JSON: Invalid \\escape at character 2"),
    "a cut escape": _header(f'{{"\\u00g0":{EMPTY}}}', "not JSON: Invalid \\uXXXX escape"),
    "a raw newline in a key": _header(f'{{"a\nb":{EMPTY}}}', "not JSON: Invalid control character at"),
    "a no-break space behind the brace": _header(f'{{\u00a0"a":{EMPTY}}}', r"it needs a string and has '\xa0"),
    "a no-break space behind a key": _header(f'{{"a"\u00a0:{EMPTY}}}', r"it needs ':' and has '\xa0:{"),
    "a no-break space behind a colon": HostileFile(framed(f'{{"a":\u00a0{EMPTY}}}'), r"its entry is '\xa0{", "a"),
    "a no-break space behind an entry": _header(
        f'{{"a":{EMPTY}\u00a0,"b":{EMPTY}}}', r"it needs ',' or '}' and has '\xa0,"
    ),
    "a no-break space behind a comma": _header(
        f'{{"a":{EMPTY},\u00a0"b":{EMPTY}}}', r"it needs a string and has '\xa0"
    ),
    "a no-break space behind the second entry": _header(
        f'{{"a":{EMPTY},"b":{EMPTY}\u00a0,"c":{EMPTY}}}', r"it needs ',' or '}' and has '\xa0,"
    ),
    "a no-break space behind the second comma": _header(
        f'{{"a":{EMPTY},"b":{EMPTY},\u00a0"c":{EMPTY}}}', r"it needs a string and has '\xa0"
    ),
    "a no-break space in an entry": HostileFile(
        framed(f'{{"a":{EMPTY.replace(":", chr(0xA0) + ":")}}}'), "is not JSON", "a"
    ),
    "a form feed between": _header(f'{{\f"a":{EMPTY}}}', r"it needs a string and has '\x0c"),
}

_TWICE = {
    "a tensor twice": HostileFile(framed(f'{{"a":{EMPTY},"a":{EMPTY}}}'), "names this tensor twice", "a"),
    "a tensor thrice": HostileFile(framed(f'{{"a":{EMPTY},"b":{EMPTY},"a":{EMPTY},"a":{EMPTY}}}'), "3 times", "a"),
    "a tensor twice, once in escapes": HostileFile(framed(f'{{"a":{EMPTY},"\\u0061":{EMPTY}}}'), "twice", "a"),
    "a tensor twice, elsewhere": HostileFile(
        framed(f'{{"a":{entry("U8", "[1]", "[0,1]")},"a":{entry("U8", "[1]", "[1,2]")}}}', bytes(2)), "twice", "a"
    ),
    "dtype twice": _one(
        entry().replace('"shape"', '"dtype":"F32","shape"'), "has 'dtype', 'dtype', 'shape', 'data_offsets'"
    ),
    "shape twice, no dtype": _one('{"shape":[1],"shape":[1],"data_offsets":[0,4]}', "more brackets than"),
    "metadata twice": _header('{"__metadata__":{},"__metadata__":{}}', "has '__metadata__' twice"),
    "metadata twice, once in escapes": _header(
        '{"__metadata__":{},"\\u005f_metadata__":{}}', "has '__metadata__' twice"
    ),
    "a metadata key twice": _metadata('{"a":"1","a":"1"}', "has the key 'a' twice"),
}

_METADATA = {
    "metadata null": _metadata("null", "'__metadata__' is 'null}', not an object"),
    "metadata a list": _metadata("[]", "not an object"),
    "metadata a string": _metadata('"pt"', "not an object"),
    "metadata with a number": _metadata('{"a":1}', "maps 'a' to '1}}', and only strings are allowed"),
    "metadata with a null": _metadata('{"a":null}', "only strings"),
    "metadata with an object": _metadata('{"a":{"b":"c"}}', "only strings"),
    "metadata like a tensor": _metadata(EMPTY, "maps 'shape' to '[0],"),
    "metadata like a tensor, after one": _header(f'{{"a":{EMPTY},"__metadata__":{EMPTY}}}', "maps 'shape' to '[0],"),
    "metadata not ended": _header('{"__metadata__":{"a":"b"', "it needs ',' or '}' and has the header's end"),
    "metadata with half a surrogate pair": _metadata('{"a":"\\ud83d"}', "half a surrogate pair"),
    "metadata key with half a surrogate pair": _metadata('{"\\ude00":"a"}', "half a surrogate pair"),
    "metadata with many keys": _metadata(
        "{" + ",".join(f'"{i:x}":""' for i in range(100_000)) + "}", "more than the 10,000 keys"
    ),
}

_ENTRIES = {
    "entry null": _one("null", "its entry is 'null}', not an object"),
    "entry a number": _one("0", "not an object"),
    "entry a list": _one('["F32",[1],[0,4]]', "not an object"),
    "entry empty": _one("{}", "has nothing, and must have dtype, shape and data_offsets"),
    "no dtype": _one('{"shape":[1],"data_offsets":[0,4]}', "has 'shape', 'data_offsets', and must have"),
    "one key more": _one(entry()[:-1] + ',"x":1}', "has 'dtype', 'shape', 'data_offsets', 'x', and must have"),
    "a key in capitals": _one(entry().replace("shape", "Shape"), "has 'dtype', 'Shape', 'data_offsets'"),
    "entry not JSON": _one(entry().replace("[1]", "[1,]"), "is not JSON"),
    "entry without a comma": _one(entry().replace(',"shape"', ' "shape"'), "is not JSON"),
    "entry longer than any can be": _one(
        entry().replace("[1]", f"[{' ' * 5000}1]"), "does not end within 4,096 characters"
    ),
    "a brace in a dtype": _one(entry("F32}"), "is not JSON"),
    "dtype unknown": _one(entry("F31"), "its dtype is 'F31', and safetensors has no such dtype"),
    "dtype in small letters": _one(entry("f32"), "its dtype is 'f32'"),
    "dtype of torch": _one(entry("float32"), "its dtype is 'float32'"),
    "dtype empty": _one(entry(""), "its dtype is ''"),
    "dtype with escape codes": _one(entry("\\u001b]F32"), r"its dtype is '\x1b]F32'"),
    "dtype a number": _one('{"dtype":32,"shape":[1],"data_offsets":[0,4]}', "its dtype is '32'"),
    "dtype a list, shape none": _one('{"dtype":["F32"],"shape":1,"data_offsets":[0,4]}', "its dtype is '['F32']'"),
    "dtype null": _one('{"dtype":null,"shape":[1],"data_offsets":[0,4]}', "its dtype is 'None'"),
    "dtype a list": _one('{"dtype":[],"shape":[1],"data_offsets":[0,4]}', "more brackets than"),
}

_SHAPES = {
    "shape null": _one(entry(shape="null"), "its shape is 'None', not a list of whole numbers"),
    "shape a number": _one(entry(shape="1"), "its shape is '1'"),
    "shape a string": _one(entry(shape='"[1]"'), "its shape is '[1]', not a list"),
    "shape negative": _one(entry(shape="[-1]"), "a number below 0"),
    "shape twice negative": _one(entry(shape="[-1,-1]"), "a number below 0"),
    "shape minus zero": _one(entry(shape="[-0]", offsets="[0,0]"), "a number below 0", 0),
    "shape a fraction": _one(entry(shape="[1.0]"), "its shape is '[1.0]'"),
    "shape with an exponent": _one(entry(shape="[1e0]"), "its shape is '[1.0]'"),
    "shape true": _one(entry(shape="[true]"), "its shape is '[True]'"),
    "shape of strings": _one(entry(shape='["1"]'), "not a list of whole numbers"),
    "shape nested": _one(entry(shape="[[1]]"), "more brackets than"),
    "shape NaN": _one(entry(shape="[NaN]"), "its shape is '[nan]'"),
    "shape infinite": _one(entry(shape="[Infinity]"), "its shape is '[inf]'"),
    "shape of enormous exponent": _one(entry(shape="[1e999999999]"), "its shape is '[inf]'"),
    "shape with a leading zero": _one(entry(shape="[01]"), "is not JSON"),
    "shape with a plus": _one(entry(shape="[+1]"), "is not JSON"),
    "shape in hexadecimal": _one(entry(shape="[0x1]"), "is not JSON"),
    "shape with an underscore": _one(entry(shape="[1_0]"), "is not JSON"),
    "shape in Arabic digits": _one(entry(shape="[١]"), "is not JSON"),
    "shape of 2**63": _one(entry(shape=f"[{2**63}]"), "not below 2**63"),
    "shape of 2**64": _one(entry(shape=f"[{2**64}]"), "not below 2**63"),
    "shape of 4,000 digits": _one(entry(shape=f"[{'9' * 4000}]"), "not below 2**63"),
    "shape of 100,000 digits": _one(entry(shape=f"[{'9' * 100_000}]"), "does not end within 4,096 characters"),
    "shape that overflows to 0": _one(
        entry(shape=f"[{2**32},{2**32}]", offsets="[0,0]"), "takes 2**63 bytes or more", 0
    ),
    "shape that overflows to 1": _one(entry(shape="[274177,67280421310721]"), "takes 2**63 bytes or more"),
    "bytes that overflow": _one(entry(shape=f"[{2**62 + 1}]"), "takes 2**63 bytes or more"),
    "bits that overflow": _one(entry("F64", f"[{2**60}]"), "takes 2**63 bytes or more"),
    "overflow beside a zero": _one(entry(shape=f"[{2**62},4,0]", offsets="[0,0]"), "takes 2**63 bytes or more", 0),
    "33 dimensions": _one(entry(shape=f"[{','.join('1' * 33)}]"), "has 33 dimensions, and at most 32"),
    "too few bytes": _one(entry(shape="[2]"), "F32 of shape '[2]' takes 8 bytes, and data_offsets 0 to 4 hold 4"),
    "too many bytes": _one(entry(shape="[]", offsets="[0,8]"), "takes 4 bytes, and data_offsets 0 to 8 hold 8", 8),
    "half a byte": _one(entry("F4", "[3]", "[0,1]"), "takes 12 bits, not a whole number of bytes", 1),
    "six bits": _one(entry("F6_E2M3", "[2]", "[0,1]"), "takes 12 bits", 1),
    "four bits counted as bytes": _one(entry("F4", "[4]", "[0,4]"), "takes 2 bytes, and data_offsets 0 to 4 hold 4"),
}

_OFFSETS = {
    "offsets null": _one(entry(offsets="null"), "its data_offsets are 'None', not two whole numbers"),
    "one offset": _one(entry(offsets="[4]"), "its data_offsets are '[4]'"),
    "three offsets": _one(entry(offsets="[0,4,8]"), "its data_offsets are '[0, 4, 8]'"),
    "offsets with a fraction": _one(entry(offsets="[0,4.0]"), "not two whole numbers"),
    "offsets with an exponent": _one(entry(offsets="[0,4e0]"), "not two whole numbers"),
    "offsets false": _one(entry(offsets="[false,4]"), "not two whole numbers"),
    "offset negative": _one(entry(offsets="[-4,0]"), "a number below 0"),
    "offset minus zero": _one(entry(offsets="[-0,4]"), "a number below 0"),
    "offsets backwards": _one(entry(offsets="[4,0]"), "begin at 4 and end before that, at 0"),
    "offset over the data": _one(entry(shape="[2]", offsets="[0,8]"), "end at 8, and the data at 4"),
    "offsets that overflow": _one(entry(offsets=f"[{2**64 - 4},{2**64}]"), "not below 2**63"),
}

_TILES = {
    "a hole at the beginning": _one(
        entry(offsets="[4,8]"), "the data from 0 to 4, just before this tensor, belong to no", 8
    ),
    "a hole in the middle": _two("0,2", "3,4", 4, "the data from 2 to 3", "b"),
    "trailing bytes": _two("0,2", "2,4", 5, "the tensors end at 4 of the data, and the data at 5", None),
    "data without a tensor": _header("{}", "the tensors end at 0 of the data, and the data at 3", b"abc"),
    "an overlap": _two("0,3", "2,4", 4, "it begins at 2, inside 'a', which ends at 3", "b"),
    "one place for two": _two("0,4", "0,4", 4, "it begins at 0, inside 'a'", "b"),
    "one inside another": _two("1,3", "0,4", 4, "it begins at 1, inside 'b'", "a"),
    "an empty one inside another": _two("0,4", "2,2", 4, "it begins at 2, inside 'a'", "b"),
    "an empty one in a hole": _two("0,2", "3,3", 4, "the data from 2 to 3", "b"),
    "an empty one behind the data": _two("0,4", "5,5", 4, "end at 5, and the data at 4", "b"),
}

_NAMES = {
    "name empty": _name("", "a tensor's name is empty"),
    "name with NUL": _name("a\\u0000b", r"control character, in 'a\x00b'"),
    "name with a newline": _name("a\\nb", r"control character, in 'a\nb'"),
    "name with escape codes": _name("\\u001b[2J", r"control character, in '\x1b[2J'"),
    "name with DEL": _name("a\x7f", r"control character, in 'a\x7f'"),
    "name with a C1 control": _name("a\x9b31m", r"control character, in 'a\x9b31m'"),
    "name with half a surrogate pair": _name("\\ud83d", r"half a surrogate pair, in '\ud83d'"),
    "name with the halves exchanged": _name("\\ude00\\ud83d", "half a surrogate pair"),
    "name of 1,025 bytes": _name("a" * 1025, "is 1,025 bytes long, and at most 1,024 are allowed"),
    "name of 10 kB": _name("../" * 3413, "is 10,239 bytes long"),
    "name of 1,026 bytes in 513 letters": _name("ط" * 513, "is 1,026 bytes long"),
}

_MEGABYTES = {
    "brackets": _one("[" * 1_000_000, "not an object"),
    "brackets in a shape": _one('{"dtype":"F32","shape":' + "[" * 1_000_000, "more brackets than"),
    "empty lists in a shape": _one(entry(shape="[" + "[]," * 330_000 + "[]]"), "more brackets than"),
    "numbers in a shape": _one(entry(shape="[" + "257," * 250_000 + "1]"), "does not end within 4,096 characters"),
    "objects in objects": _one('{"a":' * 200_000, "more brackets than"),
    "objects in metadata": _metadata('{"a":' * 200_000, "only strings are allowed"),
    "tiny members": HostileFile(
        framed("{" + ",".join(f'"{i:x}":0' for i in range(100_000)) + "}"), 'its entry is \'0,"1":0', "0"
    ),
    "one name": _name("a" * 1_000_000, "is 1,000,000 bytes long"),
    "one name of wide characters": _name("😀" * 250_000, "is 1,000,000 bytes long"),
    "one name of escapes": _name("\\n" * 500_000, "control character"),
    "one name of escaped surrogates": _name("\\ud83d\\ude00" * 80_000, "is 320,000 bytes long"),
    "spaces": _header("{" + " " * 1_000_000, "has the header's end"),
    "spaces in an entry": _one("{" + " " * 1_000_000, "does not end within"),
    "quotes": _header('{"' + '\\"' * 500_000, "Unterminated string"),
    "one tensor many times": HostileFile(
        framed("{" + ",".join([f'"a":{EMPTY}'] * 19_000) + "}"), "names this tensor 19,000 times", "a"
    ),
    "metadata of wide characters": _metadata(
        "{" + ",".join(f'"{chr(0x100 + i % 1900)}{i // 1900:x}":"Āa"' for i in range(70_000)) + "}",
        "more than the 10,000 keys",
    ),
}

HOSTILE = (
    _LENGTHS
    | _TEXTS
    | _TWICE
    | _METADATA
    | _ENTRIES
    | _SHAPES
    | _OFFSETS
    | _TILES
    | _NAMES
    | {f"a megabyte of {name}": file for name, file in _MEGABYTES.items()}
)
"""Every hostile file, by a name that says what is wrong with it."""
