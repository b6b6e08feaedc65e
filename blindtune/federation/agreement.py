"""What the sites of a study agree on before anyone trains: a declarative plan with a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from blindtune.errors import FederationError

MAX_BYTES = 1 << 16
Share = Annotated[float, Field(ge=0, le=1)]
SiteName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class Schema(BaseModel):
    """What comes from elsewhere: nothing unknown, nothing converted, no number that is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class HeadModel(Schema):
    """Softmax regression on frozen features.

    Attributes:
        features: of the backbone.
        backbone: name of the backbone whose features they are; empty for ready embeddings.
        fingerprint: of the backbone with its weights; sites with another one do not fit.
        directions: leading directions of the confederation's covariance that features are whitened to, by
            securely summed moments; 0 leaves features as they are.
        centre: take the confederation's mean from features, by securely summed rows; whitening does it too.
        epsilon: shrinkage of the whitening.
        reach: length that a row of features is cut to before moments are summed.
        rows: most training rows of a site.
        loss: one softmax, or every class against the rest.
        blind: whether each site's steps run under encryption at its provider.
        degree, interval: of the polynomial that stands for the logistic function in blind rounds, and the
            largest |logit| that it is fitted for.
    """

    kind: Literal["head"] = "head"
    features: Annotated[int, Field(ge=1, le=1 << 14)]
    backbone: Annotated[str, Field(max_length=200)] = ""
    fingerprint: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    directions: Annotated[int, Field(ge=0, le=1 << 14)] = 0
    centre: bool = False
    epsilon: Annotated[float, Field(ge=0, le=10)] = 0.1
    reach: Annotated[float, Field(gt=0, le=1e4)] = 64.0
    rows: Annotated[int, Field(ge=1, le=1 << 17)] = 1 << 14
    loss: Literal["softmax", "one-vs-rest"] = "softmax"
    blind: bool = False
    degree: Literal[1, 3, 5, 7] = 7
    interval: Annotated[float, Field(gt=0, le=100)] = 12.0

    @property
    def summed(self) -> bool:
        """Whether sites sum moments of their features."""
        return self.centre or self.directions > 0

    @model_validator(mode="after")
    def _fits(self) -> HeadModel:
        if self.directions > self.features:
            raise ValueError("more directions than features")
        if self.centre and self.directions:
            raise ValueError("whitened features are centred already")
        if self.blind and not (self.directions and self.loss == "one-vs-rest"):
            raise ValueError("blind rounds need directions of an agreed whitening, and the loss one-vs-rest")
        return self


class NetworkModel(Schema):
    """A timm network trained end to end.

    Attributes:
        network: name in timm's registry.
        channels: of the images.
        side: of the images in pixels.
        norm: what becomes of normalisation with batch statistics: replaced by groups, or kept at each site.
        mean, std: of pixels in [0, 1], by channel; those of the confederation, by secure sums, if empty.
        turn: degrees of random rotation.
        shift: share of the side of random translation.
        zoom: share of random scaling.
        flip: probability of a mirror image; 0 where left and right tell something.
        contrast: share of random contrast and brightness.
        mixup: alpha of MixUp (Zhang et al. 2018); 0 for none.
    """

    kind: Literal["network"] = "network"
    network: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
    channels: Literal[1, 3] = 3
    side: Annotated[int, Field(ge=16, le=2048)] = 224
    norm: Literal["group", "local"] = "group"
    mean: Annotated[list[Share], Field(max_length=3)] = []
    std: Annotated[list[Share], Field(max_length=3)] = []
    turn: Annotated[float, Field(ge=0, le=180)] = 10.0
    shift: Share = 0.05
    zoom: Annotated[float, Field(ge=0, le=0.9)] = 0.1
    flip: Share = 0.0
    contrast: Share = 0.1
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0

    @model_validator(mode="after")
    def _fits(self) -> NetworkModel:
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, self.channels):
            raise ValueError("mean and std need a value a channel")
        if self.std and min(self.std) <= 0:
            raise ValueError("a std of zero")
        return self


class Local(Schema):
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


class Privacy(Schema):
    """Differential privacy of training, by patient.

    Attributes:
        where: ``local``: every site's noise hides its patients from everyone, the other sites and the
            coordinator; ``distributed``: sites add shares of the noise, and only the secure sum hides them.
        noise: standard deviation of a step's noise over ``clip``.
        clip: length that a patient's gradient is cut to.
        sampling: probability with which each patient takes part in a step.
        patients: training patients of each site, as they are told to everyone; they set the scale of steps
            and weigh sites, rough numbers will do.
        survivors: honest sites whose shares of the noise every sum holds; for ``distributed``.
        moments: noise multiplier of the moments that features are whitened or centred by.
        validation: noise multiplier of a round's validation counts; 0 sends none.
    """

    where: Literal["local", "distributed"] = "distributed"
    noise: Annotated[float, Field(gt=0, le=1e4)]
    clip: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    sampling: Annotated[float, Field(gt=0, le=1)]
    patients: Annotated[
        dict[SiteName, Annotated[int, Field(ge=1, le=1 << 17)]], Field(min_length=2, max_length=50)
    ]
    survivors: Annotated[int, Field(ge=1, le=50)] = 1
    moments: Annotated[float, Field(ge=0, le=1e4)] = 0.0
    validation: Annotated[float, Field(ge=0, le=1e4)] = 0.0

    @property
    def parties(self) -> int:
        """Sites that share the noise of a sum."""
        return self.survivors if self.where == "distributed" else 1


