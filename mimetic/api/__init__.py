"""The calls for a training loop, a network and images of one's own.

`starting` plans and initializes by a recipe, `measuring` reads covariances off a trained network,
`networks` resamples one and compares two, `embeddings` adds tokens to a language model.
"""

from mimetic.api.embeddings import resize_embeddings
from mimetic.api.measuring import ansatz, harvest, harvest_attention, section
from mimetic.api.networks import resample, similarity
from mimetic.api.starting import choose_arm, initialize, plan

__all__ = [
    "ansatz",
    "choose_arm",
    "harvest",
    "harvest_attention",
    "initialize",
    "plan",
    "resample",
    "resize_embeddings",
    "section",
    "similarity",
]
