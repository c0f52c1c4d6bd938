"""What changes a loaded model, and can be taken off again: LoRA, and words with vectors of their own."""

from sdlearn.adapters import lora, textual_inversion

__all__ = ["lora", "textual_inversion"]
