"""Wrong answers to the exercises of lesson 02 as learners type them, and a piece of what they are told."""

import torch

from sdlearn import Step, draw_noise


def an_index_below_zero(schedule, x0, x, t, previous):
    now, before = schedule.alphas_cumprod[t], schedule.alphas_cumprod[previous]
    alpha = now / before
    mean = (before**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - before) * x) / (1 - now)
    return mean, (1 - before) / (1 - now) * (1 - alpha)


def of_one_step(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha, beta = schedule.alphas[t], schedule.betas[t]
    mean = (before.sqrt() * beta * x0 + alpha.sqrt() * (1 - before) * x) / (1 - now)
    return mean, (1 - before) / (1 - now) * (1 - alpha)


def a_deviation(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha = now / before
    mean = (before.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - before) * x) / (1 - now)
    return mean, ((1 - before) / (1 - now) * (1 - alpha)).sqrt()


def without_roots(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha = now / before
    mean = (before * (1 - alpha) * x0 + alpha * (1 - before) * x) / (1 - now)
    return mean, (1 - before) / (1 - now) * (1 - alpha)


def beta_for_its_tilde(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha = now / before
    mean = (before.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - before) * x) / (1 - now)
    return mean, 1 - alpha


def variance_first(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha = now / before
    mean = (before.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - before) * x) / (1 - now)
    return (1 - before) / (1 - now) * (1 - alpha), mean


def no_return(schedule, x0, x, t, previous):
    mean = x0
    variance = 0.0 * x
    (mean, variance)


def posterior_in_place(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha = now / before
    x *= alpha.sqrt() * (1 - before) / (1 - now)
    x += before.sqrt() * (1 - alpha) / (1 - now) * x0
    return x, (1 - before) / (1 - now) * (1 - alpha)


def beta_from_the_start(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha, beta = now / before, 1 - now
    mean = (before.sqrt() * beta * x0 + alpha.sqrt() * (1 - before) * x) / (1 - now)
    return mean, (1 - before) / (1 - now) * beta


def precisions_at_the_end(schedule, x0, x, t, previous):
    now = schedule.alphas_cumprod[t]
    before = schedule.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha = now / before
    precision = alpha / (1 - alpha) + 1 / (1 - before)
    weighted = alpha.sqrt() * x / (1 - alpha) + before.sqrt() * x0 / (1 - before)
    return weighted / precision, 1 / precision


def always_epsilon(schedule, prediction, x, signal_rate, noise_rate):
    return (x - noise_rate * prediction) / signal_rate


def always_v(schedule, prediction, x, signal_rate, noise_rate):
    return signal_rate * x - noise_rate * prediction


def wrong_sign_of_v(schedule, prediction, x, signal_rate, noise_rate):
    if schedule.config.prediction_type == "epsilon":
        return (x - noise_rate * prediction) / signal_rate
    if schedule.config.prediction_type == "sample":
        return prediction
    return signal_rate * x + noise_rate * prediction


def missing_brackets(schedule, prediction, x, signal_rate, noise_rate):
    if schedule.config.prediction_type == "epsilon":
        return x - noise_rate * prediction / signal_rate
    if schedule.config.prediction_type == "sample":
        return prediction
    return signal_rate * x - noise_rate * prediction


def diffusers_word_forgotten(schedule, prediction, x, signal_rate, noise_rate):
    if schedule.config.prediction_type == "epsilon":
        return (x - noise_rate * prediction) / signal_rate
    if schedule.config.prediction_type == "x0":
        return prediction
    return signal_rate * x - noise_rate * prediction


def noise_for_v(schedule, prediction, x, signal_rate, noise_rate):
    if schedule.config.prediction_type == "epsilon":
        return (x - noise_rate * prediction) / signal_rate
    if schedule.config.prediction_type == "sample":
        return prediction
    return noise_rate * x + signal_rate * prediction


def a_sum(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    return ((denoise(x, t) - schedule.target(x0, noise, t)) ** 2).sum()


def target_epsilon(denoise, x0, noise, t, schedule):
    return ((denoise(schedule.add_noise(x0, noise, t), t) - noise) ** 2).mean()


def a_number(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    return ((denoise(x, t) - schedule.target(x0, noise, t)) ** 2).mean().item()


@torch.no_grad()
def nothing_to_learn_from(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    return ((denoise(x, t) - schedule.target(x0, noise, t)) ** 2).mean()


def answer_unused(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    denoise(x, t)
    return (schedule.target(x0, noise, t) - x).square().mean()


def learns_by_itself(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    loss = ((denoise(x, t) - schedule.target(x0, noise, t)) ** 2).mean()
    loss.backward()
    return loss


def loss_and_x(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    return ((denoise(x, t) - schedule.target(x0, noise, t)) ** 2).mean(), x


def loss_not_returned(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    ((denoise(x, t) - schedule.target(x0, noise, t)) ** 2).mean()


def noise_for_t(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    return ((denoise(x, noise) - schedule.target(x0, noise, t)) ** 2).mean()


def t_before_x(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    return ((denoise(t, x) - schedule.target(x0, noise, t)) ** 2).mean()


def over_x0(denoise, x0, noise, t, schedule):
    x = x0.copy_(schedule.add_noise(x0, noise, t))
    return ((denoise(x, t) - schedule.target(x0, noise, t)) ** 2).mean()


def always_velocity(denoise, x0, noise, t, schedule):
    x = schedule.add_noise(x0, noise, t)
    return ((denoise(x, t) - schedule.velocity(x0, noise, t)) ** 2).mean()


def clean_pictures(denoise, x0, noise, t, schedule):
    return ((denoise(x0, t) - schedule.target(x0, noise, t)) ** 2).mean()


def its_own_noise(denoise, x0, noise, t, schedule):
    noise = torch.randn_like(x0)
    return ((denoise(schedule.add_noise(x0, noise, t), t) - schedule.target(x0, noise, t)) ** 2).mean()


def without_a_shape(denoise, x0, noise, t, schedule):
    bar = schedule.alphas_cumprod[t]
    x = bar.sqrt() * x0 + (1 - bar).sqrt() * noise
    return ((denoise(x, t) - schedule.target(x0, noise, t)) ** 2).mean()


def example_by_example(denoise, x0, noise, t, schedule):
    losses = []
    for i in range(len(x0)):
        one = slice(i, i + 1)
        x = schedule.add_noise(x0[one], noise[one], t[one])
        losses.append(((denoise(x, t[one]) - schedule.target(x0[one], noise[one], t[one])) ** 2).mean())
    return sum(losses) / len(losses)


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


def no_noise_at_zero(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        x = mean + variance.sqrt() * draw_noise(x.shape, generator) if timesteps[i + 1] > 0 else mean
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def with_noise_of_its_own(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        x = mean + variance.sqrt() * torch.randn_like(x)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ddpm_in_place(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        x[:] = mean
        if timesteps[i + 1] >= 0:
            x += variance.sqrt() * draw_noise(x.shape, generator)
        if project:
            x[:] = project(x, i)
        yield Step(i, t, x, x0)


def forgets_the_last_step(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = grid.timesteps.tolist()
    for i in range(len(timesteps) - 1):
        t = timesteps[i]
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        x = mean + variance.sqrt() * draw_noise(x.shape, generator)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def forgets_to_convert(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        x0 = denoise(x, t)
        mean, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        x = mean + variance.sqrt() * draw_noise(x.shape, generator) if i + 1 < len(grid) else mean
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def with_the_variance(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        x = mean + variance * draw_noise(x.shape, generator) if i + 1 < len(grid) else mean
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def asks_twice(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        mean, variance = schedule.posterior(schedule.to_x0(denoise(x, t), x, t), x, t, timesteps[i + 1])
        before, x = x, mean + variance.sqrt() * draw_noise(x.shape, generator) if i + 1 < len(grid) else mean
        x = project(x, i) if project else x
        yield Step(i, t, x, schedule.to_x0(denoise(before, t), before, t))


def project_before_the_noise(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        x, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        x = project(x, i) if project else x
        if timesteps[i + 1] >= 0:
            x = x + variance.sqrt() * draw_noise(x.shape, generator)
        yield Step(i, t, x, x0)


def noise_drawn_once(denoise, x, grid, schedule, generator=None, project=None):
    noise = draw_noise(x.shape, generator)
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        mean, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        x = mean + variance.sqrt() * noise
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def every_timestep(denoise, x, grid, schedule, generator=None, project=None):
    for i, t in enumerate(range(999, -1, -1)):
        x0 = schedule.to_x0(denoise(x, t), x, t)
        x, variance = schedule.posterior(x0, x, t, t - 1)
        if t > 0:
            x = x + variance.sqrt() * draw_noise(x.shape, generator)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def ends_at_zero(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = grid.timesteps.tolist()
    for i, t in enumerate(timesteps):
        previous = timesteps[i + 1] if i + 1 < len(timesteps) else 0
        x0 = schedule.to_x0(denoise(x, t), x, t)
        x, variance = schedule.posterior(x0, x, t, previous)
        if i + 1 < len(timesteps):
            x = x + variance.sqrt() * draw_noise(x.shape, generator)
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


def counts_one_less(denoise, x, grid, schedule, generator=None, project=None):
    timesteps = [*grid.timesteps.tolist(), -1]
    for i, t in enumerate(timesteps[:-1]):
        x0 = schedule.to_x0(denoise(x, t), x, t - 1)
        mean, variance = schedule.posterior(x0, x, t, timesteps[i + 1])
        x = mean + variance.sqrt() * draw_noise(x.shape, generator) if i + 1 < len(grid) else mean
        x = project(x, i) if project else x
        yield Step(i, t, x, x0)


WRONG = {
    "02.posterior": [
        ("counts from the end of the list", an_index_below_zero),
        ("α and β are those of a single step", of_one_step),
        ("standard deviation, but the variance is asked for", a_deviation),
        ("the roots are missing", without_roots),
        ("β is 1 − ᾱ at t", beta_from_the_start),
        ("with precisions the end needs a line of its own", precisions_at_the_end),
        ("the variance is β, the noise of the forward step", beta_for_its_tilde),
        ("in another order than the task asks for", variance_first),
        ("is a `return` missing", no_return),
        ("changes x, one of its inputs, in place", posterior_in_place),
    ],
    "02.x0_at": [
        ("every prediction is treated as epsilon", always_epsilon),
        ("every prediction is treated as v", always_v),
        ("the sign of v", wrong_sign_of_v),
        ("the answer for v is epsilon", noise_for_v),
        ("brackets are missing", missing_brackets),
        ('"sample" is forgotten', diffusers_word_forgotten),
    ],
    "02.simple_loss": [
        ("the squares are summed, but the mean is asked for", a_sum),
        ("the target is always the noise", target_epsilon),
        ("the loss is a number", a_number),
        ("no_grad or detach() cuts it off", nothing_to_learn_from),
        ("its answer isn't used", answer_unused),
        ("it calls backward(), but that is for the training loop", learns_by_itself),
        ("it returns 2 values (a tensor, a tensor), but it must return a tensor", loss_and_x),
        ("it returns None", loss_not_returned),
        ("denoise takes x and then t, one for each example", noise_for_t),
        ("denoise takes x and then t, one for each example", t_before_x),
        ("it changes x0, one of its inputs, in place", over_x0),
        ("the target is always v", always_velocity),
        ("the network is shown x_0", clean_pictures),
        ("random numbers of its own", its_own_noise),
        ("must match the size", without_a_shape),
        ("it calls the network 3 times", example_by_example),
    ],
    "02.ddpm": [
        ("off by one when the network is asked: x is at t, and not at t − 1", asks_one_step_later),
        ("the step ends at t − 1, but the grid leaves timesteps out", ends_at_the_next_t),
        ("no noise is added on the way to t = 0", no_noise_at_zero),
        ("random numbers of its own", with_noise_of_its_own),
        ("in place", ddpm_in_place),
        ("steps", forgets_the_last_step),
        ("schedule.to_x0 has to convert it", forgets_to_convert),
        ("multiplied by the variance", with_the_variance),
        ("it calls the network", asks_twice),
        ("project changes the mean, but it must change x", project_before_the_noise),
        ("it is drawn before the loop", noise_drawn_once),
        ("it yields more than 4 steps", every_timestep),
        ("`previous` is −1, and not 0", ends_at_zero),
        ("t = -1, must be a whole number", counts_one_less),
    ],
}
