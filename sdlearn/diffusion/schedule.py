"""The noise schedule: how much signal and how much noise is left at each timestep, and what follows from that.

Everything here rests on one equation, the forward process (DDPM, Ho et al. 2020, equation 4):

    x_t = sqrt(alphas_cumprod[t]) x_0 + sqrt(1 - alphas_cumprod[t]) epsilon,    epsilon ~ N(0, 1)

We call the two factors signal rate and noise rate; Salimans & Ho (2022) and DPM-Solver write them alpha_t and sigma_t.
t counts from 0 to 999 as in Diffusers. The papers count from 1 to 1000.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sdlearn.config import Config, check_count, is_count

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
SPACINGS = ("leading", "trailing", "linspace")

# What Diffusers assumes when scheduler_config.json leaves a key out: all classes, then each class. A class ignores
# the keys of other classes, so any value is accepted there.
_FILE_DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "thresholding": False,
}
_CLASS_DEFAULTS = {
    "DDPMScheduler": {"clip_sample": True, "variance_type": "fixed_small"},
    "DDIMScheduler": {"clip_sample": True},
    "PNDMScheduler": {"set_alpha_to_one": False, "skip_prk_steps": False},
    "DPMSolverMultistepScheduler": {
        "timestep_spacing": "linspace",
        "variance_type": None,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "use_karras_sigmas": False,
    },
    "EulerDiscreteScheduler": {
        "timestep_spacing": "linspace",
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
        "sigma_min": None,
        "sigma_max": None,
        "use_karras_sigmas": False,
    },
    "EulerAncestralDiscreteScheduler": {"timestep_spacing": "linspace"},
    "HeunDiscreteScheduler": {
        "timestep_spacing": "linspace",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "use_karras_sigmas": False,
    },
}
# Keys without a field, and the values at which they change nothing that we compute.
_NEUTRAL = {
    "trained_betas": (None,),
    "clip_sample": (False,),
    "thresholding": (None, False),
    "variance_type": (None, "fixed_small"),
    "skip_prk_steps": (True,),
    "solver_order": (2,),
    "algorithm_type": ("dpmsolver++",),
    "solver_type": ("midpoint",),
    "final_sigmas_type": ("zero",),  # with it the last step is first order, whatever the next two keys say
    "lower_order_final": ...,
    "euler_at_final": ...,
    "lambda_min_clipped": (-math.inf,),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "sigma_min": (None,),
    "sigma_max": (None,),
    "clip_sample_range": ...,  # these four only matter when something above is switched on
    "dynamic_thresholding_ratio": ...,
    "sample_max_value": ...,
    "flow_shift": ...,
    "time_shift_type": ...,
}


@dataclass(frozen=True)
class ScheduleConfig(Config):
    """The keys of Diffusers' scheduler_config.json that change the computation. The defaults are Stable Diffusion's.

    beta_schedule is one of BETA_SCHEDULES, prediction_type of PREDICTION_TYPES, timestep_spacing of SPACINGS.
    steps_offset is added to "leading" timesteps. set_alpha_to_one: DDIM's last step ends at alphas_cumprod = 1, else at
    alphas_cumprod[0]. scheduler is the Diffusers class named in the file, use_karras_sigmas an option of
    DPMSolverMultistepScheduler. Both are kept so that Diffusers uses them again for a model that we save. They change
    nothing here: our sampler is chosen by its name, "dpmpp_2m_karras" for example.

    Raises ValueError when a value is out of range.
    """

    neutral: ClassVar[Mapping[str, Any]] = _NEUTRAL

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool = False
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    timestep_spacing: str = "leading"
    scheduler: str = "DDIMScheduler"
    use_karras_sigmas: bool = False

    def __post_init__(self) -> None:
        for key, accepted in {
            "beta_schedule": BETA_SCHEDULES,
            "prediction_type": PREDICTION_TYPES,
            "timestep_spacing": SPACINGS,
            "scheduler": tuple(_CLASS_DEFAULTS),
            "rescale_betas_zero_snr": (True, False),
            "set_alpha_to_one": (True, False),
            "use_karras_sigmas": (True, False) if self.scheduler == "DPMSolverMultistepScheduler" else (False,),
        }.items():
            if getattr(self, key) not in accepted:
                raise ValueError(
                    f"{key} = {getattr(self, key)!r} is not supported; accepted: {', '.join(map(str, accepted))}"
                )
        check_count("num_train_timesteps", self.num_train_timesteps, least=2)
        if not is_count(self.steps_offset, least=0):
            raise ValueError(f"steps_offset = {self.steps_offset!r}, must be a whole number, not negative")
        for key in ("beta_start", "beta_end"):
            if not isinstance(getattr(self, key), int | float) or not 0 < getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)!r}, must be a number between 0 and 1")
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start = {self.beta_start} must be at most beta_end = {self.beta_end}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "scheduler_config.json") -> Self:
        """Read a Diffusers scheduler_config.json; `file` is named in errors.

        A key that the file leaves out has the default of the Diffusers class named in the file.
        Raises ValueError with file, key and value when a value changes the computation and is not supported.
        """
        scheduler = values.get("_class_name")
        if not isinstance(scheduler, str) or scheduler not in _CLASS_DEFAULTS:
            raise ValueError(
                f"{file}: _class_name = {scheduler!r} is not supported; accepted: {', '.join(_CLASS_DEFAULTS)}"
            )
        defaults = _FILE_DEFAULTS | _CLASS_DEFAULTS[scheduler]
        of_others = set().union(*_CLASS_DEFAULTS.values()) - defaults.keys()
        read = {key: value for key, value in values.items() if key not in of_others}
        return super().from_dict(defaults | read | {"scheduler": scheduler}, file)

    def to_dict(self) -> dict[str, Any]:
        """A scheduler_config.json that Diffusers and `from_dict` read back to the same schedule."""
        values = super().to_dict()
        scheduler = values.pop("scheduler")
        # Where a class's own default differs from what we compute, the file must contain our value: clip_sample,
        # skip_prk_steps. It does for every class, since Diffusers makes other schedulers from this file, too.
        needed = {
            key: _NEUTRAL[key][0]
            for defaults in _CLASS_DEFAULTS.values()
            for key, default in defaults.items()
            if key in _NEUTRAL and default not in _NEUTRAL[key]
        }
        return {"_class_name": scheduler, **values, **needed}


def make_betas(config: ScheduleConfig) -> Tensor:
    """The variances beta_t of the forward steps, (T,).

    "linear": Ho et al. 2020, section 4.
    "scaled_linear": linear in sqrt(beta), from the code of Rombach et al. 2022.
    "squaredcos_cap_v2": the cosine schedule, Nichol & Dhariwal 2021, equation 17, betas capped at 0.999.
    """
    n = config.num_train_timesteps  # below, float32 and Diffusers' order of operations: equal bits
    if config.beta_schedule == "linear":
        betas = torch.linspace(config.beta_start, config.beta_end, n, dtype=torch.float32)
    elif config.beta_schedule == "scaled_linear":
        betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, n, dtype=torch.float32) ** 2
    else:
        f = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
        betas = torch.tensor([min(1 - f[i + 1] / f[i], 0.999) for i in range(n)], dtype=torch.float32)
    return rescale_zero_snr(betas) if config.rescale_betas_zero_snr else betas


def rescale_zero_snr(betas: Tensor) -> Tensor:
    """Shift and scale sqrt(alphas_cumprod) so that the last one is 0 and the first one stays. Returns betas, (T,).

    Then the last timestep is pure noise, as it is when sampling starts (Lin et al. 2023, algorithm 1).
    """
    signal_rates = torch.cumprod(1 - betas, dim=0).sqrt()
    first, final = signal_rates[0], signal_rates[-1]
    alphas_cumprod = ((signal_rates - final) * (first / (first - final))) ** 2
    alphas = torch.cat([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])
    return 1 - alphas


class Schedule:
    """A noise schedule: betas, alphas = 1 - betas, alphas_cumprod, and sigmas, all on the CPU, (T,).

    These tables are float32, as in Diffusers, or `dtype`: with float64 the samplers also compute in float64 if x does.
    sigmas are noise rate / signal rate. Where the SNR is zero, alphas_cumprod is 0, and sigma is 4096, not infinite.

    In all methods t is an int, or a LongTensor (B,) with one timestep for each image, at least 0 and below
    num_train_timesteps. It is read on the CPU, so keep it there. Images or latents have any shape (B, ...); results
    have their device and dtype. Raises ValueError when t is out of range or doesn't match the batch.
    """

    def __init__(self, config: ScheduleConfig, dtype: torch.dtype = torch.float32) -> None:
        self.config = config
        self.betas = make_betas(config).to(dtype)
        self.alphas = 1 - self.betas
        self.alphas_cumprod = torch.cumprod(self.alphas, dim=0)
        # The smallest positive float16, as in Diffusers: the solvers that work with sigmas need a finite first one.
        nonzero = self.alphas_cumprod.masked_fill(self.alphas_cumprod == 0, 2**-24)
        self.sigmas = ((1 - nonzero) / nonzero).sqrt()

    def _alphas_cumprod(self, t: int | Tensor) -> Tensor:
        """alphas_cumprod at t, on the CPU: a scalar for an int, (B,) for a LongTensor."""
        last = self.config.num_train_timesteps - 1
        if not isinstance(t, Tensor):
            check_count("t", t, 0, last)
        elif t.is_floating_point() or t.dtype == torch.bool or t.ndim > 1:
            raise ValueError(f"t is {t.dtype} of shape {tuple(t.shape)}, must be an int or a LongTensor (B,)")
        else:
            t = t.cpu().long()
            if t.numel() == 0 or t.min() < 0 or t.max() > last:
                raise ValueError(f"t = {t}, must be a whole number from 0 to {last}")
        return self.alphas_cumprod[t]

    def rates(self, t: int | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signal rate and noise rate at t, ready to be multiplied by x: scalars, or (B, 1, ..., 1) on x's device."""
        alphas_cumprod = self._alphas_cumprod(t)
        signal_rate, noise_rate = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
        if signal_rate.ndim == 0:
            return signal_rate, noise_rate  # scalars on the CPU take part in arithmetic on any device, in x's dtype
        if len(signal_rate) != len(x):
            raise ValueError(
                f"t has {len(signal_rate)} timesteps for a batch of {len(x)}, must have one for each image"
            )
        shape = (-1,) + (1,) * (x.ndim - 1)  # (B,) -> (B, 1, ..., 1)
        return signal_rate.view(shape).to(x), noise_rate.view(shape).to(x)

    def snr(self, t: int | Tensor) -> Tensor:
        """Signal-to-noise ratio: the signal's variance divided by the noise's. A scalar or (B,), on the CPU.

        Kingma et al. 2021 (Variational Diffusion Models), section 3.1.
        """
        alphas_cumprod = self._alphas_cumprod(t)
        return alphas_cumprod / (1 - alphas_cumprod)

    def add_one_step(self, x: Tensor, noise: Tensor, t: int) -> Tensor:
        """x_t from x = x_{t-1}: one step of the forward chain, a sample of q(x_t given x_{t-1}). DDPM, equation 2.

        x and noise (B, ...). At t = 0, the first step, x is the clean picture. Raises ValueError for another t.
        """
        if not isinstance(t, int) or not 0 <= t < len(self.betas):
            raise ValueError(f"t = {t}, must be a whole number from 0 to {len(self.betas) - 1}")
        beta = self.betas[t]
        return (1 - beta).sqrt() * x + beta.sqrt() * noise

    def add_noise(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """x_t, a sample of q(x_t given x_0). DDPM (Ho et al. 2020), equation 4."""
        signal_rate, noise_rate = self.rates(t, x0)
        return signal_rate * x0 + noise_rate * noise

    def velocity(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """v = signal rate · epsilon - noise rate · x_0. Salimans & Ho 2022 (progressive distillation), section 4."""
        signal_rate, noise_rate = self.rates(t, x0)
        return signal_rate * noise - noise_rate * x0

    def target(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """What the network learns to predict from x_t: epsilon, x_0 or v, according to config.prediction_type."""
        if self.config.prediction_type == "epsilon":
            return noise
        if self.config.prediction_type == "sample":
            return x0
        return self.velocity(x0, noise, t)

    def posterior(self, x0: Tensor, x: Tensor, t: int, previous: int) -> tuple[Tensor, Tensor]:
        """The Gaussian q(x_previous given x_t, x_0): its mean (B, ...), and its variance.

        DDPM's equations 6 and 7, for any two timesteps t > previous. A `previous` below
        0 is the end: there the mean is x_0 and the variance 0. The variance is a scalar
        on the CPU. Raises ValueError when `previous` is not below t.
        """
        if previous >= t:
            raise ValueError(f"previous = {previous}, must be below t = {t}")
        alphas_cumprod = self._alphas_cumprod(t)
        alphas_cumprod_previous = self._alphas_cumprod(previous) if previous >= 0 else torch.tensor(1.0)
        alpha = alphas_cumprod / alphas_cumprod_previous  # what is left of the signal's variance on the way
        beta = 1 - alpha  # the variance of the noise that came on the way
        mean = (
            alphas_cumprod_previous.sqrt() * beta / (1 - alphas_cumprod) * x0
            + alpha.sqrt() * (1 - alphas_cumprod_previous) / (1 - alphas_cumprod) * x
        )
        variance = (1 - alphas_cumprod_previous) / (1 - alphas_cumprod) * beta
        return mean, variance

    def to_x0(self, prediction: Tensor, x: Tensor, t: int | Tensor) -> Tensor:
        """The x_0 that the network's prediction at x = x_t means. DDPM equation 15; Salimans & Ho 2022, section 4."""
        return self.x0_at(prediction, x, *self.rates(t, x))

    def x0_at(self, prediction: Tensor, x: Tensor, signal_rate: Tensor | float, noise_rate: Tensor | float) -> Tensor:
        """`to_x0` for given rates: some solvers' noise levels lie between timesteps."""
        if self.config.prediction_type == "epsilon":
            # Pure noise (rate 0, zero SNR) holds no information about x_0; 2**-12 keeps the result finite.
            return (x - noise_rate * prediction) / (signal_rate + 2**-12 * (signal_rate == 0))
        if self.config.prediction_type == "sample":
            return prediction
        return signal_rate * x - noise_rate * prediction

    def x0_at_sigma(self, prediction: Tensor, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`to_x0` for x = x_0 + sigma · epsilon, the coordinates of Euler's and Heun's methods. sigma is a scalar."""
        if self.config.prediction_type == "epsilon":
            return x - sigma * prediction
        if self.config.prediction_type == "sample":
            return prediction
        return x / (sigma**2 + 1) - sigma / (sigma**2 + 1) ** 0.5 * prediction

    def to_epsilon(self, prediction: Tensor, x: Tensor, t: int | Tensor) -> Tensor:
        """The noise epsilon that the network's prediction at x = x_t means. Inverts DDPM equation 4."""
        signal_rate, noise_rate = self.rates(t, x)
        if self.config.prediction_type == "epsilon":
            return prediction
        if self.config.prediction_type == "sample":
            return (x - signal_rate * prediction) / noise_rate
        return signal_rate * prediction + noise_rate * x

    def to_v(self, prediction: Tensor, x: Tensor, t: int | Tensor) -> Tensor:
        """The velocity v that the network's prediction at x = x_t means. Salimans & Ho 2022, section 4."""
        if self.config.prediction_type == "v_prediction":
            return prediction
        return self.velocity(self.to_x0(prediction, x, t), self.to_epsilon(prediction, x, t), t)


def simple_loss(
    denoise: Callable[[Tensor, Tensor], Tensor], x0: Tensor, noise: Tensor, t: Tensor, schedule: Schedule
) -> Tensor:
    """The mean of (target - prediction)², which diffusion models learn with. DDPM, eq. 14.

    x0 and noise (B, ...), t a LongTensor (B,). denoise(x, t) returns the network's
    prediction (B, ...).
    """
    x = schedule.add_noise(x0, noise, t)
    return (denoise(x, t) - schedule.target(x0, noise, t)).square().mean()
