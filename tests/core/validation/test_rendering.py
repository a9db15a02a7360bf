"""Chat templates are rendered as transformers renders them, and none runs away."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import TEXTS, tied
from modelmerger import UnmeasurableError
from modelmerger.validation.rendering import render

__all__ = ["tied"]


def with_template(template: Any) -> SimpleNamespace:
    """What is asked of a tokenizer."""
    return SimpleNamespace(get_chat_template=lambda: template, special_tokens_map={"bos_token": "<s>"})


def test_prompts_are_what_the_tokenizer_makes_of_them(tied: SimpleNamespace) -> None:
    words = tied.words
    expected = [
        words.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in TEXTS
    ]
    assert render("a", words, TEXTS) == expected


def test_special_tokens_and_the_prompt_for_an_answer_are_the_template_s() -> None:
    template = "{{ bos_token }}{{ messages[0].content }}{% if add_generation_prompt %}!{% endif %}"
    assert render("a", with_template(template), ["مرحبا", ""]) == ["<s>مرحبا!", "<s>!"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "it takes more than 1 s"),
        ("{{ 9 ** 99999999 }}", "it takes more than 1 s or 1024 MiB"),
        ("{{ 'a' * 3000000000 }}", "it takes more than 1 s or 1024 MiB"),
        ("{{ raise_exception('no system') }}", "TemplateError: no system"),
    ],
)
def test_what_a_template_cannot_do_is_said(template: str, reason: str) -> None:
    """B20"""
    with pytest.raises(UnmeasurableError, match=f"the chat template of a fails: {reason}"):
        render("a", with_template(template), ["hello"], seconds=1)


@pytest.mark.usefixtures("tokenizers_here")
@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'a' * 2000000 }}", "ValueError: it makes 2,000,000 letters of one prompt"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_what_a_template_raises_is_said(template: str, reason: str) -> None:
    """B20"""
    with pytest.raises(UnmeasurableError, match=f"the chat template of a fails: {reason}"):
        render("a", with_template(template), ["hello"])


def test_where_this_program_is_no_interpreter_no_template_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """B20"""
    monkeypatch.setattr(sys, "executable", "/usr/bin/blender")
    with pytest.raises(UnmeasurableError, match="of a fails: no process can be started: this program is no Python"):
        render("a", with_template("{{ messages[0].content }}"), ["hello"])
