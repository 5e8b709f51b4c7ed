"""Whatever a config holds, it is loaded or refused in sentences. `fuzz_config.py` looks for longer."""

import random_configs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftl.config.load import load_train
from ftl.errors import ConfigError


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(raw=random_configs.FILES, overrides=random_configs.OVERRIDES, bear_unbuilt=st.booleans())
def test_any_file_is_loaded_or_refused_in_sentences(tmp_path_factory, raw, overrides, bear_unbuilt):
    path = tmp_path_factory.getbasetemp() / "random.yml"
    path.write_bytes(raw)
    try:
        load_train(path, overrides, bear_unbuilt=bear_unbuilt)
    except ConfigError as refusal:
        assert refusal.problems
        assert all(str(problem).strip() for problem in refusal.problems)
