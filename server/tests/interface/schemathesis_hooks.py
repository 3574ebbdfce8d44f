"""Loaded by schemathesis: what is no JSON is sent as the bytes or the text that it is."""

import schemathesis

for media_type in (
    "application/x-kingpole",
    "application/x-npy",
    "application/vnd.sagemaker-triton.binary+json",
):
    schemathesis.serializer.alias(media_type, "application/octet-stream")
schemathesis.serializer.alias("text/csv", "text/plain")
