"""Rows B10 to B16 of the list of bad inputs, through the command line: config files of models, tokenizers, and of the merge."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CONFIG, write_model
from inputs.refusing import weighted
from inputs.watching import at_once, watched
from modelmerger import MergeConfig, merge, shown

Refused = Callable[..., SimpleNamespace]
Command = Callable[..., SimpleNamespace]

HOSTILE_CONFIG = {
    **CONFIG,
    "auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "org/evil--configuration_evil.Evil"},
    "trust_remote_code": True,
    "_attn_implementation": "org/evil",
    "_attn_implementation_internal": "org/evil",
    "attn_implementation": "org/evil:attention",
    "experts_implementation": "org/evil",
    "custom_pipelines": {"evil": {"impl": "evil.Pipeline"}},
    "text_config": {"auto_map": {"AutoConfig": "evil.Evil"}, "hidden_size": 16, "_attn_implementation_autoset": True},
    "parts": [{"trust_remote_code": True, "kept": 1}],
}
CODE = "import pathlib\npathlib.Path(__file__).with_name('executed').touch()\n"


def test_nothing_that_a_config_names_is_imported_and_the_merged_config_cannot_name_it(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """B10."""
    (models.a / "config.json").write_text(json.dumps(HOSTILE_CONFIG))
    for name in ("modeling_evil.py", "configuration_evil.py", "evil.py"):
        (models.a / name).write_text(CODE)

    with watched() as seen:
        report = merge(MergeConfig(**config))

    assert (seen.network, seen.processes, seen.code_in(models.folder)) == ([], [], [])
    assert not [name for name in seen.imported if "evil" in name]
    assert not (models.a / "executed").exists()
    written = json.loads((models.output / "config.json").read_text())
    kept = {"text_config": {"hidden_size": 16}, "parts": [{"kept": 1}]}
    assert written == {**CONFIG, **kept}
    (warning,) = [note for note in report.notes if note.severity == "warning"]
    assert str(warning).startswith(f"{shown(str(models.a / 'config.json'))}: _attn_implementation, ")
    for key in ("auto_map", "trust_remote_code", "attn_implementation", "experts_implementation", "custom_pipelines"):
        assert key in warning.message


def test_what_is_left_out_of_the_config_is_reported_by_the_command(
    models: SimpleNamespace, config: dict[str, Any], command: Command
) -> None:
    """B10."""
    (models.a / "config.json").write_text(json.dumps({**CONFIG, "auto_map": {"AutoConfig": "evil.Evil"}}))
    path = models.folder / "merge.json"
    path.write_text(json.dumps(config))

    for name in ("check", "merge"):
        result = command(name, path)
        assert result.status == 0
        (warning,) = [line for line in result.err.splitlines() if line.startswith("warning: ")]
        assert "auto_map can make a loader run code, and is left out" in warning
    notes = json.loads((models.output / "modelmerger.json").read_text())["notes"]
    assert [note["severity"] for note in notes if "auto_map" in note["message"]] == ["warning"]


EXPLODING = "{% for a in range(10**9) %}{% for b in range(10**9) %}{{ ''.__class__.__mro__ }}{% endfor %}{% endfor %}"


def test_a_tokenizer_is_copied_and_never_executed_or_rendered(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B11."""
    files = {
        "tokenizer_config.json": json.dumps(
            {"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}, "chat_template": EXPLODING}
        ),
        "tokenizer.json": '{"model": "none"}',
        "chat_template.jinja": EXPLODING,
        "special_tokens_map.json": '{"pad_token": "\\ud800"}',
    }
    for name, text in files.items():
        (models.a / name).write_text(text)
    for name in ("tokenization_evil.py", "vocab.py", "vocab.PY", "vocab.pkl", "tokenizer.py"):
        (models.a / name).write_text(CODE)

    with at_once(), watched() as seen:
        merge(MergeConfig(**config))

    assert (seen.network, seen.processes, seen.code_in(models.folder), seen.unpickled) == ([], [], [], [])
    assert json.loads((models.output / "tokenizer_config.json").read_text()) == {"chat_template": EXPLODING}
    del files["tokenizer_config.json"]  # made anew, without what names code
    assert {name: (models.output / name).read_text() for name in files} == files
    assert not [path for path in models.output.rglob("*") if path.suffix.lower() in (".py", ".pkl")]
    assert "tokenization_evil" not in sys.modules


YAML = "strategy: weighted\nmodels:\n- path: {path}\n"
ALIAS_BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ("options: !!python/object/apply:os.system [touch executed]\n", "line 4, column 10"),
        ("options: !!python/name:os.system\n", "line 4, column 10"),
        (ALIAS_BOMB, "more than 100,000 keys and values"),
        ("a: &a [*a]\n", "line 4, column 4"),
        ("options: " + "[" * 5000 + "]" * 5000 + "\n", "line 4"),
        ("options: {a: " * 3000, "line 4"),
        ("wieght: 1\n", "unknown key 'wieght'"),
        ("options: {scaling_factr: 1}\n", "unknown key 'scaling_factr'"),
        ("strategy: slerp\n", "line 4, column 1"),
        ("options: {weight_decay: .nan}\n", "line 4, column 25"),
        ("options: {weight_decay: .inf}\n", "line 4, column 25"),
        ("options: {weight_decay: 1e999}\n", "line 4, column 25"),
        ("options: {weight_decay: 1.0}\n", "must be in [0, 1), got 1.0"),
        ("options: {seed: 36893488147419103232}\n", "line 4, column 17"),
    ],
    ids=lambda value: value[:30].strip(),
)
def test_a_hostile_config_is_refused_with_its_place(
    models: SimpleNamespace, command: Command, monkeypatch: pytest.MonkeyPatch, addition: str, words: str
) -> None:
    """B13, B14."""
    monkeypatch.chdir(models.folder)
    path = models.folder / "merge.yaml"
    path.write_text(YAML.format(path=models.a) + addition)

    with at_once(), watched() as seen:
        result = command("merge", path, "--output", models.output)

    assert (result.status, result.out) == (2, "")
    assert "Traceback" not in result.err
    lines = result.err.splitlines()
    assert all(line.startswith("error: ") and len(line) <= 307 for line in lines)
    assert words in lines[0]
    assert not models.output.exists()
    assert (seen.processes, seen.network, seen.code_in(models.folder)) == ([], [], [])
    assert not (models.folder / "executed").exists()


