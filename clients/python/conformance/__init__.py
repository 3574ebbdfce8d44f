"""The Python client's side of protocol/conformance: its public API and nothing else, but for `encode`."""