class Agreement(Schema):
    """A study's plan.

    Attributes:
        study: identifier.
        classes: names, in order.
        model: what is trained.
        parameters: shared values of the model.
        start: SHA-256 of the initial values.
        rounds: syncs.
        average: by training images, or every site alike.
        secure: whether sums are secure.
        bound: largest change of a value in a round; a site with a larger one does not send it.
        local: see :class:`Local`.
        privacy: see :class:`Privacy`; none without it.
    """

    study: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,64}$")]
    classes: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=2, max_length=1000)]
    model: Annotated[HeadModel | NetworkModel, Field(discriminator="kind")]
    parameters: Annotated[int, Field(ge=1, le=1 << 30)]
    start: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    average: Literal["weighted", "uniform"] = "weighted"
    secure: bool = True
    bound: Annotated[float, Field(gt=0, le=1e6)] = 8.0
    local: Local = Local()
    privacy: Privacy | None = None

    @model_validator(mode="after")
    def _fits(self) -> Agreement:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class stands twice")
        for wrong in unsound(self):
            raise ValueError(wrong)
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the plan: what sites compare."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @classmethod
    def read(cls, data: bytes) -> Agreement:
        """Read a plan.

        Raises:
            FederationError: not one; says the first thing that is wrong.
        """
        return read_plan(cls, data, "a federated study")

    @classmethod
    def checked(cls, told: dict[str, Any]) -> Agreement:
        """A plan from its fields.

        Raises:
            FederationError: fields that do not fit; says the first thing that is wrong.
        """
        return validated("a federated study", lambda: cls.model_validate(told))


M = TypeVar("M", bound=BaseModel)


def read_plan(kind: type[M], data: bytes, what: str) -> M:
    """A plan from JSON.

    Raises:
        FederationError: too long, or not ``what``; says the first thing that is wrong.
    """
    if len(data) > MAX_BYTES:
        raise FederationError(f"a plan of {len(data):,} bytes", where="plan")
    return validated(what, lambda: kind.model_validate_json(data))


def validated(what: str, read: Callable[[], M]) -> M:
    """What a schema reads.

    Raises:
        FederationError: not ``what``; says the first thing that is wrong.
    """
    try:
        return read()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(x) for x in first["loc"])[:80]
        raise FederationError(
            f"not a plan of {what}: {place + ': ' if place else ''}{first['msg'][:200]}",
            where="plan",
            remedy="Mend it, or ask the coordinator for it again.",
        ) from None


def unsound(plan: Agreement) -> list[str]:
    """What of a plan would break its promise of privacy, or cannot be done."""
    private, local, model = plan.privacy, plan.local, plan.model
    blind = model if isinstance(model, HeadModel) and model.blind else None
    if blind and (local.every, local.unit, local.proximal, local.decay) != (1, "batches", 0.0, 0.0):
        return ["blind rounds take one step each, without decay and proximal term"]
    if blind and local.batch < blind.rows:
        return ["a blind step is over all rows of a site: let the batch be as large as the model's rows"]
    if private is None:
        return []
    found = []
    if local.patience:
        found.append("early stopping by private losses tells about patients: leave patience at 0")
    if local.class_weights:
        found.append("class weights come from private counts: leave them out")
    if isinstance(model, NetworkModel):
        if model.norm != "group":
            found.append("statistics of batches mix patients: use norm group")
        if model.mixup:
            found.append("MixUp mixes patients: leave it out")
        if not model.mean:
            found.append("mean and std of private pixels: give public ones")
    elif model.summed and not private.moments:
        found.append("private moments: give their noise, or neither directions nor centre")
    if blind and (private.where, private.sampling) != ("distributed", 1.0):
        found.append(
            "a private blind step is over all patients, with shares of noise: sampling 1, distributed"
        )
    if private.where == "distributed":
        if not plan.secure:
            found.append("shares of noise protect a secure sum only")
        if (local.every, local.unit) != (1, "batches") or local.momentum or local.proximal:
            found.append("distributed noise is for one step a round, without momentum and proximal term")
    if private.survivors > len(private.patients):
        found.append("more surviving sites than there are")
    return found
