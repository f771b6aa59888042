"""Every metric that a process counts by itself; what is asked of the stores is in `tokenserver.vitals`.

No label holds a user, a client, an address or anything that a request made up: endpoints are templates of paths
that there are, the other labels words of the code. `docs/metrics.md` explains each.
"""

from typing import Final

from tokenserver.signals.instruments import Counter, Gauge, Histogram

# Of a path that there is not.
NO_ENDPOINT: Final = "none"
METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
CLASSES: Final = tuple(f"{digit}xx" for digit in range(10))
GRANTS: Final = (
    "authorization_code",
    "client_credentials",
    "implicit",
    "password",
    "refresh_token",
    "urn:ietf:params:oauth:grant-type:device_code",
    "urn:ietf:params:oauth:grant-type:token-exchange",
)
STORES: Final = ("sql", "redis")

requests = Counter("requests_total", "Answered requests.", "endpoint", "method", "status")
request_seconds = Histogram("request_duration_seconds", "From a request's arrival to its answer.", "endpoint")

tokens_issued = Counter("tokens_issued_total", "Access tokens that were issued.", "grant", known=(GRANTS,))
tokens_without_roles = Counter("tokens_without_roles_total", "Tokens that roles were left out of, for their size.")
refreshes = Counter(
    "refreshes_total",
    "What became of refresh tokens that were presented.",
    "outcome",
    known=(("rotated", "replayed", "fast_forwarded", "reused", "ended", "expired"),),
)
families_rebuilt = Counter("families_rebuilt_total", "Refresh families that were restored into Redis from SQL.")
replays_detected = Counter(
    "replays_detected_total",
    "Refresh tokens and codes that somebody used a second time: their tokens were ended.",
    "kind",
    known=(("refresh_token", "authorization_code"),),
)
denials = Counter(
    "denials_total", "Requests that were denied; failed sign-ins apart.", "endpoint", "permission", "reason"
)
sign_ins = Counter(
    "sign_ins_total",
    "Sign-ins with a password.",
    "outcome",
    known=(
        (
            "success",
            "invalid_credentials",
            "account_disabled",
            "second_factor_required",
            "invalid_otp",
            "invalid_passkey",
            "too_many_failures",
        ),
    ),
)
rate_limit_refusals = Counter("rate_limit_refusals_total", "Refusals by a rate limit.", "limit")

hashes_waiting = Gauge(
    "password_hashes_waiting", "Requests that wait for a password hash or compute one.", across="livesum"
)
hash_wait_seconds = Histogram("password_hash_wait_seconds", "Waits for a free slot to hash a password.")
hash_refusals = Counter(
    "password_hash_refusals_total",
    "Requests that were turned away because hashing is full.",
    "reason",
    known=(("queue_full", "too_slow"),),
)

sql_seconds = Histogram("sql_transaction_duration_seconds", "Transactions, tries included.", "kind")
redis_seconds = Histogram("redis_duration_seconds", "Round trips to Redis.")
store_failures = Counter(
    "store_failures_total", "Requests to a store that it didn't answer.", "store", known=(STORES,)
)
circuits_open = Gauge(
    "store_circuit_open",
    "Processes that don't ask a store, because it was away a moment ago.",
    "store",
    across="livesum",
    known=(STORES,),
)

mails = Counter(
    "mails_total", "Attempts to send a mail.", "outcome", known=(("sent", "failed", "given_up", "limited"),)
)
logouts = Counter(
    "backchannel_logouts_total",
    "Attempts to tell a client of the end of a session.",
    "outcome",
    known=(("delivered", "failed", "given_up"),),
)

list_readers_waiting = Gauge(
    "revocation_list_readers_waiting", "Requests that wait for the next revocation list.", across="livesum"
)

feed_followed_at = Gauge(
    "feed_followed_timestamp_seconds",
    "When the process that is furthest behind last knew all revocations and changes.",
    across="livemin",
)
clock_skew = Gauge(
    "clock_skew_seconds", "By how much this node's clock differs from another.", "reference", across="livemax"
)
workers = Gauge("workers", "Living processes.", across="livesum")
cpu_seconds = Counter("process_cpu_seconds_total", "Processor time of all processes, those that ended too.")
resident_bytes = Gauge(
    "process_resident_memory_bytes", "Memory; what the processes share is counted for each.", across="livesum"
)
open_files = Gauge("process_open_fds", "Open files and connections.", across="livesum")
started_at = Gauge("process_start_time_seconds", "When the oldest process started.", across="livemin")
