"""Attention as the UNet is trained with it: written out where that is faster, and the same numbers."""

import pytest
import torch
import torch.nn.functional as F

from sdlearn.lessons.check import assert_parity, randomize_
from sdlearn.models.attention import Attention
from sdlearn.training.attention import OpenAttention


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_open_in_half_precision_alone(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = []
    kernel = F.scaled_dot_product_attention
    plain, mine = randomize_(Attention(24, 3), std=0.3).to(dtype), OpenAttention(24, 3).to(dtype)
    mine.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = plain(x)
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: fused.append(1) or kernel(*a, **k))
    rounding = 2 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else None
    assert_parity("open", mine(x), expected, rounding)
    assert len(fused) == (dtype != torch.bfloat16)


def test_upcast_stays_upcast() -> None:
    """What asks for weights in float32 gets them, also in half precision."""
    plain = randomize_(Attention(24, 3, upcast=True), std=0.5).bfloat16()
    mine = OpenAttention(24, 3, upcast=True).bfloat16()
    mine.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert_parity("upcast", mine(x), plain(x), 0.0)
