"""A ciphertext that unpacks to much more under SEAL: here none is compressed, so that it is just wrong."""

from __future__ import annotations

import struct
import time

from blindtune.client.remote import Remote
from blindtune.wire.bundle import Bundle, write_bundle
from tests.server.conftest import run_server


def zstd_bomb(blocks: int) -> bytes:
    """SEAL's header (version 4, zstd), and a frame of blocks that each repeat one byte 128 KiB times."""
    block = ((131072 << 3) | (1 << 1)).to_bytes(3, "little") + b"\0"
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + block * blocks
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 0, 2, 0, 16 + len(frame)) + frame


def test_a_compressed_ciphertext_fails_its_job_with_the_reason(study, tmp_path):
    keys, north, south = study.bundles()
    honest = Bundle(north, insecure=True)
    item = zstd_bomb(1000)
    parts = []
    for part in honest.manifest.parts:
        items = list(honest.items(part.name))
        # As large as an honest one, so that the manifest takes it.
        parts.append((part.name, [item.ljust(len(items[0]), b"\0"), *items[1:]]))
    bad = honest.manifest.model_copy(update={"parts": []})
    write_bundle(tmp_path / "bomb", bad, parts)
    with (
        run_server(tmp_path / "data") as running,
        Remote(running.url, running.token, insecure=True) as remote,
    ):
        remote.submit([keys, tmp_path / "bomb", south])
        remote.start(study.id)
        end = time.monotonic() + 240
        while (state := remote.status(study.id)).state in ("queued", "running"):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert state.state == "failed"
        assert state.error.endswith("neither a ciphertext nor a key of this format")
