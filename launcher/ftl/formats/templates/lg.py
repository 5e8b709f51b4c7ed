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

# Reasoning of earlier answers is left out, its tags are not. Tools follow the system text.
_EXAONE_4 = r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- if tools -%}
{{ '[|system|]\n' ~ (messages[0]['content'] ~ '\n\n' if has_system else '') ~ '# Available Tools\n' }}
{{- 'You can use none, one, or multiple of the following tools by calling them as functions to help with the ' }}
{{- 'user\u2019s query.\nHere are the tools available to you in JSON format within <tool> and </tool> tags:\n' }}
{%- for tool in tools -%}
{{ '<tool>' ~ (tool | tojson) ~ '</tool>\n' }}
{%- endfor -%}
{{ '\nFor each function call you want to make, return a JSON object with function name and arguments within ' }}
{{- '<tool_call> and </tool_call> tags, like:\n<tool_call>{"name": function_1_name, "arguments": ' }}
{{- '{argument_1_name: argument_1_value, argument_2_name: argument_2_value}}</tool_call>\n' }}
{{- '<tool_call>{"name": function_2_name, "arguments": {...}}</tool_call>\n...\nNote that if no argument name is ' }}
{{- 'specified for a tool, you can just print the argument value directly, without the argument name or JSON ' }}
{{- 'formatting.[|endofturn|]\n' }}
{%- endif -%}
{%- set last = namespace(user=-1) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message['role'] == 'tool' -%}
{{ '[|tool|]\n' if loop.first or loop.previtem['role'] != 'tool' else '' }}
{{- '<tool_result>{"result": ' ~ (message['content'] | tojson) ~ '}</tool_result>' }}
{{- '[|endofturn|]\n' if loop.last or loop.nextitem['role'] != 'tool' else '\n' }}
{%- elif not (tools and has_system and loop.first) -%}
{{ '[|' ~ message['role'] ~ '|]\n' }}
{%- if message['role'] == 'assistant' and (message['content'] or message['tool_calls']) -%}
{{ '<think>\n' ~ (message['reasoning_content'] if loop.index0 > last.user else '') ~ '\n</think>\n\n' }}
{%- endif -%}
{{ message['content'] }}
{%- for call in message['tool_calls'] or [] -%}
{%- set function = call['function'] or call -%}
{{ '\n' if message['content'] or not loop.first else '' }}
{{- '<tool_call>{"name": "' ~ function['name'] ~ '", "arguments": ' ~ (function['arguments'] | tojson) }}
{{- '}</tool_call>' }}
{%- endfor -%}
{{ '[|endofturn|]\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '[|assistant|]\n' ~ ('<think>\n' if enable_thinking else '<think>\n\n</think>\n\n') }}
{%- endif -%}
"""

TEMPLATES = {"exaone": _EXAONE, "exaone4": _EXAONE_4}
