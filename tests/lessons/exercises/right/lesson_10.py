"""Right answers to the exercises of lesson 10 that are written in another way than the package's."""

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from sdlearn.diffusion.guidance import Condition, combine, join, look, rescale_std


def one_by_one(context, empty, share, generator):
    numbers = torch.rand(len(context), generator=generator)
    return torch.stack([empty if number < share else one for number, one in zip(numbers, context, strict=True)])


def in_place_on_a_copy(context, empty, share, generator):
    context = context.clone()
    context[torch.rand(context.shape[0], generator=generator) < share] = empty
    return context


def masked(context, empty, share, generator):
    lost = torch.rand(len(context), 1, 1, generator=generator).lt(share)
    kept = context.masked_fill(lost, 0)
    return kept + lost * empty


def captions_by_numpy(context, empty, share, generator):
    kept = torch.rand(len(context), generator=generator).numpy() >= np.float32(share)
    return np.where(kept.reshape(-1, 1, 1), context.numpy(), empty.numpy()[None])


def rows_of_a_table(context, empty, share, generator):
    table = torch.cat([empty[None], context])
    kept = torch.rand(len(context), generator=generator) >= share
    return table[torch.arange(1, len(context) + 1) * kept]


def captions_in_float64(context, empty, share, generator):
    lost = (torch.rand(len(context), generator=generator) < share).double()[:, None, None]
    return lost * empty.double() + (1 - lost) * context.double()


def by_einsum(context, empty, share, generator):
    lost = (torch.rand(len(context), generator=generator) < share).to(context.dtype)
    return torch.einsum("b, tc -> btc", lost, empty) + torch.einsum("b, btc -> btc", 1 - lost, context)


