"""A YAML file written by a human: read strictly, remembered line by line, its problems told in plain words."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ftl.errors import ConfigError, Problem
from ftl.yamlparse import Loc, parse

MAX_BYTES = 2**20

_SECRET_KEY = re.compile(
    r"(api_?key|access_key|secret_key|access_token|auth_token|hub_token|hf_token|password|passwd|client_secret)$", re.I
)
_SECRET_VALUE = re.compile(r"(?<![A-Za-z0-9])(hf_|api_org_|gh[pousr]_|github_pat_|sk-|AKIA)[A-Za-z0-9_-]{16,}")


@dataclass(frozen=True)
class YamlFile:
    """The content of a file, with the place of every value in it."""

    path: Path
    data: dict[str, Any]  # Any: what YAML holds; never changed after reading
    lines: Mapping[Loc, int] = field(default_factory=dict, repr=False)
    """Loc -> line, from 1. What an alias stands for has the alias's line."""
    origins: dict[Loc, str] = field(default_factory=dict, repr=False)
    """Loc -> the option that gave the value, where it does not come from the file."""
    title: str = ""
    """What messages call the file; its path when empty."""

    def line_of(self, loc: Loc) -> int | None:
        """The line of that value, or of the closest thing around it that is in the file."""
        return next((self.lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in self.lines), None)

    def where(self, loc: Loc) -> str:
        """`cfg.yml:14`, or the option such as `--learning-rate` that gave the value."""
        for n in range(len(loc), 0, -1):
            if loc[:n] in self.origins:
                return self.origins[loc[:n]]
            if loc[:n] in self.lines:
                return f"{self.title or self.path}:{self.lines[loc[:n]]}"
        return self.title or str(self.path)

    def with_value(self, loc: Loc, value: Any, origin: str) -> "YamlFile":  # Any: what YAML holds
        """A copy in which `value` stands at `loc`; mappings on the way are made, a list grows by one at most.

        Raises ConfigError when something on the way is neither.
        """
        lines = {at: line for at, line in self.lines.items() if at[: len(loc)] != loc}
        data = _put(self.data, loc, value, origin)
        made = [loc[:n] for n in range(1, len(loc)) if not _has(value_at(self.data, loc[: n - 1]), loc[n - 1])]
        return replace(self, data=data, lines=lines, origins=self.origins | dict.fromkeys([*made, loc], origin))


def read(path: Path) -> YamlFile:
    """The mapping in the file at `path`. Raises ConfigError as `parse_file` does, and when it cannot be read."""
    return parse_file(_bytes(path), path)


def parse_file(raw: bytes, path: Path, title: str = "") -> YamlFile:
    """The mapping in `raw`, the content of the file at `path`, which messages call `title`.

    Raises ConfigError naming the line for anything but plain UTF-8 YAML of unique text keys, and for secrets in it.
    """
    name = title or str(path)
    data, lines = parse(_text(raw, name), lambda line: f"{name}:{line}")
    if data is None:
        raise ConfigError(Problem(name, "the file is empty", "must hold `key: value` lines"))
    if not isinstance(data, dict):
        raise ConfigError(Problem(f"{name}:1", "the file must hold `key: value` lines", f"it holds {_kind(data)}"))
    file = YamlFile(path, data, lines, title=title)
    if secrets := secret_problems(data, file.where):
        raise ConfigError(*secrets)
    return file


def parse_value(text: str, origin: str) -> Any:  # Any: what YAML holds
    """The value of `text` as if it stood after `key: ` in a file. Raises ConfigError naming `origin`."""
    return parse(text, lambda line: origin)[0]


def secret_problems(data: Any, where: Callable[[Loc], str]) -> list[Problem]:  # Any: what YAML holds
    """One problem for each text in `data` that looks like a secret, by its key or its own form. Never shows it."""
    return [
        Problem(
            where(loc),
            show_loc(loc),
            "looks like a secret, and secrets do not belong in a file or on a command line",
            "put it in the environment (HF_TOKEN, ...) and name it under `secrets` of the cloud file",
        )
        for loc, text in _texts(data)
        if _SECRET_VALUE.search(text) or (text and isinstance(loc[-1], str) and _SECRET_KEY.search(loc[-1]))
    ]


