"""The exercises of lesson 00."""

import torch

from sdlearn.diffusion.guidance import combine
from sdlearn.lessons.exercises.exercise import Bug, Exercise
from sdlearn.pictures import to_pixels
from sdlearn.tokenizer import EOS, Tokenizer, train_bpe

LINE = "return unconditional + guidance_scale * (conditional - unconditional)"


def predictions(generator: torch.Generator) -> list[tuple]:
    """Two predictions (B, C, H, W) and a guidance scale."""
    cases = (((3, 4, 5, 6), 3.5), ((1, 4, 7, 3), 7.5), ((2, 1, 1, 9), 0.25))
    return [(*torch.randn(2, *shape, generator=generator), scale) for shape, scale in cases]


def texts(generator: torch.Generator) -> list[tuple]:
    """Tokenizers of several lengths and paddings, and texts that fit, fill the row, are too long, or empty."""
    small = train_bpe(["a red apple on a blue background"], 530)
    cases = ((9, EOS, "a red apple"), (7, "!", "a blue apple on a red background"), (6, "!", "red"), (4, "!", ""))
    return [((small.vocab, small.merges, length, padding), (text,)) for length, padding, text in cases]


def pictures(generator: torch.Generator) -> list[tuple]:
    """Pictures (B, 3, H, W), most of their values in [−1, 1]. What lies outside must be clipped.

    Without clipping uint8 holds something else there, on most machines.
    """
    shapes = ((2, 3, 5, 7), (1, 3, 1, 9), (3, 3, 4, 2))
    return [(torch.rand(shape, generator=generator) * 2.2 - 1.1,) for shape in shapes]


EXERCISES = (
    Exercise(
        id="00.row",
        reference=Tokenizer.row,
        cases=texts,
        bugs=(
            Bug(
                "a text that is too long takes the end mark with it",
                "section 1, the tokenizer: which marks every row has",
                (("[: self.max_length - 2], end]", ", end][: self.max_length]"),),
            ),
            Bug(
                "no place is kept for the two marks, so a long text makes a longer row",
                "section 1, the tokenizer: the marks count, too",
                (("[: self.max_length - 2]", "[: self.max_length]"),),
            ),
            Bug(
                "a place is kept for one mark, but there are two",
                "section 1, the tokenizer: the marks count, too",
                (("[: self.max_length - 2]", "[: self.max_length - 1]"),),
            ),
            Bug(
                "the row is filled up before the text, not after it",
                "section 1, the tokenizer: the rest is filled up",
                (("ids + [padding] * (self.max_length - len(ids))", "[padding] * (self.max_length - len(ids)) + ids"),),
            ),
            Bug(
                "the row is filled up with zeros; 0 is the number of an ordinary token",
                "the task: self.pad_token",
                (("[padding] *", "[0] *"),),
            ),
            Bug(
                "the row is filled up with the end mark; not every model does so",
                "the task: self.pad_token",
                (("[padding] *", "[end] *"),),
            ),
            Bug(
                "the start mark is missing",
                "section 1, the tokenizer: which marks every row has",
                (
                    (
                        "[begin, *self.encode(text)[: self.max_length - 2], end]",
                        "[*self.encode(text)[: self.max_length - 1], end]",
                    ),
                ),
            ),
            Bug(
                "the end mark is missing",
                "section 1, the tokenizer: which marks every row has",
                (
                    (
                        "[begin, *self.encode(text)[: self.max_length - 2], end]",
                        "[begin, *self.encode(text)][: self.max_length]",
                    ),
                ),
            ),
            Bug(
                "the end mark stands at the end of the row, must stand at the end of the text",
                "section 1, the tokenizer: which marks every row has",
                (
                    ("self.max_length - 2], end]", "self.max_length - 2]]"),
                    ("(self.max_length - len(ids)))", "(self.max_length - 1 - len(ids)) + [end])"),
                ),
            ),
        ),
        difficulty=1,
        minutes=8,
        part="tokenizer",
        box="tokenizer",
    ),
    Exercise(
        id="00.to_pixels",
        reference=to_pixels,
        cases=pictures,
        bugs=(
            Bug(
                "the fraction is cut off: that is always downwards, and half a step too dark on average",
                "the task: the nearest whole number",
                ((".round()", ""),),
            ),
            Bug(
                "only the brighter half is left: −1 is black, not 0",
                "the task: where −1 goes",
                (("clamp(-1, 1) + 1) * 127.5", "clamp(0, 1)) * 255"),),
            ),
            Bug(
                "127 in place of 127.5: white becomes 254",
                "the task: where 1 goes",
                (("127.5", "127"),),
            ),
            Bug(
                "0 becomes black, and what is brighter becomes 0 to 127",
                "the task: where −1 goes",
                (("clamp(-1, 1) + 1) * 127.5", "clamp(0, 1)) * 127.5"),),
            ),
            Bug(
                "255 is twice too much: what it multiplies goes from 0 to 2",
                "the task: where 1 goes",
                (("((pictures.clamp(-1, 1) + 1) * 127.5)", "((pictures + 1) * 255).clamp(0, 255)"),),
            ),
            Bug(
                "128 in place of 127.5: the numbers go from 0 to 255, which is 255 steps",
                "the task: where 1 goes",
                (("((pictures.clamp(-1, 1) + 1) * 127.5)", "((pictures + 1) * 128).clamp(0, 255)"),),
            ),
        ),
        difficulty=1,
        minutes=5,
    ),
    Exercise(
        id="00.combine",
        reference=combine,
        cases=predictions,
        bugs=(
            Bug(
                "this is the prediction with words alone: the other one isn't used",
                "equation (1)",
                ((LINE, "return conditional"),),
            ),
            Bug(
                "this is the prediction without words alone: the words have no say",
                "equation (1)",
                ((LINE, "return unconditional"),),
            ),
            Bug(
                "the sign is swapped: this leads away from the words",
                "the sentence above equation (1)",
                (("unconditional + guidance", "unconditional - guidance"),),
            ),
            Bug(
                "conditional and unconditional have changed places",
                "equation (1): which of the two stands for no words",
                ((LINE, "return conditional + guidance_scale * (unconditional - conditional)"),),
            ),
            Bug(
                "it starts at the prediction with words: that is w = guidance_scale in place of guidance_scale - 1",
                "equation (1) and the sentence below it",
                (("return unconditional +", "return conditional +"),),
            ),
            Bug(
                "only the scaled difference: the prediction without words isn't added to it",
                "the sentence above equation (1)",
                (("return unconditional + ", "return "),),
            ),
            Bug(
                "the prediction without words isn't subtracted from the one with words",
                "the sentence above equation (1): the direction is a difference",
                (("(conditional - unconditional)", "conditional"),),
            ),
            Bug(
                "the scale multiplies the prediction with words alone: brackets are missing",
                "equation (1)",
                (("(conditional - unconditional)", "conditional - unconditional"),),
            ),
            Bug(
                "this is w = guidance_scale - 1, which counts from the prediction with words, and not from the other",
                "equation (1) and the sentence below it",
                (("guidance_scale *", "(guidance_scale - 1) *"),),
            ),
        ),
        difficulty=1,
        minutes=5,
        part="combine",
        box="guidance",
    ),
)
