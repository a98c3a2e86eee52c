"""The two groups of named sections in a recipe, arms and stages: how each begins, and what it may say."""

from dataclasses import dataclass

from mimetic.config.address import Among
from mimetic.recipe.reading.grammar import Place, place
from mimetic.recipe.recipe import Arm, Recipe, Stage

ARM = place(Arm)
STAGE = place(Stage)
RECIPE = place(Recipe)


@dataclass(frozen=True, slots=True)
class Group:
    """Named sections that compose alike.

    Attributes:
        key: Key at the top of the recipe they stand below.
        noun: What one of them is called.
        a: The same with its article.
        place: What the language allows in a complete one.
        keys: Keys of a complete one.
        shared: Keys at the top of the recipe that each of them begins with.
    """

    key: Among
    noun: str
    a: str
    place: Place
    keys: tuple[str, ...]
    shared: tuple[str, ...]

    @property
    def layer_keys(self) -> tuple[str, ...]:
        """Return the keys one may have in a layer, before composition."""
        return ("extends", *self.keys, "remove")


ARM_KEYS = ("model", "surgery", "data", "train", "init", "unmatched", "measure", "learner")
"""Keys of a complete arm; at the top of a recipe they hold for all arms."""

ARMS = Group("arms", "arm", "an arm", ARM, ARM_KEYS, ARM_KEYS)

STAGES = Group(
    "stages", "stage", "a stage", STAGE, (*ARM_KEYS, "seeds"), ("model", "data", "train", "learner")
)
"""A stage begins with the model as it is: the recipe's rewrites and rules are for its arms."""

LISTS = {"surgery": "rewrite", "init": "rule"}
"""Keys of the lists whose entries merge by id, and what an entry is called."""

GROUPS = {group.key: group for group in (ARMS, STAGES)}

HEAD_KEYS = ("recipe", "name", "description", "seeds", "baseline", "study")
"""Keys of the recipe as a whole."""

FILE_KEYS = (*HEAD_KEYS[:3], "extends", *HEAD_KEYS[3:], *ARM_KEYS, "remove", *GROUPS)
"""Keys at the top of a file."""
