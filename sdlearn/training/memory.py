"""How much memory a training will need, told before it begins. An estimate: kernels need room of their own."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sdlearn.training.dreambooth import DreamBoothRecipe, DreamBoothTask
from sdlearn.training.loop import TrainConfig


@dataclass(frozen=True)
class Memory:
    """Bytes: of all weights, of what is kept for those that learn, and of what one step computes on the way."""

    weights: int
    learning: int
    step: int

    @property
    def total(self) -> int:
        return self.weights + self.learning + self.step

    def __str__(self) -> str:
        total, *parts = map(readable, (self.total, self.weights, self.learning, self.step))
        return f"about {total} of memory: {parts[0]} for the weights, {parts[1]} for what learns, {parts[2]} for a step"


def readable(size: int) -> str:
    """Bytes in words: "3.4 GB" or "120 MB"."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"


def estimate(task: DreamBoothTask, config: TrainConfig) -> Memory:
    """What this training needs. Nothing is computed for it: tensors on the device "meta" have shapes and no numbers."""
    weights = sum(weight.nbytes for network in task.model.networks for weight in network.parameters())
    learning = sum(weight.nbytes for weight in task.network.parameters() if weight.requires_grad)
    rows = config.batch_size // config.accumulation * (2 if len(task.class_latents) else 1)
    step = kept_for_gradients(task.model.unet, rows, task.model.tokenizer.max_length)
    half = config.mixed_precision != "no"
    # For each number that learns: its gradient, Adam's two averages, and the moving average.
    return Memory(weights, 4 * learning, step // 2 if half else step)


def check(memory: Memory, device: torch.device, recipe: DreamBoothRecipe) -> None:
    """Raises RuntimeError if a GPU has less memory than that, and says what in the recipe would help."""
    if device.type != "cuda":
        return
    free, _ = torch.cuda.mem_get_info(device)
    if memory.total > free:
        raise RuntimeError(f"{device} has {readable(free)} free, but this needs {memory}; {advice(recipe)}")


def advice(recipe: DreamBoothRecipe) -> str:
    """What would make a training need less memory and isn't in its recipe yet."""
    training = recipe.training
    helps = {
        "gradient_checkpointing = true in [model]": not recipe.model.gradient_checkpointing,
        'mixed_precision = "fp16" in [training]': training.mixed_precision == "no",
        f"accumulation = {training.batch_size} in [training]": training.accumulation < training.batch_size,
        "text_encoder = false in [model]": recipe.model.text_encoder,
        "a LoRA instead": type(recipe) is DreamBoothRecipe,
    }
    return f"what would help: {'; '.join(text for text, new in helps.items() if new) or 'a smaller model'}"


def kept_for_gradients(unet: nn.Module, rows: int, tokens: int) -> int:
    """Bytes that a UNet keeps for the gradients, in float32, of a call with this many rows and tokens of text."""
    tensors = [*unet.named_parameters(), *unet.named_buffers()]
    weights = {name: one.detach().to("meta", torch.float32).requires_grad_(one.requires_grad) for name, one in tensors}
    left_out = {one.untyped_storage()._cdata for one in weights.values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        if "Softmax" in type(tensor.grad_fn).__name__:
            left_out.add(storage._cdata)  # attention's weights, which the fused kernels of a GPU don't keep
        return tensor

    config = unet.config
    x = torch.empty(rows, config.in_channels, config.sample_size, config.sample_size, device="meta", requires_grad=True)
    context = torch.empty(rows, tokens, config.cross_attention_dim, device="meta", requires_grad=True)
    t = torch.empty(rows, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        result = functional_call(unet, weights, (x, t, context))
    del result
    return sum(storage.nbytes() for key, storage in kept.items() if key not in left_out)
