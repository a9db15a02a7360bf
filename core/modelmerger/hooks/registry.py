"""Which plugins are installed, and which of them may be used. None is imported to find out."""

import os
from collections.abc import Iterable, Mapping

from attrs import evolve, frozen

from modelmerger.hooks.providers import DEFAULT_VALIDATORS, DISABLE, GROUPS, Kind, Provider, discover
from modelmerger.values.errors import ConfigError, PluginError
from modelmerger.values.text import shown, suggestion

ALLOW = "MODELMERGER_PLUGINS"
"""The environment variable that names the only plugins of other distributions that may be used."""


@frozen(eq=False, repr=False)
class Registry:
    """The installed plugins."""

    providers: tuple[Provider, ...]
    """Those that can be used."""
    switched_off: tuple[tuple[Provider, str], ...] = ()
    """Those that are switched off, each with the reason."""
    never_asked: tuple[Provider, ...] = ()
    """Default validators that are no entry points of the group of validators."""

    @classmethod
    def installed(cls, environment: Mapping[str, str] = os.environ) -> "Registry":
        """Reads the metadata of every installed distribution, then applies the two environment variables.

        `MODELMERGER_DISABLE_PLUGINS=a,b` switches off plugins by their name or their distribution's.
        `MODELMERGER_PLUGINS=a,b` lets in only those that it names besides the built-in ones; if it is set and empty,
        only the built-in ones.
        """
        allowed, disabled = _names(environment, ALLOW), _names(environment, DISABLE) or frozenset()
        kept: list[Provider] = []
        never_asked: list[Provider] = []
        off = []
        found, stray = discover()
        for provider in [*found, *stray]:
            names = {provider.name, provider.distribution}
            if names & disabled:
                off.append((provider, f"{DISABLE} names it"))
            elif allowed is not None and not provider.built_in and not names & allowed:
                off.append((provider, f"{ALLOW} does not name it"))
            else:
                (never_asked if provider in stray else kept).append(provider)
        return cls(tuple(kept), tuple(off), tuple(never_asked))

    def with_given(self, providers: Iterable[Provider]) -> "Registry":
        """These and some that are not installed. Raises `ConfigError` for a name that is taken."""
        found = evolve(self, providers=(*self.providers, *providers))
        given = {(provider.kind, provider.name) for provider in providers}
        if clashes := [
            _clash(both) for kind in GROUPS for name, both in found.clashes(kind).items() if (kind, name) in given
        ]:
            raise ConfigError(*clashes)
        return found

    def names(self, kind: Kind) -> list[str]:
        """The names of the plugins of a kind, sorted."""
        return sorted({provider.name for provider in self.providers if provider.kind == kind})

    def clashes(self, kind: Kind) -> dict[str, list[Provider]]:
        """Names that more than one distribution provides, with these."""
        by_name = {name: [p for p in self.providers if (p.kind, p.name) == (kind, name)] for name in self.names(kind)}
        return {name: providers for name, providers in by_name.items() if len(providers) > 1}

    def find(self, kind: Kind, name: str) -> Provider:
        """The one provider of that name. Raises `ConfigError` where there is none, or where there are two."""
        found = [provider for provider in self.providers if (provider.kind, provider.name) == (kind, name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(_clash(found))
        for provider, reason in self.switched_off:
            if (provider.kind, provider.name) == (kind, name):
                raise ConfigError(f"{provider} is switched off: {reason}.")
        if name.endswith(".py"):
            stem = os.path.splitext(os.path.basename(name))[0]
            remedy = f"Give --plugin {shown(name)}, and call it '{shown(stem)}' here"
            raise ConfigError(f"a config names no file of code ({shown(name)}). {remedy}")
        known = self.names(kind)
        installed = ", ".join(known) or "none"
        near = suggestion(name, known).replace(",", ";", 1)
        raise ConfigError(f"no {kind} is named '{name}'{near or f' (installed: {installed})'}")

    def default_validators(self) -> list[Provider]:
        """The validators that are asked whether they run where the config names none.

        Raises `PluginError` for one that is declared as a default validator alone.
        """
        if self.never_asked:
            alone = f"is in {DEFAULT_VALIDATORS} alone, so it never runs. Declare it in {GROUPS['validator']} too"
            raise PluginError(*(f"{p} {alone}, or set {DISABLE}={p.name}." for p in self.never_asked))
        return [provider for provider in self.providers if provider.kind == "validator" and provider.by_default]

    def of_kind(self, kind: Kind) -> list[Provider]:
        """The plugins of a kind. Raises `ConfigError` for two of one name."""
        if clashes := self.clashes(kind):
            raise ConfigError(*(_clash(providers) for providers in clashes.values()))
        return [provider for provider in self.providers if provider.kind == kind]

    def always_on(self) -> list[Provider]:
        """The plugins of every merge, the built-in ones first. Raises `ConfigError` for two of one name."""
        return sorted(self.of_kind("plugin"), key=lambda p: (not p.built_in, p.name))


def _clash(found: Iterable[Provider]) -> str:
    providers = sorted(found, key=lambda p: (not p.digest, p.built_in, p.distribution))
    first, sources = providers[0], " and by ".join(provider.source for provider in providers)
    remedy = (
        "give the file or module another name"
        if first.digest
        else f"uninstall one of them or set {DISABLE}={first.distribution}"
    )
    return f"{first.kind} '{first.name}' is provided twice: by {sources}; {remedy}."


def _names(environment: Mapping[str, str], variable: str) -> frozenset[str] | None:
    if variable not in environment:
        return None
    return frozenset(name.strip() for name in environment[variable].split(",") if name.strip())