@pytest.mark.parametrize("kind", ["100 MB", "fifo", "directory", "missing", "binary"])
def test_a_config_that_is_no_config_file_is_refused_at_once(
    models: SimpleNamespace, command: Command, kind: str
) -> None:
    """B13."""
    path = models.folder / "merge.yaml"
    if kind == "100 MB":
        path.touch()
        os.truncate(path, 100 << 20)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)))

    with at_once():
        result = command("merge", path, "--output", models.output)

    assert result.status == 2
    (line,) = result.err.splitlines()
    assert line.startswith(f"error: {shown(str(path))}: ")


@pytest.mark.parametrize(
    "path",
    ["./absent", "/absent/model", "../absent", "~/absent", "~nobody-of-this-name/model", "absent.bin", "a/b/c"],
)
def test_a_missing_path_is_refused_without_network(refused: Refused, models: SimpleNamespace, path: str) -> None:
    """B15, D6."""
    refusal = refused(weighted(models.a, path))

    assert refusal.text == f"{shown(path)}: does not exist. Check the path."


@pytest.mark.parametrize("path", ["absent", "x" * 5000])
def test_a_missing_name_without_an_organisation_is_no_hub_id(
    refused: Refused, models: SimpleNamespace, path: str
) -> None:
    """B15, D6."""
    refusal = refused(weighted(models.a, path))

    assert refusal.text == f"{shown(path)}: does not exist. Check the path; a model on the Hub is given as org/name."


@pytest.mark.parametrize("path", ["org/name", "meta-llama/Llama-3.2-1B@main"])
def test_a_hub_id_is_refused_offline_without_network(refused: Refused, models: SimpleNamespace, path: str) -> None:
    """B15, D6."""
    refusal = refused(weighted(models.a, path))

    assert refusal.text == (
        f"{path}: is not on this disk, nor whole in the Hub's cache, and the Hub cannot be reached "
        "(HF_HUB_OFFLINE is set). Run it once with a connection, or give a directory."
    )


def test_every_missing_path_has_a_line_of_its_own(refused: Refused) -> None:
    """B15, D5."""
    assert len(refused(weighted("./one", "./two", base_model="./three"), lines=3).text.splitlines()) == 3


@pytest.mark.parametrize("path", ["a\0b", "\udcff", "./\x1b[2J", "\n"])
def test_a_path_that_no_file_system_takes_is_refused(models: SimpleNamespace, path: str) -> None:
    """B15, B17: such a path can only come from Python."""
    from modelmerger import InputError

    with pytest.raises(InputError, match="does not exist") as refusal:
        merge(MergeConfig(**weighted(models.a, path, output_path=str(models.output))))
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "claims",
    [
        {"num_hidden_layers": 10**7},
        {"vocab_size": 2**40},
        {"text_config": {"num_hidden_layers": 10**7}},
        {"parts": [{"vocab_size": 1e15}]},
        {"n_layer": 10**7},
    ],
    ids=str,
)
def test_a_config_that_claims_more_than_the_weights_could_fill_is_refused(
    models: SimpleNamespace, refused: Refused, claims: dict[str, Any]
) -> None:
    """B16: also when all models claim the same."""
    text = json.dumps({**CONFIG, **claims})
    for folder in (models.a, models.b):
        (folder / "config.json").write_text(text)

    refusal = refused(weighted(models.a, models.b), lines=2)

    first, second = refusal.text.splitlines()
    assert first.startswith(f"{shown(str(models.a / 'config.json'))}: ")
    assert second.startswith(f"{shown(str(models.b / 'config.json'))}: ")
    assert "and the weights are 7 tensors of 1,817 numbers" in first


