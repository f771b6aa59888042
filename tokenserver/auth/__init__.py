"""`/auth/*`: registering, signing in and out as plain JSON, for this server's own front ends.

Thin doors to the same grants that /oauth/token serves, with the built-in first-party client.
"""
