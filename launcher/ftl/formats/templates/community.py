"""Chat templates of formats that models of many makers use."""

# Source: github.com/tatsu-lab/stanford_alpaca, the headings of its prompt, for any number of turns.
_ALPACA = r"""
{{- bos_token }}
{%- set headings = {'user': '### Instruction:\n', 'assistant': '### Response:\n'} -%}
{%- for message in messages -%}
{{ headings.get(message['role'], '') ~ message['content'] ~ (eos_token if message['role'] == 'assistant' else '') }}
{%- if not loop.last -%}
{{ '\n\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '\n\n### Response:\n' }}
{%- endif -%}
"""

# Source: github.com/lm-sys/FastChat, conversation.py, vicuna_v1.1.
_VICUNA = r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{{- bos_token }}
{{- (messages[0]['content'] if has_system else 'IDENTITY') ~ ' ' }}
{%- for message in (messages[1:] if has_system else messages) -%}
{{ message['role'] | upper ~ ': ' ~ message['content'] ~ (eos_token if message['role'] == 'assistant' else ' ') }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'ASSISTANT:' }}
{%- endif -%}
"""
_VICUNA_IDENTITY = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions."
)

# Source: huggingface.co/docs/transformers/model_doc/llava, "Usage tips".
_LLAVA = r"""
{%- for message in messages -%}
{{ message['content'] ~ ' ' if message['role'] == 'system' else message['role'] | upper ~ ': ' ~ message['content'] }}
{{- eos_token if message['role'] == 'assistant' else ' ' if message['role'] == 'user' else '' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'ASSISTANT:' }}
{%- endif -%}
"""

# Source: huggingface.co/HuggingFaceH4/zephyr-7b-beta, the model card.
_ZEPHYR = r"""
{%- for message in messages -%}
{{ '<|' ~ message['role'] ~ '|>\n' ~ message['content'] ~ eos_token ~ '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|assistant|>\n' }}
{%- endif -%}
"""

# Source: huggingface.co/PygmalionAI/metharme-7b, the model card; EOS ends the conversation, not the turn.
_METHARME = r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{{- bos_token ~ '<|system|>' }}
{{- messages[0]['content'] if has_system else 'IDENTITY' }}
{%- for message in (messages[1:] if has_system else messages) -%}
{{ '<|model|>' if message['role'] == 'assistant' else '<|' ~ message['role'] ~ '|>' }}
{{- message['content'] | trim }}
{%- endfor -%}
{{- '<|model|>' if add_generation_prompt else eos_token }}
"""
_METHARME_IDENTITY = (
    "Enter RP mode. You shall reply to the user while staying in character. Your responses must be detailed, "
    "creative, immersive, and drive the scenario forward."
)

# Source: docs.ai21.com, Jamba 1.5, "Message format": a system turn, empty if need be, opens every conversation; the
# tools are a part of it.
_JAMBA = r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] if has_system else '' -%}
{{- '<|startoftext|><|bom|><|system|> ' ~ system }}
{%- if tools -%}
{{ ('\n\n' if system else '') ~ '<tool_definitions>\n# Tools\n\n## Functions' }}
{%- for tool in tools -%}
{{ '\n\n' ~ ((tool['function'] or tool) | tojson(indent=2)) }}
{%- endfor -%}
{{ '\n</tool_definitions>' }}
{%- endif -%}
{{ '<|eom|>' }}
{%- for message in (messages[1:] if has_system else messages) -%}
{{ '<|bom|><|' ~ message['role'] ~ '|> ' ~ message['content'] }}
{%- for call in message['tool_calls'] or [] -%}
{%- set function = call['function'] or call -%}
{{ '<tool_calls>[\n' if loop.first else ',\n' }}
{{- '{"name": "' ~ function['name'] ~ '", "arguments": ' ~ (function['arguments'] | tojson) ~ '}' }}
{{- '\n]</tool_calls>' if loop.last else '' }}
{%- endfor -%}
{{ '<|eom|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|bom|><|assistant|> ' }}
{%- endif -%}
"""

# Source: falcon-lm.github.io, Falcon-H1: ChatML with BOS before it.
_FALCON_H1 = r"""
{%- if tools -%}
{{ raise_exception('tools are not supported: use chat_template: tokenizer_default') }}
{%- endif -%}
{{- bos_token }}
{%- for message in messages -%}
{{ '<|im_start|>' ~ message['role'] ~ '\n' ~ message['content'] ~ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}
"""

TEMPLATES = {
    "alpaca": _ALPACA,
    "falcon_h1": _FALCON_H1,
    "jamba": _JAMBA,
    "llava": _LLAVA,
    "metharme": _METHARME.replace("IDENTITY", _METHARME_IDENTITY),
    "vicuna": _VICUNA.replace("IDENTITY", _VICUNA_IDENTITY),
    "zephyr": _ZEPHYR,
}
