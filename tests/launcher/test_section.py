"""What every record has: docstrings of its fields as descriptions, and a start that costs little."""

import subprocess
import sys

from ftl.section import Section, field_docs


class Parent(Section):
    size: int = 1
    """How large it is.

    In metres."""
    bare: int = 2


class Child(Parent):
    class Inner(Section):
        depth: int = 3
        """How deep."""

    colour: str = "red"
    """Of its outside."""
    size: int = 4
    """How tall."""
    inner: Inner = Inner()


def test_docs_are_those_below_the_fields_with_inherited_ones():
    assert field_docs(Parent) == {"size": "How large it is.\n\nIn metres."}
    assert field_docs(Child) == {"size": "How tall.", "colour": "Of its outside."}
    assert field_docs(Child.Inner) == {"depth": "How deep."}


def test_json_schema_describes_fields_by_their_docs():
    schema = Child.model_json_schema()
    assert schema["properties"]["colour"]["description"] == "Of its outside."
    assert "description" not in schema["properties"]["bare"]
    assert schema["$defs"]["Inner"]["properties"]["depth"]["description"] == "How deep."


def test_command_that_trains_starts_without_what_it_may_not_need():
    told = "import sys, ftl.cli, ftl.commands.train; print([n for n in ('jinja2', 'modal', 'sky') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout == "[]\n"
