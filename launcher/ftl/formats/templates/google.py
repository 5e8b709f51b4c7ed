"""Chat templates of Google's Gemma."""

_ALTERNATE = r"""
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
"""

# Source: ai.google.dev, "Gemma formatting and system instructions": user and model take turns, no system turn.
_GEMMA = (
    r"""
{{- bos_token }}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{ raise_exception('System role not supported') }}
{%- endif -%}
"""
    + _ALTERNATE
    + r"""
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{ '<start_of_turn>' ~ role ~ '\n' ~ (message['content'] | trim) ~ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<start_of_turn>model\n' }}
{%- endif -%}
"""
)

# Source: the same page for Gemma 3: a system text opens the first user turn.
_GEMMA3 = (
    r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{{- bos_token }}
{%- for message in (messages[1:] if has_system else messages) -%}
"""
    + _ALTERNATE
    + r"""
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{ '<start_of_turn>' ~ role ~ '\n' ~ (messages[0]['content'] ~ '\n\n' if has_system and loop.first else '') }}
{{- (message['content'] | trim) ~ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<start_of_turn>model\n' }}
{%- endif -%}
"""
)

# Source: ai.google.dev, "Gemma 4 prompt formatting": a system turn of its own, reasoning in a channel. That of earlier
# answers is left out.
_GEMMA4 = r"""
{%- if tools -%}
{{ raise_exception('tools are not supported: use chat_template: tokenizer_default') }}
{%- endif -%}
{%- set last = namespace(user=-1) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- bos_token }}
{%- for message in messages -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{ '<|turn>' ~ role ~ '\n' }}
{%- if message['reasoning_content'] and loop.index0 > last.user -%}
{{ '<|channel>thought\n' ~ message['reasoning_content'] ~ '\n<channel|>' }}
{%- endif -%}
{{ (message['content'] | trim) ~ '<turn|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|turn>model\n' }}
{%- endif -%}
"""

TEMPLATES = {
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3": _GEMMA3,
    "gemma3n": _GEMMA3,
    "gemma4": _GEMMA4,
    "gemma4_unified": _GEMMA4,
}