def to_problems(
    error: ValidationError,
    file: YamlFile,
    schema: type[BaseModel] | None = None,
    rename: Callable[[Loc], Loc] = lambda loc: loc,
) -> list[Problem]:
    """What pydantic found, in the user's keys and lines, one problem a place.

    `schema` is the section that refused; unknown keys are then compared with its fields. `rename` turns a place
    in the section into the place in the file.
    """
    found: dict[Loc, list[dict[str, Any]]] = {}  # Any: pydantic's error record
    for entry in error.errors(include_url=False):
        own: Loc = entry["loc"]
        loc = _place(rename(own), file.data, keep_last=entry["type"] in {"missing", "extra_forbidden"})
        found.setdefault(loc, []).append({**entry, "own": own})
    # A list with a wrong item is also "too short" and "not text" to pydantic; the item says it better.
    inner = {loc for loc in found if not any(other != loc and other[: len(loc)] == loc for other in found)}
    return [_problem(loc, entries, file, schema) for loc, entries in found.items() if loc in inner]


def suggestion(word: str, known: Iterable[str], form: str = "{}") -> str | None:
    """`did you mean `lora_r`?` with the closest of `known`, or None. `form` is how a name is shown."""
    names = {name.lower().replace("-", "_"): name for name in known}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), names, n=1, cutoff=0.7)
    return f"did you mean `{form.format(names[close[0]])}`?" if close else None


def show_loc(loc: Loc) -> str:
    """`datasets.0.path`: the spelling that `--set` takes too."""
    return ".".join(str(part) for part in loc)


def show_value(value: Any) -> str:  # Any: what YAML holds
    """The value as YAML would have it, cut to a few words, never a secret."""
    match value:
        case None | True | False:
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            shown = "***" if _SECRET_VALUE.search(value) else value
            return repr(shown if len(shown) <= 60 else shown[:57] + "...")
        case dict():
            return "{" + ", ".join(list(value)[:4]) + (", ...}" if len(value) > 4 else "}")
        case list():
            return "[" + ", ".join(show_value(item) for item in value[:4]) + (", ...]" if len(value) > 4 else "]")
    return str(value)


def value_at(data: Any, loc: Loc) -> Any:  # Any: what YAML holds
    """The value at `loc`, or None where there is none."""
    for part in loc:
        if not _has(data, part):
            return None
        data = data[part]
    return data


def annotations_at(schema: Any, loc: Loc) -> list[Any]:  # Any: type annotations
    """The types a value at `loc` of the section may have, unions taken apart, None left out; empty when unknown."""
    types = _members(schema)
    for part in loc:
        types = [member for outer in types for inner in _inner(outer, part) for member in _members(inner)]
    return types


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as e:
        raise ConfigError(Problem(str(path), "there is no such file", remedy=_near_files(path))) from e
    except OSError as e:
        raise ConfigError(Problem(str(path), f"cannot be read: {(e.strerror or str(e)).lower()}")) from e
    if len(raw) > MAX_BYTES:
        raise ConfigError(Problem(str(path), "larger than 1 MiB", "a config is a few kilobytes; is this a data file?"))
    return raw


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise ConfigError(Problem(f"{name}:{line}", f"byte 0x{raw[e.start]:02x} is not UTF-8", "save as UTF-8")) from e


def _near_files(path: Path) -> str | None:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in {".yml", ".yaml"})
    except OSError:
        return f"there is no directory {path.parent} either"
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f"{path.parent} has {', '.join(close or names[:5])}" if names else None


def _put(data: Any, loc: Loc, value: Any, origin: str) -> Any:  # Any: what YAML holds
    if not loc:
        return value
    part = loc[0]
    if isinstance(part, str) and isinstance(data, dict | None):
        return {**(data or {}), part: _put((data or {}).get(part), loc[1:], value, origin)}
    if isinstance(part, int) and isinstance(data, list | None):
        items = list(data or [])
        if part > len(items):
            raise ConfigError(Problem(origin, f"no item {part}", f"the list has {len(items)}, counted from 0"))
        items[part : part + 1] = [_put(items[part] if part < len(items) else None, loc[1:], value, origin)]
        return items
    raise ConfigError(Problem(origin, f"no `{part}` below {_kind(data)}", remedy="check the dotted name"))


