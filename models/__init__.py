"""Backbones and features: scans in, feature vectors out, on the hospital's machine only.

Importing this package is cheap; torch and timm load with the first backbone.
"""

from __future__ import annotations

from blindtune.models.backbone import Backbone, load_backbone
from blindtune.models.features import extract
from blindtune.models.registry import DEFAULT_BACKBONE, EMBEDDED, EmbeddedModel

__all__ = ["DEFAULT_BACKBONE", "EMBEDDED", "Backbone", "EmbeddedModel", "extract", "load_backbone"]
