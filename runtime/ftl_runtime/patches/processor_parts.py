"""A processor whose videos or sounds nobody is going to read may lack the part that reads them.

transformers' processor of Qwen2-VL and its like asks for a video processor, which needs torchvision, and cannot even
say so without it.

Upstream: transformers.processing_utils, ProcessorMixin.check_argument_for_proper_class, in 5.23. To be removed when
tests/runtime/train/test_pictures.py passes for qwen2_vl without it.
"""

from typing import Any

from transformers.processing_utils import ProcessorMixin

_check = ProcessorMixin.check_argument_for_proper_class


def apply() -> None:
    """For the processors that are made afterwards."""
    ProcessorMixin.check_argument_for_proper_class = _check_unless_absent  # type: ignore[method-assign]


def _check_unless_absent(self: ProcessorMixin, name: str, argument: Any) -> Any:  # Any: as transformers has them
    return None if argument is None else _check(self, name, argument)  # type: ignore[no-untyped-call]
