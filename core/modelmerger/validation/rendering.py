"""Chat templates are programs of the model's: rendered in a process of its own, which may take so long and no more."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from modelmerger.values.errors import UnmeasurableError
from modelmerger.values.text import shown

SECONDS = 10
MEMORY = 1 << 30
"""Bytes that the process may hold."""
_PATIENCE = 60
"""Seconds on the clock, the start of the process included."""
_LONGEST = 1 << 20
"""Letters of one rendered prompt."""


def render(name: str, tokenizer: Any, prompts: Sequence[str], seconds: int = SECONDS) -> list[str]:
    """Each prompt as the one message of a chat that the model is to answer. name: of the model, for messages.
    seconds: of the processor, for all prompts together.

    Raises `UnmeasurableError` where the tokenizer's chat template fails, or takes too much time or memory.
    """
    try:
        asked = {
            "seconds": seconds,
            "template": tokenizer.get_chat_template(),
            "prompts": list(prompts),
            "tokens": {kind: str(token) for kind, token in tokenizer.special_tokens_map.items()},
        }
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
        done = subprocess.run(  # noqa: S603 (this interpreter, and a text of our own)
            [sys.executable, "-c", program],
            input=json.dumps(asked).encode(errors="surrogatepass"),
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
        found = json.loads(done.stdout or b"{}")
    except subprocess.TimeoutExpired:
        found = {}
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {error}"}
    if "rendered" in found:
        return list(found["rendered"])
    reason = found.get("failed", f"it takes more than {seconds} s or {MEMORY >> 20} MiB")
    raise UnmeasurableError(f"the chat template of {name} fails: {shown(reason, 200)}")


def main() -> None:
    """Renders what standard input asks for, and writes it to standard output, as JSON."""
    asked = json.load(sys.stdin)
    answered = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints
    try:
        found: dict[str, Any] = {"rendered": _rendered(**asked)}
    except MemoryError:
        found = {}
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {error}"}
    json.dump(found, answered)
    answered.close()
    os._exit(0)


def _rendered(seconds: int, template: str, prompts: Sequence[str], tokens: dict[str, Any]) -> list[str]:
    from transformers.utils.chat_template_utils import render_jinja_template

    _keep_to_limits(seconds)
    found = []
    for prompt in prompts:
        chat = [{"role": "user", "content": prompt}]
        made: Any = render_jinja_template([chat], chat_template=template, add_generation_prompt=True, **tokens)
        text = made[0][0]
        if len(text) > _LONGEST:
            raise ValueError(f"it makes {len(text):,} letters of one prompt, and at most {_LONGEST:,} are taken")
        found.append(text)
    return found


def _keep_to_limits(seconds: int) -> None:
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + seconds
    for kind, most in ((resource.RLIMIT_CPU, until), (resource.RLIMIT_DATA, MEMORY)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
