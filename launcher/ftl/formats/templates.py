"""The chat templates that can be named in a config, written from the formats that the models' makers published.

All are Jinja with trim_blocks and lstrip_blocks, and take messages, bos_token, eos_token and add_generation_prompt.
"""

# Source: github.com/openai/openai-python, chatml.md.
_CHATML = r"""
{%- for message in messages -%}
{{ '<|im_start|>' ~ message['role'] ~ '\n' ~ message['content'] ~ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}
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

# Source: ai.google.dev, "Gemma formatting and system instructions": user and model take turns, no system turn.
_GEMMA = r"""
{{- bos_token }}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{ raise_exception('System role not supported') }}
{%- endif -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{ '<start_of_turn>' ~ role ~ '\n' ~ (message['content'] | trim) ~ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<start_of_turn>model\n' }}
{%- endif -%}
"""

# Source: github.com/mistralai/mistral-common, instruct tokenizers v2 and v3: the system text opens the last user turn.
_MISTRAL_V2V3 = r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- set turns = messages[1:] if has_system else messages -%}
{%- set last = namespace(user=-1) -%}
{%- for message in turns -%}
{%- if message['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- bos_token }}
{%- for message in turns -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('After an optional system message, roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{ '[INST] ' ~ (messages[0]['content'] ~ '\n\n' if has_system and loop.index0 == last.user else '') }}
{{- message['content'] ~ '[/INST]' }}
{%- elif message['role'] == 'assistant' -%}
{{ ' ' ~ (message['content'] | trim) ~ eos_token }}
{%- else -%}
{{ raise_exception('Only system, user and assistant messages are supported') }}
{%- endif -%}
{%- endfor -%}
"""

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

TEMPLATES: dict[str, str] = {
    "alpaca": _ALPACA,
    "chatml": _CHATML,
    "gemma": _GEMMA,
    "llama3": _LLAMA3,
    "mistral_v2v3": _MISTRAL_V2V3,
}
