"""The schedule against DDPMScheduler, and its own algebra: in float64, but for the tables' own bits."""

import itertools
import json

import diffusers
import pytest
import torch
from diffusers.training_utils import compute_snr
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlearn.diffusion.schedule import BETA_SCHEDULES, PREDICTION_TYPES, Schedule, ScheduleConfig, simple_loss
from sdlearn.lessons.check import assert_parity

SHAPES = [(1, 4, 8, 6), (3, 4, 5, 7), (3, 2)]
RANGES = [(0.00085, 0.012), (0.0001, 0.02)]


def normal(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def reference(config: ScheduleConfig, name: str = "DDPMScheduler") -> diffusers.SchedulerMixin:
    """Diffusers' scheduler with our table: its own is made in float32."""
    scheduler = getattr(diffusers, name).from_config(config.to_dict() | {"_class_name": name})
    scheduler.alphas_cumprod = Schedule(config, torch.float64).alphas_cumprod
    return scheduler


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("beta_range", RANGES)
@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_tables_equal_diffusers(beta_schedule, beta_range, zero_snr):
    config = ScheduleConfig(
        beta_schedule=beta_schedule, beta_start=beta_range[0], beta_end=beta_range[1], rescale_betas_zero_snr=zero_snr
    )
    """In float32, as both make them; relatively to 1.3e-6."""
    ours, theirs = Schedule(config), diffusers.DDPMScheduler.from_config(config.to_dict())
    for table in ("betas", "alphas", "alphas_cumprod"):
        torch.testing.assert_close(getattr(ours, table), getattr(theirs, table))
    dpm = diffusers.DPMSolverMultistepScheduler.from_config(theirs.config)
    torch.testing.assert_close(ours.sigmas, dpm.sigmas)
    assert (ours.alphas_cumprod[-1] == 0) == zero_snr
    assert Schedule(config, torch.float64).alphas_cumprod[-1] == 0 or not zero_snr


@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_noising_equals_ddpm_scheduler(beta_schedule, shape):
    config = ScheduleConfig(beta_schedule=beta_schedule)
    ours, theirs = Schedule(config, torch.float64), reference(config)
    x0, noise = normal(shape, 0), normal(shape, 1)
    for timesteps in ([0, 500, 999], [1, 17, 981], [999, 999, 0]):
        t = torch.tensor(timesteps[: shape[0]])
        for a, b in ((x0, noise), (x0.float(), noise.float())):
            noised, velocity = theirs.add_noise(a, b, t), theirs.get_velocity(a, b, t)
            assert_parity("noising", ours.add_noise(a, b, t), noised, against="DDPMScheduler")
            assert_parity("velocity", ours.velocity(a, b, t), velocity, against="DDPMScheduler")
        snr = compute_snr(theirs, t).double()  # rounded to float32 there
        assert_parity("snr", ours.snr(t) / snr, torch.ones_like(snr), 1e-6)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_the_chain_of_single_steps_has_the_closed_forms_mean_and_variance(beta_schedule, zero_snr):
    """Each step is linear: x_0 = 1 without noise gives the factor of the mean, a column for each noise its weight."""
    schedule = Schedule(ScheduleConfig(beta_schedule=beta_schedule, rescale_betas_zero_snr=zero_snr), torch.float64)
    signal, weights, noises = torch.ones(1).double(), torch.zeros(1000).double(), torch.eye(1000).double()
    for t in range(1000):
        signal = schedule.add_one_step(signal, torch.zeros_like(signal), t)
        weights = schedule.add_one_step(weights, noises[t], t)
        if t in (0, 1, 499, 999):
            assert_parity("mean", signal, schedule.rates(t, signal)[0].view(1))
            assert_parity("variance", weights.square().sum(), 1 - schedule.alphas_cumprod[t])


def test_the_first_step_begins_at_the_clean_picture():
    schedule, x0, noise = Schedule(ScheduleConfig(), torch.float64), normal((2, 3, 5), 0), normal((2, 3, 5), 1)
    assert_parity("first step", schedule.add_one_step(x0, noise, 0), schedule.add_noise(x0, noise, 0))
    for t in (-1, 1000, 3.0, torch.tensor([3])):
        with pytest.raises(ValueError, match="from 0 to 999"):
            schedule.add_one_step(x0, noise, t)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("t", [1, 20, 501, 981, 999])
def test_conversions_equal_the_step_of_ddim(prediction_type, t):
    config = ScheduleConfig(prediction_type=prediction_type)
    schedule, theirs = Schedule(config, torch.float64), reference(config, "DDIMScheduler")
    theirs.set_timesteps(50)
    prediction, x = normal((2, 4, 5, 3), 2), normal((2, 4, 5, 3), 3)
    x0 = theirs.step(prediction, t, x).pred_original_sample
    assert_parity("conversion to x_0", schedule.to_x0(prediction, x, t), x0, against="DDIMScheduler")
    # Diffusers doesn't hand out its epsilon; the equation of the forward process holds it.
    epsilon = (x - schedule.alphas_cumprod[t].sqrt() * x0) / (1 - schedule.alphas_cumprod[t]).sqrt()
    assert_parity("epsilon", schedule.to_epsilon(prediction, x, t), epsilon)
    v = theirs.get_velocity(x0, epsilon, torch.tensor([t]))
    assert_parity("conversion to v", schedule.to_v(prediction, x, t), v, against="DDIMScheduler")


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("t", [0, 20, 501, 999])
def test_x0_at_sigma_is_to_x0_in_other_coordinates(prediction_type, t):
    config = ScheduleConfig(prediction_type=prediction_type)
    schedule, theirs = Schedule(config, torch.float64), reference(config, "EulerDiscreteScheduler")
    theirs.set_timesteps(1000)
    prediction, x = normal((2, 4, 5, 3), 2), normal((2, 4, 5, 3), 3)
    sigma = schedule.sigmas[t]
    grown = x * (sigma**2 + 1).sqrt()
    x0 = schedule.x0_at_sigma(prediction, grown, sigma)
    assert_parity("x0", x0, schedule.to_x0(prediction, x, t))
    if t > 0:  # with all 1000 timesteps and an offset of 1, Diffusers goes from 1000 to 1
        theirs.set_begin_index(1000 - t)
        expected = theirs.step(prediction, theirs.timesteps[1000 - t], grown).pred_original_sample
        # It rounds x and its sigmas to float32; test_samplers.py compares the same line in float64.
        assert_parity("x_0 at a sigma", x0, expected, 1e-6)


def test_gradients_equal_diffusers():
    config = ScheduleConfig(prediction_type="v_prediction")
    t = torch.tensor([3, 700])
    gradients = []
    for noising in (Schedule(config, torch.float64).add_noise, reference(config).add_noise):
        x0, noise = normal((2, 3, 4, 5), 0).requires_grad_(), normal((2, 3, 4, 5), 1).requires_grad_()
        noising(x0, noise, t).pow(3).sum().backward()
        gradients.append(torch.stack([x0.grad, noise.grad]))
    assert_parity("noising, gradient", *gradients, against="DDPMScheduler")


@settings(max_examples=60, deadline=None)
@given(
    beta_schedule=st.sampled_from(BETA_SCHEDULES),
    prediction_type=st.sampled_from(PREDICTION_TYPES),
    zero_snr=st.booleans(),
    t=st.integers(0, 999),
    seed=st.integers(0, 100),
)
def test_the_right_prediction_gives_back_x0_noise_and_v(beta_schedule, prediction_type, zero_snr, t, seed):
    schedule = Schedule(
        ScheduleConfig(beta_schedule=beta_schedule, prediction_type=prediction_type, rescale_betas_zero_snr=zero_snr),
        torch.float64,
    )
    x0, noise = normal((2, 3, 4), seed), normal((2, 3, 4), seed + 1000)
    x, v, prediction = schedule.add_noise(x0, noise, t), schedule.velocity(x0, noise, t), schedule.target(x0, noise, t)
    alphas_cumprod = schedule.alphas_cumprod[t].item()
    # Rounding is 1e-16 of x; dividing by a small rate magnifies it, and so does 1 - alphas_cumprod near 1.
    small = {"epsilon": alphas_cumprod, "sample": 1 - alphas_cumprod, "v_prediction": 1.0}[prediction_type] ** 0.5
    bound = 1e-13 / max(small, 2**-12)
    if alphas_cumprod > 0 or prediction_type != "epsilon":
        assert_parity("x0", schedule.to_x0(prediction, x, t), x0, bound)
        assert_parity("v", schedule.to_v(prediction, x, t), v, bound)
    assert_parity("epsilon", schedule.to_epsilon(prediction, x, t), noise, bound)
    batch = torch.full((2,), t)
    assert_parity("t as (B,)", schedule.to_x0(prediction, x, batch), schedule.to_x0(prediction, x, t), 1e-12)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("steps", [50, 7])
def test_the_posterior_is_the_step_of_ddpm_scheduler(prediction_type, steps, monkeypatch):
    config = ScheduleConfig(prediction_type=prediction_type)
    schedule, theirs = Schedule(config, torch.float64), reference(config)
    theirs.set_timesteps(steps)
    prediction, x, noise = normal((2, 4, 5, 3), 2), normal((2, 4, 5, 3), 3), normal((2, 4, 5, 3), 4)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise)
    timesteps = theirs.timesteps.tolist()
    for t, previous in itertools.pairwise(timesteps):
        mean, variance = schedule.posterior(schedule.to_x0(prediction, x, t), x, t, previous)
        step = theirs.step(prediction, t, x).prev_sample
        assert_parity("variance", variance, theirs._get_variance(t), against="DDPMScheduler")
        assert_parity("posterior", mean + variance.sqrt() * noise, step, against="DDPMScheduler")


