"""Wrong answers to the exercises of lesson 02 as learners type them, and a piece of what they are told."""

from sdlearn import Step, draw_noise


def an_index_below_zero(schedule, x0, x, t, previous):
    now, before = schedule.alphas_cumprod[t], schedule.alphas_cumprod[previous]
    alpha = now / before
    mean = (before**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - before) * x) / (1 - now)
    return mean, (1 - before) / (1 - now) * (1 - alpha)


def always_epsilon(schedule, prediction, x, signal_rate, noise_rate):
    return (x - noise_rate * prediction) / signal_rate


def asks_one_step_later(denoise, x, grid, schedule, generator=None, project=None):
    for i in range(len(grid)):
        t = grid.timesteps[i].item()
        x0 = schedule.to_x0(denoise(x, t - 1), x, t)
        previous = grid.timesteps[i + 1].item() if i + 1 < len(grid) else -1
        mean, variance = schedule.posterior(x0, x, t, previous)
        x = mean if previous < 0 else mean + variance**0.5 * draw_noise(x.shape, generator)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ends_at_the_next_t(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(grid.timesteps.tolist()):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        x, variance = schedule.posterior(x0, x, t, t - 1)
        if i < len(grid) - 1:
            x = x + variance.sqrt() * draw_noise(x.shape, generator)
        if project:
            x = project(x, i)
        yield Step(i, t, x, x0)


WRONG = {
    "02.posterior": [("counts from the end of the list", an_index_below_zero)],
    "02.x0_at": [("always taken for epsilon", always_epsilon)],
    "02.ddpm": [
        ("off by one when the network is asked: x is at t, and not at t − 1", asks_one_step_later),
        ("the step ends at t − 1, but the grid leaves timesteps out", ends_at_the_next_t),
    ],
}
