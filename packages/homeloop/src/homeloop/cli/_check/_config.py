"""What is checked: ``[tool.homeloop.check]`` of pyproject.toml, and what the command line says instead."""

import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from homeloop.cli._check._catalogue import RULES

_KEYS = frozenset(("select", "ignore", "exclude", "per-file-ignores"))


class ConfigError(Exception):
    """The configuration says something that is not understood."""


@dataclass(frozen=True, slots=True)
class Config:
    """
    What is checked.

    Attributes:
        select: Codes of the rules to apply.
        exclude: Patterns of paths, relative to ``folder``.
        per_file: For each pattern the codes that are not applied there.
    """

    folder: Path = Path()
    select: frozenset[str] = frozenset(rule.code for rule in RULES)
    exclude: tuple[str, ...] = ()
    per_file: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    def wants(self, code: str, path: Path) -> bool:
        """Say whether a rule applies to a file."""
        if code not in self.select:
            return False
        return not any(code in codes and self._matches(path, pattern) for pattern, codes in self.per_file.items())

    def excludes(self, path: Path) -> bool:
        """Say whether a file or folder is left out."""
        return any(self._matches(path, pattern) for pattern in self.exclude)

    def chosen(self, select: str | None, ignore: str | None) -> "Config":
        """Return it with what the command line says; a ConfigError if that is unknown."""
        found = self if select is None else replace(self, select=codes(select.split(","), "--select"))
        if ignore is None:
            return found
        return replace(found, select=found.select - codes(ignore.split(","), "--ignore"))

    def _matches(self, path: Path, pattern: str) -> bool:
        whole = Path(os.path.abspath(path))  # noqa: PTH100 - a link's target has other folders
        try:
            name = whole.relative_to(self.folder.absolute()).as_posix()
        except ValueError:
            name = whole.as_posix()
        return fnmatch(name, pattern) or fnmatch(name, f"{pattern.rstrip('/')}/*") or fnmatch(path.name, pattern)


def codes(names: Iterable[str], where: str) -> frozenset[str]:
    """
    Return the codes of rules that are named by code, by name, or by the beginning of their codes.

    Raises:
        ConfigError: No rule has such a name; the message says where it stood.
    """
    found: set[str] = set()
    for name in names:
        wanted = name.strip()
        matching = {
            rule.code for rule in RULES if wanted and (rule.code.startswith(wanted.upper()) or rule.name == wanted)
        }
        if not matching:
            raise ConfigError(f"{where}: there is no rule {wanted!r}; homeloop check --list shows them")
        found |= matching
    return frozenset(found)


def read_config(start: Path) -> Config:
    """
    Return the configuration of the nearest pyproject.toml at or above a path that has one for us.

    Raises:
        ConfigError: It cannot be read, or says something unknown.
    """
    whole = Path(os.path.abspath(start))  # noqa: PTH100 - the parents of ../x are not those of here
    for folder in (whole, *whole.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            table: Any = tomllib.loads(file.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{file}: {error}") from error
        for name in ("tool", "homeloop", "check"):
            table = cast("dict[str, Any]", table).get(name) if isinstance(table, dict) else None
        if table is not None:
            return _parsed(table, file)
    return Config()


def _parsed(table: Any, file: Path) -> Config:
    where = f"{file}: [tool.homeloop.check]"
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: it is a table")
    values = cast("dict[str, Any]", table)
    unknown = sorted(set(values) - _KEYS)
    if unknown:
        raise ConfigError(f"{where}: unknown: {', '.join(unknown)}; there are {', '.join(sorted(_KEYS))}")
    config = Config(folder=file.parent)
    if "select" in values:
        config = replace(config, select=codes(_strings(values["select"], f"{where} select"), f"{where} select"))
    if "ignore" in values:
        ignored = codes(_strings(values["ignore"], f"{where} ignore"), f"{where} ignore")
        config = replace(config, select=config.select - ignored)
    per_file = values.get("per-file-ignores", {})
    if not isinstance(per_file, dict):
        raise ConfigError(f"{where} per-file-ignores: it is a table of patterns and lists of codes")
    return replace(
        config,
        exclude=tuple(_strings(values.get("exclude", []), f"{where} exclude")),
        per_file={
            pattern: codes(_strings(names, f"{where} per-file-ignores"), f"{where} per-file-ignores")
            for pattern, names in cast("dict[str, Any]", per_file).items()
        },
    )


def _strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: it is a list of strings")
    found: list[str] = []
    for each in cast("list[object]", value):
        if not isinstance(each, str):
            raise ConfigError(f"{where}: it is a list of strings")
        found.append(each)
    return found
