"""The one base of every declared record: config sections, cloud sections, job specs, run records."""

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Section(BaseModel):
    """A frozen record. Strict about unknown keys, because a human may have mistyped one.

    A command needs a few of the hundred there are, so a validator is built when it is first used, and the docstrings of
    fields are read (see field_docs) where they are shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, protected_namespaces=())

    @classmethod
    def read(cls, data: Any) -> Self:
        """The record in `data`, written by another ftl: keys it does not know are left out, not refused.

        Raises pydantic.ValidationError when a key it needs is missing or has another type.
        """
        return cls.model_validate(data, extra="ignore")

    @classmethod
    def read_json(cls, text: str | bytes) -> Self:
        """As `read`, from JSON text."""
        return cls.model_validate_json(text, extra="ignore")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Pydantic's own schema, with the docstring of each field as its description."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, doc in field_docs(cls).items():
            if name in properties:
                properties[name].setdefault("description", doc)
        return schema


@cache
def field_docs(section: type[Section]) -> dict[str, str]:
    """Field -> the docstring below it, also of those inherited; without those that have none."""
    docs: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if issubclass(kind, Section):
            docs |= _own_docs(kind)
    return docs


def _own_docs(kind: type[Section]) -> dict[str, str]:
    body: list[ast.stmt] = _source(kind.__module__).body
    for part in kind.__qualname__.split("."):
        found = next((node for node in body if isinstance(node, ast.ClassDef) and node.name == part), None)
        if found is None:  # made inside a function
            return {}
        body = found.body
    return {
        field.target.id: inspect.cleandoc(after.value.value)
        for field, after in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }


@cache
def _source(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[module]))
