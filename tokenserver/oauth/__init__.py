"""The authorization server as seen on the wire.

One request flows one way: `endpoints` (bytes to values) → `pipeline` (shape, client, grant) → `grants` → `tokens`.
A grant is one module with one function, and its row in `grants.GRANTS`; an endpoint is one module, named by its key
in the metadata (RFC 8414), and its row in `endpoints.ENDPOINTS`.
"""
