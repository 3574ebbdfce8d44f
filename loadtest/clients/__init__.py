"""What a request costs the clients of the different languages, against one server."""
