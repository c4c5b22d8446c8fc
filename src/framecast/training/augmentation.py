"""Augmentation: clips turned about at random as they are learned from, as functions of (seed, epoch, index).

    flips           left to right and top to bottom, each in half of the draws
    flips+turns     these, and rows exchanged with columns: all eight positions of a square

A clip is turned as a whole, with its mask. Only for data in which no direction is special: mirrored digits are no
digits, and the channels of a vector would have to turn too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from framecast.errors import OptionError, UnknownNameError
from framecast.models.sampling import uniform

AUGMENTATIONS = ("none", "flips", "flips+turns")


def check_augmentation(name: str, height: int, width: int) -> None:
    """Refuse an augmentation that is not there, or that frames of a size cannot take.

    Raises:
        UnknownNameError: there is no such augmentation.
        OptionError: turns of frames that are not square.
    """
    if name not in AUGMENTATIONS:
        raise UnknownNameError("augmentation", name, AUGMENTATIONS)
    if name == "flips+turns" and height != width:
        raise OptionError(f"augment is {name} and frames are {height}x{width}, not square: use flips, or crop them")


def augment_clips(clips: list[Tensor], name: str, *, seed: int, epoch: int, samples: Tensor) -> list[Tensor]:
    """Return tensors (B, T, C, H, W) of the same clips, such as frames and masks, turned about alike.

    Args:
        clips: the tensors.
        name: of the augmentation.
        seed: of the training.
        epoch: the pass over the clips.
        samples: (B,) indices of the clips.
    """
    operations = {"none": 0, "flips": 2, "flips+turns": 3}[name]
    for number in range(operations):
        # Below the steps of a clip, whose numbers decide on what it sees.
        keys = torch.stack(
            [torch.full_like(samples, key) for key in (seed, epoch)] + [samples, samples * 0 - 1 - number]
        )
        chosen = (uniform(keys) < 0.5)[:, None, None, None, None]
        clips = [torch.where(chosen, _flip_or_turn(clip, number), clip) for clip in clips]
    return clips


def _flip_or_turn(clip: Tensor, number: int) -> Tensor:
    return clip.transpose(3, 4) if number == 2 else clip.flip(3 + number)
