"""Right answers to the exercises of lesson 00 that are written in another way than the package's."""

from itertools import chain, islice, repeat

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor

from sdlearn.tokenizer import BOS, EOS


def filled(tokenizer, text):
    row = torch.full((tokenizer.max_length,), tokenizer.vocab[tokenizer.pad_token])
    ids = tokenizer.encode(text)
    del ids[tokenizer.max_length - 2 :]
    row[0] = tokenizer.vocab[BOS]
    row[1 : len(ids) + 1] = torch.tensor(ids, dtype=torch.long)
    row[len(ids) + 1] = tokenizer.vocab[EOS]
    return row


def by_a_loop(tokenizer, text):
    row = [tokenizer.vocab["<|startoftext|>"]]
    for number in tokenizer.encode(text):
        if len(row) == tokenizer.max_length - 1:
            break
        row.append(number)
    row.append(tokenizer.vocab["<|endoftext|>"])
    while len(row) < tokenizer.max_length:
        row.append(tokenizer.vocab[tokenizer.pad_token])
    return torch.LongTensor(row)


def cut_and_then_marked(tokenizer, text):
    row = [tokenizer.vocab[BOS]] + tokenizer.encode(text) + [tokenizer.vocab[EOS]]
    if len(row) > tokenizer.max_length:
        row = row[: tokenizer.max_length - 1] + [tokenizer.vocab[EOS]]
    missing = tokenizer.max_length - len(row)
    return F.pad(torch.tensor(row), (0, missing), value=tokenizer.vocab[tokenizer.pad_token])


def by_numpy(tokenizer, text):
    row = np.full(tokenizer.max_length, tokenizer.vocab[tokenizer.pad_token])
    ids = tokenizer.encode(text)[: tokenizer.max_length - 2]
    row[: len(ids) + 2] = [tokenizer.vocab[BOS], *ids, tokenizer.vocab[EOS]]
    return torch.from_numpy(row)


def by_iterators(tokenizer, text):
    end, padding = tokenizer.vocab[EOS], tokenizer.vocab[tokenizer.pad_token]
    marked = chain([tokenizer.vocab[BOS]], tokenizer.encode(text)[: tokenizer.max_length - 2], [end])
    return torch.tensor(list(islice(chain(marked, repeat(padding)), tokenizer.max_length)))


def by_adding_a_half(pictures):
    return torch.floor(pictures.add(1).mul(127.5) + 0.5).clip(0, 255).byte()


def by_diffusers(pictures):
    images = VaeImageProcessor.denormalize(pictures).permute(0, 2, 3, 1).numpy()  # (B, H, W, 3) in [0, 1]
    return torch.from_numpy((images * 255).round().astype("uint8")).permute(0, 3, 1, 2)


def pixel_by_pixel(pictures):
    flat = [min(255, max(0, round((value + 1) / 2 * 255))) for value in pictures.flatten().tolist()]
    return torch.tensor(flat, dtype=torch.uint8).reshape(pictures.shape)


def in_place_on_a_copy(pictures):
    x = pictures.clone()
    x[x < -1] = -1
    x[x > 1] = 1
    x += 1
    x *= 127.5
    return x.round_().to(torch.uint8)


def pixels_in_float64(pictures):
    return ((pictures.double() + 1) / 2 * 255).round().clamp(0, 255).to(torch.uint8)


def pixels_by_numpy(pictures):
    return np.rint(np.clip(pictures.numpy() * 127.5 + 127.5, 0, 255)).astype(np.uint8)


def by_lerp(unconditional, conditional, guidance_scale):
    return torch.lerp(unconditional, conditional, guidance_scale)


def as_in_the_paper(unconditional, conditional, guidance_scale):
    w = guidance_scale - 1
    return (1 + w) * conditional - w * unconditional


def by_einsum(unconditional, conditional, guidance_scale):
    both = torch.stack([unconditional, conditional])
    return torch.einsum("i, i... -> ...", torch.tensor([1 - guidance_scale, guidance_scale], dtype=both.dtype), both)


def by_a_loop_over_pictures(unconditional, conditional, guidance_scale):
    guided = torch.empty_like(unconditional)
    for i in range(len(unconditional)):
        guided[i] = conditional[i] + (guidance_scale - 1) * (conditional[i] - unconditional[i])
    return guided


def on_a_copy(unconditional, conditional, guidance_scale):
    guided = conditional.clone()
    guided -= unconditional
    guided *= guidance_scale
    guided += unconditional
    return guided


def combined_by_numpy(unconditional, conditional, guidance_scale):
    without, with_words = unconditional.numpy(), conditional.numpy()
    return without + guidance_scale * (with_words - without)


@torch.no_grad()
def combined_in_float64(unconditional, conditional, guidance_scale):
    without, with_words = unconditional.double(), conditional.double()
    return torch.add(without, with_words - without, alpha=guidance_scale)


RIGHT = {
    "00.row": [filled, by_a_loop, cut_and_then_marked, by_numpy, by_iterators],
    "00.to_pixels": [
        *(by_adding_a_half, by_diffusers, pixel_by_pixel, in_place_on_a_copy, pixels_in_float64, pixels_by_numpy),
    ],
    "00.combine": [
        *(by_lerp, as_in_the_paper, by_einsum, by_a_loop_over_pictures, on_a_copy),
        *(combined_by_numpy, combined_in_float64),
    ],
}
