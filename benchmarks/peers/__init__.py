"""Servers of others, as their documentation sets them up for production, under the same load on the same stores.

`node_oidc_provider.mjs`, `authlib_server.py` and `django_toolkit.py` are their set-ups, `servers` starts them,
`comparison` measures them beside ours. `requirements.txt` and `package-lock.json` say which versions; they live in
an environment of their own.
"""
