"""Wrong answers to the exercises of lesson 00 as learners type them, and a piece of what they are told."""

import torch

from sdlearn.tokenizer import BOS, EOS


def as_a_list(tokenizer, text):
    ids = [tokenizer.vocab[BOS], *tokenizer.encode(text)[: tokenizer.max_length - 2], tokenizer.vocab[EOS]]
    return ids + [tokenizer.vocab[tokenizer.pad_token]] * (tokenizer.max_length - len(ids))


def with_a_batch(tokenizer, text):
    return torch.tensor(as_a_list(tokenizer, text))[None]


def never_cut(tokenizer, text):
    row = [tokenizer.vocab[BOS]] + tokenizer.encode(text) + [tokenizer.vocab[EOS]]
    while len(row) < tokenizer.max_length:
        row.append(tokenizer.vocab[tokenizer.pad_token])
    return torch.tensor(row)


def cut_only_beyond_the_row(tokenizer, text):
    ids = tokenizer.encode(text)
    if len(ids) > tokenizer.max_length:
        ids = ids[: tokenizer.max_length - 2]
    row = [tokenizer.vocab[BOS], *ids, tokenizer.vocab[EOS]]
    return torch.tensor(row + [tokenizer.vocab[tokenizer.pad_token]] * (tokenizer.max_length - len(row)))


def cut_one_too_early(tokenizer, text):
    ids = tokenizer.encode(text)
    if len(ids) >= tokenizer.max_length - 2:
        ids = ids[: tokenizer.max_length - 3]
    row = [tokenizer.vocab[BOS], *ids, tokenizer.vocab[EOS]]
    return torch.tensor(row + [tokenizer.vocab[tokenizer.pad_token]] * (tokenizer.max_length - len(row)))


def of_77(tokenizer, text):
    row = [tokenizer.vocab[BOS], *tokenizer.encode(text)[:75], tokenizer.vocab[EOS]]
    return torch.tensor(row + [tokenizer.vocab[tokenizer.pad_token]] * (77 - len(row)))


def without_bytes(pictures):
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round()


def from_0_to_1(pictures):
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)


def cut_off(pictures):
    return ((pictures.clamp(-1, 1) + 1) / 2 * 255).byte()


def rounded_too_late(pictures):
    return ((pictures.clamp(-1, 1) + 1) * 127.5).to(torch.uint8).round()


def clipped_too_late(pictures):
    return ((pictures + 1) * 127.5).round().to(torch.uint8).clamp(0, 255)


def pixels_in_place(pictures):
    return pictures.clamp_(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)


def guided_in_place(unconditional, conditional, guidance_scale):
    return unconditional.add_(guidance_scale * (conditional - unconditional))


def lerp_swapped(unconditional, conditional, guidance_scale):
    return guidance_scale * unconditional + (1 - guidance_scale) * conditional


def as_in_the_paper_with_s(unconditional, conditional, guidance_scale):
    w = guidance_scale
    return (1 + w) * conditional - w * unconditional


def added_as_in_the_paper(unconditional, conditional, guidance_scale):
    w = guidance_scale - 1
    return (1 + w) * conditional + w * unconditional


def as_in_diffusers(unconditional, conditional, guidance_scale):
    if guidance_scale <= 1:
        return conditional
    return unconditional + guidance_scale * (conditional - unconditional)


def without_return(unconditional, conditional, guidance_scale):
    unconditional + guidance_scale * (conditional - unconditional)


def of_the_first_picture(unconditional, conditional, guidance_scale):
    return (unconditional + guidance_scale * (conditional - unconditional))[0]


def scale_forgotten(unconditional, conditional, guidance_scale):
    return unconditional + (conditional - unconditional)


WRONG = {
    "00.row": [
        ("but it must return a tensor", as_a_list),
        ("(1, 9), but it must be (9,)", with_a_batch),
        ("the text isn't cut", never_cut),
        ("it just fits", cut_one_too_early),
        ("one too many", cut_only_beyond_the_row),
        ("it must be (9,)", of_77),
    ],
    "00.to_pixels": [
        ("uint8", without_bytes),
        ("only the brighter half is left", from_0_to_1),
        ("the fraction is cut off", cut_off),
        ("the fraction is cut off", rounded_too_late),
        ("nothing is clipped", clipped_too_late),
        ("it changes pictures, one of its inputs, in place", pixels_in_place),
    ],
    "00.combine": [
        ("it changes unconditional, one of its inputs, in place", guided_in_place),
        ("the two predictions are swapped: it walks", lerp_swapped),
        ("or the scale was used as w", as_in_the_paper_with_s),
        ("but equation (2) subtracts it", added_as_in_the_paper),
        ("Diffusers does that", as_in_diffusers),
        ("is a `return` missing", without_return),
        ("it must be (3, 4, 5, 6)", of_the_first_picture),
        ("guidance_scale has no effect", scale_forgotten),
    ],
}
