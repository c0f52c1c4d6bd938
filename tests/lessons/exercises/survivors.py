"""Mutants that no check can tell from the package's code, by exercise and by the reason why they compute the same."""

RATE = "return (x - noise_rate * prediction) / (signal_rate + 2 ** (-12) * (signal_rate == 0))"
NOISE = "x = mean if final else mean + variance.sqrt() * draw_noise(x.shape, generator).to(x)"
DENOISED = "x0 = denoised(denoise, x, timesteps[i + 1], sigmas[i + 1], schedule)"
LOOP = "for i, t in enumerate(grid.timesteps.tolist()):"
BETAS = "betas = torch.tensor([min(1 - f[i + 1] / f[i], 0.999) for i in range(n)], dtype=torch.float32)"
F = "f = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]"
RATES = "signal_rates = torch.cumprod(1 - betas, dim=0).sqrt()"
SCALED = "alphas_cumprod = ((signal_rates - final) * (first / (first - final))) ** 2"
HALVED = "return self.conv(x if self.symmetric else F.pad(x, (0, 1, 0, 1)))"
LAYERS = "for mine, theirs in zip(features(one), features(other), strict=True):"
BOTH = "mine, reference = (ours[name].double(), reference.double())"
BOUND = "bound = tolerance * max(1.0, reference.abs().max().item())"
FARTHEST = "if not (mine - reference).abs().max().item() <= bound:"
JOINED = "return self.to_out[0](out.transpose(1, 2).flatten(2))"
BACK = "x = previous.sqrt() * x0 + (1 - previous - sigma ** 2).clamp(min=0).sqrt() * epsilon"
DOUBLED = "t = torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim == 1 else t"

RISE = "rise = (step + 1) / max(1, self.warmup_steps)"
FALL = "fall = (self.steps - step) / max(1, self.decay_steps)"
SHARE_OF_RATE = "return self.learning_rate * min(1.0, rise, fall)"
DECAY = "decay = min(decay, (1 + step) / (10 + step))"
AVERAGE = "return [decay * old + (1 - decay) * new for old, new in zip(average, parameters, strict=True)]"

SAME_NUMBER = "a tensor of one whole number is used as the number"
OTHER_DEVICE = "it matters only where x is on another device than the generator"
EITHER_WAY = "two dimensions are exchanged in either order"
ONE_ENTRY = "the list has one entry, which is the first and the last"
TWICE = "the second entry of a step is the first of the next step"


def changes(line: str, *pairs: tuple[str, str]) -> list[str]:
    """Mutants of one line: in each, one piece of it is another."""
    return [f"{line}  →  {line.replace(old, new)}" for old, new in pairs]


