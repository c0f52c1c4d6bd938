"""Right answers to the exercises of lesson 11 that are written in another way than the package's."""

import itertools

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor

from sdlearn import Condition, draw_noise
from sdlearn.diffusion.guidance import combine


def from_bytes_in_steps(pixels):
    channels = torch.stack([pixels[..., 0], pixels[..., 1], pixels[..., 2]], dim=1)
    return channels / 255 * 2 - 1


def from_bytes_by_numpy(pixels):
    return np.transpose(pixels.numpy(), (0, 3, 1, 2)).astype(np.float64) / 127.5 - 1


def from_bytes_by_einsum(pixels):
    return torch.einsum("bhwc -> bchw", pixels.double()).sub_(127.5).div_(127.5)


def from_bytes_by_diffusers(pixels):
    processor = VaeImageProcessor(do_resize=False)
    return processor.normalize(processor.numpy_to_pt(pixels.numpy().astype(np.float32) / 255))


def from_bytes_pixel_by_pixel(pixels):
    batch, height, width, channels = pixels.shape
    out = torch.zeros(batch, channels, height, width)
    for b, c, h, w in itertools.product(range(batch), range(channels), range(height), range(width)):
        out[b, c, h, w] = (pixels[b, h, w, c].item() - 127.5) / 127.5
    return out


def from_bytes_moved(pixels):
    x = pixels.to(torch.float32, copy=True)
    x /= 127.5
    x -= 1
    return x.movedim(3, 1).contiguous()


def to_bytes_in_place_on_a_copy(pictures):
    out = pictures.clone().clamp_(-1, 1)
    out += 1
    out *= 127.5
    return out.round_().byte().permute(0, 2, 3, 1).contiguous()


