"""Wrong answers to the exercises of lesson 10 as learners type them, and a piece of what they are told."""

import random

import torch

from sdlearn.diffusion.guidance import Condition, combine, join, look, rescale_std


def kept_and_lost(context, empty, share, generator):
    kept = torch.rand(len(context), generator=generator) < share
    return torch.where(kept[:, None, None], context, empty)


def without_the_generator(context, empty, share, generator):
    lost = torch.rand(len(context)) < share
    return torch.where(lost[:, None, None], empty, context)


def with_python_s_random(context, empty, share, generator):
    return torch.stack([empty if random.random() < share else one for one in context])  # noqa: S311


def one_for_all(context, empty, share, generator):
    return empty.expand_as(context) if torch.rand(1, generator=generator) < share else context


def normal_numbers(context, empty, share, generator):
    lost = torch.randn(len(context), generator=generator) < share
    return torch.where(lost.view(-1, 1, 1), empty, context)


def in_pieces(context, empty, share, generator):
    lost = torch.rand(context.shape[:2], generator=generator) < share
    return torch.where(lost.unsqueeze(-1), empty, context)


def a_dropout(context, empty, share, generator):
    lost = torch.rand(context.shape, generator=generator) < share
    return torch.where(lost, empty, context)


def zeros(context, empty, share, generator):
    kept = torch.rand(len(context), generator=generator) >= share
    return context * kept[:, None, None]


def shape_forgotten(context, empty, share, generator):
    lost = torch.rand(len(context), generator=generator) < share
    return torch.where(lost, empty, context)


def one_dimension_short(context, empty, share, generator):
    lost = torch.rand(len(context), generator=generator) < share
    return torch.where(lost[:, None], empty, context)


def in_place(context, empty, share, generator):
    context[torch.rand(len(context), generator=generator) < share] = empty
    return context


def left_out(context, empty, share, generator):
    return context[torch.rand(len(context), generator=generator) >= share]


def a_fixed_number(context, empty, share, generator):
    context = context.clone()
    context[torch.randperm(len(context), generator=generator)[: int(share * len(context))]] = empty
    return context


def one_in_ten(context, empty, share, generator):
    lost = torch.rand(len(context), generator=generator) < 0.1
    return torch.where(lost[:, None, None], empty, context)


def added(context, empty, share, generator):
    lost = torch.rand(len(context), generator=generator) < share
    return context + lost[:, None, None] * empty


def captions_not_returned(context, empty, share, generator):
    lost = torch.rand(len(context), generator=generator) < share
    context = torch.where(lost[:, None, None], empty, context)


def the_first_row(context, empty, share, generator):
    lost = torch.rand(len(context), generator=generator) < share
    return torch.where(lost[:, None, None], empty[0], context)


