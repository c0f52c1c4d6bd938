"""Wrong answers to the exercises of lesson 03 as learners type them, and a piece of what they are told."""

import math

import torch

from sdlearn import draw_noise


def step_with_randn_like(x, score, step_size, generator):
    return x + step_size / 2 * score + math.sqrt(step_size) * torch.randn_like(x)


def step_without_the_generator(x, score, step_size, generator):
    return x + step_size / 2 * score + math.sqrt(step_size) * torch.randn(x.shape)


def step_in_place(x, score, step_size, generator):
    x += step_size / 2 * score
    x += math.sqrt(step_size) * draw_noise(x.shape, generator)
    return x


def step_of_variance_h_squared(x, score, step_size, generator):
    return x + 0.5 * step_size * score + step_size * draw_noise(x.shape, generator)


def step_in_the_other_convention(x, score, step_size, generator):
    noise = draw_noise(x.shape, generator)
    return x + step_size * score + (2 * step_size) ** 0.5 * noise


def step_downhill(x, score, step_size, generator):
    return x - step_size / 2 * score + step_size**0.5 * draw_noise(x.shape, generator)


def step_without_a_push(x, score, step_size, generator):
    return x + 0.5 * step_size * score


def step_alone(x, score, step_size, generator):
    return step_size / 2 * score + math.sqrt(step_size) * draw_noise(x.shape, generator)


def step_that_returns_nothing(x, score, step_size, generator):
    x = x + step_size / 2 * score + math.sqrt(step_size) * draw_noise(x.shape, generator)


def step_with_half_a_push(x, score, step_size, generator):
    return x + step_size / 2 * score + math.sqrt(step_size / 2) * draw_noise(x.shape, generator)


def step_with_a_half_for_all(x, score, step_size, generator):
    return x + step_size / 2 * (score + draw_noise(x.shape, generator))


def step_of_size_03(x, score, step_size, generator):
    return x + 0.15 * score + 0.3**0.5 * draw_noise(x.shape, generator)


def score_with_the_noise(prediction, x, t, schedule):
    return schedule.to_epsilon(prediction, x, t) / schedule.rates(t, x)[1]


def score_of_the_raw_prediction(prediction, x, t, schedule):
    _, noise_rate = schedule.rates(t, x)
    return -prediction / noise_rate


def score_by_sigma(prediction, x, t, schedule):
    signal_rate, noise_rate = schedule.rates(t, x)
    sigma = noise_rate / signal_rate
    return -schedule.to_epsilon(prediction, x, t) / sigma


def score_by_the_variance(prediction, x, t, schedule):
    epsilon = schedule.to_epsilon(prediction, x, t)
    _, noise_rate = schedule.rates(t, x)
    return -epsilon / noise_rate.square()


def score_by_the_first_rate(prediction, x, t, schedule):
    rate = schedule.rates(t, x)[0]
    return -schedule.to_epsilon(prediction, x, t) / rate


def score_times_the_rate(prediction, x, t, schedule):
    _, noise_rate = schedule.rates(t, x)
    return -schedule.to_epsilon(prediction, x, t) * noise_rate


def score_as_the_noise_turned_round(prediction, x, t, schedule):
    return -schedule.to_epsilon(prediction, x, t)


def score_by_both_rates(prediction, x, t, schedule):
    return -schedule.to_epsilon(prediction, x, t) / schedule.rates(t, x)


def score_of_one_t(prediction, x, t, schedule):
    noise_rate = (1 - schedule.alphas_cumprod[t]) ** 0.5
    return -schedule.to_epsilon(prediction, x, t) / noise_rate


def score_without_a_signal_rate(prediction, x, t, schedule):
    _, noise_rate = schedule.rates(t, x)
    return (schedule.to_x0(prediction, x, t) - x) / noise_rate**2


def score_at_700(prediction, x, t, schedule):
    return -schedule.to_epsilon(prediction, x, t) / schedule.rates(700, x)[1]


def log_q(start, end, step_size):
    way = end.x - start.x - step_size / 2 * start.score
    return -way.square().flatten(1).sum(1) / (2 * step_size)


def acceptance_by_metropolis(start, end, step_size):
    return (end.log_density - start.log_density).clamp(max=0)


def acceptance_upside_down(start, end, step_size):
    there, back = start.log_density + log_q(start, end, step_size), end.log_density + log_q(end, start, step_size)
    return (there - back).clamp(max=0)


def acceptance_with_one_score(start, end, step_size):
    back = start.x - end.x - step_size / 2 * start.score
    log_back = -back.square().flatten(1).sum(1) / (2 * step_size)
    return (end.log_density - start.log_density + log_back - log_q(start, end, step_size)).clamp(max=0)


def acceptance_not_clamped(start, end, step_size):
    return end.log_density - start.log_density + log_q(end, start, step_size) - log_q(start, end, step_size)


def acceptance_as_a_probability(start, end, step_size):
    log = end.log_density - start.log_density + log_q(end, start, step_size) - log_q(start, end, step_size)
    return log.exp().clamp(max=1)


def acceptance_without_brackets(start, end, step_size):
    there = -((end.x - start.x - step_size / 2 * start.score) ** 2).flatten(1).sum(1) / 2 * step_size
    back = -((start.x - end.x - step_size / 2 * end.score) ** 2).flatten(1).sum(1) / 2 * step_size
    return (end.log_density - start.log_density + back - there).clamp(max=0)


def acceptance_with_a_mean(start, end, step_size):
    there = -((end.x - start.x - step_size / 2 * start.score) ** 2).flatten(1).mean(1) / (2 * step_size)
    back = -((start.x - end.x - step_size / 2 * end.score) ** 2).flatten(1).mean(1) / (2 * step_size)
    return (end.log_density - start.log_density + back - there).clamp(max=0)


