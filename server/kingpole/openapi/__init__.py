"""The server's HTTP interface as OpenAPI 3.1, and as a page to read.

Everything comes from the table in `routes` and the types in `schemas`: the committed document
(`protocol/schema/openapi.yaml`), the one that a running server gives with its own models, the page, and the
management listener's routes. May not know the lifecycle, the core or a framework: models are given to it.
"""
