"""The samplers against their Diffusers schedulers in float64, and against what is known in closed form."""

import itertools

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from side_by_side import CLASSES
from torch import Tensor

from sdlearn.diffusion.samplers import (
    SAMPLERS,
    Step,
    adams_bashforth,
    ddim,
    ddpm,
    draw_noise,
    euler_ancestral,
    get_sampler,
    last,
)
from sdlearn.diffusion.schedule import SPACINGS, Schedule, ScheduleConfig
from sdlearn.lessons.check import assert_parity

pytestmark = pytest.mark.usefixtures("float64_schedulers")

SHAPE = (3, 4, 5, 7)
STEPS = (1, 2, 3, 7, 20, 27, 50)  # and 999 and 1000 in tests of their own
# name, options of our loop = options of the reference's step
KINDS = [(name, {}) for name in CLASSES] + [("ddim", {"eta": 0.5}), ("ddim", {"eta": 1.0})]
IDS = [*CLASSES, "ddim-0.5", "ddim-1"]
STOCHASTIC = [("ddpm", {}), ("ddim", {"eta": 0.5}), ("ddim", {"eta": 1.0}), ("euler_ancestral", {})]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_reference(name: str, config: ScheduleConfig) -> diffusers.SchedulerMixin:
    """The scheduler with our tables: the betas are made in float32 on both sides, everything else in float64."""
    options = {"clip_sample": False, "use_karras_sigmas": name == "dpmpp_2m_karras"}
    scheduler = getattr(diffusers, CLASSES[name]).from_config(config.to_dict() | options)
    alphas_cumprod = Schedule(config, torch.float64).alphas_cumprod
    scheduler.final_alpha_cumprod = torch.tensor(1.0) if config.set_alpha_to_one else alphas_cumprod[0]
    # 2**-24 instead of 0 where they divide by it. PNDM and Heun lack the option, but read their schedule from here.
    divides = name not in ("ddpm", "ddim")
    scheduler.alphas_cumprod = alphas_cumprod.masked_fill(alphas_cumprod == 0, 2**-24) if divides else alphas_cumprod
    return scheduler


