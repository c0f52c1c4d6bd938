"""The ideal denoiser of a finite set: what a network would predict that has learned its training set perfectly.

Under a squared error the best prediction of x_0 is its mean, given x_t. If x_0 is one of N examples, each as likely as
the others, then by Bayes' rule each one weighs as much as x_t is likely to come from it:

    E[x_0 given x_t] = sum over i of w_i example_i,    w = softmax of -|x_t - signal_rate example_i|² / (2 noise_rate²)

It has no parameters, learns nothing, and remembers everything.
"""

from torch import Tensor

from sdlearn.diffusion.schedule import Schedule


def ideal_denoiser(x: Tensor, t: int | Tensor, examples: Tensor, schedule: Schedule) -> Tensor:
    """E[x_0 given x_t = x] if x_0 is one of the examples, each as likely as the others.

    x (B, ...), t an int or a LongTensor (B,), examples (N, ...) -> (B, ...). Where they have
    many numbers, the weights are nearly 0 and 1, and their exponentials fit into no float.
    """
    signal_rate, noise_rate = (rate.to(x).view(-1, 1) for rate in schedule.rates(t, x))
    flat, known = x.flatten(1), examples.flatten(1)  # (B, D), (N, D)
    # of |x - s e|² only what differs between the examples: the rest cancels in the softmax
    logits = signal_rate * (flat @ known.T) - signal_rate**2 * known.square().sum(1) / 2  # (B, N)
    weights = (logits / noise_rate**2).softmax(1)
    return (weights @ known).view_as(x)
