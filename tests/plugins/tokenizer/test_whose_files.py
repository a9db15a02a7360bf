"""Whose chat template, special tokens and generation settings the merged model has, and what is said of the others'."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CONFIG
from modelmerger import ConfigError, InputError, MergeConfig, ModelCompatibilityError, ModelMerger, merge
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
SOUND = {**CONFIG, "num_attention_heads": 4}
TURN = [{"role": "user", "content": "سلام"}]


def write_tokenizer(directory: Path, eos: str = "</s>", template: Any = None, word: str = "w", **saving: Any) -> None:
    vocabulary = {
        "<pad>": 0,
        "<s>": 1,
        "</s>": 2,
        "<unk>": 3,
        "<|im_end|>": 4,
        **{f"{word}{i}": i for i in range(5, 24)},
    }
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token=eos, unk_token="<unk>")
    made.chat_template = template
    made.save_pretrained(directory, **saving)


def generation(directory: Path, **settings: Any) -> None:
    (directory / "generation_config.json").write_text(json.dumps(settings))


@pytest.fixture(autouse=True)
def configs(models: SimpleNamespace) -> None:
    """Such as AutoTokenizer reads."""
    for directory in (models.a, models.b, models.base):
        (directory / "config.json").write_text(json.dumps(SOUND))


@pytest.fixture
def chat(models: SimpleNamespace, config: dict[str, Any]) -> dict[str, Any]:
    """Two chat models over a base that ends with another token and has no chat template."""
    write_tokenizer(models.base)
    generation(models.base, eos_token_id=2, transformers_version="5.0")
    for directory in (models.a, models.b):
        write_tokenizer(directory, "<|im_end|>", TEMPLATE)
        generation(directory, eos_token_id=[4, 2], do_sample=True, temperature=0.7, transformers_version="4.1")
    for directory, eos in ((models.base, 2), (models.a, 4), (models.b, 4)):
        text = json.dumps({**SOUND, "eos_token_id": eos, "bos_token_id": 1})
        (directory / "config.json").write_text(text)
    return config | {"strategy": "task_arithmetic", "base_model": str(models.base)}


def warnings(config: dict[str, Any]) -> list[str]:
    notes = ModelMerger(MergeConfig(**config)).check_compatibility()
    return [str(note) for note in notes if note.severity == "warning"]


def test_one_warning_names_what_differs_of_whom_and_the_options(chat: dict[str, Any]) -> None:
    (warning,) = warnings(chat)

    assert len(warning) <= 300
    for words in (
        "chat template, eos_token, eos_token_id",
        "'a', 'b'",
        "'base'",
        "chat_template_from",
        "generation_config_from",
    ):
        assert words in warning


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ({"temperature": 0.7}, "temperature of 'b': "),
        ({"eos_token_id": [2, 4]}, "eos_token_id of 'b': "),
        ({"eos_token_id": [2]}, None),
        ({"transformers_version": "3"}, None),
        ({}, None),
    ],
)
def test_generation_settings_that_only_one_model_has_are_named(
    models: SimpleNamespace, config: dict[str, Any], what: dict[str, Any], named: str | None
) -> None:
    generation(models.a, eos_token_id=2)
    generation(models.b, **what)

    found = warnings(config)

    assert [line.removeprefix("options: ")[: len(named or "")] for line in found] == ([named] if named else [])


def test_models_that_say_the_same_are_no_warning_wherever_they_say_it(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    write_tokenizer(models.a, template=TEMPLATE)
    write_tokenizer(models.b, template=TEMPLATE, save_jinja_files=False)
    assert (models.a / "chat_template.jinja").exists()
    assert not (models.b / "chat_template.jinja").exists()

    assert warnings(config) == []


def test_the_merged_model_stops_as_the_chosen_model_does(models: SimpleNamespace, chat: dict[str, Any]) -> None:
    chat["options"] = {"tokenizer_source": "a", "generation_config_from": "a"}

    report = merge(MergeConfig(**chat))

    assert [note for note in report.notes if note.severity == "warning"] == []
    made = AutoTokenizer.from_pretrained(models.output)
    assert (made.eos_token, made.chat_template) == ("<|im_end|>", TEMPLATE)
    assert GenerationConfig.from_pretrained(models.output).eos_token_id == [4, 2]
    written = json.loads((models.output / "config.json").read_text())
    assert (written["eos_token_id"], written["bos_token_id"]) == ([4, 2], 1)


@pytest.mark.parametrize("jinja", [True, False])
@pytest.mark.parametrize("donors_jinja", [True, False, None])
def test_a_template_goes_where_the_donor_keeps_its_own(
    models: SimpleNamespace, config: dict[str, Any], jinja: bool, donors_jinja: bool | None
) -> None:
    if donors_jinja is None:
        write_tokenizer(models.a)
    else:
        write_tokenizer(models.a, template={"default": "old", "tools": "old tools"}, save_jinja_files=donors_jinja)
    write_tokenizer(models.b, template={"default": TEMPLATE, "rag": "{{ 1 }}"}, save_jinja_files=jinja)
    config["options"] = {"chat_template_from": "b"}

    merge(MergeConfig(**config))

    as_file = jinja if donors_jinja is None else donors_jinja
    assert (models.output / "chat_template.jinja").exists() == as_file
    assert ("chat_template" in json.loads((models.output / "tokenizer_config.json").read_text())) == (not as_file)
    made = AutoTokenizer.from_pretrained(models.output)
    assert made.chat_template == {"default": TEMPLATE, "rag": "{{ 1 }}"}
    assert made.apply_chat_template(TURN, tokenize=False) == "<|im_start|>سلام<|im_end|>"
    assert {key: value for key, value in made.get_vocab().items() if value < 5}["<|im_end|>"] == 4


@pytest.mark.parametrize(
    ("templates", "due"),
    [(("x", "y", "y"), "y"), (("x", "y", "x"), "x"), (("x", "y"), "x"), ((None, "y"), "y"), ((None,), None)],
)
def test_the_commonest_template_is_the_first_of_those_that_most_models_have(
    models: SimpleNamespace, config: dict[str, Any], templates: tuple[str | None, ...], due: str | None
) -> None:
    paths = [models.a, models.b, models.base][: len(templates)]
    for path, template in zip(paths, templates, strict=True):
        write_tokenizer(path, template=template)
    config["models"] = [{"path": str(path)} for path in paths]
    config["options"] = {"chat_template_from": "commonest"}

    merge(MergeConfig(**config))

    assert AutoTokenizer.from_pretrained(models.output).chat_template == due


def test_a_template_of_a_processor_goes_where_the_donor_keeps_it(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    write_tokenizer(models.a)
    (models.a / "chat_template.json").write_text('{"chat_template": "old"}')
    write_tokenizer(models.b, template=TEMPLATE)
    config["options"] = {"chat_template_from": "b"}

    merge(MergeConfig(**config))

    assert json.loads((models.output / "chat_template.json").read_text()) == {"chat_template": TEMPLATE}
    assert not (models.output / "chat_template.jinja").exists()


def test_a_generation_config_comes_where_the_donor_has_none(models: SimpleNamespace, config: dict[str, Any]) -> None:
    generation(models.b, eos_token_id=4)
    (models.a / "config.json").write_text(json.dumps({**SOUND, "text_config": {"eos_token_id": 2, "bos_token_id": 9}}))
    config["options"] = {"generation_config_from": "b"}

    merge(MergeConfig(**config))

    assert json.loads((models.output / "generation_config.json").read_text()) == {"eos_token_id": 4}
    assert json.loads((models.output / "config.json").read_text())["text_config"] == {
        "eos_token_id": 4,
        "bos_token_id": 9,
    }


def test_the_first_model_and_the_base_can_be_named_by_their_part(models: SimpleNamespace, chat: dict[str, Any]) -> None:
    for choice, eos in (("first", "<|im_end|>"), ("base", "</s>"), ("b", "<|im_end|>")):
        chat["options"] = {"tokenizer_source": choice, "overwrite": True}
        merge(MergeConfig(**chat))
        assert json.loads((models.output / "tokenizer_config.json").read_text())["eos_token"] == eos


@pytest.mark.parametrize("option", ["tokenizer_source", "chat_template_from", "generation_config_from"])
def test_a_name_that_no_model_has_is_refused_with_the_names(config: dict[str, Any], option: str) -> None:
    config["options"] = {option: "c"}

    with pytest.raises(ConfigError, match=rf"options\.{option}: no model is called 'c'. Name one of: a, b."):
        merge(MergeConfig(**config))


def test_another_vocabulary_is_chosen_with_its_rows(models: SimpleNamespace, config: dict[str, Any]) -> None:
    write_tokenizer(models.a)
    write_tokenizer(models.b, word="v")
    config["options"] = {"tokenizer_source": "b"}

    merge(MergeConfig(**config))

    assert (models.output / "tokenizer.json").read_bytes() == (models.b / "tokenizer.json").read_bytes()


def test_a_vocabulary_of_which_no_file_says_the_rows_cannot_be_chosen(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    for directory, ranks in ((models.a, b"YQ== 0\nYg== 1\n"), (models.b, b"Yg== 0\nYQ== 1\n")):
        (directory / "qwen.tiktoken").write_bytes(ranks)
    config["options"] = {"tokenizer_source": "b"}

    with pytest.raises(ModelCompatibilityError, match="2 tokens stand for other rows of the embedding than in 'a'"):
        merge(MergeConfig(**config))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokenizer_source": "b"}, "has no tokenizer files"),
        ({"chat_template_from": "b"}, "has no chat template to take"),
        ({"generation_config_from": "b"}, "has no generation_config.json to take"),
    ],
)
def test_what_a_chosen_model_lacks_is_refused(
    models: SimpleNamespace, config: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    write_tokenizer(models.a)
    config["options"] = options

    with pytest.raises(InputError, match=words):
        merge(MergeConfig(**config))


def write_adapter(models: SimpleNamespace, base: str = "") -> Path:
    import torch
    from safetensors.torch import save_file

    adapter: Path = models.folder / "adapter"
    adapter.mkdir()
    name = "base_model.model.model.layers.0.mlp"
    save_file(
        {f"{name}.lora_A.weight": torch.ones(2, 16), f"{name}.lora_B.weight": torch.ones(40, 2)},
        adapter / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["mlp"]}
    named = {"base_model_name_or_path": base} if base else {}
    (adapter / "adapter_config.json").write_text(json.dumps(settings | named))
    return adapter


@pytest.mark.parametrize("part", ["adapter", "first"])
def test_an_adapter_without_files_of_its_own_gives_those_of_the_base_that_it_names(
    models: SimpleNamespace, config: dict[str, Any], part: str
) -> None:
    write_tokenizer(models.base, template=TEMPLATE)
    generation(models.base, eos_token_id=4)
    adapter = write_adapter(models, str(models.base))
    config["models"] = [{"path": str(adapter)}, {"path": str(models.a)}]
    config["options"] = {"tokenizer_source": part, "chat_template_from": part, "generation_config_from": part}

    merge(MergeConfig(**config))

    assert AutoTokenizer.from_pretrained(models.output).chat_template == TEMPLATE
    assert GenerationConfig.from_pretrained(models.output).eos_token_id == 4


def test_what_neither_an_adapter_nor_its_base_has_is_refused(models: SimpleNamespace, config: dict[str, Any]) -> None:
    adapter = write_adapter(models, str(models.base))
    config["models"] = [{"path": str(adapter)}]
    config["options"] = {"chat_template_from": "adapter"}

    with pytest.raises(InputError, match="has no chat template to take"):
        merge(MergeConfig(**config))


def test_an_adapters_own_generation_config_can_be_chosen(models: SimpleNamespace, config: dict[str, Any]) -> None:
    adapter = write_adapter(models, str(models.base))
    generation(models.base, eos_token_id=4)
    generation(adapter, eos_token_id=5)
    config["models"] = [{"path": str(adapter)}]
    config["options"] = {"generation_config_from": "adapter"}

    merge(MergeConfig(**config))

    assert GenerationConfig.from_pretrained(models.output).eos_token_id == 5


def test_an_adapters_own_template_is_named(models: SimpleNamespace, config: dict[str, Any]) -> None:
    adapter = write_adapter(models)
    write_tokenizer(models.base)
    write_tokenizer(adapter, "<|im_end|>", TEMPLATE)
    config["models"] = [{"path": str(adapter)}]
    config["peft_config"] = {"base_model_path": str(models.base), "merge_adapters": False}

    (warning,) = warnings(config)
    assert "chat template, eos_token of 'adapter'" in warning

    config["options"] = {"tokenizer_source": "adapter"}
    merge(MergeConfig(**config))
    assert AutoTokenizer.from_pretrained(models.output).chat_template == TEMPLATE


@pytest.mark.parametrize("template", ["{% if", "{% for x in y %}", "{{ x | }}"])
def test_a_given_template_that_is_none_is_a_problem_of_the_config(config: dict[str, Any], template: str) -> None:
    with pytest.raises(ConfigError, match=r"options\.chat_template: is no template in Jinja: line 1: .* Mend it\."):
        MergeConfig(**{**config, "options": {"chat_template": template}}).resolved()


def test_two_templates_are_a_problem_of_the_config(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"options\.chat_template: is given beside chat_template_from"):
        MergeConfig(**{**config, "options": {"chat_template": "x", "chat_template_from": "a"}}).resolved()


@pytest.mark.parametrize(
    ("option", "value"), [("tokenizer_source", "first"), ("chat_template_from", "a"), ("chat_template", "x")]
)
def test_what_decides_about_a_tokenizer_that_is_not_copied_is_a_warning(
    models: SimpleNamespace, config: dict[str, Any], option: str, value: str
) -> None:
    for name in ("a", "b"):
        write_tokenizer(models.folder / name)
    config["options"] = {option: value, "preserve_tokenizer": False}

    report = merge(MergeConfig(**config))

    said = [str(note) for note in report.notes if note.severity == "warning"]
    assert said == [f"options.{option}: has no effect without a tokenizer: preserve_tokenizer is false."]