@settings(max_examples=60, deadline=None)
@given(
    beta_schedule=st.sampled_from(BETA_SCHEDULES),
    zero_snr=st.booleans(),
    t=st.integers(1, 999),
    before=st.integers(0, 998),
    seed=st.integers(0, 100),
)
def test_the_posterior_is_bayes_rule(beta_schedule, zero_snr, t, before, seed):
    schedule = Schedule(ScheduleConfig(beta_schedule=beta_schedule, rescale_betas_zero_snr=zero_snr), torch.float64)
    previous = before % t
    x0, x = normal((2, 3), seed), normal((2, 3), seed + 1000)
    mean, variance = schedule.posterior(x0, x, t, previous)
    # The density of x_previous is the product of two Gaussians: their precisions add up, their means are weighted.
    now, then = schedule.alphas_cumprod[t], schedule.alphas_cumprod[previous]
    alpha = now / then
    precision = 1 / (1 - then) + alpha / (1 - alpha)
    expected = (then.sqrt() * x0 / (1 - then) + alpha.sqrt() * x / (1 - alpha)) / precision
    assert_parity("mean", mean, expected)
    assert_parity("variance", variance, 1 / precision)
    assert 0 <= variance <= 1 - alpha + 1e-15


def test_the_posterior_ends_at_x0_and_only_goes_back():
    schedule = Schedule(ScheduleConfig(), torch.float64)
    x0, x = normal((2, 3), 0), normal((2, 3), 1)
    for t in (0, 20, 999):
        mean, variance = schedule.posterior(x0, x, t, -1)
        assert_parity("end", mean, x0)
        assert variance == 0
    for t, previous in ((5, 5), (5, 6), (-1, -2), (1000, 5)):
        with pytest.raises(ValueError, match="must be"):
            schedule.posterior(x0, x, t, previous)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_simple_loss_is_zero_for_the_right_prediction_and_one_beside_it(prediction_type):
    schedule = Schedule(ScheduleConfig(prediction_type=prediction_type), torch.float64)
    x0, noise, t = normal((3, 4, 2), 0), normal((3, 4, 2), 1), torch.tensor([0, 500, 999])
    target = {"epsilon": noise, "sample": x0, "v_prediction": reference(schedule.config).get_velocity(x0, noise, t)}
    seen = []

    def denoise(x, t):
        seen.append((x, t))
        return target[prediction_type] + 1

    assert_parity("loss", simple_loss(denoise, x0, noise, t, schedule), torch.ones(()).double())
    assert_parity("x_t", seen[0][0], reference(schedule.config).add_noise(x0, noise, t))
    assert seen[0][1] is t


