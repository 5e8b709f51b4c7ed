"""ftl: launch LLM fine-tuning in containers. The light half: no torch, no provider SDK at import."""

__version__ = "0.1.0"