SURVIVORS: dict[str, dict[str, list[str]]] = {
    "01.make_betas": {
        "the smaller of two is the same in either order": changes(
            BETAS, ("min(1 - f[i + 1] / f[i], 0.999)", "min(0.999, 1 - f[i + 1] / f[i])")
        ),
        "one value more at the end isn't used": changes(F, ("range(n + 1)", "range(n + 2)")),
    },
    "01.rescale_zero_snr": {
        "betas has one dimension, which is the first and the last": changes(RATES, ("dim=0", "dim=-1")),
        "the sign is lost in the square": changes(SCALED, ("(first /", "(-first /")),
    },
    "02.x0_at": {
        "what x_0 is where no signal is left is a matter of choice; the package only keeps it finite": changes(
            RATE,
            ("signal_rate + 2", "signal_rate - 2"),
            ("2 ** (-12)", "2 * -12"),
            ("2 ** (-12)", "3 ** (-12)"),
            ("2 ** (-12)", "1 ** (-12)"),
            ("2 ** (-12)", "2 ** 12"),
            ("2 ** (-12)", "2 ** (-13)"),
            ("2 ** (-12)", "2 ** (-11)"),
            ("== 0", "== 1"),
            ("== 0", "== -1"),
        ),
    },
    "02.ddpm": {
        "the variance of the last step is 0, so what is drawn there has no weight": [
            *changes(NOISE, ("mean if final else ", "")),
            *changes("final = i == len(grid) - 1", ("- 1", "+ 1"), ("- 1", "- 0")),
        ],
        "everything below 0 is the end": changes("timesteps = [*grid.timesteps.tolist(), -1]", ("-1", "-2")),
        SAME_NUMBER: changes("timesteps = [*grid.timesteps.tolist(), -1]", (".tolist()", "")),
        OTHER_DEVICE: changes(NOISE, (".to(x)", "")),
    },
    "03.langevin_step": {OTHER_DEVICE: changes("noise = draw_noise(x.shape, generator).to(x)", (".to(x)", ""))},
    "04.euler": {SAME_NUMBER: changes(LOOP, (".tolist()", ""))},
    "04.ddim": {
        SAME_NUMBER: changes(LOOP, (".tolist()", "")),
        OTHER_DEVICE: changes("x = x + sigma * draw_noise(x.shape, generator).to(x)", (".to(x)", "")),
        "the clamp only keeps rounding from taking the root of a number below 0": changes(
            BACK, (".clamp(min=0)", ""), ("min=0", "min=-1")
        ),
    },
    "04.heun": {
        SAME_NUMBER: changes(
            "timesteps, sigmas = (grid.timesteps.tolist(), grid.sigmas)", ("grid.timesteps.tolist()", "grid.timesteps")
        ),
        "the number of entries is odd": changes("if i + 1 < len(grid):", ("+ 1", "+ 2")),
        TWICE: [
            *changes(DENOISED, ("timesteps[i + 1]", "timesteps[i + 2]"), ("sigmas[i + 1]", "sigmas[i + 2]")),
            *changes("slope_ahead = (x - x0) / sigmas[i + 1]", ("sigmas[i + 1]", "sigmas[i + 2]")),
            *changes("yield Step(i + 1, timesteps[i + 1], x, x0)", ("timesteps[i + 1]", "timesteps[i + 2]")),
        ],
    },
    "05.encode_pictures": {
        "there are always as many generators as pictures": changes(
            "alone = zip(pictures.split(1), generator, strict=True)", ("strict=True", "strict=False")
        ),
    },
    "06.perceptual_distance": {
        "both pictures go through the same layers": changes(LAYERS, ("strict=True", "strict=False")),
        "the distance is the same in either order": changes(
            LAYERS, ("features(one), features(other)", "features(other), features(one)")
        ),
    },
    "06.scaling_factor": {
        "a tensor of one number is used as the number": changes("return 1 / latents.std().item()", (".item()", ""))
    },
    "06.downsample": {
        "with even sides a second row or column of zeros is never reached": changes(
            HALVED, ("(0, 1, 0, 1)", "(0, 2, 0, 1)"), ("(0, 1, 0, 1)", "(0, 1, 0, 2)")
        ),
    },
    "07.contrastive_loss": {
        "shapes that are refused are not among the cases": [
            "check_pairs(image_features, text_features, same)  →  image_features",
            "check_pairs(image_features, text_features, same)  →  check_pairs(text_features, image_features, same)",
        ],
    },
    "08.split_heads": {
        EITHER_WAY: changes(
            "return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)", ("transpose(1, 2)", "transpose(2, 1)")
        ),
    },
    "08.cross_attention": {
        EITHER_WAY: changes(JOINED, ("transpose(1, 2)", "transpose(2, 1)")),
        ONE_ENTRY: changes(JOINED, ("to_out[0]", "to_out[0 - 1]"), ("to_out[0]", "to_out[-1]")),
    },
    "09.timestep_embedding": {
        "the frequencies are floats, so the product is one": changes(
            "angles = t[:, None].float() * frequencies", (".float()", "")
        ),
        "of two dimensions the second is the last": changes(
            "return torch.cat([angles.cos(), angles.sin()], dim=-1)", ("dim=-1", "dim=1")
        ),
    },
    "09.way_down": {ONE_ENTRY: changes("x = self.downsamplers[0](x)", ("[0]", "[0 - 1]"), ("[0]", "[-1]"))},
    "09.way_up": {ONE_ENTRY: changes("x = self.upsamplers[0](x)", ("[0]", "[0 - 1]"), ("[0]", "[-1]"))},
    "11.first_difference": {
        "one of the two in float64 makes the difference float64": changes(
            BOTH, ("ours[name].double()", "ours[name]"), ("reference.double())", "reference)")
        ),
        "a tensor of one number is used as the number": [
            *changes(BOUND, (".item()", "")),
            *changes(FARTHEST, (".item()", "")),
        ],
        "the larger of two is the same in either order": changes(
            BOUND, ("max(1.0, reference.abs().max().item())", "max(reference.abs().max().item(), 1.0)")
        ),
    },
    "10.guide": {
        "a timestep is a number, or has one dimension": changes(DOUBLED, (" and t.ndim == 1", "")),
    },
    "10.rescaled": {
        "where rescale is 0, the formula gives the same": changes("if rescale == 0:", ("== 0", "== -1")),
    },
    "12.learning_rate_at": {
        "the largest or smallest of some numbers is the same in any order": [
            *changes(RISE, ("max(1, self.warmup_steps)", "max(self.warmup_steps, 1)")),
            *changes(FALL, ("max(1, self.decay_steps)", "max(self.decay_steps, 1)")),
            *changes(SHARE_OF_RATE, ("1.0, rise, fall", "rise, 1.0, fall"), ("1.0, rise, fall", "1.0, fall, rise")),
        ],
    },
    "12.moving_average": {
        "the smaller of two is the same in either order": changes(
            DECAY, ("min(decay, (1 + step) / (10 + step))", "min((1 + step) / (10 + step), decay)")
        ),
        "the two lists are equally long": changes(AVERAGE, ("strict=True", "strict=False")),
    },
}
