"""The shells: what each is told, and the script that it runs.

Words are completed by click. Beside its kinds of words (`plain`, and `file` and `dir`, which the shell itself lists)
there are `part`, after which no space is put, and `path`, a file or folder, whose name the shell quotes.
"""

import os
import shlex
from types import MappingProxyType
from typing import Any

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from modelmerger.cli.completing.words import PART, PATH

_BASH = """\
%(complete_func)s() {
    local response kind value
    response=$(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_CWORD= %(complete_var)s=bash_complete "$1")
    while IFS=, read -r kind value; do
        case $kind in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            path) compopt -o filenames; COMPREPLY+=("$value") ;;
            part) compopt -o nospace; COMPREPLY+=("$value") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done <<< "$response"
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a plain described part paths home response
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
%(complete_var)s=zsh_complete %(prog_name)s)}")
    for kind value described_as in ${response}; do
        case $kind in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            part) part+=("$value") ;;
            path) [[ $value == '~/'* ]] && home+=("~/${(q)${value#'~/'}}") || paths+=("$value") ;;
            plain)
                if [[ $described_as == "_" ]]; then
                    plain+=("$value")
                else
                    described+=("$value":"$described_as")
                fi ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U
    (( $#plain )) && compadd -U -V unsorted -a plain
    (( $#part )) && compadd -U -S '' -V unsorted -a part
    (( $#paths )) && compadd -U -f -S '' -V unsorted -a paths
    (( $#home )) && compadd -U -Q -f -S '' -V unsorted -a home
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    for line in (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \\
COMP_CWORD=(commandline -t) %(prog_name)s)
        set -l parts (string split -m 1 "," -- $line)
        set -l option (string match -r -- '^--[a-z-]+=' (commandline -ct))
        set -l begun (string replace -r -- '^--[a-z-]+=' '' (commandline -ct))
        switch $parts[1]
            case dir
                for folder in (__fish_complete_directories $begun)
                    echo -- "$option$folder"
                end
            case file
                for file in (__fish_complete_path $begun)
                    echo -- "$option$file"
                end
            case "*"
                echo -- $parts[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Whole(ShellComplete):
    """Completes whole words, also those that click divides, as `--set=strategy=ties`."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """The words that the one which is being written may become."""
        last = args[-1] if args else ""
        if last.startswith("--") and last != "--" and "=" not in last:
            # click parses what is before the word, and would give up at an option that still lacks its value
            return super().get_completions(args[:-1], f"{last}={incomplete}")
        option, equals, _ = incomplete.partition("=")
        found = super().get_completions(args, incomplete)
        if not equals or not incomplete.startswith("-"):
            return found
        return [item if item.type in ("file", "dir") else _with(item, f"{option}={item.value}") for item in found]


class Bash(_Whole, BashComplete):
    """Bash takes `=` and `:` for ends of words, and replaces what is behind the last one, unless it is in quotes.

    So the script gives the line up to the cursor, and no number of a word.
    """

    source_template = _BASH

    def source(self) -> str:
        """The script."""
        return ShellComplete.source(self)  # without asking the bash that is found here for its version

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and the one that is being written."""
        if os.environ.get("COMP_CWORD"):
            return super().get_completion_args()
        line = os.environ["COMP_WORDS"]
        *words, last = split_arg_string(line + "x")  # an x, so that there is a last word
        return words[1:], last[:-1]

    def complete(self) -> str:
        """A line for each word: its kind, and what is to stand behind the last end of a word."""
        args, incomplete = self.get_completion_args()
        kept = 0 if os.environ.get("COMP_CWORD") or _is_quoted(os.environ["COMP_WORDS"]) else _last_break(incomplete)
        items = [_with(item, item.value[kept:]) for item in self.get_completions(args, incomplete)]
        return "\n".join(map(self.format_completion, items))

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Kind and word."""
        value = item.value.removesuffix("/") if item.type == PATH else item.value  # bash itself adds it
        return f"{item.type},{value}"


class Zsh(_Whole, ZshComplete):
    """Zsh shows what each word is for."""

    source_template = _ZSH

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Kind, word, and what it is for, or `_`."""
        if item.type in (PART, PATH):
            return f"{item.type}\n{item.value}\n_"
        return super().format_completion(item)


class Fish(_Whole, FishComplete):
    """Fish puts no space after `=`, `.` and `/`, and quotes what needs it."""

    source_template = _FISH


BY_NAME = MappingProxyType({"bash": Bash, "zsh": Zsh, "fish": Fish})


def _with(item: CompletionItem[str], value: str) -> CompletionItem[str]:
    return CompletionItem(value, type=item.type, help=item.help)


def _last_break(word: str) -> int:
    """How many characters of a word are behind bash's back."""
    return max(word.rfind("="), word.rfind(":")) + 1


def _is_quoted(line: str) -> bool:
    """Whether the last word begins with a quote that is still open."""
    try:
        shlex.split(line)
    except ValueError:
        return True
    return False
