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

# Source: github.com/openai/harmony, docs/format.md, "Defining available tools", and src/encoding.rs for what that page
# leaves open: a JSON schema as a type of TypeScript.
_HARMONY_TYPES = r"""
{%- macro comment(text, indent) -%}
{%- for line in text.splitlines() -%}
{{ indent ~ '// ' ~ line ~ '\n' }}
{%- endfor -%}
{%- endmacro -%}
{%- macro type_of(schema, indent) -%}
{%- if schema['oneOf'] -%}
{{ raise_exception('tools with oneOf are not supported: use chat_template: tokenizer_default') }}
{%- elif schema['type'] and schema['type'] is not string -%}
{{ schema['type'] | join(' | ') | replace('integer', 'number') }}
{%- elif schema['type'] == 'object' -%}
{{ comment(schema['description'] or '', indent) ~ '{\n' }}
{%- for name, field in (schema['properties'] or {}).items() -%}
{{ (indent ~ '// ' ~ field['title'] ~ '\n' ~ indent ~ '//\n' if field['title'] else '') }}
{{- comment(field['description'] or '', indent) }}
{{- indent ~ '// Examples:\n' if field['examples'] else '' }}
{%- for example in field['examples'] or [] if example is string -%}
{{ indent ~ '// - "' ~ example ~ '"\n' }}
{%- endfor -%}
{%- set type = type_of(field, indent ~ '    ') -%}
{{ indent ~ name ~ ('' if name in (schema['required'] or []) else '?') ~ ': ' ~ type }}
{{- ' | null' if field['nullable'] and 'null' not in type else '' }}
{{- ',' }}
{%- if 'default' in field -%}
{%- set is_name = field['enum'] and field['default'] is string -%}
{{ ' // default: ' ~ (field['default'] if is_name else field['default'] | tojson) }}
{%- endif -%}
{{ '\n' }}
{%- endfor -%}
{{ indent ~ '}' }}
{%- elif schema['type'] == 'string' -%}
{{ '"' ~ (schema['enum'] | join('" | "')) ~ '"' if schema['enum'] else 'string' }}
{%- elif schema['type'] == 'array' -%}
{{ type_of(schema['items'], indent) ~ '[]' if schema['items'] else 'Array<any>' }}
{%- else -%}
{{ {'integer': 'number', 'number': 'number', 'boolean': 'boolean'}.get(schema['type'], 'any') }}
{%- endif -%}
{%- endmacro -%}
{%- macro namespace_of(tools) -%}
{{ '# Tools\n\n## functions\n\nnamespace functions {\n\n' }}
{%- for tool in tools -%}
{%- set function = tool['function'] or tool -%}
{%- set given = function['parameters'] -%}
{{ comment(function['description'] or '', '') ~ 'type ' ~ function['name'] ~ ' = (' }}
{{- '_: ' ~ type_of(given, '') if given and given['properties'] else '' }}
{{- ') => any;\n\n' }}
{%- endfor -%}
{{ '} // namespace functions' }}
{%- endmacro -%}
"""

# Source: the same page. The system text is the developer's, and tools stand behind it. The last answer ends with
# <|return|>. Reasoning is kept in it and in the calls that lead to it; a text beside a call is commentary, too.
_HARMONY = (
    _HARMONY_TYPES
    + r"""
{%- set has_developer = messages[0]['role'] in ('system', 'developer') -%}
{%- set last = namespace(user=-1, call='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- '<|start|>system<|message|>' }}
{{- model_identity | default('You are ChatGPT, a large language model trained by OpenAI.') }}
{{- '\nKnowledge cutoff: 2024-06\nCurrent date: ' ~ strftime_now('%Y-%m-%d') }}
{{- '\n\nReasoning: ' ~ (reasoning_effort | default('medium')) }}
{{- '\n\n# Valid channels: analysis, commentary, final. Channel must be included for every message.' }}
{{- "\nCalls to these tools must go to the commentary channel: 'functions'." if tools else '' }}
{{- '<|end|>' }}
{{- '<|start|>developer<|message|>' ~ namespace_of(tools) ~ '<|end|>' if tools and not has_developer else '' }}
{%- for message in messages -%}
{%- set thinking = message.get('thinking') or message.get('reasoning_content') -%}
{%- if message['role'] in ('system', 'developer') -%}
{{ '<|start|>developer<|message|># Instructions\n\n' ~ message['content'] ~ '\n\n' }}
{{- (namespace_of(tools) if tools and loop.first else '') ~ '<|end|>' }}
{%- elif message['role'] == 'user' -%}
{{ '<|start|>user<|message|>' ~ message['content'] ~ '<|end|>' }}
{%- elif message['role'] == 'tool' -%}
{{ '<|start|>functions.' ~ (message['name'] or last.call) ~ ' to=assistant<|channel|>commentary<|message|>' }}
{{- message['content'] ~ '<|end|>' }}
{%- elif message['tool_calls'] -%}
{%- if message['tool_calls'] | length != 1 -%}
{{ raise_exception('This format has one call in a message') }}
{%- endif -%}
{%- set function = message['tool_calls'][0]['function'] or message['tool_calls'][0] -%}
{%- set last.call = function['name'] -%}
{%- if thinking and loop.index0 > last.user -%}
{{ '<|start|>assistant<|channel|>analysis<|message|>' ~ thinking ~ '<|end|>' }}
{%- endif -%}
{%- if message['content'] -%}
{{ '<|start|>assistant<|channel|>commentary<|message|>' ~ message['content'] ~ '<|end|>' }}
{%- endif -%}
{{ '<|start|>assistant<|channel|>commentary to=functions.' ~ function['name'] }}
{{- ' <|constrain|>json<|message|>' ~ (function['arguments'] | tojson) ~ '<|call|>' }}
{%- elif message['role'] == 'assistant' -%}
{%- if thinking and loop.last -%}
{{ '<|start|>assistant<|channel|>analysis<|message|>' ~ thinking ~ '<|end|>' }}
{%- endif -%}
{{ '<|start|>assistant<|channel|>final<|message|>' ~ message['content'] }}
{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}
{%- else -%}
{{ raise_exception('Only system, developer, user, assistant and tool messages are supported') }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start|>assistant' }}
{%- endif -%}
"""
)

TEMPLATES = {"chatml": _CHATML, "gpt_oss": _HARMONY, "harmony": _HARMONY}
