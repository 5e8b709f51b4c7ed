from ftl.sampletext import sample_lines


def test_prompt_shows_its_end_and_answers_their_beginning():
    sample = {"prompt": "a" * 200 + " what\nis it?", "expected": "b" * 200, "generated": "c\tc"}
    prompt, expected, generated = sample_lines([sample])
    assert prompt.startswith("  prompt     ...aaa") and prompt.endswith("a what is it?")
    assert expected.endswith("bbb...") and generated == "  generated  c c"
    assert {len(prompt), len(expected)} == {13 + 110}


def test_more_than_three_are_counted():
    sample = {"prompt": "p", "expected": "e", "generated": "g"}
    assert sample_lines([sample] * 5)[-1] == "  and 2 more in events.jsonl"
    assert len(sample_lines([sample] * 5)) == 10
