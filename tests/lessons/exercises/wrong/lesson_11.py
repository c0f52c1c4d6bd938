"""Wrong answers to the exercises of lesson 11 as learners type them, and a piece of what they are told."""

import torch

from sdlearn import Condition, draw_noise, get_sampler


def divided_by_255(pixels):
    return pixels.permute(0, 3, 1, 2).float() / 255


def channels_still_last(pixels):
    return pixels / 127.5 - 1


def viewed(pixels):
    batch, height, width, _ = pixels.shape
    return pixels.view(batch, 3, height, width) / 127.5 - 1


def transposed(pixels):
    return pixels.transpose(1, 3) / 127.5 - 1


def blue_first(pixels):
    return pixels.flip(-1).permute(0, 3, 1, 2) / 127.5 - 1


def minus_one(pixels):
    return pixels.permute(0, 3, 1, 2) / 255 - 1


def in_bytes(pixels):
    return (pixels.permute(0, 3, 1, 2) * 2 - 255) / 255


def by_128(pixels):
    return pixels.permute(0, 3, 1, 2) / 128 - 1


def one_picture(pixels):
    return pixels[0].permute(2, 0, 1) / 127.5 - 1


def whole_division(pixels):
    return pixels.permute(0, 3, 1, 2) // 127.5 - 1


def standardised(pixels):
    x = pixels.permute(0, 3, 1, 2).float()
    return (x - x.mean()) / x.std()


def no_return(pixels):
    pixels.permute(0, 3, 1, 2) / 127.5 - 1


def no_batch(pixels):
    return pixels.permute(2, 0, 1) / 127.5 - 1


def forgotten_clamp(pictures):
    return ((pictures + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def not_rounded(pictures):
    return ((pictures.clamp(-1, 1) + 1) * 127.5).to(torch.uint8).permute(0, 2, 3, 1)


def channels_still_first(pictures):
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def reshaped(pictures):
    batch, _, height, width = pictures.shape
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).reshape(batch, height, width, 3)


def on_its_side(pictures):
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).transpose(1, 3)


def from_zero_to_one(pictures):
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def opencv(pictures):
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)[..., [2, 1, 0]]