def acceptance_of_all_chains_together(start, end, step_size):
    there = -((end.x - start.x - step_size / 2 * start.score) ** 2).sum() / (2 * step_size)
    back = -((start.x - end.x - step_size / 2 * end.score) ** 2).sum() / (2 * step_size)
    return (end.log_density - start.log_density + back - there).clamp(max=0)


def acceptance_with_a_way_back_against_the_arrow(start, end, step_size):
    back = start.x - (end.x - step_size / 2 * end.score)
    log_back = -back.square().flatten(1).sum(1) / (2 * step_size)
    return (end.log_density - start.log_density + log_back - log_q(start, end, step_size)).clamp(max=0)


def acceptance_without_flatten(start, end, step_size):
    there = -((end.x - start.x - step_size / 2 * start.score) ** 2).sum(1) / (2 * step_size)
    back = -((start.x - end.x - step_size / 2 * end.score) ** 2).sum(1) / (2 * step_size)
    return (end.log_density - start.log_density + back - there).clamp(max=0)


def eulers_rule(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        force = score(x)
        x = x + step_size * momentum
        momentum = momentum + step_size * force
    return x, momentum


def leapfrog_in_place(score, x, momentum, step_size, leapfrog_steps):
    momentum += step_size / 2 * score(x)
    for i in range(leapfrog_steps):
        x += step_size * momentum
        momentum += step_size * (0.5 if i == leapfrog_steps - 1 else 1) * score(x)
    return x, momentum


def leapfrog_of_one_step(score, x, momentum, step_size, leapfrog_steps):
    momentum = momentum + step_size / 2 * score(x)
    x = x + step_size * momentum
    return x, momentum + step_size / 2 * score(x)


def leapfrog_downhill(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        momentum = momentum - step_size / 2 * score(x)
        x = x + step_size * momentum
        momentum = momentum - step_size / 2 * score(x)
    return x, momentum


def leapfrog_turned_round(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        momentum = momentum + step_size / 2 * score(x)
        x = x + step_size * momentum
        momentum = momentum + step_size / 2 * score(x)
    return x, -momentum


def leapfrog_swapped(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        momentum = momentum + step_size / 2 * score(x)
        x = x + step_size * momentum
        momentum = momentum + step_size / 2 * score(x)
    return momentum, x


def leapfrog_with_the_old_force(score, x, momentum, step_size, leapfrog_steps):
    force = score(x)
    for _ in range(leapfrog_steps):
        half = momentum + step_size / 2 * force
        x = x + step_size * half
        momentum = half + step_size / 2 * force
    return x, momentum


def leapfrog_with_one_force_for_both_halves(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        force = score(x)
        half = momentum + step_size / 2 * force
        x = x + step_size * half
        momentum = half + step_size / 2 * force
    return x, momentum


def leapfrog_in_whole_kicks(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        momentum = momentum + step_size * score(x)
        x = x + step_size * momentum
        momentum = momentum + step_size * score(x)
    return x, momentum


def leapfrog_of_x_alone(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        momentum = momentum + step_size / 2 * score(x)
        x = x + step_size * momentum
        momentum = momentum + step_size / 2 * score(x)
    return x


WRONG = {
    "03.langevin_step": [
        ("random numbers of its own", step_with_randn_like),
        ("random numbers of its own", step_without_the_generator),
        ("in place", step_in_place),
        ("it needs the root", step_of_variance_h_squared),
        ("the other convention", step_in_the_other_convention),
        ("walks away", step_downhill),
        ("the noise is missing", step_without_a_push),
        ("without x", step_alone),
        ("return", step_that_returns_nothing),
        ("only the arrow has the half", step_with_half_a_push),
        ("the root of h", step_with_a_half_for_all),
        ("0.3 is written into it", step_of_size_03),
    ],
    "03.to_score": [
        ("the sign is missing", score_with_the_noise),
        ("the raw prediction is mistaken", score_of_the_raw_prediction),
        ("divided by σ", score_by_sigma),
        ("divided by the variance", score_by_the_variance),
        ("the signal rate first", score_by_the_first_rate),
        ("multiplied by the noise rate", score_times_the_rate),
        ("epsilon with the other sign", score_as_the_noise_turned_round),
        ("tuple", score_by_both_rates),
        ("size of tensor", score_of_one_t),
        ("holds x_0 times the signal rate", score_without_a_signal_rate),
        ("the rates are those of t = 700", score_at_700),
    ],
    "03.mala_log_acceptance": [
        ("Metropolis's rule", acceptance_by_metropolis),
        ("the ratio is upside down", acceptance_upside_down),
        ("the score at the end", acceptance_with_one_score),
        ("above 1", acceptance_not_clamped),
        ("its logarithm is asked for", acceptance_as_a_probability),
        ("brackets are missing", acceptance_without_brackets),
        ("averaged over the axes", acceptance_with_a_mean),
        ("of all chains", acceptance_of_all_chains_together),
        ("the way back has a wrong sign", acceptance_with_a_way_back_against_the_arrow),
        ("sum(1) adds up one axis only", acceptance_without_flatten),
    ],
    "03.leapfrog": [
        ("Euler's rule", eulers_rule),
        ("in place", leapfrog_in_place),
        ("only one step", leapfrog_of_one_step),
        ("the wrong sign", leapfrog_downhill),
        ("turned round", leapfrog_turned_round),
        ("swapped", leapfrog_swapped),
        ("always the first one", leapfrog_with_the_old_force),
        ("the second needs the score", leapfrog_with_one_force_for_both_halves),
        ("whole step, but", leapfrog_in_whole_kicks),
        ("must return 2 values", leapfrog_of_x_alone),
    ],
}