def test_pure_noise_stays_finite_with_epsilon():
    schedule = Schedule(ScheduleConfig(rescale_betas_zero_snr=True))
    x = normal((2, 3), 0)
    assert torch.isfinite(schedule.to_x0(x + 0.1, x, 999)).all()
    assert torch.isfinite(schedule.to_x0(x + 0.1, x, torch.tensor([999, 0]))).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_dtype_stays(dtype):
    schedule = Schedule(ScheduleConfig(prediction_type="v_prediction"))
    x = normal((2, 3, 4), 0).to(dtype)
    for t in (5, torch.tensor([5, 900])):
        assert schedule.add_noise(x, x, t).dtype == dtype
        assert schedule.to_x0(x, x, t).dtype == dtype


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (-1, "whole number from 0 to 999"),
        (1000, "whole number from 0 to 999"),
        (1.5, "whole number from 0 to 999"),
        (True, "whole number from 0 to 999"),
        (torch.tensor([0, 1000]), "whole number from 0 to 999"),
        (torch.tensor([-1, 5]), "whole number from 0 to 999"),
        (torch.tensor([], dtype=torch.long), "whole number from 0 to 999"),
        (torch.tensor([0.5, 1.0]), "int or a LongTensor"),
        (torch.tensor([[1, 2]]), "int or a LongTensor"),
        (torch.tensor([True, False]), "int or a LongTensor"),
        (torch.tensor([1, 2, 3]), "3 timesteps for a batch of 2"),
    ],
)
def test_bad_timesteps_are_refused(t, message):
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=message):
        Schedule(ScheduleConfig()).add_noise(x, x, t)


# The files of the models that the project reads, as published.
SD1 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
SD2 = SD1 | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}


def test_stable_diffusion_files_are_read():
    assert ScheduleConfig.from_dict(SD1) == ScheduleConfig(scheduler="PNDMScheduler")
    assert ScheduleConfig.from_dict(SD2) == ScheduleConfig(prediction_type="v_prediction")


