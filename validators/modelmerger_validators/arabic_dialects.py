"""Which variety of Arabic a text is in: a linear model on hashed character n-grams that ships with the package.

    p(variety | text) = softmax(W·x + b),  x the text's n-gram counts in hashed buckets, divided by their Euclidean norm

Character n-grams with a linear classifier are the usual strong baseline of the task: Salameh, Bouamor and Habash 2018,
https://aclanthology.org/C18-1113, section 4; hashing: Weinberger et al. 2009, https://arxiv.org/abs/0902.2206. How
often it is right, and with what it confuses each variety, is in `data/dialects/scorer.json` and goes with every answer.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from modelmerger import hookimpl

if TYPE_CHECKING:
    from modelmerger import LabelScores
    from numpy import ndarray

DIRECTORY = Path(__file__).parent / "data" / "dialects"
BUCKETS = 1 << 17
LONGEST = 5
_ALIKE = str.maketrans("أإآٱىة", "اااايه")
_WORD = r"[\u0621-\u064a\u0671-\u06d3]+"
_DROPPED = r"[\u0640\u064b-\u065f\u0670]"
_ELONGATED = r"(.)\1{2,}"


@hookimpl
def score_labels(texts: Sequence[str]) -> "LabelScores":
    """One row a text: the probability of each variety, in the order of the labels; None without Arabic words."""
    from modelmerger import LabelScores

    facts, weight, bias = _model()
    rows = tuple(_probabilities(features(text), weight, bias) for text in texts)
    return LabelScores(scorer=facts["name"], stated=facts["stated"], labels=tuple(facts["labels"]), rows=rows)


def normalised(text: str) -> str:
    """Arabic words alone, with single spaces: no diacritics, no tatweel, one form of each letter, no runs of it."""
    plain = re.sub(_DROPPED, "", unicodedata.normalize("NFKC", text)).translate(_ALIKE)
    return re.sub(_ELONGATED, r"\1\1", " ".join(re.findall(_WORD, plain)))


def features(text: str) -> Mapping[int, int]:
    """Bucket → count, over words, pairs of words, and the character n-grams of each word with its boundaries."""
    words = normalised(text).split()
    grams = [f"{first} {second}" for first, second in zip(words, words[1:], strict=False)]
    for word in words:
        framed = f"<{word}>"
        grams.append(framed)
        grams += [framed[i : i + n] for n in range(1, LONGEST + 1) for i in range(len(framed) - n + 1)]
    return Counter(crc32(gram.encode()) % BUCKETS for gram in grams)


def _probabilities(
    counts: Mapping[int, int], weight: "ndarray[Any, Any]", bias: "ndarray[Any, Any]"
) -> tuple[float, ...] | None:
    import numpy as np

    if not counts:
        return None
    values = np.array(list(counts.values()), dtype=np.float64)
    logits = weight[:, list(counts)].astype(np.float64) @ (values / np.linalg.norm(values)) + bias
    raised = np.exp(logits - logits.max())
    return tuple((raised / raised.sum()).tolist())


@cache
def _model() -> tuple[dict[str, Any], "ndarray[Any, Any]", "ndarray[Any, Any]"]:
    """What is known of the model, its weight (varieties, buckets) float16 and its bias (varieties) float32."""
    from safetensors.numpy import load_file

    facts = json.loads((DIRECTORY / "scorer.json").read_bytes())
    tensors = load_file(DIRECTORY / "model.safetensors")
    return facts, tensors["weight"], tensors["bias"]
