"""Wrong answers to the exercises of lesson 01 as learners type them, and a piece of what they are told."""


def the_signal_alone(schedule, t):
    return schedule.alphas_cumprod[t]


def upside_down(schedule, t):
    return 1 / schedule.alphas_cumprod[t] - 1


WRONG = {
    "01.snr": [("this is ᾱ, the signal's variance", the_signal_alone), ("upside down", upside_down)],
}
