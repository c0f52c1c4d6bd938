"""Wrong answers to the exercises of lesson 03 as learners type them, and a piece of what they are told."""


def eulers_rule(score, x, momentum, step_size, leapfrog_steps):
    for _ in range(leapfrog_steps):
        force = score(x)
        x = x + step_size * momentum
        momentum = momentum + step_size * force
    return x, momentum


WRONG = {
    "03.leapfrog": [("Euler's rule", eulers_rule)],
}
