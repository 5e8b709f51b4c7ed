"""Chat templates of OpenAI's formats."""

# Source: github.com/openai/openai-python, chatml.md.
_CHATML = r"""
{%- for message in messages -%}
{{ '<|im_start|>' ~ message['role'] ~ '\n' ~ message['content'] ~ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}
"""

# Source: cookbook.openai.com, "OpenAI harmony response format". Reasoning is kept in the last answer alone, which ends
# with <|return|>; the system text is the developer's.
_HARMONY = r"""
{%- if tools -%}
{{ raise_exception('tools are not supported: use chat_template: tokenizer_default') }}
{%- endif -%}
{{- '<|start|>system<|message|>' }}
{{- model_identity | default('You are ChatGPT, a large language model trained by OpenAI.') }}
{{- '\nKnowledge cutoff: 2024-06\nCurrent date: ' ~ strftime_now('%Y-%m-%d') }}
{{- '\n\nReasoning: ' ~ (reasoning_effort | default('medium')) }}
{{- '\n\n# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>' }}
{%- for message in messages -%}
{%- set thinking = message.get('thinking') or message.get('reasoning_content') -%}
{%- if message['role'] in ('system', 'developer') -%}
{{ '<|start|>developer<|message|># Instructions\n\n' ~ message['content'] ~ '\n\n<|end|>' }}
{%- elif message['role'] == 'user' -%}
{{ '<|start|>user<|message|>' ~ message['content'] ~ '<|end|>' }}
{%- elif message['role'] == 'assistant' -%}
{%- if message['tool_calls'] -%}
{{ raise_exception('calls of tools are not supported: use chat_template: tokenizer_default') }}
{%- endif -%}
{%- if thinking and loop.last -%}
{{ '<|start|>assistant<|channel|>analysis<|message|>' ~ thinking ~ '<|end|>' }}
{%- endif -%}
{{ '<|start|>assistant<|channel|>final<|message|>' ~ message['content'] }}
{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}
{%- else -%}
{{ raise_exception('Only system, developer, user and assistant messages are supported') }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start|>assistant' }}
{%- endif -%}
"""

TEMPLATES = {"chatml": _CHATML, "gpt_oss": _HARMONY, "harmony": _HARMONY}
