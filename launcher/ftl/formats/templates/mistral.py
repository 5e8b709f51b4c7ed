"""Chat templates of Mistral AI. Source: github.com/mistralai/mistral-common, instruct tokenizers v1, v2, v3 and v7.

A system text opens the first question in v1 and the last one in v2 and v3; from v7 on it stands by itself.
"""

from string import Template

_INSTRUCT = Template(r"""
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- set turns = messages[1:] if has_system else messages -%}
{%- set user = namespace(first=-1, last=-1, is_next=true) -%}
{%- for message in turns -%}
{%- if message['role'] == 'user' -%}
{%- set user.last = loop.index0 -%}
{%- set user.first = loop.index0 if user.first == -1 else user.first -%}
{%- endif -%}
{%- endfor -%}
{{- bos_token ~ $system }}
{%- for message in turns -%}
{%- if message['role'] == 'user' or (message['role'] == 'assistant' and not message['tool_calls']) -%}
{%- if (message['role'] == 'user') != user.is_next -%}
{{ raise_exception('After an optional system message, roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- set user.is_next = not user.is_next -%}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{ ('[AVAILABLE_TOOLS]' ~ (tools | tojson) ~ '[/AVAILABLE_TOOLS]') if tools and loop.index0 == user.last else '' }}
{{- '$open' ~ (messages[0]['content'] ~ '\n\n' if has_system and loop.index0 == $place else '') }}
{{- message['content'] ~ '$close' }}
{%- elif message['tool_calls'] -%}
{{ message['content'] ~ '[TOOL_CALLS][' }}
{%- for call in message['tool_calls'] -%}
{%- if call['id'] | string | length != 9 -%}
{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
{%- endif -%}
{{ (call['function'] | tojson)[:-1] ~ ', "id": "' ~ call['id'] ~ '"}' ~ ('' if loop.last else ', ') }}
{%- endfor -%}
{{ ']' ~ eos_token }}
{%- elif message['role'] == 'assistant' -%}
{{ $answer ~ eos_token }}
{%- elif message['role'] in ('tool', 'tool_results') -%}
{{ '[TOOL_RESULTS]{"content": ' ~ message['content'] ~ ', "call_id": "' ~ message['tool_call_id'] }}
{{- '"}[/TOOL_RESULTS]' }}
{%- else -%}
{{ raise_exception('Only system, user, assistant and tool messages are supported') }}
{%- endif -%}
{%- endfor -%}
""")

_OWN_TURN = "('[SYSTEM_PROMPT]' ~ messages[0]['content'] ~ '[/SYSTEM_PROMPT]' if has_system else '')"
_SPACED = "' ' ~ (message['content'] | trim)"
_PLAIN = "message['content']"


def _version(open: str, close: str, answer: str, place: str, system: str = "''") -> str:
    return _INSTRUCT.substitute(open=open, close=close, answer=answer, place=place, system=system)


TEMPLATES = {
    "mistral_v1": _version(" [INST] ", " [/INST]", _SPACED, place="user.first"),
    "mistral_v2v3": _version("[INST] ", "[/INST]", _SPACED, place="user.last"),
    "mistral_v3_tekken": _version("[INST]", "[/INST]", _PLAIN, place="user.last"),
    "mistral_v7_tekken": _version("[INST]", "[/INST]", _PLAIN, place="-1", system=_OWN_TURN),
    "pixtral": _version("[INST]", "[/INST]", _PLAIN, place="user.last"),
}
