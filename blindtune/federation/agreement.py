"""What the sites of a study agree on before anyone trains: a declarative plan with a digest."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from blindtune.errors import FederationError

MAX_BYTES = 1 << 16


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Local(_Model):
    """What a site does between two syncs.

    Attributes:
        every: a sync after so many ``unit``.
        unit: batches or passes over the site's data.
        batch: images in a step.
        rate: learning rate of plain SGD with ``momentum``.
        decay: L2 penalty.
        proximal: FedProx's mu (Li et al. 2020): pulls towards the round's model; 0 for none.
        patience: rounds without a lower validation loss at a site after which it stops training; 0 for never.
        class_weights: weigh classes by the confederation's counts.
    """

    every: Annotated[int, Field(ge=1, le=1 << 20)] = 1
    unit: Literal["batches", "epochs"] = "epochs"
    batch: Annotated[int, Field(ge=1, le=1 << 16)] = 32
    rate: Annotated[float, Field(gt=0, le=100)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    proximal: Annotated[float, Field(ge=0, le=1000)] = 0.0
    patience: Annotated[int, Field(ge=0, le=1000)] = 0
    class_weights: bool = False


class Agreement(_Model):
    """A study's plan.

    Attributes:
        study: identifier.
        classes: names, in order.
        parameters: shared values of the model.
        start: SHA-256 of the initial values.
        rounds: syncs.
        average: by training images, or every site alike.
        secure: whether sums are secure.
        bound: largest change of a value in a round; a site with a larger one does not send it.
        local: see :class:`Local`.
    """

    study: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,64}$")]
    classes: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=2, max_length=1000)]
    parameters: Annotated[int, Field(ge=1, le=1 << 30)]
    start: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    average: Literal["weighted", "uniform"] = "weighted"
    secure: bool = True
    bound: Annotated[float, Field(gt=0, le=1e6)] = 8.0
    local: Local = Local()

    @model_validator(mode="after")
    def _distinct(self) -> Agreement:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class stands twice")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the plan: what sites compare."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @classmethod
    def read(cls, data: bytes) -> Agreement:
        """Read a plan.

        Raises:
            FederationError: not one.
        """
        try:
            if len(data) > MAX_BYTES:
                raise ValueError
            return cls.model_validate_json(data)
        except (ValidationError, ValueError):
            raise FederationError(
                "not a plan of a federated study", where="plan", remedy="Ask the coordinator for it again."
            ) from None
