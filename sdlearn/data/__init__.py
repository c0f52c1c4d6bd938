"""What sdlearn learns from: the OpenMoji scenes, and folders of a user's own pictures."""

from sdlearn.data.folder import ImageFolder, Picture
from sdlearn.data.openmoji import HELD_OUT_SUBJECTS, SUBJECTS, emoji_name
from sdlearn.data.scenes import (
    COLORS,
    RELATIONS,
    SIZES,
    PairScene,
    PairScenes,
    Scene,
    Scenes,
    caption,
    edges,
    pairs,
)

__all__ = [
    "COLORS",
    "HELD_OUT_SUBJECTS",
    "RELATIONS",
    "SIZES",
    "SUBJECTS",
    "ImageFolder",
    "PairScene",
    "PairScenes",
    "Picture",
    "Scene",
    "Scenes",
    "caption",
    "edges",
    "emoji_name",
    "pairs",
]
