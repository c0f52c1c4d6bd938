"""Attention as the UNet is trained with it on a CPU."""

from torch import Tensor

from sdlearn.models.attention import Attention, attention_weights


class OpenAttention(Attention):
    """Attention that writes softmax(QKᵀ / √D) V out when it runs in half precision on a CPU.

    There the backward pass of PyTorch's fused kernel is slow: written out, a training step of the bundled UNet takes
    two thirds of the time. In float32, and on a GPU, the fused kernel is faster.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        fits = query.device.type == "cpu" and query.element_size() < 4 and not self.upcast
        if fits and self.maps is None:
            return attention_weights(query, key).to(value.dtype) @ value
        return super().attend(query, key, value)
