"""Says what mergekit's words are called here, where a config or a command is refused that has some of them.

A recipe in a file is read as it is, by the plugin mergekit_recipes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve
from modelmerger import Problem, hookimpl, shown

_SAME = (
    "arcee_fusion",
    "breadcrumbs",
    "breadcrumbs_ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "karcher",
    "model_stock",
    "multislerp",
    "nearswap",
    "nuslerp",
    "passthrough",
    "ram",
    "ramplus_tl",
    "sce",
    "slerp",
    "task_arithmetic",
    "ties",
)
HERE = {"linear": "weighted"} | {method: method for method in _SAME}
"""Methods that are strategies here."""
OPTIONS = {
    "t": "interpolation_factor",
    "lambda": "scaling_factor",
    "lambda_": "scaling_factor",
    "normalize": "normalize_weights",
    "dtype": "torch_dtype",
    "out_dtype": "torch_dtype",
    "out_shard_size": "max_shard_size",
    "random_seed": "seed",
    "low_cpu_memory": "low_memory_mode",
}
"""What options are called here."""
NEEDLESS = ("int8_mask", "lazy_unpickle", "allow_crimes", "lora_merge_cache", "write_model_card", "cuda")
DTYPES = {
    **dict.fromkeys(("bf16", "bfloat"), "bfloat16"),
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    **dict.fromkeys(("fp32", "f32", "float", "single"), "float32"),
    **dict.fromkeys(("fp64", "f64", "double"), "float64"),
}
"""Other names of dtypes."""
_UNKNOWN = r"(?:unknown key )?'(?P<key>\w+)'(?:,? .*)?"
_STRATEGY = r"no strategy is named '(?P<word>[\w-]+)'.*?(?P<installed> \(installed: .*\))?"
_ONE_OF = r"must be one of .*, got '(?:torch\.)?(?P<word>\w+)'"
_NO_PATH = "the key 'path' is missing"


@hookimpl
def explain_option(option: str) -> str | None:
    """What is here in the place of a flag of mergekit."""
    from modelmerger_plugins.mergekit_words.flags import answer_to

    return answer_to(option)


@hookimpl
def explain_config(config: Mapping[str, Any], problems: Sequence[Problem]) -> Sequence[Problem]:
    """One problem for a whole config of mergekit; else each of its words with what it is called here."""
    if "merge_method" in config and config.get("strategy") is None:
        return [Problem(_whole(config), "config")]
    renamed = {problem.where for problem in problems if _key(problem) == "model"}
    left = [p for p in problems if not (p.where in renamed and p.message == _NO_PATH)]
    told = [_told(problem) for problem in left]
    first = {problem.message: problem for problem in reversed(told)}
    return [problem for problem in told if problem in left or problem is first[problem.message]]


def _whole(config: Mapping[str, Any]) -> str:
    """A sentence that translates what the config has."""
    method = str(config["merge_method"])
    if method in HERE:
        said = [f"merge_method: {method} is strategy: {HERE[method]}"]
    else:
        said = [f"merge_method: {shown(method, 30)} is no built-in strategy"]
    words = set(_words(config))
    if "slices" in words:
        said.append("slices are models[i].layers, of strategy: stack")
    if "model" in words:
        said.append("model is path, in models")
    if "weight" in words:
        said.append("weight stands beside path")
    said += [f"{word} is options.{name}" for word, name in OPTIONS.items() if word in words]
    if "output_path" not in config:
        said.append("output_path says where the model goes")
    return f"this is a config of mergekit, which is read from a file as it is; here: {'; '.join(said)}."


def _words(value: Any) -> Iterator[str]:
    """The keys of plain data, at every level."""
    entries: Iterable[Any] = value if isinstance(value, list | tuple) else ()
    if isinstance(value, Mapping):
        yield from map(str, value)
        entries = value.values()
    for entry in entries:
        yield from _words(entry)


def _told(problem: Problem) -> Problem:
    """The problem, in other words if it is about a word of mergekit."""
    message = None
    if (found := re.fullmatch(_STRATEGY, problem.message)) is not None:
        message = _strategy(found["word"], found["installed"] or "")
    elif problem.where.endswith("torch_dtype") and (found := re.fullmatch(_ONE_OF, problem.message)) is not None:
        name = DTYPES.get(found["word"], found["word"])
        message = f"{problem.message}. Write {name}" if name in DTYPES.values() else None
    elif (key := _key(problem)) is not None:
        message = _unknown(key, re.sub(r".*\.|\[\d+\]$", "", problem.where))
    return problem if message is None else evolve(problem, message=message)


def _key(problem: Problem) -> str | None:
    found = re.fullmatch(_UNKNOWN, problem.message)
    return found["key"] if found is not None else None


def _strategy(word: str, installed: str) -> str | None:
    if word in HERE:
        return f"no strategy is named '{word}', which is mergekit's word. Write strategy: {HERE[word]}{installed}"
    return None


def _unknown(key: str, where: str) -> str | None:
    said = f"unknown key '{key}', which is mergekit's word"
    if where == "models" and key == "model":
        return f"{said}. Write path"
    if key == "parameters":
        beside = "weight stands beside path" if where == "models" else "they go into options"
        return f"{said} for what stands in no mapping of its own here: {beside}"
    if where not in ("config", "options", "models"):
        return None
    if key in OPTIONS:
        return f"{said}. Write {OPTIONS[key]}, in options"
    if key == "merge_method":
        return f"{said}. Write strategy"
    if key == "slices":
        return f"{said}. Write layers in each of models; strategy: stack puts them one on another"
    if key in NEEDLESS:
        return f"{said} and has no counterpart. Leave it out"
    return None
