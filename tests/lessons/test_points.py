import torch

from sdlearn.diffusion.grids import make_grid
from sdlearn.diffusion.samplers import ddpm, draw_noise, last
from sdlearn.diffusion.schedule import Schedule, ScheduleConfig
from sdlearn.lessons.mlp import DenoisingMLP
from sdlearn.lessons.points import train_points
from sdlearn.lessons.toy import energy_distance, gaussian_grid


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_two_hundred_steps_bring_samples_near_the_data():
    schedule = Schedule(ScheduleConfig(prediction_type="v_prediction", timestep_spacing="trailing"))
    data = gaussian_grid(side=2, spacing=2.0, std=0.1)
    torch.manual_seed(0)
    network = DenoisingMLP(width=32)
    losses = train_points(network, schedule, data.sample, steps=200)
    assert len(losses) == 200 and sum(losses[-20:]) < 0.9 * sum(losses[:20])
    noise = draw_noise((1000, 2), generator(1))
    with torch.no_grad():
        points = last(ddpm(network, noise, make_grid(schedule, 50), schedule, generator(2)))
    real = data.sample(1000, generator(3))
    assert energy_distance(points, real) < 0.02 < 0.1 < energy_distance(noise, real)


def test_the_same_seed_trains_the_same_network():
    schedule, runs = Schedule(ScheduleConfig()), []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        runs.append(train_points(DenoisingMLP(width=8), schedule, gaussian_grid().sample, steps=3, seed=seed))
    assert runs[0] == runs[1] != runs[2]
