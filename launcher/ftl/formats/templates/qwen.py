"""Chat templates of Alibaba's Qwen. Source: qwen.readthedocs.io, "Key concepts", and the model cards' examples."""

_SIGNATURES = r"""
{{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n' }}
{{- 'You are provided with function signatures within <tools></tools> XML tags:\n<tools>' }}
{%- for tool in tools -%}
{{ '\n' ~ (tool | tojson) }}
{%- endfor -%}
{{ '\n</tools>\n\nFor each function call, return a json object with function name and arguments within ' }}
{{- '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n' }}
{{- '</tool_call><|im_end|>\n' }}
"""

_CALLS = r"""
{%- for call in message['tool_calls'] or [] -%}
{%- set function = call['function'] or call -%}
{{ '\n' if content or WRAPPED or not loop.first else '' }}
{{- '<tool_call>\n{"name": "' ~ function['name'] ~ '", "arguments": ' ~ (function['arguments'] | tojson) ~ '}\n' }}
{{- '</tool_call>' }}
{%- endfor -%}
"""

# Results that follow one another are one turn of the user.
_RESULTS = r"""
{{ '<|im_start|>user' if loop.first or loop.previtem['role'] != 'tool' else '' }}
{{- '\n<tool_response>\n' ~ message['content'] ~ '\n</tool_response>' }}
{{- '<|im_end|>\n' if loop.last or loop.nextitem['role'] != 'tool' else '' }}
"""

# Where reasoning may be printed: after the last message of the user that is no result of a tool.
_LAST_QUERY = r"""
{%- set last = namespace(query=messages | length - 1) -%}
{%- for message in messages -%}
{%- set content = message['content'] -%}
{%- set is_result = content.startswith('<tool_response>') and content.endswith('</tool_response>') -%}
{%- if message['role'] == 'user' and not is_result -%}{%- set last.query = loop.index0 -%}{%- endif -%}
{%- endfor -%}
"""

_REASONING = r"""
{%- set reasoning = message['reasoning_content'] or '' -%}
{%- if not message['reasoning_content'] is string and '</think>' in content -%}
{%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
"""

# A system text by default, which tools follow.
_QWEN2_5 = (
    r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{{- '<|im_start|>system\n' ~ (messages[0]['content'] if has_system else 'IDENTITY') }}
{%- if tools -%}
{{ '\n\n' }}
"""
    + _SIGNATURES
    + r"""
{%- else -%}
{{ '<|im_end|>\n' }}
{%- endif -%}
{%- for message in (messages[1:] if has_system else messages) -%}
{%- set content = message['content'] -%}
{%- if message['role'] == 'tool' -%}
"""
    + _RESULTS
    + r"""
{%- else -%}
{{ '<|im_start|>' ~ message['role'] ~ ('\n' ~ content if content or not message['tool_calls'] else '') }}
"""
    + _CALLS.replace("WRAPPED", "true")
    + r"""
{{- '<|im_end|>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}
"""
)

# Reasoning of earlier answers is left out; the last answer has it even if it is empty.
_QWEN3 = (
    r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- if tools -%}
{{ '<|im_start|>system\n' ~ (messages[0]['content'] ~ '\n\n' if has_system else '') }}
"""
    + _SIGNATURES
    + r"""
{%- elif has_system -%}
{{ '<|im_start|>system\n' ~ messages[0]['content'] ~ '<|im_end|>\n' }}
{%- endif -%}
"""
    + _LAST_QUERY
    + r"""
{%- for message in messages -%}
{%- set content = message['content'] -%}
{%- if message['role'] == 'assistant' -%}
"""
    + _REASONING
    + r"""
{{- '<|im_start|>assistant\n' }}
{%- if loop.index0 > last.query and (loop.last or reasoning) -%}
{%- set content = content.lstrip('\n') -%}
{{ '<think>\n' ~ reasoning.strip('\n') ~ '\n</think>\n\n' }}
{%- endif -%}
{{ content }}
"""
    + _CALLS.replace("WRAPPED", "false")
    + r"""
{{- '<|im_end|>\n' }}
{%- elif message['role'] == 'tool' -%}
"""
    + _RESULTS
    + r"""
{%- elif message['role'] != 'system' or not loop.first -%}
{{ '<|im_start|>' ~ message['role'] ~ '\n' ~ content ~ '<|im_end|>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' ~ ('<think>\n\n</think>\n\n' if enable_thinking is false else '') }}
{%- endif -%}
"""
)

_FUNCTIONS = r"""
{{- '# Tools\n\nYou have access to the following functions:\n\n<tools>' }}
{%- for tool in tools -%}
{{ '\n' ~ (tool | tojson) }}
{%- endfor -%}
{{ '\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n' }}
{{- '<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n' }}
{{- '<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n' }}
{{- '</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified ' }}
{{- 'format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags\n' }}
{{- '- Required parameters MUST be specified\n- You may provide optional reasoning for your function call in ' }}
{{- 'natural language BEFORE the function call, but NOT after\n- If there is no function call available, answer ' }}
{{- 'the question like normal with your current knowledge and do not tell the user about function calls\n' }}
{{- '</IMPORTANT>' }}
"""

_XML_CALLS = r"""
{%- for call in message['tool_calls'] or [] -%}
{%- set function = call['function'] or call -%}
{{ ('\n\n' if content else '') if loop.first else '\n' }}
{{- '<tool_call>\n<function=' ~ function['name'] ~ '>\n' }}
{%- for name, value in (function['arguments'] or {}).items() -%}
{{ '<parameter=' ~ name ~ '>\n' }}
{{- value | tojson if value is mapping or (value is sequence and value is not string) else value }}
{{- '\n</parameter>\n' }}
{%- endfor -%}
{{ '</function>\n</tool_call>' }}
{%- endfor -%}
"""

# Texts are trimmed, every answer after the last question has its reasoning, and calls of tools are XML. A system text
# follows the tools.
_QWEN3_5 = (
    r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- if tools -%}
{{ '<|im_start|>system\n' }}
"""
    + _FUNCTIONS
    + r"""
{{- '\n\n' ~ (messages[0]['content'] | trim) if has_system and messages[0]['content'] | trim else '' }}
{{- '<|im_end|>\n' }}
{%- endif -%}
"""
    + _LAST_QUERY
    + r"""
{%- for message in messages -%}
{%- set content = message['content'] | trim -%}
{%- if message['role'] == 'assistant' -%}
"""
    + _REASONING
    + r"""
{{- '<|im_start|>assistant\n' }}
{{- '<think>\n' ~ (reasoning | trim) ~ '\n</think>\n\n' if loop.index0 > last.query else '' }}
{{- content }}
"""
    + _XML_CALLS
    + r"""
{{- '<|im_end|>\n' }}
{%- elif message['role'] == 'tool' -%}
"""
    + _RESULTS.replace("message['content']", "content")
    + r"""
{%- elif not (tools and loop.first and has_system) -%}
{{ '<|im_start|>' ~ message['role'] ~ '\n' ~ content ~ '<|im_end|>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' ~ ('<think>\n\n</think>\n\n' if enable_thinking is false else '<think>\n') }}
{%- endif -%}
"""
)

TEMPLATES = {
    "qwen_25": _QWEN2_5.replace("IDENTITY", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "qwen2_vl": _QWEN2_5.replace("IDENTITY", "You are a helpful assistant."),
    "qwen3": _QWEN3,
    "qwen3_5": _QWEN3_5,
}
