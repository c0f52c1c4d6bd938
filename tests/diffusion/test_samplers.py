"""The samplers against their Diffusers schedulers, and against what is known in closed form."""

import itertools

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdlearn.check import assert_parity, max_difference
from sdlearn.diffusion.samplers import SAMPLERS, Step, ddim, ddpm, dpmpp_2m, draw_noise, get_sampler, last
from sdlearn.diffusion.schedule import SPACINGS, Schedule, ScheduleConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Diffusers with NumPy 2

SHAPE = (3, 4, 5, 7)
STEPS = [1, 2, 7, 20, 50]
# name, the Diffusers class, options of our loop = options of its step
KINDS = [
    ("ddpm", "DDPMScheduler", {}),
    ("ddim", "DDIMScheduler", {"eta": 0.0}),
    ("ddim", "DDIMScheduler", {"eta": 0.5}),
    ("ddim", "DDIMScheduler", {"eta": 1.0}),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {}),
]
IDS = ["ddpm", "ddim-0", "ddim-0.5", "ddim-1", "dpmpp_2m"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class GaussianDenoiser:
    """The exact prediction when the data are Gaussian, x_0 ~ N(mean, std²) in each element, plus a fixed disturbance.

    It stands for a network: its trajectories keep the size of real ones, and with disturbance 0 their ends are known.
    """

    def __init__(self, schedule: Schedule, shape: tuple[int, ...], disturbance: float = 0.0) -> None:
        self.schedule, self.disturbance = schedule, disturbance
        self.mean = torch.randn(shape, generator=generator(10)).double()
        self.std = 0.3 + torch.rand(shape, generator=generator(11)).double()

    def __call__(self, x: Tensor, t: int) -> Tensor:
        alphas_cumprod = self.schedule.alphas_cumprod[t].double()
        signal_rate, noise_rate = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
        gain = signal_rate * self.std**2 / (alphas_cumprod * self.std**2 + 1 - alphas_cumprod)
        x0 = self.mean + gain * (x.double() - signal_rate * self.mean)
        epsilon = (x.double() - signal_rate * x0) / noise_rate
        v = signal_rate * epsilon - noise_rate * x0
        prediction = {"epsilon": epsilon, "sample": x0, "v_prediction": v}[self.schedule.config.prediction_type]
        return (prediction + self.disturbance * torch.randn(x.shape, generator=generator(t))).float()

    def flow(self, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Where the probability flow takes x, from alphas_cumprod = start to end: it keeps (x - mean_t) / std_t."""

        def moments(alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
            alphas_cumprod = alphas_cumprod.double()
            return alphas_cumprod.sqrt() * self.mean, (alphas_cumprod * self.std**2 + 1 - alphas_cumprod).sqrt()

        (start_mean, start_std), (end_mean, end_std) = moments(start), moments(end)
        return end_mean + end_std * (x.double() - start_mean) / start_std


def run_both(name: str, class_name: str, options: dict, config: ScheduleConfig, steps: int, single: bool) -> float:
    """Run our sampler and Diffusers' from the same noise with the same denoiser.

    single: each of our steps starts from the reference's own x, and the worst element of any step is returned, relative
    to max(1, |x|). Else both run freely, and the difference of the ends is returned, relative to max(1, max |x|).
    """
    schedule, sampler = Schedule(config), get_sampler(name)
    denoise = GaussianDenoiser(schedule, SHAPE, disturbance=0.2 if single else 0.0)
    scheduler = getattr(diffusers, class_name).from_config(config.to_dict() | {"clip_sample": False})
    scheduler.set_timesteps(steps)
    grid = sampler.make_grid(schedule, steps)
    assert grid.timesteps.tolist() == scheduler.timesteps.tolist()

    noise = draw_noise(SHAPE, generator(1))
    assert sampler.initial_scale(schedule, grid) == scheduler.init_noise_sigma
    reference, predictions, random = [noise], [], {} if name == "dpmpp_2m" else {"generator": generator(2)}
    for t in scheduler.timesteps:
        predictions.append(denoise(reference[-1], int(t)))
        reference.append(scheduler.step(predictions[-1], t, reference[-1], **options, **random).prev_sample)

    if not single:
        ours = last(sampler.loop(denoise, noise, grid, schedule, generator=generator(2), **options))
        return assert_parity(name, ours, reference[-1], 1e-5, relative=True)

    replayed, worst = iter(predictions), []

    def compare(x: Tensor, i: int) -> Tensor:
        scale = reference[i + 1].abs().clamp(min=1)
        worst.append(max_difference(x / scale, reference[i + 1] / scale))
        return reference[i + 1]

    loop = sampler.loop(lambda x, t: next(replayed), noise, grid, schedule, generator(2), compare, **options)
    assert [(step.i, step.t) for step in loop] == list(enumerate(scheduler.timesteps.tolist()))
    assert len(worst) == steps
    return max(worst)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_single_steps_equal_diffusers(kind, spacing, prediction_type):
    config = ScheduleConfig(prediction_type=prediction_type, timestep_spacing=spacing)
    for steps in STEPS:
        assert run_both(*kind, config, steps, single=True) <= 1e-5


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_trajectories_equal_diffusers(kind, spacing, prediction_type):
    config = ScheduleConfig(prediction_type=prediction_type, timestep_spacing=spacing)
    for steps in STEPS:
        run_both(*kind, config, steps, single=False)


@pytest.mark.parametrize("set_alpha_to_one", [False, True])
@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_other_schedules_equal_diffusers(kind, beta_schedule, set_alpha_to_one):
    config = ScheduleConfig(
        prediction_type="v_prediction",
        beta_schedule=beta_schedule,
        set_alpha_to_one=set_alpha_to_one,
        timestep_spacing="trailing",
        steps_offset=0,
    )
    for steps in (7, 20):
        assert run_both(*kind, config, steps, single=True) <= 1e-5
        run_both(*kind, config, steps, single=False)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_zero_terminal_snr_equals_diffusers(kind):
    config = ScheduleConfig(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", set_alpha_to_one=True
    )
    # With eta 1 and 20 steps Diffusers takes the root of a rounding error below 0, and returns NaN.
    for steps in (n for n in STEPS if n != 20 or kind[2] != {"eta": 1.0}):
        assert run_both(*kind, config, steps, single=True) <= 1e-5
        run_both(*kind, config, steps, single=False)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_results_are_finite_where_diffusers_fails(name, zero_snr, spacing, prediction_type):
    schedule = Schedule(
        ScheduleConfig(prediction_type=prediction_type, timestep_spacing=spacing, rescale_betas_zero_snr=zero_snr)
    )
    denoise, sampler, x = GaussianDenoiser(schedule, (1, 2)), get_sampler(name), draw_noise((1, 2), generator())
    for steps, eta in itertools.product([1, 20, 999, 1000], [0.0, 1.0] if name == "ddim" else [None]):
        options = {} if eta is None else {"eta": eta}
        grid = sampler.make_grid(schedule, steps)
        end = last(sampler.loop(denoise, x, grid, schedule, generator(), **options))
        assert torch.isfinite(end).all(), (steps, eta)


@pytest.mark.parametrize("steps_offset", [0, 1])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("name", "class_name"), [("ddim", "DDIMScheduler"), ("dpmpp_2m", "DPMSolverMultistepScheduler")]
)
def test_every_grid_equals_diffusers(name, class_name, spacing, steps_offset):
    config = ScheduleConfig(timestep_spacing=spacing, steps_offset=steps_offset)
    schedule = Schedule(config)
    scheduler = getattr(diffusers, class_name).from_config(config.to_dict())
    for steps in range(1, 1001):
        grid = SAMPLERS[name].make_grid(schedule, steps)
        assert grid.timesteps.shape == (steps,) and grid.sigmas.shape == (steps + 1,) and grid.stride == 1000 // steps
        assert grid.timesteps.min() >= 0 and grid.timesteps.max() <= 999
        assert (grid.timesteps.diff() < 0).all() and (grid.sigmas.diff() < 0).all() and grid.sigmas[-1] == 0
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps
        if spacing == "trailing" and len(theirs) == steps + 1:
            assert theirs[-1] == -1  # a rounding error in Diffusers, with 61 steps for example: one timestep too many
            theirs = theirs[:-1]
        elif name == "dpmpp_2m" and torch.equal(grid.timesteps, theirs):
            assert torch.equal(grid.sigmas, scheduler.sigmas)
        if not torch.equal(grid.timesteps, theirs):
            assert steps >= 999 and (theirs.max() > 999 or not (theirs.diff() < 0).all())


@given(
    name=st.sampled_from(list(SAMPLERS)),
    spacing=st.sampled_from(SPACINGS),
    steps=st.integers(1, 200),
    timesteps=st.sampled_from([200, 1000]),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_the_tail_of_a_grid_goes_on_as_the_whole(name, spacing, steps, timesteps, data):
    schedule = Schedule(ScheduleConfig(num_train_timesteps=timesteps, prediction_type="v_prediction"))
    sampler, denoise = get_sampler(name), GaussianDenoiser(schedule, (1, 3))
    grid = sampler.make_grid(schedule, steps, spacing)
    k = data.draw(st.integers(1, steps))
    tail = grid.tail(k)
    assert tail.timesteps.tolist() == grid.timesteps.tolist()[-k:] and len(tail) == k
    assert tail.stride == grid.stride and tail.sigmas.tolist() == grid.sigmas.tolist()[-k - 1 :]
    if k < steps and name == "ddim":  # no history, no noise: the same x follows
        x = draw_noise((1, 3), generator())
        whole = list(ddim(denoise, x, grid, schedule))
        rest = list(ddim(denoise, whole[steps - k - 1].x, tail, schedule))
        assert torch.equal(rest[-1].x, whole[-1].x)


def test_image_to_image_equals_diffusers_with_a_cut_grid():
    schedule = Schedule(ScheduleConfig())
    denoise, x = GaussianDenoiser(schedule, SHAPE), draw_noise(SHAPE, generator())
    for name, class_name in (("ddim", "DDIMScheduler"), ("dpmpp_2m", "DPMSolverMultistepScheduler")):
        scheduler = getattr(diffusers, class_name).from_config(schedule.config.to_dict())
        scheduler.set_timesteps(20)
        theirs = x
        if name == "dpmpp_2m":
            scheduler.set_begin_index(8)
        for t in scheduler.timesteps[8:]:
            theirs = scheduler.step(denoise(theirs, int(t)), t, theirs).prev_sample
        sampler = get_sampler(name)
        ours = last(sampler.loop(denoise, x, sampler.make_grid(schedule, 20).tail(12), schedule))
        assert_parity(name, ours, theirs, 1e-5, relative=True)


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(1, 250), prediction_type=st.sampled_from(["epsilon", "v_prediction"]), seed=st.integers(0, 99))
def test_ddim_stays_on_its_marginals(steps, prediction_type, seed):
    """On Gaussian data each deterministic step is affine in x, and takes the mean of x_t to the mean of the next x."""
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type))
    denoise = GaussianDenoiser(schedule, (2, 5))
    grid = SAMPLERS["ddim"].make_grid(schedule, steps)
    start = schedule.alphas_cumprod[grid.timesteps[0]]
    mean = (start.sqrt() * denoise.mean).float()
    x = draw_noise((2, 5), generator(seed))
    for of_mean, of_x in zip(ddim(denoise, mean, grid, schedule), ddim(denoise, x, grid, schedule), strict=True):
        assert torch.isfinite(of_x.x).all()
        previous = max(of_mean.t - grid.stride, 0)
        expected = schedule.alphas_cumprod[previous].sqrt() * denoise.mean
        assert_parity("mean", of_mean.x, expected.float(), 1e-4)


@pytest.mark.parametrize(("loop", "order"), [(ddim, 1), (dpmpp_2m, 2)])
def test_the_error_falls_with_the_order_of_the_method(loop, order):
    """Where the flow ends is known, so the error is too: twice the steps halve it (DDIM), or quarter it (2M)."""
    schedule = Schedule(ScheduleConfig(prediction_type="v_prediction", steps_offset=0))
    denoise, x = GaussianDenoiser(schedule, (4, 50)), draw_noise((4, 50), generator())
    errors = []
    for steps in (50, 100):
        # We stop at t = 100, which is in both grids: below it lambda changes too fast for these steps to show an order.
        grid = SAMPLERS["ddim"].make_grid(schedule, steps)
        i = grid.timesteps.tolist().index(100)
        end = list(itertools.islice(loop(denoise, x, grid, schedule), i))[-1].x
        alphas_cumprod = schedule.alphas_cumprod
        expected = denoise.flow(x, alphas_cumprod[grid.timesteps[0]], alphas_cumprod[100])
        errors.append((end - expected).abs().max().item())
    assert errors[0] < 0.1
    assert errors[1] < 1.25 * errors[0] / 2**order


def test_ddpm_samples_the_data_distribution():
    schedule = Schedule(ScheduleConfig())
    denoise, shape = GaussianDenoiser(schedule, (1, 4)), (20_000, 4)
    end = last(
        ddpm(
            denoise, draw_noise(shape, generator(3)), SAMPLERS["ddpm"].make_grid(schedule, 500), schedule, generator(4)
        )
    )
    # Four standard errors of a mean and of a standard deviation, and 0.01 for the finite number of steps.
    assert_parity("mean", end.mean(0), denoise.mean[0].float(), 4 * 1.3 / len(end) ** 0.5 + 0.01)
    assert_parity("std", end.std(0), denoise.std[0].float(), 4 * 1.3 / (2 * len(end)) ** 0.5 + 0.01)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_steps_are_yielded_one_by_one_with_gradients_and_projection(name):
    schedule = Schedule(ScheduleConfig(prediction_type="v_prediction"))
    denoise, calls = GaussianDenoiser(schedule, (2, 3)), []

    def counting(x: Tensor, t: int) -> Tensor:
        assert type(t) is int
        calls.append(t)
        return denoise(x, t)

    x = draw_noise((2, 3), generator()).requires_grad_()
    sampler = get_sampler(name)
    grid = sampler.make_grid(schedule, 5)
    loop = sampler.loop(counting, x, grid, schedule, generator(), lambda x, i: x.clamp(-0.5, 0.5) if i < 4 else x + 10)
    for i, step in enumerate(loop):
        assert isinstance(step, Step) and step.i == i and len(calls) == i + 1  # nothing runs ahead
        assert torch.is_grad_enabled() and step.x.requires_grad
        assert step.x.abs().max() <= 0.5 if i < 4 else step.x.min() > 5
    assert calls == grid.timesteps.tolist()
    if name != "ddim":  # DDIM ends at alphas_cumprod[0], the others end at x_0 itself
        assert_parity("end", step.x, step.x0 + 10, 1e-6, relative=True)


def test_x0_of_each_step_equals_diffusers():
    schedule = Schedule(ScheduleConfig(prediction_type="v_prediction"))
    denoise, x = GaussianDenoiser(schedule, SHAPE), draw_noise(SHAPE, generator())
    scheduler = diffusers.DDIMScheduler.from_config(schedule.config.to_dict())
    scheduler.set_timesteps(10)
    theirs = x
    for step in ddim(denoise, x, SAMPLERS["ddim"].make_grid(schedule, 10), schedule):
        output = scheduler.step(denoise(theirs, step.t), step.t, theirs)
        theirs = output.prev_sample
        assert_parity("x0", step.x0, output.pred_original_sample, 1e-5, relative=True)


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("steps", [0, -3, 1001, 2.5, True])
def test_impossible_numbers_of_steps_are_refused(name, steps):
    with pytest.raises(ValueError, match="whole number from 1 to 1000"):
        SAMPLERS[name].make_grid(Schedule(ScheduleConfig()), steps)


def test_bad_arguments_are_refused():
    schedule = Schedule(ScheduleConfig())
    denoise, x, grid = GaussianDenoiser(schedule, (1, 2)), torch.zeros(1, 2), SAMPLERS["ddim"].make_grid(schedule, 4)
    with pytest.raises(ValueError, match="'euler_b' is not known, only ddpm, ddim, dpmpp_2m"):
        get_sampler("euler_b")
    with pytest.raises(ValueError, match="'log' is not known, only leading, trailing, linspace"):
        SAMPLERS["ddim"].make_grid(schedule, 4, "log")
    for k in (0, 5):
        with pytest.raises(ValueError, match="from 1 to 4"):
            grid.tail(k)
    for eta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="must be from 0 to 1"):
            last(ddim(denoise, x, grid, schedule, generator(), eta=eta))
    for loop in (ddpm(denoise, x, grid, schedule), ddim(denoise, x, grid, schedule, eta=0.5)):
        with pytest.raises(ValueError, match=r"CPU torch\.Generator"):
            last(loop)
    with pytest.raises(ValueError, match="no step"):
        last(iter(()))


@pytest.mark.parametrize(("name", "options"), [("ddpm", {}), ("ddim", {"eta": 1.0})])
def test_a_list_of_generators_makes_images_independent_of_their_batch(name: str, options: dict[str, float]) -> None:
    schedule = Schedule(ScheduleConfig())
    denoise, sampler = GaussianDenoiser(schedule, SHAPE[1:]), get_sampler(name)

    def sample(seeds: list[int]) -> Tensor:
        generators = [generator(seed) for seed in seeds]
        x = draw_noise((len(seeds), *SHAPE[1:]), generators)
        return last(sampler.loop(denoise, x, sampler.make_grid(schedule, 7), schedule, generators, **options))

    def replayed(seed: int) -> Tensor:
        one, grid = generator(seed), sampler.make_grid(schedule, 7)
        return last(sampler.loop(denoise, draw_noise((1, *SHAPE[1:]), one), grid, schedule, one, **options))

    batch = sample([3, 1, 4])
    assert_parity("second image", batch[1:2], sample([1]), 1e-5)
    assert_parity("second image, plain generator", batch[1:2], replayed(1), 1e-5)
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        draw_noise(SHAPE, [generator(), generator()])