def draw(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return draw_noise(shape, generator(seed)).double()


class GaussianDenoiser:
    """The exact prediction when the data are Gaussian, x_0 ~ N(mean, std²) in each element, plus a fixed disturbance.

    It stands for a network: its trajectories keep the size of real ones, and with disturbance 0 their ends are known.
    """

    def __init__(self, schedule: Schedule, shape: tuple[int, ...], disturbance: float = 0.0) -> None:
        self.schedule, self.disturbance = schedule, disturbance
        self.mean = torch.randn(shape, generator=generator(10)).double()
        self.std = 0.3 + torch.rand(shape, generator=generator(11)).double()
        self.timesteps, self.sigmas = np.arange(len(schedule.sigmas)), schedule.sigmas.numpy()

    def __call__(self, x: Tensor, t: float) -> Tensor:
        if isinstance(t, int):
            alphas_cumprod = self.schedule.alphas_cumprod[t].item()
        else:
            alphas_cumprod = 1 / (np.interp(t, self.timesteps, self.sigmas).item() ** 2 + 1)
        signal_rate, noise_rate = alphas_cumprod**0.5, (1 - alphas_cumprod) ** 0.5
        dtype, x = x.dtype, x.double()
        gain = signal_rate * self.std**2 / (alphas_cumprod * self.std**2 + noise_rate**2)
        prediction = x0 = self.mean + gain * (x - signal_rate * self.mean)
        if self.schedule.config.prediction_type != "sample":
            prediction = epsilon = (x - signal_rate * x0) / noise_rate
        if self.schedule.config.prediction_type == "v_prediction":
            prediction = signal_rate * epsilon - noise_rate * x0
        if self.disturbance:
            prediction = prediction + self.disturbance * torch.randn(x.shape, generator=generator(int(100 * t)))
        return prediction.to(dtype)

    def flow(self, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Where the probability flow takes x, from alphas_cumprod = start to end: it keeps (x - mean_t) / std_t."""

        def moments(alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
            alphas_cumprod = alphas_cumprod.double()
            return alphas_cumprod.sqrt() * self.mean, (alphas_cumprod * self.std**2 + 1 - alphas_cumprod).sqrt()

        (start_mean, start_std), (end_mean, end_std) = moments(start), moments(end)
        return end_mean + end_std * (x.double() - start_mean) / start_std


def compare(name: str, options: dict, config: ScheduleConfig, steps: int, tolerance: float | None = None) -> bool:
    """Run our sampler and the reference's from the same noise with the same denoiser, and assert that they agree.

    Single steps: each of ours starts from the reference's own x, and every element of each is compared, relative to
    max(1, |x|). Whole trajectory: both run freely; the ends are compared, relative to max(1, max |x|).
    Where the reference fails, ours must only be finite; then it returns False.
    """
    schedule, sampler, scheduler = Schedule(config, torch.float64), get_sampler(name), make_reference(name, config)
    denoise = GaussianDenoiser(schedule, SHAPE, disturbance=0.1)
    grid, noise = sampler.make_grid(schedule, steps), draw(SHAPE, 1)
    x = noise * sampler.initial_scale(schedule, grid)
    end = last(sampler.loop(denoise, x, grid, schedule, generator(2), **options))
    assert torch.isfinite(end).all()

    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    if not timesteps.is_floating_point() and timesteps.max() > 999:
        return False  # its step would raise IndexError
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # else it begins at the second of two equal timesteps
    random = {"generator": generator(2)} if (name, options) in STOCHASTIC else {}
    reference, inputs, predictions = [noise * scheduler.init_noise_sigma], [], []
    for t in timesteps:
        inputs.append(scheduler.scale_model_input(reference[-1], t))
        predictions.append(denoise(inputs[-1], t.item()))
        reference.append(scheduler.step(predictions[-1], t, reference[-1], **options, **random).prev_sample)
    if not torch.isfinite(reference[-1]).all():
        return False  # a number that isn't finite stays until the end

    assert grid.timesteps.tolist() == timesteps.tolist()
    assert_parity("initial noise", x, reference[0])
    label = f"sampler {name}, whole trajectory"
    assert_parity(label, end, reference[-1], tolerance, against=CLASSES[name])

    our_inputs, differences = [], []

    def replay(x: Tensor, t: float) -> Tensor:
        our_inputs.append(x)
        return predictions[len(our_inputs) - 1]

    def collect(x: Tensor, i: int) -> Tensor:
        differences.append((x - reference[i + 1]) / reference[i + 1].abs().clamp(min=1))
        return reference[i + 1]

    loop = sampler.loop(replay, x, grid, schedule, generator(2), collect, **options)
    assert [(step.i, step.t) for step in loop] == list(enumerate(timesteps.tolist()))
    worst = torch.stack(differences)
    assert_parity("input of the network", torch.stack(our_inputs), torch.stack(inputs))
    assert_parity(f"sampler {name}, single steps", worst, torch.zeros_like(worst), tolerance, against=CLASSES[name])
    return True


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_steps_and_trajectories_equal_diffusers(kind, spacing, prediction_type):
    config = ScheduleConfig(prediction_type=prediction_type, timestep_spacing=spacing)
    for steps in STEPS:
        assert compare(*kind, config, steps)


# Where Diffusers may fail: t = 1000, beyond its tables; or two equal timesteps, which divide 0 by 0 in DPM-Solver++.
MAY_FAIL = {("ddpm", "leading", 1000), ("ddim", "leading", 1000), ("plms", "leading", 1000)}
MAY_FAIL |= {("dpmpp_2m", "leading", 999), ("dpmpp_2m", "leading", 1000), ("dpmpp_2m", "linspace", 1000)}


@pytest.mark.parametrize(("name", "steps"), [("plms", 999), ("euler_ancestral", 1000)])
def test_a_thousand_steps_equal_diffusers(name, steps):
    config = ScheduleConfig(prediction_type="v_prediction", timestep_spacing="linspace")
    assert compare(name, {}, config, steps)


@pytest.mark.slow
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_many_steps_equal_diffusers(kind, spacing, prediction_type):
    config = ScheduleConfig(prediction_type=prediction_type, timestep_spacing=spacing)
    for steps in (999, 1000):
        assert compare(*kind, config, steps) or (kind[0], spacing, steps) in MAY_FAIL


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("plms", "euler_ancestral")])
def test_x0_prediction_equals_diffusers(name):
    """The classes of PLMS and Euler ancestral don't have it."""
    for spacing, steps in itertools.product(SPACINGS, (1, 7, 20)):
        assert compare(name, {}, ScheduleConfig(prediction_type="sample", timestep_spacing=spacing), steps)


@pytest.mark.parametrize(("beta_schedule", "set_alpha_to_one"), [("linear", True), ("squaredcos_cap_v2", False)])
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_other_schedules_equal_diffusers(kind, beta_schedule, set_alpha_to_one):
    # PNDMScheduler's formula divides by alphas_cumprod, and loses digits at the cosine schedule's last one, 2e-9.
    config = ScheduleConfig(
        prediction_type="v_prediction",
        beta_schedule=beta_schedule,
        set_alpha_to_one=set_alpha_to_one,
        timestep_spacing="leading" if kind[0] == "plms" else "trailing",
        steps_offset=0,
    )
    for steps in (7, 20):
        assert compare(*kind, config, steps)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_zero_terminal_snr_equals_diffusers(kind):
    # PNDMScheduler lacks the option, and divides by alphas_cumprod: we compare it where that isn't 0.
    spacing = "leading" if kind[0] == "plms" else "trailing"
    config = ScheduleConfig(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing=spacing, set_alpha_to_one=True
    )
    # With eta 1 the first step takes the root of a difference that is 0 up to rounding: below 0 Diffusers returns NaN,
    # and above it the root of 1e-16 is 1e-8.
    with_root = kind[1] == {"eta": 1.0}
    for steps in STEPS:
        assert compare(*kind, config, steps, 1e-7 if with_root else None) or with_root


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("ddpm", "euler_ancestral")])
def test_zero_terminal_snr_ends_where_the_flow_does(name):
    schedule = Schedule(
        ScheduleConfig(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            set_alpha_to_one=True,
        ),
        torch.float64,
    )
    denoise, sampler, noise = GaussianDenoiser(schedule, SHAPE), get_sampler(name), draw(SHAPE)
    grid = sampler.make_grid(schedule, 100)
    x = noise * sampler.initial_scale(schedule, grid)
    end = last(sampler.loop(denoise, x, grid, schedule))
    expected = denoise.flow(noise, torch.zeros(()), torch.ones(()))
    assert_parity(name, end, expected, 0.1)