def test_a_config_whose_layers_share_their_weights_is_accepted(models: SimpleNamespace, command: Command) -> None:
    """B16: more layers than tensors are no claim too many (ALBERT, Zamba)."""
    for folder in (models.a, models.b):
        (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 48}))
    path = models.folder / "merge.json"
    path.write_text(json.dumps(weighted(models.a, models.b)))

    assert command("check", path).status == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not sound JSON"),
        ("[]", "is not a JSON object"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('{"a": [{"b": 1, "b": 1}]}', "the key 'b' is given twice"),
        ('{"a": ' + "9" * 5000 + "}", "is not sound JSON"),
        ('{"a": ' * 200 + "1" + "}" * 200, "is nested more than 100 levels deep"),
        ('{"a": ' + "[" * 900 + "]" * 900 + "}", "is nested more than 100 levels deep"),
        ('{"a": ' + "[" * 200_000, "is nested more than 100 levels deep"),
        ('{"\x1b[2J": 1, "\x1b[2J": 1}', "is not sound JSON"),
        ("\xff\xfe\x00", "is not sound JSON"),
    ],
    ids=range(10),
)
def test_a_config_json_that_is_none_is_refused(
    models: SimpleNamespace, refused: Refused, text: str, words: str
) -> None:
    """B16."""
    (models.b / "config.json").write_bytes(text.encode("latin-1"))

    refusal = refused(weighted(models.a, models.b))

    assert refusal.text.startswith(f"{shown(str(models.b / 'config.json'))}: ")
    assert words in refusal.text


def test_a_config_json_larger_than_any_is_refused_unread(models: SimpleNamespace, refused: Refused) -> None:
    """B16."""
    os.truncate(models.b / "config.json", 10 << 30)

    assert "more than the 16,777,216 allowed" in refused(weighted(models.a, models.b)).text


def test_half_a_surrogate_pair_passes_through_a_config(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B16: as JSON has it, and UTF-8 has not."""
    (models.a / "config.json").write_text('{"c": "\\ud800 \\ud83d\\ude00", "d": "سلام"}')
    (models.b / "config.json").unlink()

    merge(MergeConfig(**config))

    text = (models.output / "config.json").read_text(encoding="utf-8")
    assert [line.strip() for line in text.splitlines()[1:-1]] == ['"c": "\\ud800 😀",', '"d": "سلام"']


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", '{"model": {"vocab": [[]]}}', '{"model": {"vocab": 3}}', "{", "\0"]
)
def test_a_tokenizer_of_an_unknown_form_is_a_warning(models: SimpleNamespace, command: Command, text: str) -> None:
    """B11: compared as far as it can be."""
    (models.a / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    (models.b / "tokenizer.json").write_text(text)
    path = models.folder / "merge.json"
    path.write_text(json.dumps(weighted(models.a, models.b)))

    result = command("check", path)

    assert result.status == 0
    where = shown(str(models.b / "tokenizer.json"))
    (warning,) = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert warning == f"warning: {where}: cannot be compared with that of 'a', whose tokenizer is taken."


def test_an_adapter_is_refused_and_not_opened(models: SimpleNamespace, refused: Refused) -> None:
    """B12: what it names is neither imported nor looked for; more in the tests of the plugin."""
    folder = models.folder / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        '{"auto_mapping": {"parent_library": "evil"}, "peft_type": "evil.Evil"}'
    )
    (folder / "adapter_model.bin").write_bytes(b"")

    refusal = refused(weighted(models.a, folder))

    assert "is an adapter of the kind 'evil.Evil', which cannot be merged" in refusal.text
    assert [Path(opened).name for opened in refusal.seen.opened_in(folder)] == ["adapter_config.json"]


@pytest.mark.parametrize("output", ["~nobody-of-this-name/out", "absent/such/out"])
def test_an_output_below_a_folder_that_is_not_there_is_refused(
    models: SimpleNamespace, command: Command, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """A16, as a path of an unknown user is one."""
    monkeypatch.chdir(models.folder)
    path = models.folder / "merge.json"
    path.write_text(json.dumps(weighted(models.a, models.b, output_path=output)))

    for asked in ("merge", "check", "plan"):
        result = command(asked, path)

        assert result.status == 4
        assert "does not exist. Make it first." in result.err


def test_a_directory_without_weights_says_so(models: SimpleNamespace, refused: Refused) -> None:
    folder = write_model(models.folder / "empty", {"a": models.tensors["a"]["model.norm.weight"]})
    (folder / "model.safetensors").unlink()

    assert refused(weighted(models.a, folder)).text == (
        f"{shown(str(folder))}: has no safetensors weights. Give the directory that holds model.safetensors or its shards."
    )


def test_a_file_of_another_kind_says_so(models: SimpleNamespace, refused: Refused) -> None:
    path: Path = models.folder / "model.gguf"
    path.write_bytes(b"GGUF")

    refusal = refused(weighted(models.a, path))

    assert "is a GGUF file" in refusal.text
    assert refusal.seen.opened_in(path) == []
