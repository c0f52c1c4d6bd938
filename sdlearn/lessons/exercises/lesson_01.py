"""The exercises of lesson 01."""

import torch

from sdlearn.diffusion.schedule import Schedule, ScheduleConfig, make_betas, rescale_zero_snr
from sdlearn.lessons.exercises.exercise import Bug, Exercise

SCHEDULES = (
    ScheduleConfig(),
    ScheduleConfig(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    ScheduleConfig(beta_schedule="squaredcos_cap_v2"),
)


def steps(generator: torch.Generator) -> list[tuple]:
    """x and noise (B, ...), and the number of the step, for each schedule."""
    cases = (((2, 3, 5, 4), 999), ((3, 7), 500), ((1, 4, 3, 5), 120), ((2, 1, 3), 0))
    return [
        ((SCHEDULES[i % 3],), (*torch.randn(2, *shape, generator=generator), t)) for i, (shape, t) in enumerate(cases)
    ]


def jumps(generator: torch.Generator) -> list[tuple]:
    """x_0 and noise (B, ...), and t, one for all or one for each picture."""
    cases = (((2, 3, 5, 4), 700), ((3, 7), torch.tensor([1, 250, 999])), ((2, 4, 3, 5), torch.tensor([40, 600])))
    return [((SCHEDULES[i],), (*torch.randn(2, *shape, generator=generator), t)) for i, (shape, t) in enumerate(cases)]


def timesteps(generator: torch.Generator) -> list[tuple]:
    """One timestep, or several."""
    several = torch.randint(1, 1000, (5,), generator=generator)
    return [((SCHEDULES[0],), (350,)), ((SCHEDULES[1],), (several,)), ((SCHEDULES[2],), (torch.tensor([3, 800]),))]


def configs(generator: torch.Generator) -> list[tuple]:
    """Schedules of each kind, with odd numbers of timesteps, one of them rescaled."""
    return [
        (ScheduleConfig(num_train_timesteps=7),),
        (ScheduleConfig(num_train_timesteps=13, rescale_betas_zero_snr=True),),
        (ScheduleConfig(num_train_timesteps=5, beta_schedule="linear", beta_start=0.01, beta_end=0.3),),
        (ScheduleConfig(num_train_timesteps=11, beta_schedule="squaredcos_cap_v2"),),
    ]


def betas(generator: torch.Generator) -> list[tuple]:
    """betas (T,) of several lengths."""
    return [(torch.rand(n, generator=generator) * 0.3 + 0.02,) for n in (3, 7, 20)] + [(torch.full((2,), 0.1),)]


EXERCISES = (
    Exercise(
        id="01.add_one_step",
        reference=Schedule.add_one_step,
        cases=steps,
        bugs=(
            Bug(
                "β is used where √β belongs: β is a variance, and what multiplies the noise is its root",
                "equation (1)",
                (("+ beta.sqrt()", "+ beta"),),
            ),
            Bug(
                "x is not scaled down: this only adds noise",
                "equation (1)",
                (("(1 - beta).sqrt() * x", "x"),),
            ),
            Bug(
                "1 − β is used where √(1 − β) belongs: the factor of x isn't rooted",
                "equation (1)",
                (("(1 - beta).sqrt()", "(1 - beta)"),),
            ),
            Bug(
                "neither factor is rooted: β and 1 − β are variances",
                "equation (1)",
                (("(1 - beta).sqrt()", "(1 - beta)"), ("+ beta.sqrt()", "+ beta")),
            ),
            Bug(
                "the factors of x and of the noise have changed places",
                "equation (1)",
                (("(1 - beta).sqrt() * x + beta.sqrt()", "beta.sqrt() * x + (1 - beta).sqrt()"),),
            ),
            Bug(
                "ᾱ is used, which belongs to all steps so far; one step has its own β",
                "equation (1)",
                (("self.betas[t]", "1 - self.alphas_cumprod[t]"),),
            ),
            Bug(
                "t is off by one: β is taken from the step before",
                "the remark on counting below equation (1)",
                (("self.betas[t]", "self.betas[t - 1]"),),
            ),
            Bug(
                "the factors are √β and 1 − √β: the variances add up to 1, and not the factors",
                "equation (1)",
                (("(1 - beta).sqrt() * x", "(1 - beta.sqrt()) * x"),),
            ),
            Bug(
                "the factors are √(1 − β) and 1 − √(1 − β): the variances add up to 1, and not the factors",
                "equation (1)",
                (("beta.sqrt() * noise", "(1 - (1 - beta).sqrt()) * noise"),),
            ),
        ),
        difficulty=1,
        minutes=4,
        box="noise",
    ),
    Exercise(
        id="01.add_noise",
        reference=Schedule.add_noise,
        cases=jumps,
        bugs=(
            Bug(
                "ᾱ is used where √ᾱ belongs: variance and standard deviation mixed up in the factor of x_0",
                "equation (4)",
                (("signal_rate * x0", "signal_rate**2 * x0"),),
            ),
            Bug(
                "1 − ᾱ is used where √(1 − ᾱ) belongs: the factor of the noise isn't rooted",
                "equation (4)",
                (("noise_rate * noise", "noise_rate**2 * noise"),),
            ),
            Bug(
                "neither factor is rooted: ᾱ and 1 − ᾱ are variances",
                "equation (4)",
                (("signal_rate * x0", "signal_rate**2 * x0"), ("noise_rate * noise", "noise_rate**2 * noise")),
            ),
            Bug(
                "the noise rate is not 1 − √ᾱ: the variances add up to 1, and not the factors",
                "equation (4)",
                (("noise_rate * noise", "(1 - signal_rate) * noise"),),
            ),
            Bug(
                "x_0 is not scaled down: this only adds noise",
                "equation (4)",
                (("signal_rate * x0", "x0"),),
            ),
            Bug(
                "the factors of x_0 and of the noise have changed places",
                "equation (4)",
                (("signal_rate * x0 + noise_rate * noise", "noise_rate * x0 + signal_rate * noise"),),
            ),
            Bug(
                "α and β of one step are used, where the product ᾱ of all steps so far belongs",
                "equation (4)",
                (
                    (
                        "self.rates(t, x0)",
                        "(rate.sqrt().view(-1, *[1] * (x0.ndim - 1)) for rate in (self.alphas[t], self.betas[t]))",
                    ),
                ),
            ),
            Bug(
                "t is off by one: ᾱ is taken from the step before",
                "the remark on counting below equation (1)",
                (("self.rates(t, x0)", "self.rates(t - 1, x0)"),),
            ),
            Bug(
                "a root is taken twice: the rates are √ᾱ and √(1 − ᾱ) already",
                "equation (4)",
                (
                    ("signal_rate * x0", "signal_rate.sqrt() * x0"),
                    ("noise_rate * noise", "noise_rate.sqrt() * noise"),
                ),
            ),
            Bug(
                "this is x_0 + σ · noise, x_t divided by √ᾱ: the factor of x_0 is missing",
                "equation (4)",
                (("signal_rate * x0 + noise_rate * noise", "x0 + noise_rate / signal_rate * noise"),),
            ),
        ),
        difficulty=1,
        minutes=5,
        box="noise",
    ),
    Exercise(
        id="01.snr",
        reference=Schedule.snr,
        cases=timesteps,
        bugs=(
            Bug(
                "this is the ratio of the rates; the SNR is the ratio of their squares",
                "equation (7)",
                (
                    (
                        "return alphas_cumprod / (1 - alphas_cumprod)",
                        "return (alphas_cumprod / (1 - alphas_cumprod)).sqrt()",
                    ),
                ),
            ),
            Bug(
                "it is upside down: the noise is divided by the signal",
                "equation (7)",
                (("alphas_cumprod / (1 - alphas_cumprod)", "(1 - alphas_cumprod) / alphas_cumprod"),),
            ),
            Bug(
                "α of one step is used, where the product ᾱ of all steps so far belongs",
                "equation (7)",
                (("self._alphas_cumprod(t)", "self.alphas[t]"),),
            ),
            Bug(
                "this is the logarithm of the SNR",
                "equation (7)",
                (
                    (
                        "return alphas_cumprod / (1 - alphas_cumprod)",
                        "return (alphas_cumprod / (1 - alphas_cumprod)).log()",
                    ),
                ),
            ),
            Bug(
                "this is ᾱ, the signal's variance; it isn't divided by the noise's",
                "equation (7)",
                (("return alphas_cumprod / (1 - alphas_cumprod)", "return alphas_cumprod"),),
            ),
            Bug(
                "this is 1/ᾱ: the noise's variance is 1 − ᾱ, and the signal's belongs above the line",
                "equation (7)",
                (("return alphas_cumprod / (1 - alphas_cumprod)", "return 1 / alphas_cumprod"),),
            ),
            Bug(
                "this is 1 − ᾱ, the noise's variance; the signal's is to be divided by it",
                "equation (7)",
                (("return alphas_cumprod / (1 - alphas_cumprod)", "return 1 - alphas_cumprod"),),
            ),
            Bug(
                "this is σ, the noise rate divided by the signal rate; the SNR is 1/σ²",
                "equation (7)",
                (
                    (
                        "return alphas_cumprod / (1 - alphas_cumprod)",
                        "return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()",
                    ),
                ),
            ),
            Bug(
                "this is λ, half the logarithm of the SNR",
                "equation (7)",
                (
                    (
                        "return alphas_cumprod / (1 - alphas_cumprod)",
                        "return (alphas_cumprod / (1 - alphas_cumprod)).log() / 2",
                    ),
                ),
            ),
            Bug(
                "√ᾱ is used where ᾱ belongs: the SNR is made of variances",
                "equation (7)",
                (
                    (
                        "return alphas_cumprod / (1 - alphas_cumprod)",
                        "return alphas_cumprod.sqrt() / (1 - alphas_cumprod.sqrt())",
                    ),
                ),
            ),
            Bug(
                "t is off by one: ᾱ is taken from the step before",
                "the remark on counting below equation (1)",
                (("self._alphas_cumprod(t)", "self._alphas_cumprod(t - 1)"),),
            ),
        ),
        difficulty=1,
        minutes=3,
        box="noise",
    ),
    Exercise(
        id="01.make_betas",
        reference=make_betas,
        cases=configs,
        bugs=(
            Bug(
                "with scaled_linear √β grows evenly, and not β",
                "the table of the three schedules",
                (
                    (
                        "torch.linspace(config.beta_start**0.5, config.beta_end**0.5, n, dtype=torch.float32) ** 2",
                        "torch.linspace(config.beta_start, config.beta_end, n, dtype=torch.float32)",
                    ),
                ),
            ),
            Bug(
                "√β is returned where β belongs: the square at the end is missing",
                "the table of the three schedules",
                ((", n, dtype=torch.float32) ** 2", ", n, dtype=torch.float32)"),),
            ),
            Bug(
                "the cosine isn't squared",
                "the table of the three schedules",
                (("math.pi / 2) ** 2", "math.pi / 2)"),),
            ),
            Bug(
                "the cosine's last β is not capped at 0.999",
                "the table of the three schedules",
                (("min(1 - f[i + 1] / f[i], 0.999)", "1 - f[i + 1] / f[i]"),),
            ),
            Bug(
                "the cosine's offset of 0.008 is missing",
                "the table of the three schedules",
                (("(i / n + 0.008) / 1.008", "i / n"),),
            ),
            Bug(
                "config.rescale_betas_zero_snr is not looked at",
                "the text of exercise 01.make_betas",
                (("rescale_zero_snr(betas) if config.rescale_betas_zero_snr else betas", "betas"),),
            ),
            Bug(
                "with scaled_linear the roots at both ends are missing: √β grows evenly, from √beta_start to √beta_end",
                "the table of the three schedules",
                (
                    (
                        "torch.linspace(config.beta_start**0.5, config.beta_end**0.5, n, dtype=torch.float32) ** 2",
                        "torch.linspace(config.beta_start, config.beta_end, n, dtype=torch.float32) ** 2",
                    ),
                ),
            ),
            Bug(
                "for the cosine α is returned where β = 1 − α belongs",
                "the table of the three schedules",
                (("min(1 - f[i + 1] / f[i], 0.999)", "min(f[i + 1] / f[i], 0.999)"),),
            ),
            Bug(
                "for the cosine 1 − ᾱ is returned; β belongs to one step, where ᾱ is divided by the ᾱ before it",
                "the table of the three schedules",
                (("1 - f[i + 1] / f[i]", "1 - f[i + 1]"),),
            ),
        ),
        difficulty=2,
        minutes=10,
        box="noise",
    ),
    Exercise(
        id="01.rescale_zero_snr",
        reference=rescale_zero_snr,
        cases=betas,
        bugs=(
            Bug(
                "ᾱ is shifted and scaled where √ᾱ belongs",
                "equation (8)",
                ((".sqrt()", ""), (" ** 2", "")),
            ),
            Bug(
                "√ᾱ is shifted, but not scaled: the first value has moved",
                "equation (8)",
                ((" * (first / (first - final))", ""),),
            ),
            Bug(
                "it is scaled so that the first value is 1; it must be what it was before",
                "equation (8)",
                (("first / (first - final)", "1 / (first - final)"),),
            ),
            Bug(
                "√ᾱ is not squared again before α is computed",
                "the list above the exercise",
                ((" ** 2", ""),),
            ),
            Bug(
                "the product is not taken apart: α at t is ᾱ at t divided by ᾱ at t − 1",
                "the list above the exercise",
                (("torch.cat([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])", "alphas_cumprod"),),
            ),
            Bug(
                "alphas are returned, must be betas",
                "the list above the exercise",
                (("return 1 - alphas", "return alphas"),),
            ),
            Bug(
                "the β are multiplied; ᾱ is the product of the α = 1 − β",
                "the list above the exercise",
                (("torch.cumprod(1 - betas", "torch.cumprod(betas"),),
            ),
            Bug(
                "√ᾱ is scaled, but not shifted: the last value isn't 0",
                "equation (8)",
                (("(signal_rates - final) *", "signal_rates *"),),
            ),
            Bug(
                "the scale is upside down",
                "equation (8)",
                (("(first / (first - final))", "((first - final) / first)"),),
            ),
        ),
        difficulty=2,
        minutes=8,
        box="noise",
    ),
)
