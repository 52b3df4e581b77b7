"""What is installed: entry points of the group `mqttcore`, and our own plugins when we run from a source tree."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqttcore.errors import PluginError

__all__ = ["COMMANDS_GROUP", "GROUP", "InstalledPlugin", "installed", "open_source_tree"]

GROUP = "mqttcore"
COMMANDS_GROUP = "mqttcore.commands"

_FIRST_PARTY = "mqttcore_plugins"
_ROOT = Path(__file__).parents[3]  # of the source tree, when this is one


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """Something a distribution offers. place: `module:attribute`; extras: of the distribution, which it needs."""

    name: str
    place: str
    distribution: str
    extras: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import it. Raises PluginError with the extra to install when something is missing."""
        module, _, attribute = self.place.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except PluginError:
            raise
        except ImportError as error:
            raise PluginError(self.name, "", f"cannot be imported: {error}{self._advice()}") from error
        except AttributeError as error:
            raise PluginError(self.name, "", f"{self.place} does not exist: {error}") from error
        except Exception as error:
            raise PluginError(
                self.name, "", f"{module} fails when imported: {type(error).__name__}: {error}"
            ) from error
        return found

    def _advice(self) -> str:
        if not self.extras:
            return ""
        distribution = self.distribution.partition(" ")[0]
        return f"; it needs an extra: pip install '{distribution}[{','.join(self.extras)}]'"


def installed(group: str = GROUP) -> dict[str, list[InstalledPlugin]]:
    """Return what is installed by name; a name that several distributions offer has several."""
    found: dict[str, list[InstalledPlugin]] = {}
    for one in _of_source_tree(group):
        found.setdefault(one.name, []).append(one)
    for entry_point in importlib.metadata.entry_points(group=group):
        place = entry_point.value.partition("[")[0].strip()
        others = found.setdefault(entry_point.name, [])
        if any(other.place == place for other in others):
            continue  # the same, seen in two places of the path
        distribution = entry_point.dist
        label = "?" if distribution is None else f"{distribution.name} {distribution.version}"
        others.append(InstalledPlugin(entry_point.name, place, label, tuple(entry_point.extras)))
    return dict(sorted(found.items()))


def open_source_tree() -> bool:
    """Make our own plugins importable where `mqttcore` is a source tree that nobody installed; whether it is a tree."""
    folder = _ROOT / "plugins"
    if not (_ROOT / "pyproject.toml").is_file() or not (folder / "__init__.py").is_file():
        return False
    if _FIRST_PARTY not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            _FIRST_PARTY, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[_FIRST_PARTY] = module
        spec.loader.exec_module(module)
    return True


def _of_source_tree(group: str) -> list[InstalledPlugin]:
    # A tree may be newer than the metadata that an installation of it left: what its pyproject says counts.
    if not open_source_tree():
        return []
    document = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = []
    for name, value in document["project"].get("entry-points", {}).get(group, {}).items():
        place, _, extras = value.partition("[")
        wanted = tuple(extra.strip() for extra in extras.rstrip("] ").split(",") if extra.strip())
        found.append(InstalledPlugin(name, place.strip(), "mqttcore (source tree)", wanted))
    return found
