"""The closed list of event names: `<thing>:<what happened to it>`."""

from enum import StrEnum


class Event(StrEnum):
    CLIENT_CREATED = "client:created"
    CLIENT_DELETED = "client:deleted"
    CLIENT_SECRET_ROTATED = "client:secret_rotated"
    LOGIN_FAILED = "login:failed"
    ROLE_ASSIGNED = "role:assigned"
    ROLE_UNASSIGNED = "role:unassigned"
    SESSION_ENDED = "session:ended"
    SESSION_STARTED = "session:started"
    REFRESH_TOKEN_REVOKED = "refresh_token:revoked"
    REFRESH_TOKEN_REUSED = "refresh_token:reused"
    ACCESS_TOKEN_REVOKED = "access_token:revoked"
    SIGNING_KEY_ROTATED = "signing_key:rotated"
    USER_CREATED = "user:created"
    USER_DISABLED = "user:disabled"
    USER_ENABLED = "user:enabled"
    USER_PASSWORD_CHANGED = "user:password_changed"
    USER_UPDATED = "user:updated"
