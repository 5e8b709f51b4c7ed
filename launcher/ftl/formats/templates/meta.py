"""Chat templates of Meta's Llama."""

# Source: github.com/meta-llama/llama, generation.py: the system text is part of the first question.
_LLAMA2 = r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- set turns = messages[1:] if has_system else messages -%}
{%- for message in turns -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{ bos_token ~ '[INST] ' }}
{{- '<<SYS>>\n' ~ messages[0]['content'] ~ '\n<</SYS>>\n\n' if has_system and loop.first else '' }}
{{- (message['content'] | trim) ~ ' [/INST]' }}
{%- else -%}
{{ ' ' ~ (message['content'] | trim) ~ ' ' ~ eos_token }}
{%- endif -%}
{%- endfor -%}
"""

# Source: llama.com, "Llama 3 prompt format". `+` refuses a tokenizer without BOS, which the format begins with.
_LLAMA3 = r"""
{{- bos_token + '' }}
{%- for message in messages -%}
{{ '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\n\n' ~ (message['content'] | trim) ~ '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif -%}
"""

# Source: llama.com, "Llama 3.2 vision" and "Llama 3.1, JSON based tool calling": dates in every system text, the tools
# before the first question, one call a turn.
_LLAMA3_2_VISION = r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- set first = namespace(user=-1) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' and first.user == -1 -%}{%- set first.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- bos_token ~ '<|start_header_id|>system<|end_header_id|>\n\n' }}
{{- 'Environment: ipython\n' if tools else '' }}
{{- 'Cutting Knowledge Date: December 2023\nToday Date: ' ~ (date_string | default('26 Jul 2024')) ~ '\n\n' }}
{{- (messages[0]['content'] | trim if has_system else '') ~ '<|eot_id|>' }}
{%- for message in messages -%}
{%- if message['role'] == 'system' and loop.first -%}
{%- elif message['role'] in ('tool', 'ipython') -%}
{{ '<|start_header_id|>ipython<|end_header_id|>\n\n' ~ (message['content'] | tojson) ~ '<|eot_id|>' }}
{%- elif message['tool_calls'] -%}
{%- if message['tool_calls'] | length != 1 -%}
{{ raise_exception('This model only supports single tool-calls at once') }}
{%- endif -%}
{%- set call = message['tool_calls'][0]['function'] or message['tool_calls'][0] -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' ~ call['name'] ~ '", "parameters": ' }}
{{- (call['arguments'] | tojson) ~ '}<|eot_id|>' }}
{%- else -%}
{{ '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\n\n' }}
{%- if tools and loop.index0 == first.user -%}
{{ 'Given the following functions, please respond with a JSON for a function call with its proper arguments ' }}
{{- 'that best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": ' }}
{{- 'dictionary of argument name and its value}.Do not use variables.\n\n' }}
{%- for tool in tools -%}
{{ (tool | tojson(indent=4)) ~ '\n\n' }}
{%- endfor -%}
{%- endif -%}
{{ message['content'] ~ '<|eot_id|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif -%}
"""

# Source: llama.com, "Llama 4 prompt format", and the template of Meta's own repositories: tools stand before the first
# question, and a turn with calls holds its text between python markers.
_LLAMA4 = r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{{- bos_token }}
{%- if has_system -%}
{{ '<|header_start|>system<|header_end|>\n\n' ~ ('Environment: ipython\n' if tools else '') }}
{{- (messages[0]['content'] | trim) ~ '<|eot|>' }}
{%- endif -%}
{%- for message in (messages[1:] if has_system else messages) -%}
{%- if message['role'] in ('tool', 'ipython') -%}
{{ '<|header_start|>ipython<|header_end|>\n\n' ~ (message['content'] | tojson) ~ '<|eot|>' }}
{%- elif message['tool_calls'] -%}
{{ '<|header_start|>assistant<|header_end|>\n\n<|python_start|>' ~ message['content'] ~ '<|python_end|>' }}
{%- for call in message['tool_calls'] -%}
{%- set function = call['function'] or call -%}
{{ '{"name": "' ~ function['name'] ~ '", "parameters": ' ~ (function['arguments'] | tojson) ~ '}' }}
{%- endfor -%}
{{ '<|eot|>' }}
{%- else -%}
{{ '<|header_start|>' ~ message['role'] ~ '<|header_end|>\n\n' }}
{%- if tools and loop.first -%}
{{ 'Given the following functions, please respond with a JSON for a function call with its proper arguments ' }}
{{- 'that best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": ' }}
{{- 'dictionary of argument name and its value}.Do not use variables.\n\n' }}
{%- for tool in tools -%}
{{ (tool | tojson(indent=4)) ~ '\n\n' }}
{%- endfor -%}
{{ message['content'] | trim }}
{%- else -%}
{{ message['content'] }}
{%- endif -%}
{{ '<|eot|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|header_start|>assistant<|header_end|>\n\n' }}
{%- endif -%}
"""

TEMPLATES = {"llama2": _LLAMA2, "llama3": _LLAMA3, "llama3_2_vision": _LLAMA3_2_VISION, "llama4": _LLAMA4}
