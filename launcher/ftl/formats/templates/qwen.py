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

# Texts are trimmed, every answer after the last question has its reasoning, and calls of tools are XML.
_QWEN3_5 = (
    r"""
{%- if tools -%}
{{ raise_exception('tools are not supported: use chat_template: tokenizer_default') }}
{%- endif -%}
"""
    + _LAST_QUERY
    + r"""
{%- for message in messages -%}
{%- set content = message['content'] | trim -%}
{%- if message['tool_calls'] or message['role'] == 'tool' -%}
{{ raise_exception('calls of tools are not supported: use chat_template: tokenizer_default') }}
{%- elif message['role'] == 'assistant' -%}
"""
    + _REASONING
    + r"""
{{- '<|im_start|>assistant\n' }}
{{- '<think>\n' ~ (reasoning | trim) ~ '\n</think>\n\n' if loop.index0 > last.query else '' }}
{{- content ~ '<|im_end|>\n' }}
{%- else -%}
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
