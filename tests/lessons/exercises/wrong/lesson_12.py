"""Wrong answers to the exercises of lesson 12 as learners type them, and a piece of what they are told."""

import torch
import torch.nn.functional as F


def epsilon_as_everywhere(unet, latents, context, noise, t, schedule):
    x = schedule.add_noise(latents, noise, t)
    return F.mse_loss(unet(x, t, context), noise)


def noise_of_its_own(unet, latents, context, noise, t, schedule):
    noise = torch.randn_like(latents)
    x = schedule.add_noise(latents, noise, t)
    return F.mse_loss(unet(x, t, context), schedule.target(latents, noise, t))


def t_of_its_own(unet, latents, context, noise, t, schedule):
    t = torch.randint(1000, (len(latents),))
    x = schedule.add_noise(latents, noise, t)
    return F.mse_loss(unet(x, t, context), schedule.target(latents, noise, t))


def scaled_again(unet, latents, context, noise, t, schedule):
    latents = 0.18215 * latents
    x = schedule.add_noise(latents, noise, t)
    return F.mse_loss(unet(x, t, context), schedule.target(latents, noise, t))


def a_number(unet, latents, context, noise, t, schedule):
    x = schedule.add_noise(latents, noise, t)
    return F.mse_loss(unet(x, t, context), schedule.target(latents, noise, t)).item()


def without_gradient(unet, latents, context, noise, t, schedule):
    with torch.no_grad():
        prediction = unet(schedule.add_noise(latents, noise, t), t, context)
    return F.mse_loss(prediction, schedule.target(latents, noise, t))


def a_number_made_a_tensor(unet, latents, context, noise, t, schedule):
    x = schedule.add_noise(latents, noise, t)
    loss = F.mse_loss(unet(x, t, context), schedule.target(latents, noise, t)).item()
    return torch.tensor(loss, requires_grad=True)


def gradient_asked_for_too_late(unet, latents, context, noise, t, schedule):
    with torch.no_grad():
        loss = F.mse_loss(unet(schedule.add_noise(latents, noise, t), t, context), schedule.target(latents, noise, t))
    return loss.requires_grad_()


def backward_at_once(unet, latents, context, noise, t, schedule):
    loss = F.mse_loss(unet(schedule.add_noise(latents, noise, t), t, context), schedule.target(latents, noise, t))
    loss.backward()
    return loss


def in_place(unet, latents, context, noise, t, schedule):
    target = schedule.target(latents, noise, t)
    s, n = schedule.rates(t, latents)
    latents *= s
    latents += n * noise
    return F.mse_loss(unet(latents, t, context), target)


def rates_without_shape(unet, latents, context, noise, t, schedule):
    bar = schedule.alphas_cumprod[t]
    x = bar.sqrt() * latents + (1 - bar).sqrt() * noise
    return F.mse_loss(unet(x, t, context), schedule.target(latents, noise, t))


def no_caption(unet, latents, context, noise, t, schedule):
    x = schedule.add_noise(latents, noise, t)
    return F.mse_loss(unet(x, t), schedule.target(latents, noise, t))


def caption_first(unet, latents, context, noise, t, schedule):
    x = schedule.add_noise(latents, noise, t)
    return F.mse_loss(unet(x, context, t), schedule.target(latents, noise, t))


def one_loss_each(unet, latents, context, noise, t, schedule):
    x = schedule.add_noise(latents, noise, t)
    return ((unet(x, t, context) - schedule.target(latents, noise, t)) ** 2).mean((1, 2, 3))


def summed(unet, latents, context, noise, t, schedule):
    x = schedule.add_noise(latents, noise, t)
    return F.mse_loss(unet(x, t, context), schedule.target(latents, noise, t), reduction="sum")


def begins_at_zero(trainconfig, step):
    if step < trainconfig.warmup_steps:
        return trainconfig.learning_rate * step / trainconfig.warmup_steps
    left = trainconfig.steps - step
    return trainconfig.learning_rate * min(1, left / max(1, trainconfig.decay_steps))


def ends_at_zero(trainconfig, step):
    rise = (step + 1) / max(1, trainconfig.warmup_steps)
    fall = (trainconfig.steps - 1 - step) / max(1, trainconfig.decay_steps)
    return trainconfig.learning_rate * min(1, rise, fall)