def two_looks(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    def denoise(x, t):
        words = look(unet, condition, x, t)
        if guidance_scale == 1:
            return words
        return rescale_std(combine(look(unet, unconditional, x, t), words, guidance_scale), words, rescale)

    return denoise


def halves_swapped(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    both = join(unconditional, condition)

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        words, without = look(unet, both, torch.cat([x, x]), t).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def joined_the_other_way(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    both = join(condition, unconditional)

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        without, words = look(unet, both, torch.cat([x, x]), t).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def x_once(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    both = join(unconditional, condition)

    def denoise(x, t):
        without, words = look(unet, both, x, t).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def t_once(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    both = join(unconditional, condition)

    def denoise(x, t):
        without, words = look(unet, both, torch.cat([x, x]), t).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def neighbours(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    both = join(unconditional, condition)

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        without, words = look(unet, both, x.repeat_interleave(2, 0), t).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def scale_one_forgotten(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    both = join(unconditional, condition)

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        without, words = look(unet, both, torch.cat([x, x]), t).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def as_in_diffusers(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale <= 1:
        return lambda x, t: look(unet, condition, x, t)
    return halves_in_order(unet, condition, unconditional, guidance_scale, rescale, combine)


def halves_in_order(unet, condition, unconditional, guidance_scale, rescale, combine):
    both = join(unconditional, condition)

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        without, words = look(unet, both, torch.cat([x, x]), t).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def only_context(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    context = torch.cat([unconditional.context, condition.context])

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        without, words = unet(torch.cat([x, x]), t, context).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def not_rescaled(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    both = join(unconditional, condition)

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        return combine(*look(unet, both, torch.cat([x, x]), t).chunk(2), guidance_scale)

    return denoise


def the_formula_itself(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    def formula(without, words, scale):
        return without + scale * (words - without)

    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    return halves_in_order(unet, condition, unconditional, guidance_scale, rescale, formula)


def a_prediction(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    both = join(unconditional, condition)
    return both


def denoise_not_returned(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    def denoise(x, t):
        return look(unet, condition, x, t)


def denoise_is_called(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    denoise = halves_in_order(unet, condition, unconditional, guidance_scale, rescale, combine)
    return denoise(x, t)  # noqa: F821


def rescaled_to_the_wrong_one(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    both = join(unconditional, condition)

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        without, words = look(unet, both, torch.cat([x, x]), t).chunk(2)
        return rescale_std(combine(without, words, guidance_scale), without, rescale)

    return denoise


def channels_halved(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    both = join(unconditional, condition)

    def denoise(x, t):
        t = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim == 1 else t
        without, words = look(unet, both, torch.cat([x, x]), t).chunk(2, 1)
        return rescale_std(combine(without, words, guidance_scale), words, rescale)

    return denoise


def labels_forgotten_at_one(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 1:
        return lambda x, t: unet(x, t, condition.context)
    return halves_in_order(unet, condition, unconditional, guidance_scale, rescale, combine)


def labels_forgotten_at_zero(unet, condition, unconditional, guidance_scale, rescale=0.0, *, combine=combine):
    if guidance_scale == 0:
        return lambda x, t: look(unet, unconditional, x, t)
    if guidance_scale == 1:
        return lambda x, t: look(unet, condition, x, t)
    return halves_in_order(unet, condition, unconditional, guidance_scale, rescale, combine)


def repeated(encode, prompts, negatives, count):
    words = encode(prompts).repeat(count, 1, 1)
    return Condition(words), Condition(encode(negatives).repeat(len(words) // len(negatives), 1, 1))


def prompts_repeated(encode, prompts, negatives, count):
    words, other = encode(prompts).repeat(count, 1, 1), encode(negatives)
    return Condition(words), Condition(other.repeat_interleave(len(words) // len(other), 0))


def negatives_repeated(encode, prompts, negatives, count):
    words, other = encode(prompts).repeat_interleave(count, 0), encode(negatives)
    return Condition(words), Condition(other.repeat(len(words) // len(other), 1, 1))


def count_times_each(encode, prompts, negatives, count):
    words, other = encode(prompts), encode(negatives)
    return Condition(words.repeat_interleave(count, 0)), Condition(other.repeat_interleave(count, 0))


def only_one_negative(encode, prompts, negatives, count):
    words = encode(prompts).repeat_interleave(count, 0)
    return Condition(words), Condition(encode(negatives).expand_as(words))


def the_first_negative(encode, prompts, negatives, count):
    words = encode(prompts).repeat_interleave(count, 0)
    return Condition(words), Condition(encode(negatives[:1]).expand_as(words))


def never_repeated(encode, prompts, negatives, count):
    return Condition(encode(prompts)), Condition(encode(negatives))


def negatives_not_repeated(encode, prompts, negatives, count):
    return Condition(encode(prompts).repeat_interleave(count, 0)), Condition(encode(negatives))


def conditions_swapped(encode, prompts, negatives, count):
    words, other = encode(prompts).repeat_interleave(count, 0), encode(negatives)
    return Condition(other.repeat_interleave(len(words) // len(other), 0)), Condition(words)


def plain_tensors(encode, prompts, negatives, count):
    words, other = encode(prompts).repeat_interleave(count, 0), encode(negatives)
    return words, other.repeat_interleave(len(words) // len(other), 0)


def joined_already(encode, prompts, negatives, count):
    words, other = encode(prompts).repeat_interleave(count, 0), encode(negatives)
    return Condition(torch.cat([other.repeat_interleave(len(words) // len(other), 0), words]))


def empty_instead(encode, prompts, negatives, count):
    words, other = encode(prompts).repeat_interleave(count, 0), encode([""])
    return Condition(words), Condition(other.repeat_interleave(len(words), 0))


def subtracted(encode, prompts, negatives, count):
    words, other = encode(prompts).repeat_interleave(count, 0), encode(negatives)
    other = other.repeat_interleave(len(words) // len(other), 0)
    return Condition(words - other), Condition(other)


def tokens_repeated(encode, prompts, negatives, count):
    words, other = encode(prompts), encode(negatives)
    words = words.repeat_interleave(count, 1)
    return Condition(words), Condition(other.repeat_interleave(len(words) // len(other), 0))


def with_a_minus(encode, prompts, negatives, count):
    words, other = encode(prompts).repeat_interleave(count, 0), -encode(negatives)
    return Condition(words), Condition(other.repeat_interleave(len(words) // len(other), 0))


def upside_down(guided, conditional, rescale):
    dims = (1, 2, 3)
    matched = guided * (guided.std(dims, keepdim=True) / conditional.std(dims, keepdim=True))
    return rescale * matched + (1 - rescale) * guided


def of_the_batch(guided, conditional, rescale):
    matched = guided * (conditional.std() / guided.std())
    return rescale * matched + (1 - rescale) * guided


def of_each_channel(guided, conditional, rescale):
    matched = guided * (conditional.std((2, 3), keepdim=True) / guided.std((2, 3), keepdim=True))
    return rescale * matched + (1 - rescale) * guided


def variances(guided, conditional, rescale):
    dims = (1, 2, 3)
    matched = guided * (conditional.var(dims, keepdim=True) / guided.var(dims, keepdim=True))
    return rescale * matched + (1 - rescale) * guided


def keepdim_forgotten(guided, conditional, rescale):
    dims = (1, 2, 3)
    matched = guided * (conditional.std(dims) / guided.std(dims))
    return rescale * matched + (1 - rescale) * guided


def weights_exchanged(guided, conditional, rescale):
    dims = (1, 2, 3)
    matched = guided * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
    return (1 - rescale) * matched + rescale * guided


def all_the_way(guided, conditional, rescale):
    dims = (1, 2, 3)
    return guided * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True))


def mixed_with_words(guided, conditional, rescale):
    dims = (1, 2, 3)
    matched = guided * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
    return rescale * matched + (1 - rescale) * conditional


def only_matched(guided, conditional, rescale):
    dims = (1, 2, 3)
    return rescale * guided * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True))


def seven_tenths(guided, conditional, rescale):
    dims = (1, 2, 3)
    matched = guided * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
    return 0.7 * matched + 0.3 * guided


def norms(guided, conditional, rescale):
    dims = (1, 2, 3)
    ratio = torch.linalg.vector_norm(conditional, dim=dims, keepdim=True)
    ratio = ratio / torch.linalg.vector_norm(guided, dim=dims, keepdim=True)
    return rescale * guided * ratio + (1 - rescale) * guided


def standardised(guided, conditional, rescale):
    dims = (1, 2, 3)
    matched = (guided - guided.mean(dims, keepdim=True)) / guided.std(dims, keepdim=True)
    matched = matched * conditional.std(dims, keepdim=True)
    return rescale * matched + (1 - rescale) * guided


def standardised_to_words(guided, conditional, rescale):
    dims = (1, 2, 3)
    matched = (guided - guided.mean(dims, keepdim=True)) / guided.std(dims, keepdim=True)
    matched = matched * conditional.std(dims, keepdim=True) + conditional.mean(dims, keepdim=True)
    return rescale * matched + (1 - rescale) * guided


def guided_in_place(guided, conditional, rescale):
    dims = (1, 2, 3)
    guided *= rescale * conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True) + 1 - rescale
    return guided


def words_scaled(guided, conditional, rescale):
    dims = (1, 2, 3)
    matched = conditional * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
    return rescale * matched + (1 - rescale) * guided


WRONG = {
    "10.drop_captions": [
        ("kept and lost are exchanged", kept_and_lost),
        ("random numbers of its own", without_the_generator),
        ("random numbers of its own", with_python_s_random),
        ("one number decides for the whole batch", one_for_all),
        ("`torch.rand`", normal_numbers),
        ("each token has a number of its own", in_pieces),
        ("each single number of the context", a_dropout),
        ("what is lost becomes 0", zeros),
        ("(B,) meets the last dimension", shape_forgotten),
        ("(B, 1) meets tokens and channels", one_dimension_short),
        ("in place", in_place),
        ("left out of the batch", left_out),
        ("at index", a_fixed_number),
        ("the share is always 0.1", one_in_ten),
        ("the empty caption is added", added),
        ("it returns None", captions_not_returned),
        ("the first row of the empty caption", the_first_row),
    ],
    "10.guide": [
        ("both halves go through it in one batch", two_looks),
        ("the first half of the prediction is the one *without* words", halves_swapped),
        ("`join` is called with the halves in the wrong order", joined_the_other_way),
        ("x isn't doubled", x_once),
        ("a timestep for each picture", t_once),
        ("each picture is followed by its copy", neighbours),
        ("at scale 1 only the prediction with the condition", scale_one_forgotten),
        ("Diffusers does that", as_in_diffusers),
        ("`look` hands on all of it", only_context),
        ("the rescaling is left out", not_rescaled),
        ("whoever passes another `combine`", the_formula_itself),
        ("it must return a function, denoise(x, t)", a_prediction),
        ("it must return a function, denoise(x, t)", denoise_not_returned),
        ("return the function itself", denoise_is_called),
        ("it must be that with words", rescaled_to_the_wrong_one),
        ("the halves are in the batch", channels_halved),
        ("at scale 1 the UNet is called itself", labels_forgotten_at_one),
        ("at scale 0 the unconditional half alone lacks", labels_forgotten_at_zero),
    ],
    "10.make_conditions": [
        ("copies of one prompt must be adjacent", repeated),
        ("the pictures of one prompt must be adjacent", prompts_repeated),
        ("the negative prompts are in another order", negatives_repeated),
        ("must be repeated for every picture", count_times_each),
        ("`expand` works for one negative prompt only", only_one_negative),
        ("only the first negative", the_first_negative),
        ("neither is repeated", never_repeated),
        ("the negative prompts aren't repeated", negatives_not_repeated),
        ("the two conditions are exchanged", conditions_swapped),
        ("each must be wrapped", plain_tensors),
        ("one condition for both halves", joined_already),
        ("is the empty one here", empty_instead),
        ("the subtraction is guidance's work", subtracted),
        ("the tokens are repeated", tokens_repeated),
        ("has a minus sign", with_a_minus),
    ],
    "10.rescaled": [
        ("upside down", upside_down),
        ("over the whole batch", of_the_batch),
        ("each channel gets", of_each_channel),
        ("these are variances", variances),
        ("keepdim=True", keepdim_forgotten),
        ("the two weights are exchanged", weights_exchanged),
        ("it goes all the way back", all_the_way),
        ("mix it with the guided one", mixed_with_words),
        ("share is missing", only_matched),
        ("always 0.7 and 0.3", seven_tenths),
        ("the root of the mean square", norms),
        ("the mean is taken away first", standardised),
        ("the mean is replaced as well", standardised_to_words),
        ("in place", guided_in_place),
        ("it is the conditional prediction that is scaled", words_scaled),
    ],
}
