"""The one base of every declared record: config sections, cloud sections, job specs, run records."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen record. Strict about unknown keys, because a human may have mistyped one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

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