def to_bytes_by_numpy(pictures):
    x = np.clip(pictures.numpy().astype(np.float64), -1, 1)
    return np.rint((x + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def to_bytes_half_a_step(pictures):
    whole = torch.floor((pictures.double() / 2 + 0.5) * 255 + 0.5)
    return torch.einsum("bchw -> bhwc", whole.clamp(0, 255)).to(torch.uint8)


def to_bytes_by_diffusers(pictures):
    images = VaeImageProcessor.pt_to_numpy(VaeImageProcessor.denormalize(pictures.float()))
    return torch.from_numpy((images * 255).round().astype("uint8"))


def to_bytes_picture_by_picture(pictures):
    out = torch.empty(len(pictures), *pictures.shape[2:], 3, dtype=torch.uint8)
    for i, picture in enumerate(pictures):
        for c in range(3):
            out[i, :, :, c] = (127.5 * picture[c] + 127.5).round().clamp(min=0, max=255)
    return out


def returned(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = model.encode_prompt(prompts + [negative_prompt] * len(prompts)).chunk(2)
    generators = []
    for i, _ in enumerate(prompts):
        generator = torch.Generator()
        generator.manual_seed(seed + i)
        generators.append(generator)
    rule = model.samplers[sampler]
    grid = rule.make_grid(model.schedule, steps)
    size = model.unet.config.sample_size
    noise = draw_noise((len(prompts), model.unet.config.in_channels, size, size), generators)
    x = noise * rule.initial_scale(model.schedule, grid)
    denoise = model.guide(model.predict, Condition(words), Condition(nothing), guidance_scale)
    return rule.loop(denoise, x, grid, model.schedule, generators)


def in_the_open(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    ids = model.tokenizer([negative_prompt] * len(prompts) + prompts)
    context = model.text_encoder(ids)
    config = model.unet.config
    generators = [torch.Generator().manual_seed(n) for n in range(seed, seed + len(prompts))]
    shape = (1, config.in_channels, config.sample_size, config.sample_size)
    noise = torch.cat([torch.randn(shape, generator=one) for one in generators]).to(model.dtype)
    grid = model.samplers[sampler].make_grid(model.schedule, steps)

    def denoise(x, t):
        without, with_words = model.unet(torch.cat([x, x]), t, context).chunk(2)
        return combine(without, with_words, guidance_scale)

    x = noise * model.samplers[sampler].initial_scale(model.schedule, grid)
    for step in model.samplers[sampler].loop(denoise, x, grid, model.schedule, generator=generators):
        yield step


def two_calls(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    texts, nothing = model.encode_prompt(prompts), model.encode_prompt(negative_prompt)
    factor, channels = model.autoencoder.config.factor, model.autoencoder.config.latent_channels
    size = (model.defaults.height // factor, model.defaults.width // factor)
    draws = [torch.Generator().manual_seed(seed + i) for i in range(len(texts))]
    chosen = model.samplers[sampler]
    grid = chosen.make_grid(model.schedule, steps)
    x = chosen.initial_scale(model.schedule, grid) * draw_noise((len(texts), channels, *size), draws).double()

    def denoise(x, t):
        words = model.predict(x, t, texts)
        rest = model.predict(x, t, nothing.expand_as(texts))
        return guidance_scale * words + (1 - guidance_scale) * rest

    yield from chosen.loop(denoise, x, grid, model.schedule, generator=draws)


def by_the_package(model, prompts, negative_prompt="", **settings):
    return model.sample(prompts, negative_prompt=negative_prompt, **(DEFAULTS | settings))


DEFAULTS = {"steps": 12, "guidance_scale": 3.0, "sampler": "dpmpp_2m_karras"}


def next_of_all(ours, theirs, tolerance=1e-4):
    return next((name for name in theirs if not agree(ours[name], theirs[name], tolerance)), None)


def agree(mine, reference, tolerance):
    if mine.shape != reference.shape:
        return False
    mine, reference = mine.double(), reference.double()
    return bool(((mine - reference).abs() <= tolerance * max(1, reference.abs().max())).all())


def by_numpy(ours, theirs, tolerance=1e-4):
    for name in theirs:
        mine, reference = ours[name].numpy().astype(np.float64), theirs[name].numpy().astype(np.float64)
        if mine.shape != reference.shape or not np.isfinite(mine).all():
            return name
        if np.max(np.abs(mine - reference)) > tolerance * max(1.0, np.max(np.abs(reference))):
            return name
    return None


def all_names_then_the_first(ours, theirs, tolerance=1e-4):
    wrong = []
    for name, reference in theirs.items():
        if ours[name].shape != reference.shape:
            wrong.append(name)
            continue
        scale = reference.double().abs().max().clamp(min=1)
        if not torch.allclose(ours[name].double(), reference.double(), rtol=0, atol=float(tolerance * scale)):
            wrong.append(name)
    return wrong[0] if wrong else None


def number_by_number(ours, theirs, tolerance=1e-4):
    for (name, reference), (_, mine) in zip(theirs.items(), ours.items(), strict=True):
        if list(mine.shape) != list(reference.shape):
            return name
        a, b = mine.flatten().tolist(), reference.flatten().tolist()
        largest = max(1, *(abs(one) for one in b))
        if any(not abs(one - other) <= tolerance * largest for one, other in zip(a, b, strict=True)):
            return name


RIGHT = {
    "11.from_bytes": [
        *(from_bytes_in_steps, from_bytes_by_numpy, from_bytes_by_einsum, from_bytes_by_diffusers),
        *(from_bytes_pixel_by_pixel, from_bytes_moved),
    ],
    "11.to_bytes": [
        *(to_bytes_in_place_on_a_copy, to_bytes_by_numpy, to_bytes_half_a_step, to_bytes_by_diffusers),
        to_bytes_picture_by_picture,
    ],
    "11.text_to_image": [returned, in_the_open, two_calls, by_the_package],
    "11.first_difference": [next_of_all, by_numpy, all_names_then_the_first, number_by_number],
}
