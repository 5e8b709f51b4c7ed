"""Chat templates of DeepSeek. Source: github.com/deepseek-ai, the README of each model."""

_V2 = r"""
{{- bos_token }}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{ 'User: ' ~ message['content'] ~ '\n\n' }}
{%- elif message['role'] == 'assistant' -%}
{{ 'Assistant: ' ~ message['content'] ~ eos_token }}
{%- else -%}
{{ message['content'] ~ '\n\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'Assistant:' }}
{%- endif -%}
"""

_V3 = r"""
{{- bos_token }}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{ '<｜User｜>' ~ message['content'] }}
{%- elif message['role'] == 'assistant' -%}
{{ '<｜Assistant｜>' ~ message['content'] ~ '<｜end▁of▁sentence｜>' }}
{%- else -%}
{{ message['content'] }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<｜Assistant｜>' }}
{%- endif -%}
"""

TEMPLATES = {"deepseek_v2": _V2, "deepseek_v3": _V3}
