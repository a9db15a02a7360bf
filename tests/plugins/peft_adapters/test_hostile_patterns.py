"""`rank_pattern` and `alpha_pattern` come from a stranger: what is admitted means what it means to PEFT, at little cost."""

import itertools
import random
import re
import warnings
from pathlib import Path

import pytest
from modelmerger import InputError
from modelmerger_plugins.peft_adapters.reading.config import AdapterConfig
from modelmerger_plugins.peft_adapters.reading.patterns import problems_in
from plugins.peft_adapters.handmade import write_adapter, write_base
from plugins.peft_adapters.spoiling import change, merger

USUAL = [
    "q_proj",
    "layers.1.self_attn.q_proj",
    r"model\.layers\.1\.mlp\.up_proj",
    "^model.layers.0.mlp.up_proj",
    "^layers.0.mlp.up_proj",
    r"^model\.layers\.(0|1|2)\.self_attn\.k_proj",
    r".*\.(12|13)\..*q_proj",
    "layers.1.*v_proj",
    "q_proj|k_proj",
    r"layers\.[^.]+\.(?:self_attn|mlp)\.(q|up)_proj$",
    r".*layers\.\d+?\.\w*(_attn)?\.[k-q]_proj",
    r"layers.1[02-].*",
]
MODULES = [
    f"model.layers.{layer}.{name}"
    for layer in (0, 1, 10, 12, 13, "1-")
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn_v_proj", "mlp.up_proj", "selfxattn.q_proj", "é.٣")
]
TOKENS = [
    *("a", "b", "1", "-", "_", ".", r"\.", r"\-", "é", "^", "$", "|", "(", "(?:", ")", "?", "*", "+", ".*", "b+?"),
    *(r"\d", r"\w+", "[ab]", "[^a]*", "[0-9-]", r"[^\.]+", "[a-c_]", "(a|b)", "(ab|1.|)?", "{2}", "[", "]", "[[a]"),
    *("(?i)", r"\1", "(?=a)", "a**", "[b-a]", r"\Z", r"[a-\d]", "\\"),
]


def by_peft(patterns: dict[str, int], module: str) -> int | None:
    """As `peft.utils.other.get_pattern_key` does it."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), None)


def admitted(pattern: str) -> bool:
    return not list(problems_in("rank_pattern", {pattern: 1}, ""))


def test_usual_patterns_are_admitted_and_mean_what_they_mean_to_peft() -> None:
    for few in [[pattern] for pattern in USUAL] + list(map(list, itertools.permutations(USUAL, 2))):
        patterns = {pattern: number for number, pattern in enumerate(few)}
        config = AdapterConfig(Path(), {"rank_pattern": patterns})
        assert list(filter(admitted, few)) == few
        assert [config.rank(module) for module in MODULES] == [by_peft(patterns, module) for module in MODULES]


def test_whatever_is_admitted_means_what_it_means_to_peft() -> None:
    draw = random.Random(0)
    names = ["".join(draw.choices("aab..1_-é", k=draw.randrange(9))) for _ in range(80)]
    tried = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(6000):
            few = ["".join(draw.choices(TOKENS, k=draw.randrange(6))) for _ in range(3)]
            patterns = {pattern: number for number, pattern in enumerate(few) if admitted(pattern)}
            config = AdapterConfig(Path(), {"rank_pattern": patterns})
            for name in draw.sample(names, 10 if patterns else 0):
                assert config.rank(name) == by_peft(patterns, name), (patterns, name)
                tried += by_peft(patterns, name) is not None
    assert tried > 1000


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(a+)+$",
            "(a|a)*b",
            "(",
            "[[a]",
            "(?i)up",
            r"(a)(b)\2",
            "(?=a)a",
            "(?<!a)b",
            "a{2}",
            "a*+",
            "(?>a)",
            "[b-a]",
        ),
        *(r"a\Z", "*", "\\", "(" * 20 + "a" + ")" * 20, ".*" * 200, "a" * 5000),
    ],
)
def test_what_is_not_admitted_is_refused_in_a_sentence(adapter: Path, field: str, pattern: str) -> None:
    """B21"""
    change(adapter, **{field: {"v_proj": 4, pattern: 4}})
    with warnings.catch_warnings(), pytest.raises(InputError) as refusal:
        warnings.simplefilter("error")
        merger(adapter).check_compatibility()
    (problem,) = refusal.value.problems
    assert repr(pattern[:20])[1:-1] in problem.message
    assert f"in {field}, and only names" in problem.message
    assert problem.where == str(adapter / "adapter_config.json")


def test_patterns_that_backtrack_are_tried_at_once(tmp_path: Path) -> None:
    """B21: With `re`, each of them would take minutes at least."""
    module = "a" * 400 + ".proj"
    base = write_base(tmp_path / "base", {module: (6, 8)})
    made = write_adapter(tmp_path / "adapter", base, {module: (6, 8)}, 1)
    patterns = {"(a|a)" * 50 + "Z": 7, ".*" * 60 + "Z": 7, "a*" * 60 + "Z": 7, "(a|aa)?" * 40 + "Z": 7, "proj": 2}
    change(made.path, rank_pattern=patterns, alpha_pattern=patterns | {"proj": 5})
    merger(made.path).check_compatibility()


def many(names: int) -> dict[str, int]:
    return {f"model.layers.{i}.mlp.experts.{j}.up_proj": 4 for i in range(names // 100) for j in range(100)}


@pytest.mark.parametrize(
    ("patterns", "sentence"),
    [
        ({f".*{number}.*": 4 for number in range(60_000)}, "that are no names, and at most 30000 are read. Name the"),
        ({f"x{number}": 4 for number in range(100_001)}, "has 100001 patterns in rank_pattern, and at most 100000"),
        (
            {"".join(letters): 4 for letters in itertools.product("a.", repeat=16)},
            r"would take very long for its 8 modules. Name the modules, with '\.' for each dot",
        ),
    ],
)
def test_too_many_patterns_are_refused(adapter: Path, patterns: dict[str, int], sentence: str) -> None:
    """B21"""
    change(adapter, rank_pattern=patterns)
    with pytest.raises(InputError) as refusal:
        merger(adapter).check_compatibility()
    assert sentence in str(refusal.value)


def test_thousands_of_names_are_admitted(adapter: Path) -> None:
    change(adapter, rank_pattern=many(20_000), alpha_pattern=many(20_000))
    merger(adapter).check_compatibility()


def test_patterns_are_tried_on_no_endless_name(tmp_path: Path) -> None:
    """B21"""
    module = "a" * 501 + ".proj"
    base = write_base(tmp_path / "base", {module: (6, 8)})
    made = write_adapter(tmp_path / "adapter", base, {module: (6, 8)}, 1)
    merger(made.path).check_compatibility()
    change(made.path, alpha_pattern={"proj": 3})
    with pytest.raises(InputError, match="has a name of 506 characters, where 500 at most are due"):
        merger(made.path).check_compatibility()