@pytest.mark.parametrize(("name", "spacing", "steps"), sorted(MAY_FAIL))
def test_results_are_finite_where_diffusers_may_fail(name, spacing, steps):
    schedule, sampler = Schedule(ScheduleConfig(timestep_spacing=spacing)), get_sampler(name)
    x, grid = draw_noise((1, 2), generator()), sampler.make_grid(schedule, steps)
    end = last(sampler.loop(GaussianDenoiser(schedule, (1, 2)), x, grid, schedule, generator()))
    assert torch.isfinite(end).all() and end.abs().max() < 10


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_results_are_always_finite(name, spacing):
    sampler, x = get_sampler(name), draw_noise((1, 2), generator())
    for prediction_type, zero_snr in itertools.product(["epsilon", "v_prediction", "sample"], [False, True]):
        schedule = Schedule(
            ScheduleConfig(prediction_type=prediction_type, timestep_spacing=spacing, rescale_betas_zero_snr=zero_snr)
        )
        for steps, eta in itertools.product([1, 2, 3, 20], [0.0, 1.0] if name == "ddim" else [0.0]):
            grid = sampler.make_grid(schedule, steps)
            options = {"eta": eta} if name == "ddim" else {}
            start = x * sampler.initial_scale(schedule, grid)
            loop = sampler.loop(lambda x, t: 0.9 * x, start, grid, schedule, generator(), **options)
            assert torch.isfinite(last(loop)).all(), (prediction_type, zero_snr, steps, eta)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["ddim", "euler", "heun"]),  # no history, no noise: the same x follows
    spacing=st.sampled_from(SPACINGS),
    steps=st.integers(2, 60),
    data=st.data(),
)
def test_the_tail_of_a_grid_goes_on_as_the_whole(name, spacing, steps, data):
    schedule, sampler = Schedule(ScheduleConfig(prediction_type="v_prediction"), torch.float64), get_sampler(name)
    denoise, grid = GaussianDenoiser(schedule, (1, 3)), sampler.make_grid(schedule, steps, spacing)
    tail = grid.tail(data.draw(st.integers(1, steps - 1)))
    x = draw((1, 3)) * sampler.initial_scale(schedule, grid)
    whole = list(sampler.loop(denoise, x, grid, schedule))
    rest = list(sampler.loop(denoise, whole[len(grid) - len(tail) - 1].x, tail, schedule))
    assert_parity("end", rest[-1].x, whole[-1].x)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_image_to_image_equals_diffusers(name, spacing):
    """Cut and noised as StableDiffusionImg2ImgPipeline does it: the list of timesteps from (steps - k) · order."""
    schedule = Schedule(ScheduleConfig(timestep_spacing=spacing), torch.float64)
    denoise, scheduler = GaussianDenoiser(schedule, SHAPE), make_reference(name, schedule.config)
    sampler, (x0, noise) = get_sampler(name), draw((2, *SHAPE))
    random = {"generator": generator(2)} if (name, {}) in STOCHASTIC else {}
    for k in (1, 6, 9, 10):
        scheduler.set_timesteps(10)
        start = (10 - k) * scheduler.order
        timesteps = scheduler.timesteps[start:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start)
        theirs = scheduler.add_noise(x0, noise, timesteps[:1].expand(len(x0)))
        grid = sampler.make_grid(schedule, 10).tail(k)
        assert grid.timesteps.tolist() == timesteps.tolist()
        ours = sampler.add_noise(x0, noise, schedule, grid, 0)
        assert_parity(f"sampler {name}, noise for image to image", ours, theirs, against=CLASSES[name])
        for t in timesteps:
            prediction = denoise(scheduler.scale_model_input(theirs, t), t.item())
            theirs = scheduler.step(prediction, t, theirs, **random).prev_sample
        if random:
            random["generator"].manual_seed(2)
        ours = last(sampler.loop(denoise, ours, grid, schedule, generator(2)))
        assert_parity(f"sampler {name}, image to image", ours, theirs, against=CLASSES[name])


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_noise_at_every_call_equals_diffusers(name, zero_snr):
    config = ScheduleConfig(timestep_spacing="trailing", rescale_betas_zero_snr=zero_snr)
    schedule, scheduler, sampler = Schedule(config, torch.float64), make_reference(name, config), get_sampler(name)
    x0, noise = draw((2, *SHAPE))
    scheduler.set_timesteps(8)
    grid = sampler.make_grid(schedule, 8)
    for i, t in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(i)
        theirs = scheduler.add_noise(x0, noise, t.expand(len(x0)))
        ours = sampler.add_noise(x0, noise, schedule, grid, i)
        # 2**-12 instead of 0 is the signal rate where make_reference has put 2**-24 instead of 0 for PLMS.
        bound = 2**-12 * 5 if zero_snr and name == "plms" and t == 999 else None
        assert_parity(f"sampler {name}, noise", ours, theirs, bound)
    assert torch.equal(sampler.add_noise(x0, noise, schedule, grid, len(grid)), x0)


