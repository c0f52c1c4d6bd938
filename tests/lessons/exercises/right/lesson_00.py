"""Right answers to the exercises of lesson 00 that are written in another way than the package's."""

import torch

from sdlearn.tokenizer import BOS, EOS


def filled(tokenizer, text):
    row = torch.full((tokenizer.max_length,), tokenizer.vocab[tokenizer.pad_token])
    ids = tokenizer.encode(text)
    del ids[tokenizer.max_length - 2 :]
    row[0] = tokenizer.vocab[BOS]
    row[1 : len(ids) + 1] = torch.tensor(ids, dtype=torch.long)
    row[len(ids) + 1] = tokenizer.vocab[EOS]
    return row


def by_adding_a_half(pictures):
    return torch.floor(pictures.add(1).mul(127.5) + 0.5).clip(0, 255).byte()


def by_lerp(unconditional, conditional, guidance_scale):
    return torch.lerp(unconditional, conditional, guidance_scale)


def as_in_the_paper(unconditional, conditional, guidance_scale):
    w = guidance_scale - 1
    return (1 + w) * conditional - w * unconditional


def by_einsum(unconditional, conditional, guidance_scale):
    both = torch.stack([unconditional, conditional])
    return torch.einsum("i, i... -> ...", torch.tensor([1 - guidance_scale, guidance_scale]), both)


RIGHT = {
    "00.row": [filled],
    "00.to_pixels": [by_adding_a_half],
    "00.combine": [by_lerp, as_in_the_paper, by_einsum],
}