def step_by_step(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    def denoise(x, t):
        if guidance_scale == 1:
            return look(unet, condition, x, t)
        both = join(unconditional, condition)
        if torch.is_tensor(t) and t.ndim:
            t = t.repeat(2)
        prediction = look(unet, both, x.repeat(2, 1, 1, 1), t)
        half = len(x)
        guided = combine(prediction[:half], prediction[half:], guidance_scale)
        return rescale_std(guided, prediction[half:], rescale) if rescale > 0 else guided

    return denoise


def a_lambda_at_one(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)

    def denoise(x, t):
        t = torch.cat([t] * 2) if isinstance(t, torch.Tensor) and t.ndim else t
        a, b = torch.tensor_split(look(unet, join(unconditional, condition), torch.cat((x, x)), t), 2)
        return rescale_std(combine(a, b, guidance_scale), b, rescale)

    return denoise


class Denoiser:
    """An object that is called, in place of a function."""

    def __init__(self, unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
        self.unet, self.words, self.without = unet, condition, unconditional
        self.scale, self.rescale, self.combine = guidance_scale, rescale, combine

    def __call__(self, x, t):
        if self.scale == 1:
            return look(self.unet, self.words, x, t)
        t = t.repeat(2) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        both = look(self.unet, join(self.without, self.words), torch.stack([x, x]).flatten(0, 1), t)
        without, words = both.unflatten(0, (2, -1))
        return rescale_std(self.combine(without, words, self.scale), words, self.rescale)


def with_an_object(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    return Denoiser(unet, condition, unconditional, guidance_scale, rescale, combine=combine)


def words_first(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    """The other order of the halves, kept to the end."""
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    joined = join(unconditional, condition)
    turned = {
        name: None if value is None else torch.cat(value.chunk(2)[::-1])
        for name in ("context", "channels", "class_labels")
        for value in [getattr(joined, name)]
    }
    both = Condition(**turned, control=condition.control)

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        words, without = look(unet, both, torch.cat([x, x]), t).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def with_diffusers_rescaling(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    both = join(unconditional, condition)

    def denoise(x, t):
        t = t.repeat(2) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        uncond, text = look(unet, both, torch.cat([x] * 2), t).chunk(2)
        guided = combine(uncond, text, guidance_scale)
        return rescale_noise_cfg(guided, text, rescale) if rescale else guided

    return denoise


def copies_by_expand(encode, prompts, negatives, count):
    words, other = encode(prompts), encode(negatives)
    words = words[:, None].expand(-1, count, -1, -1).flatten(0, 1)
    copies = len(words) // len(other)
    return Condition(words), Condition(other[:, None].expand(-1, copies, -1, -1).flatten(0, 1))


def texts_repeated(encode, prompts, negatives, count):
    if len(negatives) == 1:
        negatives = negatives * len(prompts)
    words = [text for text in prompts for _ in range(count)]
    others = [text for text in negatives for _ in range(count)]
    return Condition(encode(words)), Condition(encode(others))


def with_indices(encode, prompts, negatives, count):
    place = torch.arange(len(prompts) * count) // count
    other = encode(negatives)
    return Condition(encode(prompts)[place]), Condition(other[place if len(other) > 1 else torch.zeros_like(place)])


def text_by_text(encode, prompts, negatives, count):
    pairs = zip(prompts, negatives if len(negatives) == len(prompts) else negatives * len(prompts), strict=True)
    rows = [(encode([words])[0], encode([other])[0]) for words, other in pairs for _ in range(count)]
    return tuple(Condition(torch.stack(half)) for half in zip(*rows, strict=True))


def with_numpy_s_repeat(encode, prompts, negatives, count):
    words = np.repeat(encode(prompts).numpy(), count, axis=0)
    other = encode(negatives).numpy()
    other = np.repeat(other, len(words) // len(other), axis=0)
    return Condition(context=torch.from_numpy(words)), Condition(context=torch.from_numpy(other))


def conditions_in_float64(encode, prompts, negatives, count):
    words = torch.cat([one.double().repeat(count, 1, 1) for one in encode(prompts).split(1)])
    other = encode(negatives).double()
    each = count if len(other) == len(prompts) else len(words)
    return Condition(words), Condition(torch.repeat_interleave(other, each, 0))


def with_rescale_noise_cfg(guided, conditional, rescale):
    return rescale_noise_cfg(guided, conditional, guidance_rescale=rescale)


def picture_by_picture(guided, conditional, rescale):
    rows = []
    for mine, words in zip(guided, conditional, strict=True):
        matched = mine * (words.std() / mine.std())
        rows.append(rescale * matched + (1 - rescale) * mine)
    return torch.stack(rows)


def rescale_by_numpy(guided, conditional, rescale):
    guided, conditional = guided.numpy(), conditional.numpy()
    axes = (1, 2, 3)
    ratio = conditional.std(axes, keepdims=True) / guided.std(axes, keepdims=True)
    return guided * (1 + rescale * (ratio - 1))


def of_the_population(guided, conditional, rescale):
    ratio = conditional.std((1, 2, 3), unbiased=False) / guided.std((1, 2, 3), unbiased=False)
    return torch.lerp(guided, guided * ratio.view(-1, 1, 1, 1), rescale)


def rescale_in_float64(guided, conditional, rescale):
    guided, conditional = guided.double(), conditional.double()
    ratio = (conditional.flatten(1).var(1) / guided.flatten(1).var(1)).sqrt()[:, None, None, None]
    return (rescale * ratio + 1 - rescale) * guided


@torch.no_grad()
def in_place_on_a_clone(guided, conditional, rescale):
    matched = guided.clone()
    matched *= conditional.std([1, 2, 3], keepdim=True)
    matched /= guided.std([1, 2, 3], keepdim=True)
    return matched.mul_(rescale).add_(guided * (1 - rescale))


def ratio_by_einsum(guided, conditional, rescale):
    spread = [one.flatten(1).std(1) for one in (conditional, guided)]
    return rescale * torch.einsum("bchw, b -> bchw", guided, spread[0] / spread[1]) + (1 - rescale) * guided


RIGHT = {
    "10.drop_captions": [
        *(one_by_one, in_place_on_a_copy, masked, captions_by_numpy, rows_of_a_table, captions_in_float64, by_einsum)
    ],
    "10.guide": [step_by_step, a_lambda_at_one, with_an_object, words_first, with_diffusers_rescaling],
    "10.make_conditions": [
        *(copies_by_expand, texts_repeated, with_indices, text_by_text, with_numpy_s_repeat, conditions_in_float64)
    ],
    "10.rescaled": [
        *(with_rescale_noise_cfg, picture_by_picture, rescale_by_numpy, of_the_population, rescale_in_float64),
        *(in_place_on_a_clone, ratio_by_einsum),
    ],
}
