"""The calls for a training loop, a network and images of one's own.

`starting` plans and initializes by a recipe, `measuring` reads covariances off a trained network.
"""

from mimetic.api.measuring import ansatz, harvest, section
from mimetic.api.starting import choose_arm, initialize, plan

__all__ = ["ansatz", "choose_arm", "harvest", "initialize", "plan", "section"]
