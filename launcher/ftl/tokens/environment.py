"""The Jinja environment of chat templates: what transformers gives them, without its clock."""

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import jinja2
import jinja2.meta
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ftl.errors import ConfigError, Problem

TODAY = date(2024, 7, 26)
"""The day that templates are told it is: the one that Llama 3's own template names. With the clock's, a run repeated
tomorrow would train other tokens."""


def compile_template(source: str, today: date = TODAY) -> jinja2.Template:
    """The template, in a sandbox. Raises ConfigError when it is not valid Jinja."""
    environment = _environment()
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime(today)
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as e:
        raise ConfigError(
            Problem("chat_template", f"line {e.lineno} of the template", f"is not valid Jinja: {e.message}")
        ) from e


def variables_of(source: str) -> set[str]:
    """The variables that a template which compiles looks at."""
    return jinja2.meta.find_undeclared_variables(_environment().parse(source))


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
    )


def _strftime(today: date) -> Callable[[str], str]:
    return lambda format: today.strftime(format)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own tojson escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _GenerationBlock(Extension):
    """{% generation %}...{% endgeneration %}, which transformers' templates may have: prints its body."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
