"""What the process does that renders a chat template: everything that is costly to import is imported here."""

import gc
from collections.abc import Mapping
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

_LONGEST = 1 << 20
"""Letters of one rendered prompt."""


def rendered(asked: Mapping[str, Any]) -> list[str]:
    """Each of the prompts in what the template makes of it, which may refer to the tokens by their kind."""
    gc.enable()
    found = []
    for prompt in asked["prompts"]:
        chat = [{"role": "user", "content": prompt}]
        made: Any = render_jinja_template(
            [chat], chat_template=asked["template"], add_generation_prompt=True, **asked["tokens"]
        )
        text = made[0][0]
        if len(text) > _LONGEST:
            raise ValueError(f"it makes {len(text):,} letters of one prompt, and at most {_LONGEST:,} are taken")
        found.append(text)
    return found
