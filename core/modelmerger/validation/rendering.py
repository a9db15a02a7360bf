"""Chat templates are programs of the model's: rendered in a process of its own, which may take so long and no more."""

from collections.abc import Sequence
from typing import Any

from modelmerger.hooks.inquiries.child import Call, Limits, NoAnswerError, called
from modelmerger.values.errors import UnmeasurableError
from modelmerger.values.text import shown

SECONDS = 10
MEMORY = 1 << 30
"""Bytes that the process may hold."""
_PATIENCE = 60
"""Seconds on the clock, the start of the process included."""


def render(name: str, tokenizer: Any, prompts: Sequence[str], seconds: int = SECONDS) -> list[str]:
    """Each prompt as the one message of a chat that the model is to answer. name: of the model, for messages.
    seconds: of the processor, for all prompts together.

    Raises `UnmeasurableError` where the tokenizer's chat template fails, or takes too much time or memory.
    """
    limits = Limits(seconds=_PATIENCE, processor=seconds, memory=MEMORY)
    try:
        asked = {
            "template": tokenizer.get_chat_template(),
            "prompts": list(prompts),
            "tokens": {kind: str(token) for kind, token in tokenizer.special_tokens_map.items()},
        }
        return list(called(Call(f"{__package__}.rendered:rendered", asked, limits)))
    except NoAnswerError as error:
        ended = error.status is not None or error.limit is not None
        reason = f"it takes more than {seconds} s or {MEMORY >> 20} MiB" if ended else str(error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    raise UnmeasurableError(f"the chat template of {name} fails: {shown(reason, 200)}")
