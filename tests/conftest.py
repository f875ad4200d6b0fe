"""What all tests share: quiet threads, no network, the real caches, and discovery of every implementation."""

import os
import socket

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("INVERSION_ATLAS_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)  # several workers share the cores


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` are skipped where there is no CUDA device, and say so."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device on this machine")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to open a connection to another host fails the test."""

    def refuse(self, address, *rest):
        raise AssertionError(f"a network connection was attempted: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
