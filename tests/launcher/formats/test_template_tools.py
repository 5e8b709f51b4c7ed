"""Tools in the templates whose format for them is published: definitions, a call, its result, the answer.

The expected texts are written by hand from the pages that the templates name.
"""

import json

import pytest
from byte_tokenizer import save_byte_tokenizer

from ftl.formats.example import Conversation, RowError, Turn
from ftl.formats.templates import TEMPLATES
from ftl.tokens import ChatTemplate, TokenizerView

TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}
ON_ONE_LINE = json.dumps(TOOL)
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}
SYSTEM, QUESTION = Turn("system", "S", False), Turn("user", "U", False)
CALLING, RESULT = Turn("assistant", "", True, {"tool_calls": [CALL]}), Turn("tool", "blue", False)
ANSWER = Turn("assistant", "A", True)
CHAT = (SYSTEM, QUESTION, CALLING, RESULT, ANSWER)

QWEN3_5 = f"""<|im_start|>system
# Tools

You have access to the following functions:

<tools>
{ON_ONE_LINE}
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within \
<tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell \
the user about function calls
</IMPORTANT>

S<|im_end|>
<|im_start|>user
U<|im_end|>
<|im_start|>assistant
<think>

</think>

<tool_call>
<function=look>
<parameter=at>
sky
</parameter>
</function>
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
blue
</tool_response><|im_end|>
<|im_start|>assistant
<think>

</think>

A<|im_end|>
"""

EXAONE4 = f"""[|system|]
S

# Available Tools
You can use none, one, or multiple of the following tools by calling them as functions to help with the \
user\u2019s query.
Here are the tools available to you in JSON format within <tool> and </tool> tags:
<tool>{ON_ONE_LINE}</tool>

For each function call you want to make, return a JSON object with function name and arguments within <tool_call> and \
</tool_call> tags, like:
<tool_call>{{"name": function_1_name, "arguments": {{argument_1_name: argument_1_value, argument_2_name: \
argument_2_value}}}}</tool_call>
<tool_call>{{"name": function_2_name, "arguments": {{...}}}}</tool_call>
...
Note that if no argument name is specified for a tool, you can just print the argument value directly, without the \
argument name or JSON formatting.[|endofturn|]
[|user|]
U[|endofturn|]
[|assistant|]
<think>

</think>

<tool_call>{{"name": "look", "arguments": {{"at": "sky"}}}}</tool_call>[|endofturn|]
[|tool|]
<tool_result>{{"result": "blue"}}</tool_result>[|endofturn|]
[|assistant|]
<think>

</think>

A[|endofturn|]
"""

JAMBA = """<|startoftext|><|bom|><|system|> S

<tool_definitions>
# Tools

## Functions

{
  "name": "look",
  "description": "Looks.",
  "parameters": {
    "type": "object",
    "properties": {
      "at": {
        "type": "string"
      }
    },
    "required": [
      "at"
    ]
  }
}
</tool_definitions><|eom|><|bom|><|user|> U<|eom|><|bom|><|assistant|> <tool_calls>[
{"name": "look", "arguments": {"at": "sky"}}
]</tool_calls><|eom|><|bom|><|tool|> blue<|eom|><|bom|><|assistant|> A<|eom|>"""

LLAMA4 = """<s><|header_start|>system<|header_end|>

Environment: ipython
S<|eot|><|header_start|>user<|header_end|>

Given the following functions, please respond with a JSON for a function call with its proper arguments that best \
answers the given prompt.

Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.\
Do not use variables.

{
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {
            "type": "object",
            "properties": {
                "at": {
                    "type": "string"
                }
            },
            "required": [
                "at"
            ]
        }
    }
}

U<|eot|><|header_start|>assistant<|header_end|>

<|python_start|><|python_end|>{"name": "look", "parameters": {"at": "sky"}}<|eot|>\
<|header_start|>ipython<|header_end|>

"blue"<|eot|><|header_start|>assistant<|header_end|>

A<|eot|>"""

GPT_OSS = """<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.
Knowledge cutoff: 2024-06
Current date: 2024-07-26

Reasoning: medium

# Valid channels: analysis, commentary, final. Channel must be included for every message.
Calls to these tools must go to the commentary channel: 'functions'.<|end|><|start|>developer<|message|># Instructions

S

# Tools

## functions

namespace functions {

// Looks.
type look = (_: {
at: string,
}) => any;

} // namespace functions<|end|><|start|>user<|message|>U<|end|>\
<|start|>assistant<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"at": "sky"}<|call|>\
<|start|>functions.look to=assistant<|channel|>commentary<|message|>blue<|end|>\
<|start|>assistant<|channel|>final<|message|>A<|return|>"""

