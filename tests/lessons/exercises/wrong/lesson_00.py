"""Wrong answers to the exercises of lesson 00 as learners type them, and a piece of what they are told."""


def in_place(unconditional, conditional, guidance_scale):
    return unconditional.add_(guidance_scale * (conditional - unconditional))


WRONG = {
    "00.combine": [("it changes unconditional, one of its inputs, in place", in_place)],
}
