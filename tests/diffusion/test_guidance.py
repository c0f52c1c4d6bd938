"""Classifier-free guidance against Diffusers' arithmetic, and what the UNet is called with. In float64."""

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from sdlearn.diffusion.guidance import Condition, drop_captions, guide, rescale_std
from sdlearn.lessons.check import assert_parity


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Recorder:
    """Stands for the UNet: mixes everything that it is told, so that a swapped or lost part shows, and remembers it."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, x, t, context, *, class_labels=None, residuals=None):
        self.calls.append({"x": x, "t": t, "context": context, "class_labels": class_labels, "residuals": residuals})
        scale = context.mean((1, 2))
        scale = scale if class_labels is None else scale + class_labels
        scale = scale if residuals is None else scale + residuals
        return torch.tanh(x[:, :4]) * scale.view(-1, 1, 1, 1) + x.mean((1, 2, 3), keepdim=True) + t / 1000


@pytest.fixture(params=[1, 3], ids=["batch1", "batch3"])
def setting(request):
    b = request.param
    conditional, unconditional = Condition(normal(b, 7, 6, seed=1)), Condition(normal(b, 7, 6, seed=2))
    return Recorder(), normal(b, 4, 5, 3, seed=0), conditional, unconditional


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 2.0, 7.5])
@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_both_halves_run_in_one_batch_and_equal_diffusers(setting, scale, rescale):
    unet, x, conditional, unconditional = setting
    guided = guide(unet, conditional, unconditional, scale, rescale)(x, 501)
    (call,) = unet.calls
    assert torch.equal(call["x"], torch.cat([x, x])) and call["t"] == 501
    assert torch.equal(call["context"], torch.cat([unconditional.context, conditional.context]))

    text, empty = unet(x, 501, conditional.context), unet(x, 501, unconditional.context)
    expected = empty + scale * (text - empty)
    if rescale:
        expected = rescale_noise_cfg(expected, text, rescale)
    assert_parity("guided", guided, expected)


def test_scale_one_computes_only_the_conditional_half(setting):
    unet, x, conditional, unconditional = setting
    for other in (None, unconditional):
        guided = guide(unet, conditional, other, 1.0)(x, 3)
        assert len(unet.calls[-1]["x"]) == len(x)
        assert_parity("guided", guided, unet(x, 3, conditional.context))


def test_scale_zero_is_the_unconditional_prediction(setting):
    unet, x, conditional, unconditional = setting
    guided = guide(unet, conditional, unconditional, 0.0)(x, 3)
    assert_parity("guided", guided, unet(x, 3, unconditional.context))


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_channels_labels_and_control_reach_the_unet(setting, scale):
    unet, x, conditional, unconditional = setting
    b, channels, labels = len(x), normal(len(x), 5, 5, 3, seed=4), torch.arange(len(x))
    seen = []

    def control(x: Tensor, t: int, context: Tensor) -> Tensor:
        seen.append((x, t, context))
        return context.sum((1, 2))

    conditional = Condition(conditional.context, channels, labels, control)
    guide(unet, conditional, unconditional, scale)(x, 9)
    (call,), copies = unet.calls, 1 if scale == 1 else 2
    assert torch.equal(call["x"], torch.cat([torch.cat([x, channels], dim=1)] * copies))  # latents first, then channels
    assert torch.equal(call["class_labels"], torch.cat([labels] * copies))
    ((control_x, control_t, control_context),) = seen
    assert control_x.shape == (copies * b, 4, 5, 3) and control_t == 9  # without the channels
    assert torch.equal(control_context, call["context"])
    assert_parity("residuals", call["residuals"], call["context"].sum((1, 2)))


def test_the_unconditional_half_may_have_its_own_channels(setting):
    unet, x, conditional, unconditional = setting
    first, second = normal(len(x), 1, 5, 3, seed=5), normal(len(x), 1, 5, 3, seed=6)
    guide(unet, Condition(conditional.context, second), Condition(unconditional.context, first), 2.0)(x, 9)
    assert torch.equal(unet.calls[0]["x"][:, 4:], torch.cat([first, second]))


def test_gradients_flow_to_x_and_context(setting):
    unet, x, conditional, unconditional = setting
    x.requires_grad_(), conditional.context.requires_grad_(), unconditional.context.requires_grad_()
    guide(unet, conditional, unconditional, 3.0, 0.5)(x, 9).pow(2).sum().backward()
    for tensor in (x, conditional.context, unconditional.context):
        assert torch.isfinite(tensor.grad).all() and tensor.grad.abs().max() > 0


def test_timesteps_per_image_are_doubled(setting):
    _, x, conditional, unconditional = setting
    t = torch.arange(len(x))

    def timesteps_only(x, t, context, *, class_labels=None, residuals=None):
        return t.view(-1, 1, 1, 1) * torch.ones_like(x)

    guided = guide(timesteps_only, conditional, unconditional, 3.0)(x, t)
    assert_parity("times", guided[:, 0, 0, 0], t.double())


def test_bad_arguments_are_refused(setting):
    unet, x, conditional, unconditional = setting
    with pytest.raises(ValueError, match="needs an unconditional condition"):
        guide(unet, conditional, None, 7.5)
    for scale in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be finite"):
            guide(unet, conditional, unconditional, scale)
    for rescale in (-0.1, 1.1):
        with pytest.raises(ValueError, match="must be from 0 to 1"):
            guide(unet, conditional, unconditional, 2.0, rescale)
    with pytest.raises(ValueError, match="context: shape"):
        guide(unet, conditional, Condition(normal(len(x), 6, 6, seed=0)), 2.0)
    with pytest.raises(ValueError, match="unconditional has class_labels"):
        guide(unet, conditional, Condition(unconditional.context, class_labels=torch.zeros(len(x))), 2.0)
    for scale in (1.0, 2.0):
        with pytest.raises(ValueError, match="context has a batch of"):
            guide(unet, conditional, unconditional, scale)(normal(5, 4, 5, 3, seed=0), 9)


def test_own_combine_is_called_with_both_halves(setting):
    unet, x, conditional, unconditional = setting
    text, empty = unet(x, 501, conditional.context), unet(x, 501, unconditional.context)
    guided = guide(unet, conditional, unconditional, 3.0, combine=lambda u, c, scale: u - scale * c)(x, 501)
    assert_parity("own combine", guided, empty - 3.0 * text)


@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
def test_rescaling_equals_diffusers_forward_and_backward(rescale):
    ours, theirs = ([normal(3, 4, 5, 2, seed=i).mul(i + 1).requires_grad_() for i in (0, 1)] for _ in range(2))
    found, expected = rescale_std(*ours, rescale), rescale_noise_cfg(*theirs, guidance_rescale=rescale)
    assert_parity("rescaled", found, expected, against="rescale_noise_cfg")
    weights = normal(3, 4, 5, 2, seed=7)
    for result in (found, expected):
        (result * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        reference = torch.zeros_like(mine) if other.grad is None else other.grad
        assert_parity("gradient", torch.zeros_like(mine) if mine.grad is None else mine.grad, reference)


def test_lost_captions_are_a_function_of_the_generator():
    context, empty = normal(2000, 3, 2, seed=1), normal(3, 2, seed=2)
    kept = context.clone()
    found = drop_captions(context, empty, 0.1, torch.Generator().manual_seed(0))
    lost = (found == empty).all(dim=(1, 2))
    assert torch.equal(context, kept) and torch.equal(found[~lost], context[~lost])
    assert 0.07 < lost.double().mean() < 0.13
    numbers = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lost, numbers < 0.1)
    for share, expected in ((0.0, context), (1.0, empty.expand_as(context))):
        assert torch.equal(drop_captions(context, empty, share, torch.Generator()), expected)