EXPECTED = {"qwen3_5": QWEN3_5, "exaone4": EXAONE4, "jamba": JAMBA, "llama4": LLAMA4, "gpt_oss": GPT_OSS}
CALLS = {
    "qwen3_5": "<tool_call>\n<function=look>\n<parameter=at>\nsky\n</parameter>\n</function>\n</tool_call>",
    "exaone4": '<tool_call>{"name": "look", "arguments": {"at": "sky"}}</tool_call>',
    "jamba": '<tool_calls>[\n{"name": "look", "arguments": {"at": "sky"}}\n]</tool_calls>',
    "llama4": '<|python_start|><|python_end|>{"name": "look", "parameters": {"at": "sky"}}',
    "gpt_oss": 'commentary to=functions.look <|constrain|>json<|message|>{"at": "sky"}<|call',
}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> TokenizerView:
    return TokenizerView.load(save_byte_tokenizer(tmp_path_factory.mktemp("bytes")))


@pytest.mark.parametrize("name", EXPECTED)
def test_tools_are_printed_as_published(view: TokenizerView, name: str) -> None:
    assert ChatTemplate(TEMPLATES[name], view).render(CHAT, (TOOL,)) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_calls_and_answer_are_trained_and_results_are_not(view: TokenizerView, name: str) -> None:
    template = ChatTemplate(TEMPLATES[name], view)
    segments = template.example(Conversation(CHAT, "none", tools=(TOOL,))).segments
    trained = [segment.text for segment in segments if segment.train]
    assert trained == [CALLS[name], "A"]


@pytest.mark.parametrize("name", ["qwen3_5", "exaone4"])
def test_results_that_follow_one_another_are_one_turn(view: TokenizerView, name: str) -> None:
    text = ChatTemplate(TEMPLATES[name], view).render((QUESTION, CALLING, RESULT, Turn("tool", "red", False), ANSWER))
    between = {
        "qwen3_5": "<|im_start|>user\n<tool_response>\nblue\n</tool_response>\n<tool_response>\nred\n</tool_response>"
        "<|im_end|>\n",
        "exaone4": '[|tool|]\n<tool_result>{"result": "blue"}</tool_result>\n'
        '<tool_result>{"result": "red"}</tool_result>[|endofturn|]\n',
    }
    assert between[name] in text


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("qwen3_5", "Hm.\n\n<tool_call>\n<function=look>"),
        ("exaone4", 'Hm.\n<tool_call>{"name"'),
        ("jamba", 'Hm.<tool_calls>[\n{"name"'),
        ("llama4", "<|python_start|>Hm.<|python_end|>{"),
        (
            "gpt_oss",
            "<|start|>assistant<|channel|>commentary<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=",
        ),
    ],
)
def test_text_stands_before_the_call(view: TokenizerView, name: str, printed: str) -> None:
    calling = Turn("assistant", "Hm.", True, {"tool_calls": [CALL]})
    assert printed in ChatTemplate(TEMPLATES[name], view).render((QUESTION, calling, RESULT, ANSWER), (TOOL,))


def test_harmony_keeps_the_reasoning_of_calls_since_the_last_question(view: TokenizerView) -> None:
    def calling(why: str) -> Turn:
        return Turn("assistant", "", True, {"tool_calls": [CALL], "reasoning_content": why})

    turns = (QUESTION, calling("old"), RESULT, ANSWER, QUESTION, calling("new"), RESULT)
    text = ChatTemplate(TEMPLATES["gpt_oss"], view).render(turns, (TOOL,))
    assert "old" not in text
    assert "<|channel|>analysis<|message|>new<|end|><|start|>assistant<|channel|>commentary to=functions.look" in text


