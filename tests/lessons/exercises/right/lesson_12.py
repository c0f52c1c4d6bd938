"""Right answers to the exercises of lesson 12 that are written in another way than the package's."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from sdlearn.diffusion.schedule import simple_loss


def with_simple_loss(unet, latents, context, noise, t, schedule):
    return simple_loss(lambda x, t: unet(x, t, context), latents, noise, t, schedule)


def by_hand(unet, latents, context, noise, t, schedule):
    alphas_cumprod = schedule.alphas_cumprod[t].to(latents)[:, None, None, None]
    s, n = alphas_cumprod**0.5, (1 - alphas_cumprod) ** 0.5
    kinds = {"epsilon": noise, "sample": latents, "v_prediction": s * noise - n * latents}
    return F.mse_loss(unet(s * latents + n * noise, t, context), kinds[schedule.config.prediction_type])


def picture_by_picture(unet, latents, context, noise, t, schedule):
    total = 0.0
    for i in range(len(latents)):
        one = slice(i, i + 1)
        x = schedule.add_noise(latents[one], noise[one], t[i].item())
        target = schedule.target(latents[one], noise[one], t[i].item())
        total = total + (unet(x, t[one], context[one]) - target).pow(2).sum()
    return total / latents.numel()


def in_float64(unet, latents, context, noise, t, schedule):
    latents, noise = latents.double(), noise.double()
    x = schedule.add_noise(latents, noise, t)
    return torch.mean((schedule.target(latents, noise, t) - unet(x, t, context=context.double())) ** 2)


def with_diffusers(unet, latents, context, noise, t, schedule):
    config = schedule.config.to_dict() | {"_class_name": "DDPMScheduler"}
    theirs = DDPMScheduler.from_config(config)
    kind, x = schedule.config.prediction_type, theirs.add_noise(latents, noise, t)
    target = {"epsilon": noise, "sample": latents}.get(kind)
    target = theirs.get_velocity(latents, noise, t) if target is None else target
    return F.mse_loss(unet(x, t, context), target, reduction="mean")


def norm_squared(unet, latents, context, noise, t, schedule):
    x = schedule.add_noise(latents, noise, t)
    return torch.linalg.vector_norm(unet(x, t, context) - schedule.target(latents, noise, t)) ** 2 / x.numel()


def with_branches(trainconfig, step):
    rate, left = trainconfig.learning_rate, trainconfig.steps - step
    rise = (step + 1) / trainconfig.warmup_steps if step < trainconfig.warmup_steps else 1
    fall = left / trainconfig.decay_steps if left < trainconfig.decay_steps else 1
    return rate * min(rise, fall)


def with_numpy(trainconfig, step):
    xs = [step + 1, trainconfig.steps - step]
    lengths = np.maximum([trainconfig.warmup_steps, trainconfig.decay_steps], 1)
    return trainconfig.learning_rate * np.clip(np.array(xs) / lengths, 0, 1).min()


def with_tensors(trainconfig, step):
    rise = torch.tensor((step + 1) / (trainconfig.warmup_steps or 1), dtype=torch.float64)
    fall = torch.tensor((trainconfig.steps - step) / (trainconfig.decay_steps or 1), dtype=torch.float64)
    return torch.minimum(rise, fall).clamp(max=1) * trainconfig.learning_rate


def from_the_end(trainconfig, step):
    begin = trainconfig.steps - trainconfig.decay_steps
    share = 1.0
    if step + 1 < trainconfig.warmup_steps:
        share = (step + 1) / trainconfig.warmup_steps
    if step >= begin and trainconfig.decay_steps:
        share = min(share, 1 - (step - begin) / trainconfig.decay_steps)
    return share * trainconfig.learning_rate


def interpolated(trainconfig, step):
    c = trainconfig
    rise = np.interp(step, [-1, max(0, c.warmup_steps - 1)], [0, 1])
    fall = np.interp(step, [c.steps - max(1, c.decay_steps), c.steps], [1, 0])
    return float(c.learning_rate * min(rise, fall))


def loop_over_the_list(average, parameters, decay, step):
    bound = (step + 1) / (step + 10)
    keep = decay if decay < bound else bound
    result = []
    for i in range(len(average)):
        result.append(keep * average[i] + (1.0 - keep) * parameters[i])
    return result


def a_step_towards(average, parameters, decay, step):
    keep = min(decay, (1 + step) / (10 + step))
    return [old - (1 - keep) * (old - new) for old, new in zip(average, parameters)]


def lerped(average, parameters, decay, step):
    return [torch.lerp(a, p, 1 - min((1 + step) / (10 + step), decay)) for a, p in zip(average, parameters)]


def on_copies(average, parameters, decay, step):
    keep = min(decay, 1 - 9 / (10 + step))
    copies = [one.clone() for one in average]
    for copy, new in zip(copies, parameters):
        copy.mul_(keep).add_(new, alpha=1 - keep)
    return tuple(copies)


def arrays(average, parameters, decay, step):
    keep = np.minimum(decay, (1 + step) / (10 + step))
    return [keep * a.double().numpy() + (1 - keep) * p.double().numpy() for a, p in zip(average, parameters)]


def foreach(average, parameters, decay, step):
    keep = min(decay, (1 + step) / (10 + step))
    return list(torch._foreach_add(torch._foreach_mul(average, keep), torch._foreach_mul(parameters, 1 - keep)))


def the_decay_of_diffusers(average, parameters, decay, step):
    ema = EMAModel([nn.Parameter(one.clone()) for one in average], decay=decay)
    keep = ema.get_decay(step + 1) if step else min(decay, 0.1)  # theirs copies at the first step
    return [keep * old + (1 - keep) * new for old, new in zip(average, parameters)]


def directly(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    s, n = (one.reshape(-1, 1, *[1] * (x.ndim - 1)) for one in (s, n))
    squares = (x[:, None] - s * examples[None]).square().flatten(2).sum(2)  # (B, N)
    weights = torch.softmax(-squares / (2 * n.flatten(1) ** 2), dim=1)
    return torch.einsum("bn, n... -> b...", weights, examples)


def one_by_one(x, t, examples, schedule):
    result = []
    for i, one in enumerate(x):
        bar = schedule.alphas_cumprod[t if isinstance(t, int) else t[i]].double()
        logits = torch.stack([-((one - bar.sqrt() * e) ** 2).sum() / 2 / (1 - bar) for e in examples])
        weights = (logits - logits.max()).exp()
        weights = weights / weights.sum()
        result.append(sum(w * e for w, e in zip(weights, examples)))
    return torch.stack(result)


def in_sigma_coordinates(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    sigma = (n / s).reshape(-1, 1).to(x)
    s = s.to(x).reshape(-1, *[1] * (x.ndim - 1))
    distances = torch.cdist((x / s).flatten(1), examples.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    weights = F.softmax(-0.5 * (distances / sigma) ** 2, dim=-1)
    return (weights @ examples.flatten(1)).reshape(x.shape)


def arrays_in_float64(x, t, examples, schedule):
    bar = schedule.alphas_cumprod.double().numpy()[np.asarray(t)].reshape(-1, 1)
    flat, known = x.double().numpy().reshape(len(x), -1), examples.double().numpy().reshape(len(examples), -1)
    squares = ((flat[:, None] - np.sqrt(bar)[:, :, None] * known) ** 2).sum(-1)
    logits = -squares / (2 * (1 - bar))
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True) @ known).reshape(x.shape)


def as_attention(x, t, examples, schedule):
    """Queries are the noisy pictures, keys and values the examples (lesson 08); the squares are added to the logits."""
    s, n = (rate.to(x).view(-1, 1) for rate in schedule.rates(t, x))
    known = examples.flatten(1)
    bias = (-((s / n) ** 2) * known.square().sum(1) / 2).expand(len(x), -1)
    query = (s / n**2 * math.sqrt(known.shape[1])) * x.flatten(1)
    out = F.scaled_dot_product_attention(query[None], known[None], known[None], attn_mask=bias[None])
    return out[0].view_as(x)


def by_tweedie(x, t, examples, schedule):
    """From the score of the noisy pictures' density, by autograd (lesson 03)."""
    s, n = (rate.double().view(-1, 1) for rate in schedule.rates(t, x))
    flat, known = x.detach().double().flatten(1).requires_grad_(), examples.double().flatten(1)
    s, n = s.expand(len(x), 1), n.expand(len(x), 1)
    result = []
    for i in range(len(x)):
        parts = Independent(Normal(s[i] * known, n[i].expand_as(known)), 1)
        density = MixtureSameFamily(Categorical(torch.ones(len(known), dtype=torch.float64)), parts)
        with torch.enable_grad():
            (score,) = torch.autograd.grad(density.log_prob(flat[i]), flat)
        result.append((flat[i].detach() + n[i] ** 2 * score[i]) / s[i])
    return torch.stack(result).view_as(x)


RIGHT = {
    "12.latent_loss": [with_simple_loss, by_hand, picture_by_picture, in_float64, with_diffusers, norm_squared],
    "12.learning_rate_at": [with_branches, with_numpy, with_tensors, from_the_end, interpolated],
    "12.moving_average": [
        loop_over_the_list,
        a_step_towards,
        lerped,
        on_copies,
        arrays,
        foreach,
        the_decay_of_diffusers,
    ],
    "12.ideal_denoiser": [
        directly,
        one_by_one,
        in_sigma_coordinates,
        arrays_in_float64,
        as_attention,
        by_tweedie,
    ],
}