def clamp_in_place(pictures):
    return ((pictures.clamp_(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def floats(pictures):
    return ((pictures.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1)


def signed_bytes(pictures):
    return (pictures.clamp(-1, 1) * 127).round().to(torch.int8).permute(0, 2, 3, 1)


def clipped_too_late(pictures):
    return ((pictures + 1) * 127.5).to(torch.uint8).clamp(0, 255).permute(0, 2, 3, 1)


def loop(model, prompts, words, nothing, generators, sampler, steps, scale, noise=None, start=None, grid=None):
    """What all answers below share: the rest of a right one."""
    config = model.unet.config
    shape = (len(prompts), config.in_channels, config.sample_size, config.sample_size)
    noise = draw_noise(shape, generators) if noise is None else noise
    rule = model.samplers[sampler]
    grid = rule.make_grid(model.schedule, steps) if grid is None else grid
    denoise = model.guide(model.predict, Condition(words), Condition(nothing), scale)
    x = noise * rule.initial_scale(model.schedule, grid) if start is None else start(noise)
    yield from rule.loop(denoise, x, grid, model.schedule, generator=generators)


def encoded(model, prompts, negative_prompt):
    return model.encode_prompt(prompts), model.encode_prompt([negative_prompt] * len(prompts))


def seeds(prompts, seed):
    return [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]


def swapped(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    return loop(model, prompts, nothing, words, seeds(prompts, seed), sampler, steps, guidance_scale)


def no_negative(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, "")
    return loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, guidance_scale)


def one_negative(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = model.encode_prompt(prompts), model.encode_prompt(negative_prompt)
    return loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, guidance_scale)


def one_seed(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    generators = [torch.Generator().manual_seed(seed) for _ in prompts]
    return loop(model, prompts, words, nothing, generators, sampler, steps, guidance_scale)


def one_generator(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    generator = torch.Generator().manual_seed(seed)
    return loop(model, prompts, words, nothing, generator, sampler, steps, guidance_scale)


def global_noise(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    side = model.unet.config.sample_size
    noise = torch.randn(len(prompts), model.unet.config.in_channels, side, side)
    return loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, guidance_scale, noise)


def global_seed(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    torch.manual_seed(seed)
    words, nothing = encoded(model, prompts, negative_prompt)
    side = model.unet.config.sample_size
    noise = torch.randn(len(prompts), model.unet.config.in_channels, side, side)
    return loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, guidance_scale, noise)


def not_scaled(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    generators = seeds(prompts, seed)
    return loop(model, prompts, words, nothing, generators, sampler, steps, guidance_scale, start=lambda noise: noise)


def always_7_5(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    return loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, 7.5)


def always_12(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    return loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, 12, guidance_scale)


def always_euler(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    return loop(model, prompts, words, nothing, seeds(prompts, seed), "euler", steps, guidance_scale)


def side_16(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    generators = seeds(prompts, seed)
    noise = draw_noise((len(prompts), model.unet.config.in_channels, 16, 16), generators)
    return loop(model, prompts, words, nothing, generators, sampler, steps, guidance_scale, noise)


def four_channels(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    generators, side = seeds(prompts, seed), model.unet.config.sample_size
    noise = draw_noise((len(prompts), 4, side, side), generators)
    return loop(model, prompts, words, nothing, generators, sampler, steps, guidance_scale, noise)


def only_the_last(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    for step in loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, guidance_scale):
        pass
    yield step


def the_latents(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    for step in loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, guidance_scale):
        yield step.x


def the_pictures(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    for step in loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, guidance_scale):
        pass
    return model.decode(step.x)


def fresh_generators(
    model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0
):
    words, nothing = encoded(model, prompts, negative_prompt)
    config = model.unet.config
    shape = (len(prompts), config.in_channels, config.sample_size, config.sample_size)
    noise = draw_noise(shape, seeds(prompts, seed))
    return loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, guidance_scale, noise)


def the_model_s_defaults(
    model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0
):
    words, nothing = encoded(model, prompts, negative_prompt)
    scale = model.defaults.guidance_scale
    return loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, scale)


def the_package_s_samplers(
    model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0
):
    words, nothing = encoded(model, prompts, negative_prompt)
    shape = (len(prompts), model.unet.config.in_channels, *[model.unet.config.sample_size] * 2)
    generators, rule = seeds(prompts, seed), get_sampler(sampler)
    grid = rule.make_grid(model.schedule, steps)
    x = draw_noise(shape, generators) * rule.initial_scale(model.schedule, grid)
    denoise = model.guide(model.predict, Condition(words), Condition(nothing), guidance_scale)
    return rule.loop(denoise, x, grid, model.schedule, generator=generators)


def the_loop(model, prompts, negative_prompt="", steps=12, guidance_scale=3.0, sampler="dpmpp_2m_karras", seed=0):
    words, nothing = encoded(model, prompts, negative_prompt)
    yield loop(model, prompts, words, nothing, seeds(prompts, seed), sampler, steps, guidance_scale)


def signed(ours, theirs, tolerance=1e-4):
    for name in theirs:
        if ours[name].shape != theirs[name].shape:
            return name
        a, b = ours[name].double(), theirs[name].double()
        if not (a - b).max() <= tolerance * max(1, b.abs().max()):
            return name
    return None


def nan_passes(ours, theirs, tolerance=1e-4):
    for name in theirs:
        if ours[name].shape != theirs[name].shape:
            return name
        a, b = ours[name].double(), theirs[name].double()
        if (a - b).abs().max() > tolerance * max(1, b.abs().max()):
            return name
    return None


def not_scaled_tolerance(ours, theirs, tolerance=1e-4):
    for name in theirs:
        if ours[name].shape != theirs[name].shape:
            return name
        if not (ours[name].double() - theirs[name].double()).abs().max() <= tolerance:
            return name
    return None


def shapes_forgotten(ours, theirs, tolerance=1e-4):
    for name in theirs:
        a, b = ours[name].double(), theirs[name].double()
        if not (a - b).abs().max() <= tolerance * max(1, b.abs().max()):
            return name
    return None


def bytes_wrap(ours, theirs, tolerance=1e-4):
    for name in theirs:
        if ours[name].shape != theirs[name].shape:
            return name
        a, b = ours[name], theirs[name]
        if not (a - b).abs().max() <= tolerance * max(1, b.abs().max()):
            return name
    return None


def means_of_differences(ours, theirs, tolerance=1e-4):
    for name in theirs:
        if ours[name].shape != theirs[name].shape:
            return name
        a, b = ours[name].double(), theirs[name].double()
        if not (a - b).abs().mean() <= tolerance * max(1, b.abs().max()):
            return name
    return None


def exactly(ours, theirs, tolerance=1e-4):
    for name in theirs:
        if not torch.equal(ours[name], theirs[name]):
            return name
    return None


def last_one(ours, theirs, tolerance=1e-4):
    found = None
    for name in theirs:
        a, b = ours[name].double(), theirs[name].double()
        if a.shape != b.shape or not (a - b).abs().max() <= tolerance * max(1, b.abs().max()):
            found = name
    return found


def with_allclose(ours, theirs, tolerance=1e-4):
    for name in theirs:
        a, b = ours[name].double(), theirs[name].double()
        if a.shape != b.shape or not torch.allclose(a, b, rtol=tolerance, atol=tolerance):
            return name
    return None


def returns_the_number(ours, theirs, tolerance=1e-4):
    for i, name in enumerate(theirs):
        a, b = ours[name].double(), theirs[name].double()
        if a.shape != b.shape or not (a - b).abs().max() <= tolerance * max(1, b.abs().max()):
            return i
    return None


def true_or_false(ours, theirs, tolerance=1e-4):
    for name in theirs:
        a, b = ours[name].double(), theirs[name].double()
        if a.shape != b.shape or not (a - b).abs().max() <= tolerance * max(1, b.abs().max()):
            return False
    return True


def relative_only(ours, theirs, tolerance=1e-4):
    for name in theirs:
        a, b = ours[name].double(), theirs[name].double()
        if a.shape != b.shape or not (a - b).abs().max() <= tolerance * b.abs().max():
            return name
    return None


def in_float32(ours, theirs, tolerance=1e-4):
    for name in theirs:
        a, b = ours[name].float(), theirs[name].float()
        if a.shape != b.shape or not (a - b).abs().max() <= tolerance * max(1, b.abs().max()):
            return name
    return None


def norm(ours, theirs, tolerance=1e-4):
    for name in theirs:
        a, b = ours[name].double(), theirs[name].double()
        if a.shape != b.shape or not (a - b).norm() <= tolerance * max(1, b.abs().max()):
            return name
    return None


def largest_numbers(ours, theirs, tolerance=1e-4):
    for name in theirs:
        a, b = ours[name].double(), theirs[name].double()
        if a.shape != b.shape or not (a.max() - b.max()).abs() <= tolerance * max(1, b.abs().max()):
            return name
    return None


WRONG = {
    "11.from_bytes": [
        ("the numbers go from 0 to 1", divided_by_255),
        ("the channels are still last", channels_still_last),
        ("`reshape` only renames the places", viewed),
        ("height and width are exchanged as well", transposed),
        ("red and blue are exchanged", blue_first),
        ("the numbers go from −1 to 0", minus_one),
        ("it computes in bytes", in_bytes),
        ("128 is used instead of 127.5", by_128),
        ("the dimension of the pictures is lost", one_picture),
        ("rounded down to whole numbers", whole_division),
        ("divided by their spread", standardised),
        ("a `return` missing", no_return),
        ("RuntimeError", no_batch),
    ],
    "11.to_bytes": [
        ("nothing is clipped", forgotten_clamp),
        ("the fraction is cut off, but the nearest number is wanted", not_rounded),
        ("the channels are still before height and width", channels_still_first),
        ("`reshape` only renames the places", reshaped),
        ("height and width are exchanged as well", on_its_side),
        ("taken to go from 0 to 1", from_zero_to_one),
        ("red and blue are exchanged", opencv),
        ("it changes pictures, one of its inputs, in place", clamp_in_place),
        ("they aren't multiplied by 255", floats),
        ("the dtype is torch.int8", signed_bytes),
        ("the fraction is cut off, and nothing is clipped", clipped_too_late),
    ],
    "11.text_to_image": [
        ("the two conditions are swapped", swapped),
        ("negative_prompt isn't used", no_negative),
        ("the two conditions aren't equally long", one_negative),
        ("all pictures get the same noise", one_seed),
        ("one generator draws for all pictures", one_generator),
        ("random numbers of its own", global_noise),
        ("but it must be", global_seed),
        ("the noise isn't scaled", not_scaled),
        ("it is always 7.5 here", always_7_5),
        ("it is always 12 here", always_12),
        ("it is always euler here", always_euler),
        ("hard-coded as 16", side_16),
        ("hard-coded as 4", four_channels),
        ("only the last step is handed out", only_the_last),
        ("only latents are handed out", the_latents),
        ("pictures are returned", the_pictures),
        ("draw the noise of the beginning again", fresh_generators),
        ("the model's default scale", the_model_s_defaults),
        ("the package's samplers are used", the_package_s_samplers),
        ("the loop itself is handed out", the_loop),
    ],
    "11.first_difference": [
        ("the sign isn't taken off", signed),
        ("NaN passes", nan_passes),
        ("the tolerance isn't scaled", not_scaled_tolerance),
        ("the shapes aren't compared", shapes_forgotten),
        ("3 − 5 is 254", bytes_wrap),
        ("the mean of the differences", means_of_differences),
        ("any difference counts", exactly),
        ("this is the last name that differs", last_one),
        ("tolerance is counted twice", with_allclose),
        ("this is the number of the tensor", returns_the_number),
        ("it returns whether all agree", true_or_false),
        ("has no lower end", relative_only),
        ("float32 is too coarse", in_float32),
        ("the norm of the differences", norm),
        ("only the largest numbers of both", largest_numbers),
    ],
}
