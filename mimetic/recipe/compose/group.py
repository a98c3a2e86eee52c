"""The two groups of named sections in a recipe, arms and stages, and their keys."""

from dataclasses import dataclass

from mimetic.config.address import Among
from mimetic.recipe.recipe import Arm, Recipe, Stage
from mimetic.recipe.validate.schema_node import SchemaNode, node_of

ARM = node_of(Arm)
STAGE = node_of(Stage)
RECIPE = node_of(Recipe)


@dataclass(frozen=True, slots=True)
class Group:
    """Named sections that are composed the same way.

    Attributes:
        key: Their key at the top of the recipe.
        noun: The word for one of them.
        a: The same with its article.
        node: What the language allows in a complete one.
        keys: Keys of a complete one.
        shared: Keys at the top of the recipe that each of them inherits.
    """

    key: Among
    noun: str
    a: str
    node: SchemaNode
    keys: tuple[str, ...]
    shared: tuple[str, ...]

    @property
    def layer_keys(self) -> tuple[str, ...]:
        """Return the keys one may have in a layer, before composition."""
        own = ("sweep", "candidate_of") if self.key == "arms" else ()
        return ("extends", *self.keys, "remove", *own)


ARM_KEYS = ("model", "surgery", "data", "train", "init", "unmatched", "measure", "learner")
"""Keys of a complete arm; at the top of a recipe they apply to all arms."""

ARMS = Group("arms", "arm", "an arm", ARM, ARM_KEYS, ARM_KEYS)

STAGES = Group(
    "stages", "stage", "a stage", STAGE, (*ARM_KEYS, "seeds"), ("model", "data", "train", "learner")
)
"""Stages do not inherit the recipe's rewrites and rules, which are for its arms."""

LISTS = {"surgery": "rewrite", "init": "rule"}
"""Keys of the lists whose entries merge by id, and the word for an entry."""

GROUPS = {group.key: group for group in (ARMS, STAGES)}

HEAD_KEYS = ("recipe", "name", "description", "seeds", "baseline", "study")
"""Keys of the recipe as a whole."""

FILE_KEYS = (*HEAD_KEYS[:3], "extends", *HEAD_KEYS[3:], *ARM_KEYS, "remove", *GROUPS)
"""Keys at the top of a file."""
