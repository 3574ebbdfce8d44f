"""Loaded by schemathesis: a frame is sent as the bytes that it is."""

import schemathesis

schemathesis.serializer.alias("application/x-kingpole", "application/octet-stream")
