"""Tests of the pure parts of the load test, and of its generator against a real server."""
