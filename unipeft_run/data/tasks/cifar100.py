"""CIFAR-100: small photographs of a hundred kinds of things (Krizhevsky, 2009)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.image_classification import ImageClassification

# the fine labels in the order of their numbers
NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASSES = tuple(NAMES.split())


@dataclass(kw_only=True)
class CIFAR100(ImageClassification):
    """Classification into the hundred fine classes.

    The hub has no validation split: the last 2,000 training images are validation images. Local
    data may name its columns `image` and `label`.
    """

    image_column: str = "img"
    label_column: str = "fine_label"

    held_out: ClassVar[int] = 2000

    def class_names(self) -> tuple[str, ...]:
        """Return CIFAR's classes, or those in labels.json of other data. Raises `UserError`."""
        is_local = self.path is not None or self.mini is not None
        return super().class_names() if is_local else CLASSES

    @property
    def columns(self) -> Columns:
        other = {self.image_column: "image", self.label_column: "label"}
        return replace(super().columns, other_names=other)
