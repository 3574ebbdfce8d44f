"""The worker process: loads models through the backend contract and runs batches for the server.

It knows backends, numpy and one socket; it may not know protocols, queues or the repository.
"""
