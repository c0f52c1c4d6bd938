"""Wrong answers to the exercises of lesson 04 as learners type them, and a piece of what they are told."""

import torch

from sdlearn import Step, draw_noise
from sdlearn.diffusion.samplers import alphas_cumprod_after, denoised


def x_is_not_shrunk(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        now, after = grid.sigmas[i], grid.sigmas[i + 1]
        x0 = schedule.x0_at_sigma(denoise(x, t), x, now)
        x = x0 + after / now * (x - x0)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def raw_answer_as_slope(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        epsilon = denoise(x, t)
        x0 = x - grid.sigmas[i] * epsilon
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * epsilon
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def an_empty_list(denoise, x, grid, schedule, generator=None, project=None):
    return []


def in_place(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x += (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def one_tensor_for_all_steps(denoise, x, grid, schedule, generator=None, project=None):
    x = x.clone()
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x += (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        if project:
            x.copy_(project(x, i))
        yield Step(i, t, x, x0)


def looks_twice(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        slope = (x - denoised(denoise, x, t, grid.sigmas[i], schedule)) / grid.sigmas[i]
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * slope
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def one_step_less(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = grid.timesteps.tolist()
    for i in range(len(timesteps) - 1):
        x0 = denoised(denoise, x, timesteps[i], grid.sigmas[i], schedule)
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        x = project(x, i) if project else x
        yield Step(i, timesteps[i], x, x0)


def for_ever(denoise, x, grid, schedule, generator=None, project=None):
    i = 0
    while i < len(grid):
        x0 = denoised(denoise, x, grid.timesteps[i].item(), grid.sigmas[i], schedule)
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        x = project(x, i) if project else x
        yield Step(i, grid.timesteps[i].item(), x, x0)


def without_yield(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * (x - x0) / grid.sigmas[i]
        x = project(x, i) if project else x
    return x


def returns_in_the_loop(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = x0 + grid.sigmas[i + 1] / grid.sigmas[i] * (x - x0)
        return Step(i, t, x, x0)


def yields_only_x(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = x0 + grid.sigmas[i + 1] / grid.sigmas[i] * (x - x0)
        x = project(x, i) if project else x
        yield x


def ddim_with_its_own_noise(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    for i, t in enumerate(grid.timesteps.tolist()):
        prediction = denoise(x, t)
        x0, epsilon = schedule.to_x0(prediction, x, t), schedule.to_epsilon(prediction, x, t)
        now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, t - grid.stride)
        sigma = eta * ((1 - ahead) / (1 - now) * (1 - now / ahead)).sqrt()
        x = ahead.sqrt() * x0 + (1 - ahead - sigma**2).clamp(min=0).sqrt() * epsilon + sigma * torch.randn_like(x)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ddim_looks_twice(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    for i, t in enumerate(grid.timesteps.tolist()):
        x0, epsilon = schedule.to_x0(denoise(x, t), x, t), schedule.to_epsilon(denoise(x, t), x, t)
        now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, t - grid.stride)
        sigma = eta * ((1 - ahead) / (1 - now) * (1 - now / ahead)).sqrt()
        x = ahead.sqrt() * x0 + (1 - ahead - sigma**2).clamp(min=0).sqrt() * epsilon
        x = x + sigma * draw_noise(x.shape, generator) if eta > 0 else x
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ddim_to_the_next_timestep(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        prediction = denoise(x, t)
        x0, epsilon = schedule.to_x0(prediction, x, t), schedule.to_epsilon(prediction, x, t)
        now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, timesteps[i + 1])
        sigma = eta * ((1 - ahead) / (1 - now) * (1 - now / ahead)).sqrt()
        x = ahead.sqrt() * x0 + (1 - ahead - sigma**2).clamp(min=0).sqrt() * epsilon
        x = x + sigma * draw_noise(x.shape, generator) if eta > 0 else x
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ddim_without_roots(denoise, x, grid, schedule, generator=None, project=None, eta=0.0):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}, must be from 0 to 1")
    for i, t in enumerate(grid.timesteps.tolist()):
        prediction = denoise(x, t)
        x0, epsilon = schedule.to_x0(prediction, x, t), schedule.to_epsilon(prediction, x, t)
        now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, t - grid.stride)
        variance = eta**2 * (1 - ahead) / (1 - now) * (1 - now / ahead)
        x = ahead.sqrt() * x0 + (1 - ahead - variance).clamp(min=0).sqrt() * epsilon
        x = x + variance * draw_noise(x.shape, generator) if eta > 0 else x
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def heun_once_per_step(denoise, x, grid, schedule, generator=None, project=None):
    t, sigmas = grid.timesteps.tolist(), grid.sigmas
    for i in range(0, len(grid), 2):
        start, h = x, sigmas[i + 1] - sigmas[i]
        x0 = denoised(denoise, x, t[i], sigmas[i], schedule)
        slope = (x - x0) / sigmas[i]
        x = start + h * slope
        x = project(x, i) if project else x
        if i + 1 < len(grid):
            x0 = denoised(denoise, x, t[i + 1], sigmas[i + 1], schedule)
            x = start + h * (slope + (x - x0) / sigmas[i + 1]) / 2
            i += 1
            x = project(x, i) if project else x
        yield Step(i, t[i], x, x0)


def heun_from_where_euler_ended(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        slope = (x - x0) / grid.sigmas[i]
        if i % 2 == 0:
            first, h = slope, grid.sigmas[i + 1] - grid.sigmas[i]
            x = x + h * slope
        else:
            x = x + h * (first + slope) / 2
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def turned_round(n):
    s = torch.arange(1 - n, 1, dtype=torch.float64)
    k = torch.arange(n, dtype=torch.float64)
    return torch.linalg.solve(s ** k.view(-1, 1), 1 / (k + 1))


def rows_for_values(n):
    k = torch.arange(n, dtype=torch.float64)
    return torch.linalg.solve((-k[:, None]) ** k, 1 / (k + 1))


def the_table_of_n_4(n):
    rows = {1: [24], 2: [36, -12], 3: [46, -32, 10]}
    return torch.tensor(rows.get(n, [55, -59, 37, -9]), dtype=torch.float64) / 24


def never_asks_for_project(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = project(x0 + grid.sigmas[i + 1] / grid.sigmas[i] * (x - x0), i)
        yield Step(i, t, x, x0)


def only_passes(denoise, x, grid, schedule, generator=None, project=None):
    pass


def raw_answer_in_vp_as_slope(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        now, after = grid.sigmas[i], grid.sigmas[i + 1]
        epsilon = denoise(x / (now**2 + 1).sqrt(), t)
        x0 = x - now * epsilon
        x = x0 + after * epsilon
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def slope_turned_round(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = denoised(denoise, x, t, grid.sigmas[i], schedule)
        x = x + (grid.sigmas[i + 1] - grid.sigmas[i]) * (x0 - x) / grid.sigmas[i]
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ddim_that(
    draw=lambda x, generator: draw_noise(x.shape, generator),
    draws=lambda eta, generator: eta > 0,
    refuses=lambda eta: not 0 <= eta <= 1,
    stride=lambda grid: grid.stride,
    before=lambda x, i, project: x,
    after=lambda x, i, project: project(x, i) if project else x,
    default=0.0,
):
    """DDIM, with one thing done in another way."""

    def ddim(denoise, x, grid, schedule, generator=None, project=None, eta=default):
        if refuses(eta):
            raise ValueError(f"eta = {eta}, must be from 0 to 1")
        for i, t in enumerate(grid.timesteps.tolist()):
            prediction = denoise(x, t)
            x0, epsilon = schedule.to_x0(prediction, x, t), schedule.to_epsilon(prediction, x, t)
            now, ahead = schedule.alphas_cumprod[t], alphas_cumprod_after(schedule, t - stride(grid))
            sigma = eta * ((1 - ahead) / (1 - now) * (1 - now / ahead)).sqrt()
            x = ahead.sqrt() * x0 + (1 - ahead - sigma**2).clamp(min=0).sqrt() * epsilon
            x = before(x, i, project)
            x = x + sigma * draw(x, generator) if draws(eta, generator) else x
            x = after(x, i, project)
            yield Step(i, t, x, x0)

    return ddim


one_generator_for_all = ddim_that(draw=lambda x, generator: torch.randn(x.shape, generator=generator))
draws_at_eta_0 = ddim_that(draws=lambda eta, generator: generator is not None or eta > 0)
goes_on_without_a_generator = ddim_that(draws=lambda eta, generator: eta > 0 and generator is not None)
any_eta = ddim_that(refuses=lambda eta: False)
only_too_large = ddim_that(refuses=lambda eta: eta > 1)
its_own_stride = ddim_that(stride=lambda grid: 1000 // len(grid))
eta_1_by_itself = ddim_that(default=1.0)
project_before_the_noise = ddim_that(
    before=lambda x, i, project: project(x, i) if project else x, after=lambda x, i, project: x
)


def heun_with_one_number_for_both(denoise, x, grid, schedule, generator=None, project=None):
    t, sigmas = grid.timesteps.tolist(), grid.sigmas
    for i in range(0, len(grid), 2):
        start, x0 = x, denoised(denoise, x, t[i], sigmas[i], schedule)
        first = (x - x0) / sigmas[i]
        x = x0 + sigmas[i + 1] * first
        x = project(x, i) if project else x
        yield Step(i, t[i], x, x0)
        if i < len(grid) - 1:
            x0 = denoised(denoise, x, t[i + 1], sigmas[i + 1], schedule)
            x = start + (sigmas[i + 1] - sigmas[i]) * (first + (x - x0) / sigmas[i + 1]) / 2
            x = project(x, i) if project else x
            yield Step(i + 1, t[i + 1], x, x0)


def single_precision(n):
    s, k = -torch.arange(n, dtype=torch.float32), torch.arange(n, dtype=torch.float32)
    return torch.linalg.solve(s[None] ** k[:, None], 1 / (k + 1))


def single_precision_inside(n):
    return single_precision(n).double()


def single_precision_at_the_end(n):
    k = torch.arange(n, dtype=torch.float64)
    return torch.linalg.solve((-k) ** k[:, None], 1 / (k + 1)).float()


def one_value_at_the_end_of_the_step(n):
    k = torch.arange(n, dtype=torch.float64)
    return torch.linalg.solve((1 - k) ** k[:, None], 1 / (k + 1))


def by_vander(n):
    s = -torch.arange(n, dtype=torch.float64)
    return torch.linalg.inv(torch.linalg.vander(s).T) @ (1 / (1 - s))


WRONG = {
    "04.euler": [
        ("must be shrunk to VP", x_is_not_shrunk),
        ("the raw answer is used as the slope", raw_answer_as_slope),
        ("it returns an empty list; each step must be handed out by", an_empty_list),
        ("in place", in_place),
        ("changes a tensor that was yielded before", one_tensor_for_all_steps),
        ("calls the network", looks_twice),
        ("the last step is missing", one_step_less),
        ("is a `yield` missing", only_passes),
        ("the network's raw answer is used as the slope, but it may", raw_answer_in_vp_as_slope),
        ("a sign is swapped, of σ' - σ or of x - D", slope_turned_round),
        ("'NoneType' object is not callable", never_asks_for_project),
        ("it yields more than 4 steps", for_ever),
        ("yield Step(i, t, x, x0)", without_yield),
        ("yield Step(i, t, x, x0)", returns_in_the_loop),
        ("yield Step(i, t, x, x0)", yields_only_x),
    ],
    "04.ddim": [
        ("generator", ddim_with_its_own_noise),
        ("calls the network", ddim_looks_twice),
        ("the step ends at the list's next timestep", ddim_to_the_next_timestep),
        ("z is multiplied by σ_η², a variance", ddim_without_roots),
        ("case 6: a list of generators", one_generator_for_all),
        ("at eta 0 noise is drawn, too", draws_at_eta_0),
        ("without a generator it goes on", goes_on_without_a_generator),
        ("eta isn't checked", any_eta),
        ("yours is 'no error', but it must be 'a ValueError' (case 12: eta = -0.5)", only_too_large),
        ("the stride is reckoned from the number of steps", its_own_stride),
        ("eta is 1 where it isn't given", eta_1_by_itself),
        ("x is handed to project before the fresh noise comes", project_before_the_noise),
    ],
    "04.heun": [
        ("it yields once for each step", heun_once_per_step),
        ("the second time the step starts where the first one ended", heun_from_where_euler_ended),
        ("project is given the number of the first look for both", heun_with_one_number_for_both),
    ],
    "04.adams_bashforth": [
        ("the order is turned round", turned_round),
        ("rows and columns are swapped", rows_for_values),
        ("case 5: n = 6; any n must work", the_table_of_n_4),
        ("n = 9, where float32 is too coarse", single_precision),
        ("n = 9, where float32 is too coarse", single_precision_inside),
        ("yours is 'float32', but it must be 'float64'", single_precision_at_the_end),
        ("the values and the step lie over each other", one_value_at_the_end_of_the_step),
        ("n = 1 is too small for torch.linalg.vander", by_vander),
    ],
}
