"""Each template against its maker's documented format: two exchanges, a system text where the format has one."""

import pytest
from byte_tokenizer import save_byte_tokenizer

from ftl.formats.example import RowError, Turn
from ftl.formats.templates import TEMPLATES
from ftl.tokens import ChatTemplate, TokenizerView

SYSTEM = Turn("system", "S", False)
CHAT = (Turn("user", "U", False), Turn("assistant", "A", True), Turn("user", "V", False), Turn("assistant", "B", True))


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> TokenizerView:
    return TokenizerView.load(save_byte_tokenizer(tmp_path_factory.mktemp("bytes")))


GPT = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
)
GPT += "Current date: 2024-07-26\n\nReasoning: medium\n\n"
GPT += "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"

WITH_SYSTEM = {
    "alpaca": "<s>S\n\n### Instruction:\nU\n\n### Response:\nA</s>\n\n### Instruction:\nV\n\n### Response:\nB</s>",
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n",
    "cohere": "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>V<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>B<|END_OF_TURN_TOKEN|>",
    "deepseek_v2": "<s>S\n\nUser: U\n\nAssistant: A</s>User: V\n\nAssistant: B</s>",
    "deepseek_v3": "<s>S<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜>"
    "<｜User｜>V<｜Assistant｜>B<｜end▁of▁sentence｜>",
    "exaone": "[|system|]S[|endofturn|]\n[|user|]U\n[|assistant|]A[|endofturn|]\n"
    "[|user|]V\n[|assistant|]B[|endofturn|]",
    "exaone4": "[|system|]\nS[|endofturn|]\n[|user|]\nU[|endofturn|]\n"
    "[|assistant|]\n<think>\n\n</think>\n\nA[|endofturn|]\n"
    "[|user|]\nV[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\nB[|endofturn|]\n",
    "falcon_h1": "<s><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
    "<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n",
    "gemma3": "<s><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
    "<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\nB<end_of_turn>\n",
    "gemma4": "<s><|turn>system\nS<turn|>\n<|turn>user\nU<turn|>\n<|turn>model\nA<turn|>\n"
    "<|turn>user\nV<turn|>\n<|turn>model\nB<turn|>\n",
    "gpt_oss": f"{GPT}<|start|>developer<|message|># Instructions\n\nS\n\n<|end|><|start|>user<|message|>U<|end|>"
    "<|start|>assistant<|channel|>final<|message|>A<|end|><|start|>user<|message|>V<|end|>"
    "<|start|>assistant<|channel|>final<|message|>B<|return|>",
    "jamba": "<|startoftext|><|bom|><|system|> S<|eom|><|bom|><|user|> U<|eom|><|bom|><|assistant|> A<|eom|>"
    "<|bom|><|user|> V<|eom|><|bom|><|assistant|> B<|eom|>",
    "llama2": "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST] B </s>",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "U<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "V<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>",
    "llama3_2_vision": "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "U<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "V<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>",
    "llama4": "<s><|header_start|>system<|header_end|>\n\nS<|eot|><|header_start|>user<|header_end|>\n\nU<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\nA<|eot|><|header_start|>user<|header_end|>\n\nV<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\nB<|eot|>",
    "llava": "S USER: U ASSISTANT: A</s>USER: V ASSISTANT: B</s>",
    "metharme": "<s><|system|>S<|user|>U<|model|>A<|user|>V<|model|>B</s>",
    "mistral_v1": "<s> [INST] S\n\nU [/INST] A</s> [INST] V [/INST] B</s>",
    "mistral_v2v3": "<s>[INST] U[/INST] A</s>[INST] S\n\nV[/INST] B</s>",
    "mistral_v3_tekken": "<s>[INST]U[/INST]A</s>[INST]S\n\nV[/INST]B</s>",
    "mistral_v7_tekken": "<s>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]A</s>[INST]V[/INST]B</s>",
    "phi_3": "<s><|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n"
    "<|assistant|>\nB<|end|>\n",
    "phi_35": "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n"
    "<|assistant|>\nB<|end|>\n</s>",
    "phi_4": "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>U<|im_end|>"
    "<|im_start|>assistant<|im_sep|>A<|im_end|><|im_start|>user<|im_sep|>V<|im_end|>"
    "<|im_start|>assistant<|im_sep|>B<|im_end|>",
    "qwen3": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nB<|im_end|>\n",
    "vicuna": "<s>S USER: U ASSISTANT: A</s>USER: V ASSISTANT: B</s>",
    "zephyr": "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n<|assistant|>\nB</s>\n",
}
SAME = {
    "aya": "cohere",
    "gemma3n": "gemma3",
    "gemma4_unified": "gemma4",
    "harmony": "gpt_oss",
    "pixtral": "mistral_v3_tekken",
    "qwen2_vl": "chatml",
    "qwen3_5": "qwen3",
    "qwen_25": "chatml",
}


