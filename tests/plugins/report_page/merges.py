"""Manifests and reports as a merge of Arabic models has them, made by hand, and hostile ones."""

import math
from typing import Any

from modelmerger import Finding, Sample, ValidationReport

SOURCES = ("arabic-chat", "egyptian", "gulf")
PROMPTS = {
    "msa": ("ما رأيك في القراءة قبل النوم؟", "اكتب رسالة قصيرة تعتذر فيها عن تأخرك."),
    "egyptian": ("إزيك؟ عامل إيه النهارده؟", "قوللي أعمل إيه في الويك إند؟"),
    "gulf": ("شلونك اليوم؟", "وين تنصحني أروح العصر؟"),
}
ANSWERS = {
    "msa": "القراءة قبل النوم عادة جميلة، فهي تهدئ النفس وتريح العينين من ضوء الشاشات.",
    "egyptian": "الحمد لله تمام، إنت عامل إيه؟ يلا نخرج نتمشى شوية على النيل.",
    "gulf": "الحمدلله زين، إنت شلونك؟ تعال نروح البحر العصر.",
}
BETTER = {
    "perplexity": "lower",
    "bits_per_byte": "lower",
    "dialect_match": "higher",
    "repetition": "lower",
    "coherence": "higher",
}
UNITS = {
    "perplexity": "per token",
    "bits_per_byte": "bits per byte",
    "dialect_match": "share of answers",
    "repetition": "share of 4-grams",
    "coherence": "nats per token",
}
VALUES = {
    "perplexity": (14.82, 15.31, 22.4, 19.07),
    "bits_per_byte": (0.8123, 0.8213, 0.9544, 0.901),
    "dialect_match": (0.8333, 0.3333, 0.5, 0.5),
    "coherence": (1.213, 1.305, 0.911, None),
    "repetition": (0.0214, 0.0108, 0.0533, 0.0419),
}  # fmt: skip
VARIETIES = {"msa": (12.1, 12.0, 25.9, 21.3), "egyptian": (15.9, 18.8, 16.2, 24.1), "gulf": (17.2, 20.4, 27.0, 14.9)}
UNIT = 2**80


def manifest(layers: int = 24, sources: tuple[str, ...] = SOURCES, base: bool = True, **changed: Any) -> dict[str, Any]:
    """Of a task-arithmetic merge whose middle layers moved most."""
    models = [
        {"path": f"./models/{name}", "weight": weight} for name, weight in zip(sources, (1.0, 0.6, 0.6), strict=False)
    ]
    if len(models) > 2:
        models[2]["weight"] = [0.2, 0.8, 0.4]
        models[2]["operation"] = "subtract"
    names = [*sources, *(["base-0.5B"] if base else [])]
    return {
        "schema": 1,
        "modelmerger": "0.1.0",
        "torch": "2.9.1",
        "plan": "3f9c0a4be1d27785a6d15f0a1b2c3d4e5f60718293a4b5c6d7e8f90123456789",
        "seed": 0,
        "config": {
            "strategy": "task_arithmetic" if base else "weighted",
            "models": models,
            "options": {"scaling_factor": 0.8, "clamp_weights": True, "clamp_range": [-2, 2]},
        },
        "donor": names[-1],
        "sources": [{"name": name, "path": f"./models/{name}", "files": []} for name in names],
        "plugins": [{"kind": "plugin", "name": "report_page", "distribution": "modelmerger", "version": "0.1.0"}],
        "notes": [
            {"severity": "warning", "message": "the pattern '*.bias' has no effect: it matches no merged tensor."}
        ],
        "counts": {"clamped values": 12},
        "observed": {name: observed(place, layers, len(sources), base) for place, name in enumerate(tensors(layers))},
        "files": {},
        "companions": [],
    } | changed


def tensors(layers: int) -> list[str]:
    return ["model.embed_tokens.weight", *(f"model.layers.{i}.mlp.weight" for i in range(layers)), "model.norm.weight"]


def observed(place: int, layers: int, sources: int, base: bool) -> dict[str, int]:
    def whole(value: float) -> int:
        return int(value * UNIT)

    found = {"values": 1000, "base" if base else "origin": whole(4.0)}
    lengths = [0.02 + 0.05 * (1 + i) * math.sin(math.pi * (place + 0.5) / (layers + 2)) for i in range(sources)]
    for i, length in enumerate(lengths):
        found[f"norm {i}"] = whole(length**2)
        for j in range(i):
            cosine = 0.45 * math.cos(place / 4 + i - 2 * j)
            found[f"dot {j} {i}"] = whole(cosine * length * lengths[j])
            if base:
                found |= {f"both {j} {i}": 900, f"opposed {j} {i}": int(900 * (0.5 - cosine / 3))}
    if base:
        found["norm merged"] = whole((0.6 * lengths[0]) ** 2)
    return {f"plugin report_page: {key}": value for key, value in found.items()}


