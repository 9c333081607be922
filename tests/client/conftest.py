"""Each law of the clients is tested once and held by both."""

from client.both import client, open_client  # noqa: F401 - fixtures
