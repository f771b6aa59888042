"""The closed list of event names: `<thing>:<what happened to it>`."""

from enum import StrEnum


class Event(StrEnum):
    """Changes are recorded in their own transaction (`audit.record`); the first five, which change nothing, go
    through the stream (`audit.trail`)."""

    ACCESS_ALLOWED = "access:allowed"
    ACCESS_DENIED = "access:denied"
    LOGIN_FAILED = "login:failed"
    TOKEN_ISSUED = "token:issued"
    TOKEN_DENIED = "token:denied"

    ACCESS_TOKEN_REVOKED = "access_token:revoked"
    CLIENT_CREATED = "client:created"
    CLIENT_DELETED = "client:deleted"
    CLIENT_SECRET_ROTATED = "client:secret_rotated"
    CLIENT_UPDATED = "client:updated"
    DEVICE_CODE_APPROVED = "device_code:approved"
    DEVICE_CODE_DENIED = "device_code:denied"
    DEVICE_CODE_ISSUED = "device_code:issued"
    POST_CREATED = "post:created"
    POST_DELETED = "post:deleted"
    REFRESH_TOKEN_REUSED = "refresh_token:reused"
    REFRESH_TOKEN_REVOKED = "refresh_token:revoked"
    ROLE_ASSIGNED = "role:assigned"
    ROLE_CREATED = "role:created"
    ROLE_DELETED = "role:deleted"
    ROLE_PERMISSIONS_CHANGED = "role:permissions_changed"
    ROLE_UNASSIGNED = "role:unassigned"
    SESSION_ENDED = "session:ended"
    SESSION_REAUTHENTICATED = "session:reauthenticated"
    SESSION_STARTED = "session:started"
    SIGNING_KEY_ROTATED = "signing_key:rotated"
    USER_CREATED = "user:created"
    USER_DISABLED = "user:disabled"
    USER_ENABLED = "user:enabled"
    USER_PASSWORD_CHANGED = "user:password_changed"
    USER_UPDATED = "user:updated"