def divides_by_zero(trainconfig, step):
    rise = (step + 1) / trainconfig.warmup_steps
    fall = (trainconfig.steps - step) / trainconfig.decay_steps
    return trainconfig.learning_rate * min(1, rise, fall)


def one_after_the_other(trainconfig, step):
    if step < trainconfig.warmup_steps:
        return trainconfig.learning_rate * (step + 1) / trainconfig.warmup_steps
    if step >= trainconfig.steps - trainconfig.decay_steps:
        return trainconfig.learning_rate * (trainconfig.steps - step) / trainconfig.decay_steps
    return trainconfig.learning_rate


def multiplied(trainconfig, step):
    rise = min(1, (step + 1) / max(1, trainconfig.warmup_steps))
    return trainconfig.learning_rate * rise * min(1, (trainconfig.steps - step) / max(1, trainconfig.decay_steps))


def only_the_share(trainconfig, step):
    rise, left = (step + 1) / max(1, trainconfig.warmup_steps), trainconfig.steps - step
    return min(1, rise, left / max(1, trainconfig.decay_steps))


def unclipped(trainconfig, step):
    rise, left = (step + 1) / max(1, trainconfig.warmup_steps), trainconfig.steps - step
    return trainconfig.learning_rate * min(rise, left / max(1, trainconfig.decay_steps))


def falls_all_the_way(trainconfig, step):
    rise = (step + 1) / max(1, trainconfig.warmup_steps)
    return trainconfig.learning_rate * min(1, rise, (trainconfig.steps - step) / trainconfig.steps)


def weights_swapped(average, parameters, decay, step):
    decay = min(decay, (1 + step) / (10 + step))
    return [decay * new + (1 - decay) * old for old, new in zip(average, parameters)]


def no_short_memory(average, parameters, decay, step):
    return [decay * a + (1 - decay) * p for a, p in zip(average, parameters)]


def counts_from_one(average, parameters, decay, step):
    decay = min(decay, step / (9 + step))
    return [decay * a + (1 - decay) * p for a, p in zip(average, parameters)]


def in_place_average(average, parameters, decay, step):
    decay = min(decay, (1 + step) / (10 + step))
    for a, p in zip(average, parameters):
        a.mul_(decay).add_(p, alpha=1 - decay)
    return average


def list_in_place(average, parameters, decay, step):
    decay = min(decay, (1 + step) / (10 + step))
    for i, new in enumerate(parameters):
        average[i] = decay * average[i] + (1 - decay) * new
    return average


def the_first_only(average, parameters, decay, step):
    decay = min(decay, (1 + step) / (10 + step))
    for a, p in zip(average, parameters):
        return decay * a + (1 - decay) * p


def lists_multiplied(average, parameters, decay, step):
    decay = min(decay, (1 + step) / (10 + step))
    return decay * average + (1 - decay) * parameters


def the_larger(average, parameters, decay, step):
    decay = max(decay, (1 + step) / (10 + step))
    return [decay * a + (1 - decay) * p for a, p in zip(average, parameters)]


def fixed_decay(average, parameters, decay, step):
    decay = min(0.999, (1 + step) / (10 + step))
    return [decay * a + (1 - decay) * p for a, p in zip(average, parameters)]


def squares(x, examples, s):
    return (x.flatten(1)[:, None] - s.view(-1, 1, 1) * examples.flatten(1)).square().sum(2)


