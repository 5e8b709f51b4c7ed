"""The blocks `qat` and `quantization`: other names of formats, and those that no GPU of ours multiplies."""

from pathlib import Path

import pytest

from ftl.commands.quantize import _scheme
from ftl.config.dialect import translate
from ftl.config.flat import TRAIN
from ftl.config.rounding import Qat, RoundingSection, Scheme
from ftl.errors import ConfigError


@pytest.mark.parametrize("key", ["qat", "quantization"])
def test_long_name_of_fp8_is_read(key: str) -> None:
    found = translate({key: {"weight_dtype": "float8_e4m3fn", "activation_dtype": "float8"}}, TRAIN)
    assert found.values[key] == {"weight_dtype": "fp8", "activation_dtype": "fp8"}


def test_formats_of_blackwell_are_refused_with_the_reason() -> None:
    found = translate({"qat": {"weight_dtype": "nvfp4"}}, TRAIN)
    assert "only Blackwell GPUs multiply nvfp4" in str(found.unbuilt[0])


def test_command_line_wins_over_the_scheme_of_qat(tmp_path: Path) -> None:
    own = RoundingSection(qat=Qat(weight_dtype="int4", group_size=64, fake_quant_after_n_steps=9))
    assert _scheme(own, {"group_size": 16}) == Scheme(weight_dtype="int4", group_size=16)


def test_scheme_of_the_command_line_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"--weight-dtype: int3: input should be 'int8', 'int4' or 'fp8'"):
        _scheme(RoundingSection(), {"weight_dtype": "int3"})
    with pytest.raises(ConfigError, match=r"quantization: is missing, and so is `qat`"):
        _scheme(RoundingSection(), {})
