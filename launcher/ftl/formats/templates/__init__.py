"""The chat templates that can be named in a config, written from the formats that the models' makers published.

All are Jinja with trim_blocks and lstrip_blocks, and take messages, bos_token, eos_token and add_generation_prompt;
those of models that call tools take tools, too. A message's content is a text.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ftl.formats.templates import cohere, community, deepseek, google, lg, meta, microsoft, mistral, openai, qwen

_BY_MAKER = (cohere, community, deepseek, google, lg, meta, microsoft, mistral, openai, qwen)

TEMPLATES: Mapping[str, str] = MappingProxyType(
    {name: text for maker in _BY_MAKER for name, text in sorted(maker.TEMPLATES.items())}
)
"""Name in a config -> the template."""


def is_template_path(given: str) -> bool:
    """Whether a `chat_template_jinja` is the path of a template rather than the template: one line, named .jinja."""
    return given.strip().endswith(".jinja") and "\n" not in given.strip()