def naive_exponentials(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    weights = (-squares(x, examples, s) / (2 * n.view(-1, 1) ** 2)).exp()
    return (weights / weights.sum(1, keepdim=True) @ examples.flatten(1)).view_as(x)


def over_the_batch(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    return ((-squares(x, examples, s) / (2 * n.view(-1, 1) ** 2)).softmax(0) @ examples.flatten(1)).view_as(x)


def not_scaled(x, t, examples, schedule):
    _, n = schedule.rates(t, x)
    logits = -squares(x, examples, torch.ones(1)) / (2 * n.view(-1, 1) ** 2)
    return (logits.softmax(1) @ examples.flatten(1)).view_as(x)


def variance_forgotten(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    return ((-squares(x, examples, s) / (2 * n.view(-1, 1))).softmax(1) @ examples.flatten(1)).view_as(x)


def no_half(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    return ((-squares(x, examples, s) / n.view(-1, 1) ** 2).softmax(1) @ examples.flatten(1)).view_as(x)


def sign_forgotten(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    return ((squares(x, examples, s) / (2 * n.view(-1, 1) ** 2)).softmax(1) @ examples.flatten(1)).view_as(x)


def nearest_one(x, t, examples, schedule):
    s, _ = schedule.rates(t, x)
    return examples[squares(x, examples, s).argmin(1)]


def mean_of_squares(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    d = squares(x, examples, s) / examples[0].numel()
    return ((-d / (2 * n.view(-1, 1) ** 2)).softmax(1) @ examples.flatten(1)).view_as(x)


def root_of_squares(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    return ((-squares(x, examples, s).sqrt() / (2 * n.view(-1, 1) ** 2)).softmax(1) @ examples.flatten(1)).view_as(x)


def as_plain_attention(x, t, examples, schedule):
    s, n = (rate.view(-1, 1) for rate in schedule.rates(t, x))
    return ((s * (x.flatten(1) @ examples.flatten(1).T) / n**2).softmax(1) @ examples.flatten(1)).view_as(x)


def left_flat(x, t, examples, schedule):
    s, n = schedule.rates(t, x)
    return (-squares(x, examples, s) / (2 * n.view(-1, 1) ** 2)).softmax(1) @ examples.flatten(1)


def the_noise(x, t, examples, schedule):
    s, n = (rate.view(-1, 1) for rate in schedule.rates(t, x))
    x0 = (-squares(x, examples, s) / (2 * n**2)).softmax(1) @ examples.flatten(1)
    return ((x.flatten(1) - s * x0) / n).view_as(x)


WRONG = {
    "12.latent_loss": [
        ("the target is always the noise", epsilon_as_everywhere),
        ("random numbers of its own", noise_of_its_own),
        ("random numbers of its own", t_of_its_own),
        ("they come scaled", scaled_again),
        ("without .item()", a_number),
        ("the network can't learn", without_gradient),
        ("the loss became a new tensor", a_number_made_a_tensor),
        ("the loss became a new tensor", gradient_asked_for_too_late),
        ("it calls backward()", backward_at_once),
        ("in place", in_place),
        ("multiplies pictures of shape", rates_without_shape),
        ("but context is missing", no_caption),
        ("but t is of shape (3, 6, 3)", caption_first),
        ("one loss for each picture", one_loss_each),
        ("the sum of the squares", summed),
    ],
    "12.learning_rate_at": [
        ("the warm-up begins with 0", begins_at_zero),
        ("the last step has the rate 0", ends_at_zero),
        ("it divides by 0", divides_by_zero),
        ("the decay is forgotten", one_after_the_other),
        ("the two are multiplied", multiplied),
        ("the share of the learning rate", only_the_share),
        ("it grows beyond it", unclipped),
        ("the decay takes the whole training", falls_all_the_way),
    ],
    "12.moving_average": [
        ("the two weights are swapped", weights_swapped),
        ("the short memory at first is missing", no_short_memory),
        ("step counts from 1 here", counts_from_one),
        ("in place", in_place_average),
        ("in place", list_in_place),
        ("only the first average comes back", the_first_only),
        ("can't multiply sequence", lists_multiplied),
        ("the larger of the two", the_larger),
        ("hard-coded as 0.999", fixed_decay),
    ],
    "12.ideal_denoiser": [
        ("softmax subtracts the largest first", naive_exponentials),
        ("the softmax runs over the noisy pictures", over_the_batch),
        ("x holds them multiplied by the signal rate", not_scaled),
        ("it must be divided by n²", variance_forgotten),
        ("it is divided by n² where 2n² belongs", no_half),
        ("the sign is wrong", sign_forgotten),
        ("the likeliest example is returned alone", nearest_one),
        ("the squares are averaged", mean_of_squares),
        ("it must be squared", root_of_squares),
        ("only x·example is compared", as_plain_attention),
        ("it must have the shape of x", left_flat),
        ("this is the noise that follows", the_noise),
    ],
}