@pytest.mark.parametrize("name", [*WITH_SYSTEM, *SAME])
def test_template_prints_the_published_format(view: TokenizerView, name: str) -> None:
    expected = WITH_SYSTEM[SAME.get(name, name)]
    assert ChatTemplate(TEMPLATES[name], view).render((SYSTEM, *CHAT)) == expected


@pytest.mark.parametrize("name", ["command_a", "command_a_tool_use"])
def test_command_a_puts_the_system_text_after_its_own(view: TokenizerView, name: str) -> None:
    text = ChatTemplate(TEMPLATES[name], view).render((SYSTEM, *CHAT))
    own, _, rest = text.partition("preamble instructions.\nS<|END_OF_TURN_TOKEN|>")
    assert own.startswith(
        "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble\nYou are in contextual safety mode."
    )
    answer = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>{}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"
    question = "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|>"
    turns = [question.format("U"), answer.format("A"), question.format("V"), answer.format("B")]
    assert rest == "".join(turns) + "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"


@pytest.mark.parametrize("name", ["gemma", "gemma2"])
def test_gemma_has_no_system_turn(view: TokenizerView, name: str) -> None:
    template = ChatTemplate(TEMPLATES[name], view)
    assert template.render(CHAT[:2]) == "<s><start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
    with pytest.raises(RowError, match="System role not supported"):
        template.render((SYSTEM, *CHAT))


# These leave a space, or <think>, to the model.
ENDING_EARLY = {"deepseek_v2", "llama2", "llava", "mistral_v1", "mistral_v2v3", "qwen3_5", "vicuna"}


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - ENDING_EARLY))
def test_prompt_for_an_answer_is_what_is_printed_before_one(view: TokenizerView, name: str) -> None:
    template = ChatTemplate(TEMPLATES[name], view)
    assert template.render(CHAT).startswith(template.render(CHAT[:3], add_generation_prompt=True))


def test_reasoning_is_printed_in_the_last_answer_alone(view: TokenizerView) -> None:
    first = Turn("assistant", "A", True, {"reasoning_content": "R"})
    last = Turn("assistant", "B", True, {"reasoning_content": "T"})
    turns = (CHAT[0], first, CHAT[2], last)
    printed = {name: ChatTemplate(TEMPLATES[name], view).render(turns) for name in ("qwen3_5", "gpt_oss", "gemma4")}
    assert printed["qwen3_5"].endswith(
        "assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nT\n</think>\n\nB<|im_end|>\n"
    )
    assert printed["gpt_oss"].endswith(
        "<|start|>assistant<|channel|>final<|message|>A<|end|>"
        "<|start|>user<|message|>V<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>T<|end|>"
        "<|start|>assistant<|channel|>final<|message|>B<|return|>"
    )
    assert printed["gemma4"].endswith(
        "<|turn>model\nA<turn|>\n<|turn>user\nV<turn|>\n<|turn>model\n<|channel>thought\nT\n<channel|>B<turn|>\n"
    )


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        (
            "qwen_25",
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
        ),
        ("qwen2_vl", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"),
        ("vicuna", "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives "),
        ("metharme", "<s><|system|>Enter RP mode. You shall reply to the user while staying in character."),
        ("jamba", "<|startoftext|><|bom|><|system|> <|eom|>"),
        ("exaone", "[|system|][|endofturn|]\n[|user|]U"),
    ],
)
def test_conversation_without_a_system_text_gets_the_makers(view: TokenizerView, name: str, opening: str) -> None:
    assert ChatTemplate(TEMPLATES[name], view).render(CHAT).startswith(opening)
