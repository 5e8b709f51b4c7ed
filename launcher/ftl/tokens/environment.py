"""The Jinja environment of chat templates: what transformers gives them, without its clock.

jinja2 is imported with the first template: most data needs none, and every command would wait for it.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any

from ftl.errors import ConfigError, Problem

if TYPE_CHECKING:
    import jinja2
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

_COUNTED = "ftl_counted"
_MAX_BITS = 1 << 20

TODAY = date(2024, 7, 26)
"""The day that templates are told it is: the one that Llama 3's own template names. With the clock's, a run repeated
tomorrow would train other tokens."""


MAX_ROUNDS = 1_000_000
"""Rounds of all loops that a template may make over one conversation."""
MAX_CHARS = 2**26
"""Characters that it may print."""


class EndlessTemplateError(ConfigError):
    """A template loops or prints more than any conversation needs; another row would not end either."""


class Template:
    """A compiled chat template, which ends whatever is in it."""

    def __init__(self, source: str, today: date) -> None:
        self._budget = _Budget()
        self._template = _compile(source, today, self._budget)

    def render(self, *args: Any, **variables: Any) -> str:
        """The text. Raises EndlessTemplateError, and whatever the template raises."""
        self._budget.rounds = 0
        return self._template.render(*args, **variables)


class _Budget(threading.local):
    """What a rendering has used up; each thread has its own."""

    rounds = 0

    def counted(self, items: Any) -> Any:  # Any: what a template loops over
        """The items, each of which is a round of a loop."""
        if not hasattr(items, "__len__"):
            return self._one_by_one(items)
        self._use(len(items))
        return items

    def _one_by_one(self, items: Any) -> Iterator[Any]:
        for item in items:
            self._use(1)
            yield item

    def _use(self, rounds: int) -> None:
        self.rounds += rounds
        if self.rounds > MAX_ROUNDS:
            raise _endless(f"its loops make more than {MAX_ROUNDS:,} rounds over one row")


def compile_template(source: str, today: date = TODAY) -> Template:
    """The template, in a sandbox. Raises ConfigError when it is not valid Jinja."""
    return Template(source, today)


def _compile(source: str, today: date, budget: _Budget) -> "jinja2.Template":
    import jinja2

    environment = _environment()
    environment.filters[_COUNTED] = budget.counted
    environment.concat = _joined  # type: ignore[method-assign]  # what jinja2 joins the printed pieces with
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime(today)
    try:
        tree = environment.parse(source)
        for loop in tree.find_all(jinja2.nodes.For):
            loop.iter = jinja2.nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        return environment.from_string(tree)
    except jinja2.TemplateSyntaxError as e:
        raise ConfigError(
            Problem("chat_template", f"line {e.lineno} of the template", f"is not valid Jinja: {e.message}")
        ) from e


def _endless(reason: str) -> EndlessTemplateError:
    return EndlessTemplateError(Problem("chat_template", reason, remedy="correct it, or use another"))


def _joined(pieces: Iterable[str]) -> str:
    found = []
    num_chars = 0
    for piece in pieces:
        num_chars += len(piece)
        if num_chars > MAX_CHARS:
            raise _endless(f"prints more than {MAX_CHARS:,} characters for one row")
        found.append(piece)
    return "".join(found)


def _product(left: Any, right: Any) -> Any:  # Any: numbers, or a text or list and a number
    for many, times in ((left, right), (right, left)):
        if hasattr(many, "__len__") and isinstance(times, int) and len(many) * times > MAX_CHARS:
            raise _endless(f"makes a text of more than {MAX_CHARS:,} characters")
    return left * right


def _power(left: Any, right: Any) -> Any:  # Any: numbers
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_BITS:
        raise _endless("raises a number to a power that takes for ever")
    return left**right


def variables_of(source: str) -> set[str]:
    """The variables that a template which compiles looks at."""
    import jinja2.meta

    return jinja2.meta.find_undeclared_variables(_environment().parse(source))


def _environment() -> "ImmutableSandboxedEnvironment":
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_block()]
    )
    environment.intercepted_binops = frozenset({"*", "**"})  # looking for variables computes constants, too
    environment.binop_table.update({"*": _product, "**": _power})
    return environment


def _strftime(today: date) -> Callable[[str], str]:
    return lambda format: today.strftime(format)


def _raise_exception(message: str) -> None:
    import jinja2

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


@cache
def _generation_block() -> "type[Extension]":
    from jinja2.ext import Extension

    class GenerationBlock(Extension):
        """{% generation %}...{% endgeneration %}, which transformers' templates may have: prints its body."""

        tags = {"generation"}

        def parse(self, parser: "jinja2.parser.Parser") -> "list[jinja2.nodes.Node]":
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return GenerationBlock