@settings(max_examples=15, deadline=None)
@given(steps=st.integers(1, 120), prediction_type=st.sampled_from(["epsilon", "v_prediction"]), seed=st.integers(0, 99))
def test_ddim_stays_on_its_marginals(steps, prediction_type, seed):
    """On Gaussian data each deterministic step is affine in x, and takes the mean of x_t to the mean of the next x."""
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type), torch.float64)
    denoise = GaussianDenoiser(schedule, (2, 5))
    grid = SAMPLERS["ddim"].make_grid(schedule, steps)
    start = schedule.alphas_cumprod[grid.timesteps[0]]
    mean = start.sqrt() * denoise.mean
    x = draw((2, 5), seed)
    for of_mean, of_x in zip(ddim(denoise, mean, grid, schedule), ddim(denoise, x, grid, schedule), strict=True):
        assert torch.isfinite(of_x.x).all()
        previous = max(of_mean.t - grid.stride, 0)
        expected = schedule.alphas_cumprod[previous].sqrt() * denoise.mean
        assert_parity("mean", of_mean.x, expected)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("plms", 2)])
def test_the_error_falls_with_the_order_of_the_method(name, order):
    """Where the flow ends is known, so the error is too: twice the steps halve it (order 1), or quarter it (2)."""
    schedule = Schedule(ScheduleConfig(steps_offset=0), torch.float64)
    denoise, noise, sampler = GaussianDenoiser(schedule, (4, 50)), draw((4, 50)), get_sampler(name)
    errors = []
    for steps in (50, 100):
        # We stop at t = 100, which is in both grids: below it lambda changes too fast for these steps to show an order.
        grid = get_sampler("ddim" if name == "dpmpp_2m" else name).make_grid(schedule, steps)
        calls = grid.timesteps.tolist()
        i = len(calls) - 1 - calls[::-1].index(100)
        x = noise * sampler.initial_scale(schedule, grid)
        end = list(itertools.islice(sampler.loop(denoise, x, grid, schedule), i))[-1].x
        if sampler.initial_scale(schedule, grid) != 1:
            end = end / (grid.sigmas[i] ** 2 + 1).sqrt()
        alphas_cumprod = schedule.alphas_cumprod
        expected = denoise.flow(noise, alphas_cumprod[int(calls[0])], alphas_cumprod[100])
        errors.append((end - expected).abs().max().item())
    assert errors[0] < 0.1
    assert errors[1] < 1.25 * errors[0] / 2**order


