"""Chat templates of LG's EXAONE. Source: the model cards, "Quickstart"."""

# A system turn, empty if need be, opens every conversation.
_EXAONE = r"""
{%- if messages[0]['role'] != 'system' -%}
{{ '[|system|][|endofturn|]\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '[|' ~ message['role'] ~ '|]' ~ message['content'] }}
{{- '\n' if message['role'] == 'user' else '[|endofturn|]' ~ ('' if loop.last else '\n') }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '[|assistant|]' }}
{%- endif -%}
"""

# Reasoning of earlier answers is left out, its tags are not.
_EXAONE_4 = r"""
{%- if tools -%}
{{ raise_exception('tools are not supported: use chat_template: tokenizer_default') }}
{%- endif -%}
{%- set last = namespace(user=-1) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{{ '[|' ~ message['role'] ~ '|]\n' }}
{%- if message['role'] == 'assistant' and message['content'] -%}
{{ '<think>\n' ~ (message['reasoning_content'] if loop.index0 > last.user else '') ~ '\n</think>\n\n' }}
{%- endif -%}
{{ message['content'] ~ '[|endofturn|]\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '[|assistant|]\n' ~ ('<think>\n' if enable_thinking else '<think>\n\n</think>\n\n') }}
{%- endif -%}
"""

TEMPLATES = {"exaone": _EXAONE, "exaone4": _EXAONE_4}
