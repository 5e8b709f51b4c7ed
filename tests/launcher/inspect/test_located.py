from ftl.config.load import load_train
from ftl.errors import Problem
from ftl.inspect.datasets import located


def test_problem_of_a_key_written_in_an_older_spelling_has_the_line_of_that(tmp_path):
    path = tmp_path / "cfg.yml"
    path.write_text("base_model: x\nlearning_rate: 1.0\nflash_attention: true\ndatasets: [{path: a, type: alpaca}]\n")
    problem = located(Problem("attn_implementation", "flash_attention_2"), load_train(path))
    assert problem.where == f"{path}:3: attn_implementation"