def test_adams_bashforth_has_the_weights_of_pndm():
    """Liu et al. 2022, equation 12, and its first three steps."""
    fractions = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    for n, expected in enumerate(fractions, start=1):
        assert_parity(f"{n} values", adams_bashforth(n), torch.tensor(expected, dtype=torch.float64), 1e-12)


@given(coefficients=st.lists(st.floats(-10, 10), min_size=1, max_size=6))
def test_adams_bashforth_is_exact_for_polynomials(coefficients):
    """With n values every polynomial of degree n - 1 is integrated exactly, and the next power is not."""
    n = len(coefficients)
    polynomial = np.polynomial.Polynomial(coefficients)
    values = torch.tensor([polynomial(-i) for i in range(n)], dtype=torch.float64)
    integral = torch.tensor(polynomial.integ()(1.0), dtype=torch.float64)
    assert_parity("integral", adams_bashforth(n) @ values, integral, 1e-9)
    power = torch.tensor([(-i) ** n for i in range(n)], dtype=torch.float64)
    assert abs(adams_bashforth(n) @ power - 1 / (n + 1)) > 0.1


@pytest.mark.parametrize("name", ["ddpm", "euler_ancestral"])
def test_the_data_distribution_is_sampled(name):
    schedule = Schedule(ScheduleConfig(timestep_spacing="trailing"), torch.float64)
    denoise, shape, sampler = GaussianDenoiser(schedule, (1, 4)), (10_000, 4), get_sampler(name)
    grid = sampler.make_grid(schedule, 250)
    x = draw(shape, 3) * sampler.initial_scale(schedule, grid)
    end = last(sampler.loop(denoise, x, grid, schedule, generator(4)))
    # Four standard errors of a mean and of a standard deviation, and 0.01 for the finite number of steps.
    assert_parity("mean", end.mean(0), denoise.mean[0], 4 * 1.3 / len(end) ** 0.5 + 0.01)
    assert_parity("std", end.std(0), denoise.std[0], 4 * 1.3 / (2 * len(end)) ** 0.5 + 0.01)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_steps_are_yielded_one_by_one_with_gradients_and_projection(name):
    schedule = Schedule(ScheduleConfig(prediction_type="v_prediction"), torch.float64)
    denoise, calls = GaussianDenoiser(schedule, (2, 3)), []

    x = draw((2, 3)).requires_grad_()
    sampler = get_sampler(name)
    grid = sampler.make_grid(schedule, 5)
    final = len(grid) - 1

    def counting(x: Tensor, t: float) -> Tensor:
        assert type(t) is (float if grid.timesteps.is_floating_point() else int)
        calls.append(t)
        return denoise(x, t)

    def project(x: Tensor, i: int) -> Tensor:
        return x.clamp(-0.5, 0.5) if i < final else x + 10

    for i, step in enumerate(sampler.loop(counting, x, grid, schedule, generator(), project)):
        assert isinstance(step, Step) and step.i == i and len(calls) == i + 1  # nothing runs ahead
        assert torch.is_grad_enabled() and step.x.requires_grad
        assert step.x.abs().max() <= 0.5 if i < final else step.x.min() > 5
    assert calls == grid.timesteps.tolist() and len(calls) == len(grid)
    if name not in ("ddim", "plms"):  # these end at alphas_cumprod[0], the others at x_0 itself
        assert_parity("end", step.x, step.x0 + 10)


