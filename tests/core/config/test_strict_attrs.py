"""Plain data into attrs classes: nothing is coerced, nothing unknown passes, everything wrong is said at once with its place."""

from typing import Any, Literal

import pytest
from attrs import Factory, define, field, frozen, validators
from modelmerger import ConfigError
from modelmerger.config.strict_attrs import structure


@frozen(kw_only=True)
class Everything:
    flag: bool = False
    count: int = 0
    ratio: float = 0.5
    name: str = ""
    maybe: int | None = None
    choice: Literal["add", "subtract"] = "add"
    mixed: int | str = 0
    words: tuple[str, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    limits: dict[str, float] = Factory(dict)
    prompts: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    template: bool | Literal["auto"] = "auto"


def problems(data: Any, cls: type = Everything, place: str = "here") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        structure(data, cls, place)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, Everything()),
        ({"flag": True, "count": 3, "name": "x"}, Everything(flag=True, count=3, name="x")),
        ({"ratio": 1}, Everything(ratio=1.0)),
        ({"maybe": None}, Everything(maybe=None)),
        ({"maybe": 4}, Everything(maybe=4)),
        ({"choice": "subtract"}, Everything(choice="subtract")),
        ({"mixed": "5GB"}, Everything(mixed="5GB")),
        ({"mixed": 5}, Everything(mixed=5)),
        ({"words": ["a", "b"]}, Everything(words=("a", "b"))),
        ({"pair": [-2, 2.5]}, Everything(pair=(-2.0, 2.5))),
        ({"limits": {"perplexity": 8}}, Everything(limits={"perplexity": 8.0})),
        ({"prompts": ["a"]}, Everything(prompts=("a",))),
        ({"prompts": {"gulf": ["a"]}}, Everything(prompts={"gulf": ("a",)})),
        ({"template": False}, Everything(template=False)),
        ({"template": "auto"}, Everything(template="auto")),
    ],
)
def test_values_of_the_right_type_are_taken(data: dict[str, Any], expected: Everything) -> None:
    made = structure(data, Everything, "here")
    assert made == expected
    assert type(made.ratio) is float


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"flag": "no"}, "here.flag: must be true or false, got 'no'"),
        ({"flag": 1}, "here.flag: must be true or false, got 1"),
        ({"flag": None}, "here.flag: must be true or false, got nothing"),
        ({"count": "3"}, "here.count: must be a whole number, got '3'. Write it without quotes"),
        ({"count": 3.0}, "here.count: must be a whole number, got 3.0"),
        ({"count": True}, "here.count: must be a whole number, got True"),
        ({"ratio": "0.4"}, "here.ratio: must be a number, got '0.4'. Write it without quotes"),
        ({"ratio": False}, "here.ratio: must be a number, got False"),
        ({"ratio": 10**400}, "here.ratio: int too large to convert to float"),
        ({"name": 3}, "here.name: must be a text, got 3"),
        ({"maybe": "3"}, "here.maybe: must be a whole number, got '3'. Write it without quotes"),
        ({"choice": "remove"}, "here.choice: must be one of add, subtract, got 'remove'"),
        ({"mixed": 0.5}, "here.mixed: must be a whole number or a text, got 0.5"),
        ({"words": "ab"}, "here.words: must be a list, got 'ab'"),
        ({"words": ["a", 3]}, "here.words[1]: must be a text, got 3"),
        ({"pair": [1, 2, 3]}, "here.pair: must be a list of 2, got [1, 2, 3]"),
        ({"pair": 1}, "here.pair: must be a list, got 1"),
        ({"pair": [1, "x"]}, "here.pair[1]: must be a number, got 'x'"),
        ({"limits": [1]}, "here.limits: must be a mapping, got [1]"),
        ({"limits": {"a": "x"}}, "here.limits['a']: must be a number, got 'x'"),
        ({"prompts": "hello"}, "here.prompts: must be a list or a mapping, got 'hello'"),
        ({"prompts": {"gulf": "a"}}, "here.prompts['gulf']: must be a list, got 'a'"),
        ({"template": "maybe"}, "here.template: must be true or false or 'auto', got 'maybe'"),
        ({"flagg": True}, "here: unknown key 'flagg', did you mean 'flag'?"),
        ({"zzz": True}, "here: unknown key 'zzz'"),
        ({3: True}, "here: unknown key 3"),
        ([], "here: must be a mapping, got []"),
        (None, "here: must be a mapping, got nothing"),
    ],
)
def test_anything_else_is_refused_with_its_place_and_both_sides(data: Any, problem: str) -> None:
    assert problems(data) == [problem]


def test_everything_wrong_is_said_at_once() -> None:
    found = problems({"flag": "no", "count": 0.5, "words": [1, 2], "zzz": 0})
    assert sorted(found) == [
        "here.count: must be a whole number, got 0.5",
        "here.flag: must be true or false, got 'no'",
        "here.words[0]: must be a text, got 1",
        "here.words[1]: must be a text, got 2",
        "here: unknown key 'zzz'",
    ]


def test_a_field_without_default_must_be_given() -> None:
    @frozen
    class Required:
        size: int

    assert problems({}, Required) == ["here: the key 'size' is missing"]


def test_validators_see_the_other_fields_and_defaults_are_validated_too() -> None:
    def below_limit(instance: Any, _: Any, value: int) -> None:
        if value > instance.limit:
            raise ValueError(f"must be at most {instance.limit}, got {value}")

    @frozen(kw_only=True)
    class Limited:
        value: int = field(default=7, validator=below_limit)
        limit: int = 9

    assert structure({}, Limited, "here") == Limited(value=7, limit=9)
    assert problems({"value": 10}, Limited) == ["here.value: must be at most 9, got 10"]
    assert problems({"limit": 5}, Limited) == ["here.value: must be at most 5, got 7"]


def test_attrs_own_validators_and_checks_after_init_are_said_in_one_sentence() -> None:
    @define
    class Borrowed:
        color: str = field(default="red", validator=validators.in_(["red", "green"]))
        count: int = field(default=1, validator=validators.and_(validators.instance_of(int), validators.gt(0)))
        tags: list[str] = Factory(list)

        def __attrs_post_init__(self) -> None:
            if self.color == "green" and self.count == 3:
                raise ValueError("green goes with any count but 3")

    assert problems({"color": "blue"}, Borrowed) == ["here.color: 'color' must be in ['red', 'green'] (got 'blue')"]
    assert problems({"count": 0}, Borrowed) == ["here.count: 'count' must be > 0: 0"]
    assert problems({"color": "green", "count": 3}, Borrowed) == ["here: green goes with any count but 3"]


def test_a_value_of_the_wrong_type_is_not_handed_to_its_validator() -> None:
    def short(_: Any, __: Any, value: str) -> None:
        raise AssertionError("called with a value of the wrong type")

    @frozen
    class Named:
        name: str = field(validator=short)

    assert problems({"name": 5}, Named) == ["here.name: must be a text, got 5"]
