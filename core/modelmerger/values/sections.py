"""Sections: top-level keys of the config that plugins bring."""

from attrs import frozen


@frozen
class Section:
    """A top-level key of the config that a plugin obeys. What it holds is found in `settings.sections[name]`."""

    name: str
    """The key."""
    options: type
    """An attrs class, each field with a default: the keys in the section."""
    brings_base: str = ""
    """How models that this section is about bring a base model, where the config needs one and names none: a clause for
    the message ("adapters know theirs, given a peft_config"). Empty: they bring none."""
    description: str = ""
    """What it is for, in a sentence that editors show."""
