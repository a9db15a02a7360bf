"""Bases that an adapter does not fit, told by what is missing in them or has another form: what to do with each."""

import re
from collections.abc import Mapping

from modelmerger import DTYPES, Checkpoint, shown

from modelmerger_plugins.adapter_names import is_factor
from modelmerger_plugins.peft_adapters.reading.config import AdapterConfig
from modelmerger_plugins.peft_adapters.reading.misfits import MisfitError

PACKED = ("qweight", "weight_packed", "weight_blocks", "W_q", "codes", "weight.absmax", "SCB")
"""What layers of quantised models have in place of their matrix, or beside it."""
SCALES = ("_scale_inv", "_scale", ".scales", "_blocks", "_scales")
"""What stands behind the name of a tensor that means nothing without scales, or in its place."""
RIGHT = "Is it the right base?"
"""What to ask where nothing better is known."""
QUANTISED = "quantised"
"""The cause of bases that are quantised."""
CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
"""The class of a model with a head for a task, by PEFT's name of the task."""
_JOINED = (
    (("q_proj", "k_proj", "v_proj"), ("qkv_proj", "query_key_value", "c_attn", "W_pack", "wqkv", "Wqkv")),
    (("gate_proj", "up_proj"), ("gate_up_proj",)),
)
"""Matrices that some models have each for itself, and others as one: what they are called there."""
_HEAD = re.compile(r"(?:.*\.)?(score|classifier|classification_head|qa_outputs|v_head|value_head|reward_head)\..+")
_TASKS = {"score": "SEQ_CLS", "classifier": "SEQ_CLS", "classification_head": "SEQ_CLS", "qa_outputs": "QUESTION_ANS"}


def is_quantised(base: Checkpoint, tensor: str) -> bool:
    """Whether a base holds a tensor in a form that nothing can be added to."""
    info, module = base.tensors.get(tensor), tensor.removesuffix(".weight")
    if info is not None and DTYPES[info.dtype].family != "float":
        return True
    if any(f"{module}.{name}" in base.tensors for name in PACKED):
        return True
    narrow = info is None or DTYPES[info.dtype].bits <= 8
    return narrow and any(f"{tensor}{end}" in base.tensors for end in SCALES)


def quantised(base: Checkpoint, key: str) -> MisfitError:
    """The misfit of a base that is quantised. `key`: of the config, by which a base is given."""
    config = (base.donor.config or {}).get("quantization_config")
    method = config.get("quant_method") if isinstance(config, Mapping) else None
    how = f" ({shown(method, 40)})" if method else ""
    return MisfitError(
        f"changes weights that '{base.name}' stores quantised{how}",
        QUANTISED,
        f"Give the 16-bit model that it was made from as {key}; an adapter trained in 4 bits fits it.",
        of_adapter=True,
    )


def tied(base: Checkpoint, tensor: str, target: str, key: str, untie_key: str) -> MisfitError:
    """The misfit of a tensor that the base ties to another one. `key`, `untie_key`: of the config, for what to do."""
    option = f"Set {untie_key}: true to write both, or" if untie_key else "To do so,"
    return MisfitError(
        f"changes {shown(tensor, 60)}, which '{base.name}' ties to {shown(target, 60)}: untie the base first",
        "tied",
        f"{option} give a base with an LM head of its own as {key}.",
        of_adapter=True,
    )


def missing(config: AdapterConfig, base: Checkpoint, tensor: str, key: str) -> MisfitError:
    """The misfit of a tensor that the base does not have. `key`: of the config, by which a base is given."""
    task, head = config.values.get("task_type"), _HEAD.fullmatch(tensor)
    if head is not None:
        task = task if task in CLASSES else _TASKS.get(head[1])
        if task in CLASSES:
            return MisfitError(
                f"has a head for a task ({head[1]}), which '{base.name}' has not",
                "head",
                f"Save the base with such a head ({CLASSES[task]}.from_pretrained, save_pretrained; the adapter's own "
                f"replaces it), and give that as {key}.",
                of_adapter=True,
            )
        sentence = f"has a head ({head[1]}), which '{base.name}' has not"
        return MisfitError(sentence, "head", f"Give the model with that head as {key}.", of_adapter=True)
    if any(map(is_factor, tensor.split("."))):
        sentence = "has a name that PEFT does not write: it calls factors lora_A.weight and lora_B.weight"
        return MisfitError(sentence, "names", "Load the adapter with what trained it, and save it for PEFT.")
    if fused := _fused(base, tensor):
        sentence = f"changes {_module(tensor)}, and '{base.name}' has {fused}: the adapter was trained on a model that "
        return MisfitError(f"{sentence}was converted to other matrices", "fused", f"Give that model as {key}.")
    return MisfitError(f"matches nothing: '{base.name}' has no tensor {shown(tensor)}", "nothing", RIGHT)


def _fused(base: Checkpoint, tensor: str) -> str:
    """What a base has in the place of a matrix that is joined with others there, or taken apart; empty: nothing."""
    above, _, module = tensor.removesuffix(".weight").rpartition(".")
    for apart, joined in _JOINED:
        others = joined if module in apart else apart if module in joined else ()
        found = [name for name in others if f"{above}.{name}.weight" in base.tensors]
        if found:
            return " and ".join(found)
    return ""


def _module(tensor: str) -> str:
    return shown(tensor.removesuffix(".weight").rpartition(".")[2], 40)


def is_head_of_task(tensor: str) -> bool:
    """Whether this is the head of a model for a task, such as one that classifies."""
    return _HEAD.fullmatch(tensor) is not None


def labels(base: Checkpoint, there: int, wanted: int, key: str) -> MisfitError:
    """The misfit of a head with another number of labels. `key`: where a base is given."""
    return MisfitError(
        f"has a head of {wanted} labels, and that of '{base.name}' has {there}",
        "labels",
        f"Save the base with num_labels={wanted} (from_pretrained, save_pretrained; the adapter's own head replaces "
        f"the new one), and give that as {key}.",
        of_adapter=True,
    )


def ungathered(base: Checkpoint) -> MisfitError:
    """The misfit of a base that DeepSpeed saved without gathering what lies on several devices."""
    return MisfitError(
        f"changes weights of '{base.name}' without elements, as DeepSpeed ZeRO-3 saves what it does not gather",
        "ungathered base",
        "Run zero_to_fp32.py in the directory of that checkpoint.",
        of_adapter=True,
    )


def vocabulary(base: Checkpoint, there: int, wanted: int, key: str) -> MisfitError:
    """The misfit of an adapter that was trained with another number of tokens. `key`: where a base is given."""
    return MisfitError(
        f"was trained with a vocabulary of {wanted} rows, and '{base.name}' has {there}",
        f"vocabulary {there} {wanted}",
        f"Resize the base (resize_token_embeddings({wanted})), save it, and give that as {key}.",
        of_adapter=True,
    )