def report(
    models: tuple[str, ...] = ("merged", *SOURCES), crossed: bool = True, samples: bool = True
) -> ValidationReport:
    findings = []
    for metric, values in VALUES.items():
        for model, value in zip(models, values, strict=False):
            limit = {"perplexity": 14.0, "dialect_match": 0.7}.get(metric) if model == models[0] and crossed else None
            findings.append(
                Finding(
                    metric=metric,
                    value=value,
                    evidence="200 texts, 18,212 tokens, 61,004 bytes; window 1,024, stride 512"
                    if value
                    else "no answer has two tokens",
                    unit=UNITS[metric],
                    model=model,
                    better=BETTER[metric],
                    threshold=limit,
                    crossed=limit is not None and metric == "perplexity",
                )
            )
        if metric == "perplexity":
            findings += [
                Finding(metric=metric, value=v, evidence="40 texts", unit="per token", label=d, model=m, better="lower")
                for d, of_models in VARIETIES.items()
                for m, v in zip(models, of_models, strict=False)
            ]
    asked = [(d, p, m) for d, prompts in PROMPTS.items() for p in prompts for m in models] if samples else []
    return ValidationReport(
        directory="/models/merged",
        validators={"perplexity": "modelmerger 0.1.0", "dialect_prompts": "modelmerger 0.1.0"},
        settings={"quick_test": False, "compare_with_sources": True, "sample_size": 200, "seed": 0},
        findings=findings,
        samples=[
            Sample(prompt=p, answer=ANSWERS[said := spoken(m, d, models)], label=d, answered_label=said, model=m)
            for d, p, m in asked
        ],
    )


def spoken(model: str, dialect: str, models: tuple[str, ...]) -> str:
    if model == models[0]:
        return dialect
    return model if model in PROMPTS else "msa"


HOSTILE = (
    "<script>window.owned = 1</script>",
    '"><img src=x onerror="window.owned = 1">',
    "</style><style>body { display: none }</style>",
    "</table></div></section><h1>another page</h1>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:window.owned=1",
    "abc\u202edesrever\u202c",
    "\u2066isolate without an end",
    "half a pair \ud83d of surrogates",
    "nul \0 and escape \x1b[31m",
    "&lt;b&gt; &amp;amp;",
    "]]><svg onload=window.owned=1>",
    "\ufeff\u200b\u2028line",
    "long" * 150,
)


def as_shown(text: str) -> str:
    """What the page shows for a text: invisible characters as escapes."""
    for character in "\u202e\u202c\u2066\ud83d\0\x1b\ufeff\u200b\u2028":
        text = text.replace(character, character.encode("unicode_escape", "surrogatepass").decode())
    return text


def hostile_manifest() -> dict[str, Any]:
    """Every text in it is hostile."""
    made = manifest(sources=HOSTILE[:3])
    made["config"]["strategy"] = HOSTILE[0]
    made["config"]["options"] = {HOSTILE[1]: HOSTILE[2]}
    for place, source in enumerate(made["sources"]):
        source |= {"path": HOSTILE[place + 3], "revision": HOSTILE[place + 4]}
    made["notes"] = [{"severity": HOSTILE[0], "message": text} for text in HOSTILE]
    made["plugins"] = [dict.fromkeys(("kind", "name", "distribution", "version"), text) for text in HOSTILE]
    made["counts"] = {HOSTILE[1]: 3}
    return made | dict.fromkeys(("donor", "modelmerger", "torch", "plan", "seed"), HOSTILE[0])


def hostile_report() -> ValidationReport:
    """Every text in it is hostile."""
    models = HOSTILE[:3]
    findings = [
        Finding(
            metric=text,
            value=1.5,
            evidence=text,
            unit=text,
            label=label,
            model=model,
            better="lower",
            threshold=1.0,
            crossed=True,
        )
        for text in HOSTILE
        for model in models
        for label in ("", text)
    ]
    samples = [
        Sample(prompt=text, answer=text, label=text, answered_label=text, model=model)
        for text in HOSTILE
        for model in models
    ]
    return ValidationReport(
        directory=HOSTILE[0],
        validators=dict.fromkeys(HOSTILE, HOSTILE[0]),
        settings=dict.fromkeys(HOSTILE, HOSTILE[0]),
        findings=findings,
        samples=samples,
    )