CLASSES = ["DDPM", "DDIM", "PNDM", "DPMSolverMultistep", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"]


@pytest.mark.parametrize("name", [f"{name}Scheduler" for name in CLASSES])
def test_files_go_to_diffusers_and_back(name, tmp_path):
    config = ScheduleConfig(
        scheduler=name, prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=True
    )
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps(config.to_dict()))
    theirs = getattr(diffusers, name).from_pretrained(tmp_path)
    torch.testing.assert_close(theirs.betas, Schedule(config).betas)
    assert theirs.config.timestep_spacing == "trailing"
    theirs.save_pretrained(tmp_path)  # writes every key of the class, most at their defaults
    assert ScheduleConfig.from_dict(json.loads(file.read_text()), str(file)) == config


def test_karras_sigmas_are_kept_for_dpm_solver_and_ignored_where_diffusers_ignores_them(tmp_path):
    file = tmp_path / "scheduler_config.json"
    karras = SD1 | {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    config = ScheduleConfig.from_dict(karras)
    assert config.use_karras_sigmas
    file.write_text(json.dumps(config.to_dict()))
    theirs = diffusers.DPMSolverMultistepScheduler.from_pretrained(tmp_path)
    assert theirs.config.use_karras_sigmas
    theirs.save_pretrained(tmp_path)
    assert ScheduleConfig.from_dict(json.loads(file.read_text())) == config
    for name in ("DDIMScheduler", "PNDMScheduler", "EulerAncestralDiscreteScheduler"):
        assert not ScheduleConfig.from_dict(karras | {"_class_name": name}).use_karras_sigmas


@pytest.mark.parametrize("name", [f"{name}Scheduler" for name in CLASSES])
def test_left_out_keys_have_the_defaults_of_the_class(name):
    needed = {"clip_sample": False, "skip_prk_steps": True}  # their defaults are refused
    ours = ScheduleConfig.from_dict({"_class_name": name} | needed)
    theirs = getattr(diffusers, name)().config
    for key, value in ours.to_dict().items():
        if key in theirs and key not in needed and key != "_class_name":
            assert value == theirs[key], key


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("DDIM", "clip_sample", True),
        ("DDPM", "thresholding", True),
        ("DDPM", "variance_type", "learned"),
        ("DDPM", "variance_type", "fixed_large"),
        ("DDIM", "trained_betas", [0.1, 0.2]),
        ("DDIM", "beta_schedule", "sigmoid"),
        ("DDIM", "prediction_type", "flow_prediction"),
        ("DDIM", "timestep_spacing", "log"),
        ("DDIM", "beta_start", "0.1"),
        ("DDIM", "num_train_timesteps", 0),
        ("DDIM", "steps_offset", -1),
        ("DDIM", "rescale_betas_zero_snr", "yes"),
        ("DDIM", "a_key_of_the_future", 3),
        ("PNDM", "skip_prk_steps", False),
        ("DPMSolverMultistep", "algorithm_type", "sde-dpmsolver++"),
        ("DPMSolverMultistep", "solver_order", 3),
        ("DPMSolverMultistep", "solver_type", "heun"),
        ("DPMSolverMultistep", "final_sigmas_type", "sigma_min"),
        ("DPMSolverMultistep", "use_karras_sigmas", "yes"),
        ("DPMSolverMultistep", "use_lu_lambdas", True),
        ("DPMSolverMultistep", "lambda_min_clipped", -5.1),
        ("EulerDiscrete", "interpolation_type", "log_linear"),
        ("EulerDiscrete", "sigma_min", 0.1),
        ("EulerDiscrete", "use_karras_sigmas", True),
        ("EulerDiscrete", "use_exponential_sigmas", True),
        ("HeunDiscrete", "use_karras_sigmas", True),
        ("HeunDiscrete", "use_beta_sigmas", True),
        ("HeunDiscrete", "beta_schedule", "exp"),
        ("HeunDiscrete", "clip_sample", True),
    ],
)
def test_values_that_change_the_computation_are_refused(name, key, value):
    good = SD1 | {"_class_name": f"{name}Scheduler"}
    ScheduleConfig.from_dict(good)
    with pytest.raises(ValueError) as error:
        ScheduleConfig.from_dict(good | {key: value}, "folder/scheduler_config.json")
    for part in ("folder/scheduler_config.json", key, repr(value)):
        assert part in str(error.value)


def test_a_missing_key_whose_default_changes_the_computation_is_refused():
    with pytest.raises(ValueError, match="clip_sample = True"):
        ScheduleConfig.from_dict({"_class_name": "DDIMScheduler"})
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        ScheduleConfig.from_dict({"_class_name": "FlowMatchEulerDiscreteScheduler"})
