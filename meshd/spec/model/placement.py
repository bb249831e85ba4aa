"""`x-mesh.placement` of a service: which nodes of a Swarm its replicas prefer.

Part of `meshd.spec.model.mesh`. `meshd.runtime.swarm.placement` chooses the nodes.
"""

from typing import Literal

from pydantic import field_validator, model_validator

from meshd.spec.model.base import Model
from meshd.spec.reader import shorthand


class PlacementSettings(Model):
    """Which of the nodes that satisfy `deploy.placement` get the next replica, in a Swarm. One
    word sets `strategy`.

    - `strategy`: `spread` takes the node with the fewest replicas of the service; `pack` the node
      with the least memory and CPU that is not reserved, which leaves other nodes free
    - `apart_from`: services of the project whose replicas are never on the same node as one of this
      service. It is enough to say it for one of the two
    """

    strategy: Literal["spread", "pack"] = "spread"
    apart_from: tuple[str, ...] = ()

    _short = model_validator(mode="before")(shorthand.expand_placement)
    _many = field_validator("apart_from", mode="before")(shorthand.wrap_in_list)