@pytest.mark.parametrize("name", ["ddim", "euler", "euler_ancestral", "heun"])
def test_x0_of_each_step_equals_diffusers(name):
    schedule = Schedule(ScheduleConfig(prediction_type="v_prediction"), torch.float64)
    denoise, scheduler = GaussianDenoiser(schedule, SHAPE), make_reference(name, schedule.config)
    sampler = get_sampler(name)
    scheduler.set_timesteps(10)
    grid = sampler.make_grid(schedule, 10)
    theirs = x = draw(SHAPE) * sampler.initial_scale(schedule, grid)
    random = {"generator": generator(2)} if name == "euler_ancestral" else {}
    for step, t in zip(sampler.loop(denoise, x, grid, schedule, generator(2)), scheduler.timesteps, strict=True):
        output = scheduler.step(denoise(scheduler.scale_model_input(theirs, t), step.t), t, theirs, **random)
        theirs = output.prev_sample
        assert_parity("x0", step.x0, output.pred_original_sample)


def test_bad_arguments_are_refused():
    schedule = Schedule(ScheduleConfig(), torch.float64)
    denoise, x, grid = GaussianDenoiser(schedule, (1, 2)), torch.zeros(1, 2), SAMPLERS["ddim"].make_grid(schedule, 4)
    with pytest.raises(ValueError, match="'euler_b' is unknown; accepted: ddpm, ddim, plms, euler, "):
        get_sampler("euler_b")
    for eta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="must be from 0 to 1"):
            last(ddim(denoise, x, grid, schedule, generator(), eta=eta))
    stochastic = (ddpm(denoise, x, grid, schedule), euler_ancestral(denoise, x, grid, schedule))
    for loop in (*stochastic, ddim(denoise, x, grid, schedule, eta=0.5)):
        with pytest.raises(ValueError, match=r"CPU torch\.Generator"):
            last(loop)
    with pytest.raises(ValueError, match="no step"):
        last(iter(()))


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_one_image_of_a_batch_can_be_repeated_alone(kind):
    (name, options), schedule = kind, Schedule(ScheduleConfig(), torch.float64)
    denoise, sampler = GaussianDenoiser(schedule, SHAPE[1:]), get_sampler(name)
    grid = sampler.make_grid(schedule, 7)

    def sample(count: int, generators: torch.Generator | list[torch.Generator]) -> Tensor:
        x = draw_noise((count, *SHAPE[1:]), generators).double() * sampler.initial_scale(schedule, grid)
        return last(sampler.loop(denoise, x, grid, schedule, generators, **options))

    batch = sample(8, [generator(seed) for seed in range(40, 48)])
    assert_parity("image 5 of 8", sample(1, [generator(45)]), batch[5:6])
    assert_parity("image 5 of 8, plain generator", sample(1, generator(45)), batch[5:6])
    assert (batch[5] - batch[4]).abs().max() > 0.1
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        draw_noise(SHAPE, [generator(), generator()])