def test_harmony_writes_parameters_as_typescript(view: TokenizerView) -> None:
    """The page's own example, and nested and odd types by the rules of its renderer."""
    tools = (
        {"name": "get_location", "description": "Gets the location of the user."},
        {
            "name": "get_multiple_weathers",
            "description": "Gets the current weather in the provided list of locations.",
            "parameters": {
                "type": "object",
                "properties": {
                    "locations": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": 'List of city and state, e.g. ["San Francisco, CA", "New York, NY"]',
                    },
                    "format": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                },
                "required": ["locations"],
            },
        },
        {
            "name": "odd",
            "parameters": {
                "type": "object",
                "properties": {
                    "days": {"type": "integer", "default": 3},
                    "id": {"type": ["integer", "string"]},
                    "place": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
                    "tag": {"type": "string", "default": "a", "nullable": True},
                    "any": {},
                },
            },
        },
    )
    text = ChatTemplate(TEMPLATES["harmony"], view).render((QUESTION,), tools)
    assert text.partition("<|start|>developer<|message|>")[2].partition("<|end|>")[0] == (
        "# Tools\n\n## functions\n\nnamespace functions {\n\n"
        "// Gets the location of the user.\ntype get_location = () => any;\n\n"
        "// Gets the current weather in the provided list of locations.\n"
        "type get_multiple_weathers = (_: {\n"
        '// List of city and state, e.g. ["San Francisco, CA", "New York, NY"]\n'
        "locations: string[],\n"
        'format?: "celsius" | "fahrenheit", // default: celsius\n'
        "}) => any;\n\n"
        "type odd = (_: {\ndays?: number, // default: 3\nid?: number | string,\n"
        "place?: {\n    x: number,\n    },\n"
        'tag?: string | null, // default: "a"\nany?: any,\n}) => any;\n\n'
        "} // namespace functions"
    )


def test_harmony_has_one_call_in_a_message(view: TokenizerView) -> None:
    calling = Turn("assistant", "", True, {"tool_calls": [CALL, CALL]})
    with pytest.raises(RowError, match="one call in a message"):
        ChatTemplate(TEMPLATES["gpt_oss"], view).render((QUESTION, calling))


COMMAND_A_TOOLS = """## Available Tools
Here is the list of tools that you have available to you.
You can ONLY use the tools listed here. When a tool is not listed below, it is NOT available and you should NEVER \
attempt to use it.
Each tool is represented as a JSON object with fields like "name", "description", "parameters" (per JSON Schema), and \
optionally, "responses" (per JSON Schema).

```json
[
    {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": \
{"at": {"type": "string"}}, "required": ["at"]}, "responses": null}
]
```

# Default Preamble
"""
COMMAND_A_TURNS = """<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|>\
<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>P<|END_THINKING|><|START_ACTION|>[
    {"tool_call_id": "0", "tool_name": "look", "parameters": {"at": "sky"}},
    {"tool_call_id": "1", "tool_name": "look", "parameters": {"at": "sky"}}
]<|END_ACTION|><|END_OF_TURN_TOKEN|>\
<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[
    {
        "tool_call_id": "0",
        "results": {
            "0": "blue"
        },
        "is_error": null
    },
    {
        "tool_call_id": "1",
        "results": {
            "0": "red"
        },
        "is_error": null
    }
]<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|>\
<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>A<|END_RESPONSE|><|END_OF_TURN_TOKEN|>\
<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"""


def test_command_a_plans_acts_and_observes(view: TokenizerView) -> None:
    calling = Turn("assistant", "", True, {"tool_calls": [CALL, CALL], "tool_plan": "P"})
    turns = (SYSTEM, QUESTION, calling, RESULT, Turn("tool", "red", False), ANSWER)
    text = ChatTemplate(TEMPLATES["command_a_tool_use"], view).render(turns, (TOOL,))
    before, _, rest = text.partition("preamble instructions.\nS<|END_OF_TURN_TOKEN|>")
    assert rest == COMMAND_A_TURNS
    opening, _, _ = before.partition("The following instructions are your defaults")
    assert opening.endswith(COMMAND_A_TOOLS)
    assert "many more languages.\n\nYou have been trained to have advanced reasoning and tool-use" in opening


def test_results_of_command_a_are_numbered_by_the_id_of_their_call(view: TokenizerView) -> None:
    calling = Turn("assistant", "", True, {"tool_calls": [{**CALL, "id": "x"}, {**CALL, "id": "y"}]})
    results = (Turn("tool", "red", False, {"tool_call_id": "y"}), Turn("tool", "blue", False, {"tool_call_id": "x"}))
    text = ChatTemplate(TEMPLATES["command_a_tool_use"], view).render((QUESTION, calling, *results, ANSWER), (TOOL,))
    assert text.index('"tool_call_id": "1",\n        "results"') < text.index('"tool_call_id": "0",\n        "results"')


def test_plan_and_action_of_command_a_are_trained(view: TokenizerView) -> None:
    calling = Turn("assistant", "", True, {"tool_calls": [CALL], "tool_plan": "P"})
    turns = (QUESTION, calling, RESULT, ANSWER)
    template = ChatTemplate(TEMPLATES["command_a_tool_use"], view)
    segments = template.example(Conversation(turns, "none", tools=(TOOL,))).segments
    called, answered = [segment.text for segment in segments if segment.train]
    assert called == (
        'THINKING|>P<|END_THINKING|><|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "look", '
        '"parameters": {"at": "sky"}}\n]<|END_ACTION'
    )
    assert answered == "A"
