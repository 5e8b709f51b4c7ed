"""Chat templates of Microsoft's Phi. Source: the model cards, "Chat format"."""

# The opening of an answer is part of the question before it.
_PHI_3 = r"""
{{- bos_token }}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{ message['content'] ~ '<|end|>\n' }}
{%- else -%}
{{ '<|' ~ message['role'] ~ '|>\n' ~ message['content'] ~ '<|end|>\n' }}
{{- '<|assistant|>\n' if message['role'] == 'user' else '' }}
{%- endif -%}
{%- endfor -%}
"""

_PHI_3_5 = r"""
{%- for message in messages -%}
{{ '<|' ~ message['role'] ~ '|>\n' ~ message['content'] ~ '<|end|>\n' }}
{%- endfor -%}
{{- '<|assistant|>\n' if add_generation_prompt else eos_token }}
"""

_PHI_4 = r"""
{%- for message in messages -%}
{{ '<|im_start|>' ~ message['role'] ~ '<|im_sep|>' ~ message['content'] ~ '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant<|im_sep|>' }}
{%- endif -%}
"""

TEMPLATES = {"phi_3": _PHI_3, "phi_35": _PHI_3_5, "phi_4": _PHI_4}