def _texts(data: Any, loc: Loc = ()) -> Iterator[tuple[Loc, str]]:  # Any: what YAML holds
    if isinstance(data, str) and loc:
        yield loc, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(value, (*loc, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _texts(value, (*loc, index))


def _place(loc: Loc, data: Any, *, keep_last: bool) -> Loc:  # Any: what YAML holds
    """The parts of `loc` that are in `data`: pydantic names branches of unions and items of wrapped scalars too."""
    kept: list[str | int] = []
    for number, part in enumerate(loc, start=1):
        if _has(data, part):
            data = data[part]
            kept.append(part)
        elif keep_last and number == len(loc):
            kept.append(part)
    return tuple(kept)


def _has(data: Any, part: str | int) -> bool:  # Any: what YAML holds
    if isinstance(data, dict):
        return part in data
    return isinstance(data, list) and isinstance(part, int) and part < len(data)


def _problem(loc: Loc, entries: list[dict[str, Any]], file: YamlFile, schema: type[BaseModel] | None) -> Problem:
    first = entries[0]  # Any above: pydantic's error record
    name, where = show_loc(loc), file.where(loc)
    if first["type"] == "missing":
        return Problem(where, allowed=f"`{name}` is missing")
    if first["type"] == "extra_forbidden":
        known = _keys_of(schema, first["own"][:-1])
        remedy = suggestion(str(loc[-1]), known) or (f"known here: {', '.join(known)}" if known else None)
        return Problem(where, name, "unknown key", remedy)
    value = value_at(file.data, loc)
    wants = list(dict.fromkeys(_sentence(entry, value) for entry in entries))
    allowed = " or ".join([wants[0], *(want.removeprefix("must be ") for want in wants[1:])])
    remedy = None
    if first["type"] == "literal_error" and isinstance(value, str):
        remedy = suggestion(value, re.findall(r"'([^']+)'", first["ctx"]["expected"]))
    elif first["type"] == "string_type" and isinstance(value, bool | int | float):
        remedy = "put it in quotes"
    return Problem(where, f"{name} = {show_value(value)}", allowed, remedy)


_SENTENCES = {
    "missing": "must be given",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must match {pattern}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "set": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}


def _sentence(entry: dict[str, Any], value: Any) -> str:  # Any: pydantic's error record, what YAML holds
    kind: str = entry["type"]
    ctx = {key: _number(item) for key, item in entry.get("ctx", {}).items()}
    if kind in _SENTENCES:
        return _SENTENCES[kind].format(**ctx).replace("'", "")
    if kind == "too_short":
        return f"must have at least {ctx['min_length']} {'entry' if ctx['min_length'] == 1 else 'entries'}"
    if kind.split("_")[0] in _KINDS:
        return f"must be {_KINDS[kind.split('_')[0]]}"
    return str(entry["msg"])[:1].lower() + str(entry["msg"])[1:]


def _number(value: Any) -> Any:  # Any: pydantic's context values
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _keys_of(schema: type[BaseModel] | None, loc: Loc) -> list[str]:
    types = annotations_at(schema, loc) if schema else []
    return [
        name for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel) for name in kind.model_fields
    ]


def _members(annotation: Any) -> list[Any]:  # Any: type annotations
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for inner in get_args(annotation) for member in _members(inner)]
    return [] if annotation is NoneType else [annotation]


def _inner(annotation: Any, part: str | int) -> list[Any]:  # Any: type annotations
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation.model_fields[part].annotation] if part in annotation.model_fields else []
    arguments = get_args(annotation)
    if get_origin(annotation) in (tuple, list) and isinstance(part, int):
        return [arguments[0]]
    if get_origin(annotation) is dict:
        return [arguments[1]]
    return []


def _kind(value: Any) -> str:  # Any: what YAML holds
    if value is None:
        return "nothing"
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "a single value"
