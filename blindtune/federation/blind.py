"""A head whose steps run under encryption at the hospital's provider, inside federated rounds.

A round's step starts from the round's weights and comes back encrypted; what of it enters the secure sum is
sanitised. Averaged by images over sites, single full-batch steps on features of one agreed whitening are the
step on the pooled data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blindtune.client.blind import Outsourced, Provider, sanitised
from blindtune.errors import FederationError
from blindtune.federation.agreement import Agreement, HeadModel
from blindtune.federation.heads import Cases, Floats, HeadLearner, blind_head
from blindtune.federation.learner import Totals, Values
from blindtune.models.heads import Encoded


class BlindLearner(HeadLearner):
    """A linear head and a site's cases, the steps at a provider.

    Args:
        plan: of a blind head.
        training, validation: this site's cases.
        directory: of this hospital, for the key and bundles on their way.
        provider: who computes.

    Raises:
        FederationError: features or labels that do not fit the plan.
    """

    def __init__(
        self, plan: Agreement, training: Cases, validation: Cases, directory: Path, provider: Provider
    ) -> None:
        if not isinstance(plan.model, HeadModel) or not plan.model.blind:
            raise FederationError("a plan whose rounds are not blind", where="plan")
        cut = plan.privacy.clip if plan.privacy else None
        super().__init__(plan.model, training, validation, len(plan.classes), plan.local, cut=cut)
        self._head = blind_head(plan.model, plan.local)
        self._rounds = plan.rounds
        self._interval = plan.model.interval
        self._outsourced = Outsourced(
            directory,
            provider,
            self._head,
            plan.model.directions + 1,
            len(plan.classes),
            len(training.labels),
        )

    @property
    def outsourced(self) -> Outsourced:
        """The rows at the provider."""
        return self._outsourced

    def begin(self, totals: Totals) -> None:
        """Whiten by the confederation's moments, and encrypt the rows if that was not done yet."""
        super().begin(totals)
        labels = self.training.labels
        targets = np.eye(self._classes)[labels] - 0.5
        encoded = Encoded(self._weights * targets, self._weights * self._head.coefficients[:, None, None])
        self._outsourced.encrypt(self._rows, encoded)

    def train(self, values: Values) -> Values:
        """One encrypted step, sanitised.

        Raises:
            FederationError: logits that leave the polynomial's interval: nothing is sent.
        """
        k, found = self._classes, self.step(values)
        weights = np.vstack([found[:-k].reshape(k, -1).T, found[-k:]])
        told = sanitised(weights, self._outsourced.error, self._rounds)
        return np.concatenate([told[:-1].T.ravel(), told[-1]]).astype(np.float32)

    def step(self, values: Values) -> Floats:
        """One encrypted step as it was decrypted: for this hospital, or under noise far above its error.

        Raises:
            FederationError: logits that leave the polynomial's interval: nothing is sent.
        """
        largest = float(np.abs(self._logits(values.astype(np.float64), self._x)).max(initial=0.0))
        if largest > self._interval:
            # How far is this hospital's own: the coordinator sees the refusal.
            raise FederationError(
                f"a logit leaves the polynomial's interval of {self._interval:g}",
                where="round",
                remedy="Agree on a lower learning rate, fewer rounds or a larger interval.",
            )
        k = self._classes
        weights = values.astype(np.float64)
        found = self._outsourced.step(np.vstack([weights[:-k].reshape(k, -1).T, weights[-k:]]))
        return np.concatenate([found[:-1].T.ravel(), found[-1]])

    @property
    def _rows(self) -> Floats:
        return np.hstack([self._x, np.ones((len(self._x), 1))])
